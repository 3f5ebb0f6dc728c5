//! The contract as OpenAPI, made from the handlers and their types; and the page that shows it.
//!
//! What every route can answer is added here once: the server around the routes answers it. `ops/openapi.json` is this
//! document, checked in.

use super::{Api, Routes, chats, contacts, media, messages, reply::bytes, route, service, sessions, tokens, with};
use rookery_protocol::{ApiError, ErrorBody, ErrorCode, Unauthorized, api::Direction};
use std::sync::{Arc, LazyLock};
use utoipa::{
    Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        self, ContentBuilder, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema,
        SchemaFormat,
        path::Operation,
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use warp::{
    Filter,
    http::{HeaderValue, StatusCode, header},
    path,
    reply::Response,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Rookery WhatsApp API", description = "A self-hosted WhatsApp gateway."),
    paths(
        sessions::create, sessions::list, sessions::status, sessions::by_device, sessions::connect, sessions::disconnect,
        sessions::remove_device, sessions::delete, sessions::qr, sessions::pairing_code,
        messages::send_text, media::send_media, messages::list, messages::get, media::download::download,
        contacts::list, contacts::picture, chats::list,
        tokens::list, tokens::create, tokens::delete,
        service::health_of, service::liveness, service::readiness, service::test_connection, service::cluster_of,
        service::render_metrics,
        specification, page,
    ),
    components(schemas(ErrorBody, Unauthorized, Direction)),
    modifiers(&Common)
)]
pub(super) struct Specification;

/// The document as it is served, printed and checked in.
pub(crate) fn document() -> String {
    let mut text = Specification::openapi().to_pretty_json().expect("the document has string keys only");
    text.push('\n');
    text
}

static DOCUMENT: LazyLock<String> = LazyLock::new(document);
const PAGE: &str = include_str!("docs.html");

type Answer = Result<Response, ApiError>;

pub(super) fn routes(api: &Arc<Api>) -> Vec<Routes> {
    let document = path!("openapi.json").and(with(api));
    let docs = path!("docs").and(with(api));
    vec![
        route("openapi", document.and(warp::get()).then(specification)),
        route("docs", docs.and(warp::get()).then(page)),
    ]
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "Service", operation_id = "openapi", responses(
    (status = 200, description = "The specification.", content_type = "application/json", body = serde_json::Value)))]
async fn specification(_api: Arc<Api>) -> Answer {
    Ok(bytes(StatusCode::OK, "application/json", DOCUMENT.as_str()))
}

/// A page that shows this document.
#[utoipa::path(get, path = "/docs", tag = "Service", operation_id = "docs", responses(
    (status = 200, description = "The page.", content_type = "text/html", body = String)))]
async fn page(_api: Arc<Api>) -> Answer {
    let mut response = bytes(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    // The page asks for the document and for nothing else.
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(response)
}

/// The bytes of a file, in the specification.
pub(super) struct FileBytes;

impl PartialSchema for FileBytes {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
    }
}

impl ToSchema for FileBytes {}

/// Adds what the server answers around every route.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut openapi::OpenApi) {
        document.info.version = env!("CARGO_PKG_VERSION").into();
        let components = document.components.get_or_insert_default();
        for (name, text) in [
            ("token", "A user's token."),
            ("admin_key", "The administrator's key."),
            ("metrics_token", "The token of `metrics.token`, if one is set."),
        ] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
                common(operation);
            }
        }
    }
}

fn common(operation: &mut Operation) {
    let mut add = |codes: &[ErrorCode]| {
        let status = codes[0].status().to_string();
        operation.responses.responses.entry(status).or_insert_with(|| failure(codes).into());
    };
    add(&[ErrorCode::MalformedRequest]);
    add(&[ErrorCode::Internal]);
    add(&[ErrorCode::Unavailable, ErrorCode::WhatsappUnavailable]);
    add(&[ErrorCode::DeadlineExceeded]);
    if operation.request_body.is_some() {
        add(&[ErrorCode::RequestTimeout]);
        add(&[ErrorCode::PayloadTooLarge]);
        add(&[ErrorCode::UnsupportedMediaType]);
    }
    // Queries are read by every route that knows its user.
    if operation.security.is_some() {
        add(&[ErrorCode::ValidationFailed]);
        operation.responses.responses.entry("401".into()).or_insert_with(|| unauthorized().into());
    }
    for status in ["429", "503"] {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
            let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until another try."));
            response.headers.insert("Retry-After".into(), header.build().into());
        }
    }
}

fn failure(codes: &[ErrorCode]) -> openapi::Response {
    let names: Vec<_> = codes.iter().filter_map(|code| serde_json::to_value(code).ok()).collect();
    let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).map(|name| format!("`{name}`")).collect();
    error_response(&names.join(", "), "ErrorBody")
}

fn unauthorized() -> openapi::Response {
    error_response("No token, or one that is unknown or revoked.", "Unauthorized")
}

fn error_response(description: &str, schema: &str) -> openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}
