//! A request as handlers see it: headers, query and a body that is read within limits.
//!
//! The body is read only when a handler asks for it, which it does after it has checked who asks: a stranger costs
//! neither memory nor time.

use super::{
    Api,
    query::Query,
    relay::{Slip, slip},
};
use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use rookery_protocol::{ApiError, ErrorCode, FieldErrors};
use serde_json::{Map, Value};
use std::{convert::Infallible, pin::Pin, str::FromStr, sync::Arc, time::Duration};
use tokio::time::Instant;
use warp::{
    Buf, Filter, Rejection,
    http::{HeaderMap, header},
};

/// A request whose path is known.
pub(super) struct Incoming {
    pub headers: HeaderMap,
    query: String,
    body: Body,
    limit: usize,
    timeout: Duration,
    /// When the handler was called.
    pub arrived: Instant,
    /// For the case that another node has to answer.
    pub slip: Option<Arc<Slip>>,
}

/// A body on its way.
pub(super) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// Room that is made for a body before any of it has arrived.
const FIRST_ROOM: usize = 16 << 10;

/// Takes the rest of a request.
pub(super) fn incoming(api: &Arc<Api>) -> impl Filter<Extract = (Incoming,), Error = Rejection> + Clone + use<> {
    let (limit, timeout) = (api.max_body_bytes, api.read_timeout);
    let query = warp::query::raw().or_else(|_| async { Ok::<_, Infallible>((String::new(),)) });
    warp::header::headers_cloned().and(query).and(slip()).and(warp::body::stream()).map(
        move |headers: HeaderMap, query: String, slip, stream| {
            let body: Body = Box::pin(StreamExt::map(stream, copy));
            Incoming { headers, query, body, limit, timeout, arrived: Instant::now(), slip }
        },
    )
}

fn copy(chunk: Result<impl Buf, warp::Error>) -> Result<Bytes, warp::Error> {
    chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining()))
}

impl Incoming {
    /// The query.
    pub(super) fn query(&self) -> Result<Query, ApiError> {
        Query::parse(&self.query)
    }

    /// Reads the body, which has to be a JSON object.
    pub(super) async fn fields(&mut self) -> Result<Fields, ApiError> {
        let body = self.read().await?;
        self.parse(&body)
    }

    /// Reads the body, which may be missing, and the query beside it. Of these ids each may stand in either, and in
    /// both where they agree.
    pub(super) async fn fields_or_query(&mut self, ids: &[&'static str]) -> Result<Fields, ApiError> {
        let query = self.query()?;
        let body = self.read().await?;
        let mut fields = if body.is_empty() { Fields::empty() } else { self.parse(&body)? };
        let (pairs, errors) = query.into_parts();
        fields.errors = errors;
        for (name, value) in pairs {
            fields.beside(name, value, ids);
        }
        Ok(fields)
    }

    /// The body as it comes, for a handler with limits of its own.
    pub(super) fn into_body(self) -> Body {
        let Some(slip) = self.slip else { return self.body };
        let noted = move |part: Result<Bytes, warp::Error>| part.inspect(|part| slip.note_part(part));
        Box::pin(StreamExt::map(self.body, noted))
    }

    /// The content type; empty when there is none.
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The content type without its parameters, in lower case.
    pub(super) fn essence(&self) -> String {
        self.content_type().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// How long the body is, as its head says.
    pub(super) fn declared_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
    }

    async fn read(&mut self) -> Result<Bytes, ApiError> {
        let declared = usize::try_from(self.declared_length().unwrap_or(0)).unwrap_or(usize::MAX);
        let reading = read(&mut self.body, declared, self.limit);
        let late = |_| Err(ApiError::new(ErrorCode::RequestTimeout, "The body did not arrive in time."));
        let body = Bytes::from(tokio::time::timeout(self.timeout, reading).await.unwrap_or_else(late)?);
        if let Some(slip) = &self.slip {
            slip.note_body(&body);
        }
        Ok(body)
    }

    fn parse(&self, body: &[u8]) -> Result<Fields, ApiError> {
        if self.essence() != "application/json" {
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, "The content type must be application/json."));
        }
        Fields::parse(body)
    }
}

