//! Who may do what: bearer tokens of users, the admin key, and the token of `/metrics`.

use super::{Api, body::Incoming, error};
use rookery_protocol::{ApiError, ErrorCode, UserId};
use rookery_storage::{StoreError, TokenRow, TokenStore};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use warp::http::{HeaderMap, header};

const NO_TOKEN: &str = "Unauthorized - No Bearer Token";
const BAD_TOKEN: &str = "Unauthorized - Invalid Bearer Token";

/// The user under whom the admin key is kept among the tokens. No caller can name it.
const NOBODY: [u8; 16] = [0; 16];

/// Who may manage tokens.
pub(crate) struct Access {
    admin_key: [u8; 32],
    open: bool,
}

impl Access {
    /// Access by the configured admin key or, without one, by the key that was made at the first start. A key
    /// made now is answered as well: it can never be read again.
    pub(crate) async fn load(
        tokens: &dyn TokenStore,
        configured: Option<&str>,
        open: bool,
    ) -> Result<(Self, Option<String>), StoreError> {
        if let Some(key) = configured {
            return Ok((Self { admin_key: hash(key), open }, None));
        }
        let nobody = nobody();
        if let Some(kept) = tokens.list(nobody).await?.first() {
            return Ok((Self { admin_key: kept.hash, open }, None));
        }
        let key = secret("rka_");
        let row = TokenRow {
            id: rookery_protocol::TokenId::generate(),
            user_id: nobody,
            name: "admin key".into(),
            hash: hash(&key),
            created_at: rookery_protocol::Timestamp::now(),
        };
        tokens.create(&row).await?;
        Ok((Self { admin_key: row.hash, open }, Some(key)))
    }

    /// Refuses whoever does not show the admin key.
    pub(super) fn require_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.open || self.is_admin(headers) {
            return Ok(());
        }
        bearer(headers)?;
        Err(bad_token())
    }

    /// Whether the caller shows the admin key.
    pub(super) fn is_admin(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_ok_and(|key| bool::from(hash(key).ct_eq(&self.admin_key)))
    }
}

/// Under which token `/metrics` is served.
pub(crate) struct MetricsAccess(Option<[u8; 32]>);

impl MetricsAccess {
    /// Access with this token, or for everybody.
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self(token.map(hash))
    }

    /// Refuses whoever does not show the token.
    pub(super) fn require(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(expected) = &self.0 else { return Ok(()) };
        let shown = hash(bearer(headers)?);
        if bool::from(shown.ct_eq(expected)) { Ok(()) } else { Err(bad_token()) }
    }
}

impl Api {
    /// The user whose token the caller shows.
    pub(super) fn user<'a>(
        &'a self,
        request: &Incoming,
    ) -> impl Future<Output = Result<UserId, ApiError>> + Send + use<'a> {
        // What is needed of the request is taken now: its body must not be shared between threads.
        let (slip, shown) = (request.slip.clone(), bearer(&request.headers).map(hash));
        async move {
            if let Some(user) = slip.as_ref().and_then(|slip| slip.trusted()) {
                return Ok(user);
            }
            let user = self.user_of_token(shown?).await?;
            if let Some(slip) = &slip {
                slip.note_user(user);
            }
            Ok(user)
        }
    }

    async fn user_of_token(&self, shown: [u8; 32]) -> Result<UserId, ApiError> {
        let found = self.stores.tokens.find(&shown).await.map_err(|error| error::from_store(&error))?;
        match found {
            Some(token) if token.user_id != nobody() && bool::from(token.hash.ct_eq(&shown)) => Ok(token.user_id),
            _ => Err(bad_token()),
        }
    }
}

/// A fresh secret of 256 bits.
pub(super) fn secret(prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(rand::random::<[u8; 32]>()))
}

/// The form in which a secret is kept and compared.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The user id that no caller may use.
pub(super) fn nobody() -> UserId {
    UserId::from_bytes(NOBODY)
}

/// The bodies of the two 401 answers, which the contract fixes to the letter.
pub(super) fn fixed_body(error: &ApiError) -> Option<&'static str> {
    match (error.code, error.message.as_ref()) {
        (ErrorCode::Unauthorized, NO_TOKEN) => Some(r#"{"message":"Unauthorized - No Bearer Token"}"#),
        (ErrorCode::Unauthorized, _) => Some(r#"{"message":"Unauthorized - Invalid Bearer Token"}"#),
        _ => None,
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let no_token = || ApiError::new(ErrorCode::Unauthorized, NO_TOKEN);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(no_token)?;
    if values.next().is_some() {
        return Err(bad_token());
    }
    let text = value.to_str().map_err(|_| bad_token())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(no_token)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(no_token());
    }
    Ok(token)
}

fn bad_token() -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, BAD_TOKEN)
}
