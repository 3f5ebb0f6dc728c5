//! The OpenAPI 3.1 document of the admin port, made from the table of routes.

use serde_json::{Map, Value, json};

use super::route::{Body, Kind, Param, Reply, Route};

/// The shapes of what is taken and answered in JSON.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document.
pub(super) fn document<'a>(routes: impl Iterator<Item = &'a Route>) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("the schemas are JSON; a test reads them");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "WhatsApp simulator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Phones, faults and evidence of a simulated WhatsApp. There is no authorization: for \
                machines and people that may do anything.",
            "license": { "name": "MIT OR Apache-2.0" }
        },
        "paths": paths,
        "components": { "schemas": schemas }
    })
}

fn operation(route: &Route) -> Value {
    let segments = route.path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = segments
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(route.query.iter().map(parameter));
    if matches!(route.reply, Reply::TextOrJson(_) | Reply::TextOrList(_)) {
        parameters.push(json!({
            "name": "format", "in": "query", "required": false,
            "description": "`json` for JSON; the header `Accept: application/json` does the same",
            "schema": { "type": "string", "enum": ["json"] }
        }));
    }
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            "200": { "description": "done", "content": reply(route.reply) },
            "4XX": { "description": "not done", "content": json_content(&reference("Error")) }
        }
    });
    if let Some(body) = body(route.body) {
        operation["requestBody"] = body;
    }
    operation
}

/// `POST /fault/hold-acks` is `postFaultHoldAcks`.
fn id(route: &Route) -> String {
    let mut id = route.method.to_ascii_lowercase();
    for word in route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()) {
        let (first, rest) = word.split_at(1);
        id += &first.to_ascii_uppercase();
        id += rest;
    }
    id
}

fn parameter(param: &Param) -> Value {
    let schema = match param.kind {
        Kind::Phone => json!({ "type": "string", "pattern": "^\\+?[0-9]{5,15}$" }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::OneOf(values) => json!({ "type": "string", "enum": values }),
    };
    json!({
        "name": param.name, "in": "query", "required": param.required, "description": param.about, "schema": schema
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn text_content(about: &str) -> Value {
    json!({ "text/plain": { "schema": { "type": "string", "description": about } } })
}

fn bytes_content() -> Value {
    json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } })
}

fn body(body: Body) -> Option<Value> {
    let content = match body {
        Body::None => return None,
        Body::Text(about) => text_content(about),
        Body::Json(schema) => json_content(&reference(schema)),
        Body::Bytes => bytes_content(),
    };
    Some(json!({ "required": true, "content": content }))
}

fn reply(reply: Reply) -> Value {
    let list = |schema| json!({ "type": "array", "items": reference(schema) });
    let both = |about: &str, schema: &Value| {
        let mut content = text_content(about);
        content["application/json"] = json!({ "schema": schema });
        content
    };
    match reply {
        Reply::Done => text_content("ok"),
        Reply::Text(about) => text_content(about),
        Reply::Json(schema) => json_content(&reference(schema)),
        Reply::List(schema) => json_content(&list(schema)),
        Reply::TextOrJson(schema) => both("for people", &reference(schema)),
        Reply::TextOrList(schema) => both("for people", &list(schema)),
        Reply::Bytes => bytes_content(),
    }
}
