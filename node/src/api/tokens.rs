//! `/api/api-tokens`: for the admin.

use super::{
    Api, Routes, auth,
    body::{Fields, Incoming, incoming},
    error::from_store,
    reply::json,
    route, with,
};
use rookery_protocol::{
    ApiError, ErrorBody, ErrorCode, Timestamp, TokenId, UserId,
    api::{CreateToken, CreatedToken, DeleteToken, Success, TokenInfo},
};
use rookery_storage::TokenRow;
use std::sync::Arc;
use warp::{Filter, http::StatusCode, path, reply::Response};

/// Tokens a user may have.
const MAX_TOKENS: usize = 1000;

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let all = || path!("api" / "api-tokens").and(with(api));
    let generate = path!("api" / "api-tokens" / "generate").and(with(api));
    vec![
        route("tokens_list", all().and(warp::get()).and(incoming(api)).then(list)),
        route("tokens_generate", generate.and(warp::post()).and(incoming(api)).then(create)),
        route("tokens_delete", all().and(warp::delete()).and(incoming(api)).then(delete)),
    ]
}

/// The tokens of a user.
#[utoipa::path(
    get, path = "/api/api-tokens", tag = "Tokens",
    security(("admin_key" = [])), operation_id = "list_tokens",
    params(("user_id" = UserId, Query, description = "Whose; it may also stand in a JSON body.")),
    responses(
        (status = 200, description = "The tokens, oldest first.", body = Vec<TokenInfo>),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn list(api: Arc<Api>, mut request: Incoming) -> Answer {
    api.access.require_admin(&request.headers)?;
    let mut fields = request.fields_or_query(&["user_id"]).await?;
    let user = user_id(&mut fields);
    fields.finish()?;
    let user = user.expect("no problem was noted");
    let rows = api.stores.tokens.list(user).await.map_err(|error| from_store(&error))?;
    Ok(json(StatusCode::OK, &rows.into_iter().map(info).collect::<Vec<_>>()))
}

/// Make a token; it is shown this once.
#[utoipa::path(
    post, path = "/api/api-tokens/generate", tag = "Tokens",
    security(("admin_key" = [])), operation_id = "generate_token", request_body = CreateToken,
    responses(
        (status = 201, description = "The token.", body = CreatedToken),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn create(api: Arc<Api>, mut request: Incoming) -> Answer {
    api.access.require_admin(&request.headers)?;
    let mut fields = request.fields().await?;
    let name = fields.name("name", 255);
    let user = user_id(&mut fields);
    fields.finish()?;
    let user = user.expect("no problem was noted");
    let existing = api.stores.tokens.list(user).await.map_err(|error| from_store(&error))?;
    if existing.len() >= MAX_TOKENS {
        return Err(ApiError::field("user_id", format!("must not have more than {MAX_TOKENS} tokens")));
    }
    let token = auth::secret("rk_");
    let row = TokenRow {
        id: TokenId::generate(),
        user_id: user,
        name,
        hash: auth::hash(&token),
        created_at: Timestamp::now(),
    };
    api.stores.tokens.create(&row).await.map_err(|error| from_store(&error))?;
    Ok(json(StatusCode::CREATED, &CreatedToken { info: info(row), token }))
}

/// Revoke a token.
#[utoipa::path(
    delete, path = "/api/api-tokens", tag = "Tokens",
    security(("admin_key" = [])), operation_id = "delete_token",
    request_body(content = Option<DeleteToken>, content_type = "application/json"),
    params(
        ("user_id" = Option<UserId>, Query, description = "Whose; in the query or in the body."),
        ("id" = Option<TokenId>, Query, description = "Which; in the query or in the body."),
    ),
    responses(
        (status = 200, description = "It is revoked.", body = Success),
        (status = 404, description = "`token_not_found`", body = ErrorBody),
        (status = 422, description = "`validation_failed`; `errors` names the fields.", body = ErrorBody),
    ),
)]
pub(super) async fn delete(api: Arc<Api>, mut request: Incoming) -> Answer {
    api.access.require_admin(&request.headers)?;
    let mut fields = request.fields_or_query(&["user_id", "id"]).await?;
    let user = user_id(&mut fields);
    let id = fields.parsed::<TokenId>("id");
    fields.finish()?;
    let (user, id) = (user.expect("no problem was noted"), id.expect("no problem was noted"));
    if api.stores.tokens.delete(user, id).await.map_err(|error| from_store(&error))? {
        return Ok(json(StatusCode::OK, &Success { success: true }));
    }
    Err(ApiError::new(ErrorCode::TokenNotFound, "The user has no such token."))
}

/// The user that a request is about.
fn user_id(fields: &mut Fields) -> Option<UserId> {
    let user = fields.parsed::<UserId>("user_id")?;
    if user == auth::nobody() {
        fields.problem("user_id", "must not be the nil UUID");
        return None;
    }
    Some(user)
}

fn info(row: TokenRow) -> TokenInfo {
    TokenInfo { id: row.id, name: row.name, user_id: row.user_id, created_at: row.created_at }
}
