//! API tokens: a row by hash, and an index by user.

use super::{Embedded, codec};
use crate::{
    StoreError, TokenRow, TokenStore,
    tables::{self, Table},
};
use async_trait::async_trait;
use rookery_protocol::{TokenId, UserId};

/// Most tokens that a list has.
const LIST_LIMIT: usize = 1_000;

#[async_trait]
impl TokenStore for Embedded {
    async fn create(&self, token: &TokenRow) -> Result<(), StoreError> {
        let token = token.clone();
        self.0
            .write("token_create", move |transaction| {
                let key = tables::token(&token.hash);
                let entry = tables::token_of(token.user_id, token.created_at, token.id);
                if transaction.get(Table::Control, &key)?.is_some()
                    || transaction.get(Table::Control, &entry)?.is_some()
                {
                    return Err(StoreError::Refused("there is such a token already"));
                }
                transaction.put(Table::Control, entry, codec::wrap(&token.hash))?;
                transaction.put_row(Table::Control, key, &token)
            })
            .await
    }

    async fn list(&self, user: UserId) -> Result<Vec<TokenRow>, StoreError> {
        self.0
            .read("token_list", move |database| {
                let view = database.view();
                let mut tokens = Vec::new();
                for entry in view.prefix(Table::Control, &tables::tokens_of(user), None).take(LIST_LIMIT) {
                    let hash = hash_of(&entry?.1)?;
                    tokens.extend(view.row(Table::Control, &tables::token(&hash))?);
                }
                Ok(tokens)
            })
            .await
    }

    async fn delete(&self, user: UserId, id: TokenId) -> Result<bool, StoreError> {
        self.0
            .write("token_delete", move |transaction| {
                let entries = transaction.prefix(Table::Control, &tables::tokens_of(user), None, usize::MAX)?;
                let found = entries.into_iter().find(|(key, _)| tables::token_of_entry(key) == Some(id));
                let Some((key, hash)) = found else { return Ok(false) };
                transaction.delete(Table::Control, tables::token(&hash_of(&hash)?));
                transaction.delete(Table::Control, key.to_vec());
                Ok(true)
            })
            .await
    }

    async fn find(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let key = tables::token(hash);
        self.0.read_now("token_find", move |database| database.row(Table::Control, &key)).await
    }
}

fn hash_of(entry: &[u8]) -> Result<[u8; 32], StoreError> {
    codec::strip(entry, "token index")?
        .try_into()
        .map_err(|_| StoreError::Corrupt { what: "token index", detail: "it holds no hash".to_owned() })
}
