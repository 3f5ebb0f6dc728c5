//! What [`crate::TokenStore`] promises.

use super::sample;
use crate::{StoreError, Stores};
use anyhow::Result;
use rookery_protocol::{TokenId, UserId};

pub(super) async fn run(stores: &Stores) -> Result<()> {
    let (user, other) = (UserId::generate(), UserId::generate());
    let (first, second, foreign) = (sample::token(user, 1), sample::token(user, 2), sample::token(other, 3));
    for token in [&second, &foreign, &first] {
        stores.tokens.create(token).await?;
    }
    assert!(matches!(stores.tokens.create(&first).await, Err(StoreError::Refused(_))), "a token is made once");

    assert_eq!(stores.tokens.list(user).await?, [first.clone(), second.clone()], "oldest first, and only the user's");
    assert_eq!(stores.tokens.find(&first.hash).await?.as_ref(), Some(&first));
    assert_eq!(stores.tokens.find(&[0; 32]).await?, None);

    assert!(!stores.tokens.delete(other, first.id).await?, "another user's token is none");
    assert!(!stores.tokens.delete(user, TokenId::generate()).await?);
    assert!(stores.tokens.delete(user, first.id).await?);
    assert!(!stores.tokens.delete(user, first.id).await?, "it is gone");
    assert_eq!(stores.tokens.find(&first.hash).await?, None, "a token that is gone opens nothing");
    assert_eq!(stores.tokens.list(user).await?, [second]);
    assert_eq!(stores.tokens.list(other).await?, [foreign]);
    Ok(())
}