async fn read(stream: &mut Body, declared: usize, limit: usize) -> Result<Vec<u8>, ApiError> {
    let too_large = || ApiError::new(ErrorCode::PayloadTooLarge, format!("The body is larger than {limit} bytes."));
    if declared > limit {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(declared.min(FIRST_ROOM));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::new(ErrorCode::MalformedRequest, "The body broke off."))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A JSON object whose fields are taken one by one, so that every problem is named at once.
pub(super) struct Fields {
    values: Map<String, Value>,
    errors: FieldErrors,
    /// Whether they come from a form or a query, where everything is text.
    form: bool,
}

impl Fields {
    /// No fields yet.
    pub(super) fn empty() -> Self {
        Self { values: Map::new(), errors: FieldErrors::new(), form: true }
    }

    /// Adds a field from somewhere else than a JSON object, where it may stand only once and hold anything.
    pub(super) fn put(&mut self, name: String, content: Vec<u8>) {
        let problem = match String::from_utf8(content) {
            Ok(_) if self.values.contains_key(&name) => "must not be given twice",
            Ok(text) => {
                self.values.insert(name, Value::String(text));
                return;
            }
            Err(_) => "must be UTF-8",
        };
        self.errors.entry(name.into()).or_default().push(problem.into());
    }

    /// Refuses a field that must not be given, or only be empty.
    pub(super) fn refuse(&mut self, field: &'static str, why: &'static str) {
        match self.values.remove(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(_) => self.problem(field, why),
        }
    }

    /// Adds what stands in the query. The case of an id does not matter.
    fn beside(&mut self, name: String, value: String, ids: &[&'static str]) {
        match self.values.get(&name) {
            None | Some(Value::Null) => _ = self.values.insert(name, Value::String(value)),
            Some(Value::String(text)) if !text.eq_ignore_ascii_case(&value) => {
                if let Some(id) = ids.iter().find(|id| **id == name) {
                    self.problem(id, "must not be another in the query than in the body");
                }
            }
            Some(_) => {}
        }
    }

    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(Self { values, errors: FieldErrors::new(), form: false }),
            Ok(_) => Err(ApiError::new(ErrorCode::MalformedRequest, "The body must be a JSON object.")),
            Err(error) => {
                // Of the parser's words only the place: the rest may quote the body.
                let (line, column) = (error.line(), error.column());
                let text = format!("The body is not valid JSON (line {line}, column {column}).");
                Err(ApiError::new(ErrorCode::MalformedRequest, text))
            }
        }
    }

    /// A required text without control characters that is not blank.
    pub(super) fn name(&mut self, field: &'static str, max_chars: usize) -> String {
        let text = self.text(field, max_chars);
        if text.chars().any(char::is_control) {
            self.problem(field, "must not contain control characters");
        } else if !text.is_empty() && text.trim().is_empty() {
            self.problem(field, "must not be blank");
        }
        text
    }

    /// A required text of 1 to `max_chars` characters.
    pub(super) fn text(&mut self, field: &'static str, max_chars: usize) -> String {
        match self.values.remove(field) {
            // Something was given that is worse than nothing.
            None if self.errors.contains_key(field) => {}
            None | Some(Value::Null) => self.problem(field, "is required"),
            Some(Value::String(text)) if text.is_empty() => self.problem(field, "must not be empty"),
            Some(Value::String(text)) if text.contains('\0') => self.problem(field, "must not contain NUL"),
            Some(Value::String(text)) => {
                // Bytes first: counting characters is only needed near the limit.
                if text.len() <= max_chars || text.chars().count() <= max_chars {
                    return text;
                }
                self.problem(field, format!("must have at most {max_chars} characters"));
            }
            Some(_) => self.problem(field, "must be a string"),
        }
        String::new()
    }

    /// A text of at most `max_chars` characters that may be missing or empty.
    pub(super) fn optional_text(&mut self, field: &'static str, max_chars: usize) -> Option<String> {
        match self.values.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(_) => Some(self.text(field, max_chars)).filter(|text| !text.is_empty()),
        }
    }

    /// A whole number of at most `max` that may be missing; in a form it is a text.
    pub(super) fn optional_number(&mut self, field: &'static str, max: u64) -> Option<u64> {
        let number = match self.values.remove(field) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) if self.form => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        let number = number.filter(|number| *number <= max);
        if number.is_none() {
            self.problem(field, format!("must be a whole number of at most {max}"));
        }
        number
    }

    /// A required text that names a thing of type `T`.
    pub(super) fn parsed<T: FromStr<Err = impl std::fmt::Display>>(&mut self, field: &'static str) -> Option<T> {
        self.parsed_with(field, str::parse)
    }

    /// A required text that `parse` understands.
    pub(super) fn parsed_with<T, E: std::fmt::Display>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(field, 255);
        if text.is_empty() {
            return None;
        }
        parse(&text).map_err(|error| self.problem(field, error.to_string())).ok()
    }

    /// Notes a problem with a field.
    pub(super) fn problem(&mut self, field: &'static str, problem: impl Into<String>) {
        self.errors.entry(field.into()).or_default().push(problem.into());
    }

    /// All problems that were found, as one error.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named() {
        let mut fields = Fields::parse(br#"{"name": 3, "long": "xxxx", "nul": "a\u0000"}"#).unwrap();
        fields.text("name", 3);
        fields.text("long", 3);
        fields.text("nul", 3);
        fields.text("missing", 3);
        let error = fields.finish().unwrap_err();
        assert_eq!(error.errors.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["long", "missing", "name", "nul"]);
    }

    #[test]
    fn query_and_body_agree_on_ids() {
        let id = |body: &str, query: &str| {
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            fields.beside("id".into(), query.into(), &["id"]);
            fields.beside("unknown".into(), "another".into(), &["id"]);
            let id = fields.text("id", 9);
            fields.finish().ok().map(|()| id)
        };
        assert_eq!(id("{\"unknown\": \"one\"}", "a").as_deref(), Some("a"));
        assert_eq!(id("{\"id\": null}", "a").as_deref(), Some("a"));
        assert_eq!(id("{\"id\": \"A\"}", "a").as_deref(), Some("A"));
        assert_eq!(id("{\"id\": \"b\"}", "a"), None);
        assert_eq!(id("{\"id\": 7}", "a"), None);
    }

    #[test]
    fn limits_count_characters_and_not_bytes() {
        let mut fields = Fields::parse("{\"name\": \"ü🐦ü\"}".as_bytes()).unwrap();
        assert_eq!(fields.name("name", 3), "ü🐦ü");
        fields.finish().unwrap();
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = "[".repeat(100_000);
        assert_eq!(Fields::parse(deep.as_bytes()).err().unwrap().code, ErrorCode::MalformedRequest);
    }
}
