//! Bodies of `/api/api-tokens`.

use crate::{Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api-tokens`, in the query or the body.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenQuery {
    /// Whose tokens, a UUID.
    #[schema(format = Uuid)]
    pub user_id: String,
}

/// `POST /api-tokens/generate`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    /// 1 to 255 characters.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// Whose token, a UUID.
    #[schema(format = Uuid)]
    pub user_id: String,
}

/// `DELETE /api-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeleteToken {
    /// Whose token, a UUID.
    #[schema(format = Uuid)]
    pub user_id: String,
    /// Which, a UUID.
    #[schema(format = Uuid)]
    pub id: String,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token without its secret.
    #[serde(flatten)]
    pub info: TokenInfo,
    /// The secret.
    pub token: String,
}

/// Done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Success {
    /// Always true.
    pub success: bool,
}
