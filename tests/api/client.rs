//! A caller of the API, and answers that can be asked what they hold.

use reqwest::{
    Method, RequestBuilder,
    header::{HeaderMap, HeaderName},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Where texts are sent.
pub(crate) const TEXT: &str = "/api/whatsapp/messages/text";
/// How long a request may take. Longer than the gateway's own deadlines in these tests.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A caller with a token. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    /// The body; `null` when it is no JSON.
    pub body: Value,
}

impl Client {
    /// A caller of the API at `base` with this token.
    pub(crate) fn new(base: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), token: token.to_owned() }
    }

    /// The same caller after the gateway has moved to another port.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// A caller with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The caller's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A request with the caller's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.without_token(method, path).bearer_auth(&self.token)
    }

    /// A request without any token.
    pub(crate) fn without_token(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// `GET path`
    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// `POST path` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// `DELETE path`
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Sends a text.
    pub(crate) async fn send(&self, session: &str, to: &str, text: &str) -> Answer {
        self.send_waiting(session, to, text, None).await
    }

    /// Sends a text and waits this many milliseconds for WhatsApp's acknowledgement.
    pub(crate) async fn send_waiting(&self, session: &str, to: &str, text: &str, wait_ms: Option<u64>) -> Answer {
        let query = wait_ms.map(|wait| format!("?wait_ms={wait}")).unwrap_or_default();
        let body = json!({"session_id": session, "to": to, "message": text});
        self.post(&format!("{TEXT}{query}"), &body).await
    }

    /// Sends a text under an idempotency key.
    pub(crate) async fn send_keyed(&self, session: &str, to: &str, text: &str, key: &str) -> Answer {
        let body = json!({"session_id": session, "to": to, "message": text});
        let request = self.request(Method::POST, TEXT).json(&body);
        answer(request.header("idempotency-key", key)).await
    }

    /// One page of a list.
    pub(crate) async fn page(&self, path: &str) -> (Vec<Value>, Option<String>) {
        let page = self.get(path).await.expect(200).body;
        let next = page["next_cursor"].as_str().map(str::to_owned);
        assert!(next.is_some() || page["next_cursor"].is_null(), "{page}");
        (page["data"].as_array().expect("a list").clone(), next)
    }

    /// All rows of a list, page by page. `path` has a query already.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut next) = self.page(path).await;
        while let Some(cursor) = next {
            let (more, after) = self.page(&format!("{path}&cursor={cursor}")).await;
            rows.extend(more);
            next = after;
        }
        rows
    }

    /// A session's whole history, newest first.
    pub(crate) async fn history(&self, session: &str) -> Vec<Value> {
        self.all(&format!("/api/whatsapp/sessions/{session}/messages?limit=200")).await
    }
}

/// Sends a request and reads its answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the gateway answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.expect("the answer is whole").to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Answer { status, headers, bytes, body }
}

/// A request's head for [`raw`], with the connection closed after the answer.
pub(crate) fn head(method: &str, path: &str, token: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{more}\r\n")
}

/// Sends bytes over a connection of their own and reads all that comes back until the gateway closes, which
/// `Connection: close` in the request makes it do.
pub(crate) async fn raw(address: &str, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The gateway may have said no and closed before it has read everything.
    let _ = stream.write_all(request).await;
    read_answer(&mut stream).await
}

/// Reads the one answer that a connection still gives.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = vec![];
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the gateway closes the connection");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { panic!("no answer but {:?}", String::from_utf8_lossy(&bytes)) };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let bytes = bytes[end + 4..].to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Answer { status, headers, bytes, body }
}

impl Answer {
    /// The answer, which must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// The answer, which must be an error of this status and code in the form of the contract.
    #[track_caller]
    pub(crate) fn error(self, status: u16, code: &str) -> Self {
        let shown = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status, status, "{shown}");
        assert_eq!(self.header("content-type"), "application/json", "{shown}");
        assert_eq!(self.body["code"], code, "{shown}");
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
        assert_eq!(self.body["request_id"], self.header("x-request-id"), "{shown}");
        self
    }

    /// The answer, which must be a 422 that names this field.
    #[track_caller]
    pub(crate) fn names(self, field: &str) -> Self {
        self.error(422, "validation_failed").naming(field)
    }

    /// The answer, whose body must name this field.
    #[track_caller]
    pub(crate) fn naming(self, field: &str) -> Self {
        let problems = self.body["errors"][field].as_array();
        assert!(problems.is_some_and(|problems| !problems.is_empty()), "{field} is not named: {}", self.body);
        self
    }

    /// The answer, which must advise when to try again.
    #[track_caller]
    pub(crate) fn says_when_to_retry(self) -> Self {
        let seconds: u64 = self.header("retry-after").parse().expect("a number of seconds");
        assert!((1..=60).contains(&seconds), "Retry-After: {seconds}");
        self
    }

    /// A header's text, empty when it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A field of the body that is a text.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> String {
        let text = self.body[field].as_str();
        text.unwrap_or_else(|| panic!("no {field}: {}", String::from_utf8_lossy(&self.bytes))).to_owned()
    }
}
