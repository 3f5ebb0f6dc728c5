//! Requests to the admin port, and whether its answers are of the shape that its document promises.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use whatsapp_simulator::Handle;

use crate::client::DEADLINE;

/// Asks the admin port; the status and the body.
pub(crate) async fn ask(simulator: &Handle, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let address = simulator.admin_url().trim_start_matches("http://").to_string();
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A server that has refused a request need not read its body.
    let _ = socket.write_all(body).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{method} {path}: no end of the answer");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {text}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    (status.unwrap_or_else(|| panic!("{head}")), body.to_string())
}

/// The same with a text; the body of a 200.
pub(crate) async fn done(simulator: &Handle, method: &str, path: &str, body: &str) -> String {
    let (status, answer) = ask(simulator, method, path, body.as_bytes()).await;
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// Gets JSON, which must be as the document says.
pub(crate) async fn json(simulator: &Handle, path: &str) -> Value {
    let answer: Value = serde_json::from_str(&done(simulator, "GET", path, "").await).unwrap();
    assert_documented(simulator, "get", path, &answer).await;
    answer
}

/// The document that the admin port serves.
pub(crate) async fn document(simulator: &Handle) -> Value {
    serde_json::from_str(&done(simulator, "GET", "/openapi.json", "").await).unwrap()
}

/// An answer is of the shape that the document promises.
pub(crate) async fn assert_documented(simulator: &Handle, method: &str, path: &str, answer: &Value) {
    let document = document(simulator).await;
    let place = path.split('?').next().unwrap();
    let schema = &document["paths"][place][method]["responses"]["200"]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {place} is not documented to answer JSON");
    validate(&document, schema, answer, place);
}

fn validate(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"));
        return validate(document, target, value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|k| k == kind),
        one => one == kind,
    };
    assert!(allowed, "{at} is {kind} and not {}", schema["type"]);
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at} is {value} and none of {values:?}");
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        validate(document, &schema["items"], item, &format!("{at}[{n}]"));
    }
    let Some(object) = value.as_object() else { return };
    for key in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(key.as_str().unwrap()), "{at} has no {key}: {value}");
    }
    for (key, value) in object {
        let known = &schema["properties"][key];
        let inner = if known.is_null() { &schema["additionalProperties"] } else { known };
        assert!(inner.is_object(), "{at}.{key} is not documented");
        validate(document, inner, value, &format!("{at}.{key}"));
    }
}
