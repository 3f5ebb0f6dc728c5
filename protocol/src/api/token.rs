//! Bodies of `/api/api-tokens`.

use crate::{Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};

/// `GET /api-tokens`, in the query or the body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenQuery {
    /// Whose tokens, a UUID.
    pub user_id: String,
}

/// `POST /api-tokens/generate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateToken {
    /// 1 to 255 characters.
    pub name: String,
    /// Whose token, a UUID.
    pub user_id: String,
}

/// `DELETE /api-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeleteToken {
    /// Whose token, a UUID.
    pub user_id: String,
    /// Which, a UUID.
    pub id: String,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A fresh token. Its secret is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token without its secret.
    #[serde(flatten)]
    pub info: TokenInfo,
    /// The secret.
    pub token: String,
}

/// Done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Always true.
    pub success: bool,
}
