//! A service on this machine that speaks as much of S3 as the gateway needs: objects, multipart uploads, lists.

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// The service with one bucket; it stops when dropped.
pub(crate) struct Bucket {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    name: &'static str,
    id: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    /// Parts by number, by upload.
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    failing: bool,
    refused: usize,
}

impl Bucket {
    /// Starts it. Requests have to be signed under this id; whether with the right secret is not looked at.
    pub(crate) async fn start(name: &'static str, id: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { name, id, state: Mutex::default() });
        let all = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&all);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, shared, task }
    }

    /// Its address.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.shared.state().objects.keys().cloned().collect()
    }

    /// It fails from now on, or no longer.
    pub(crate) fn fail(&self, failing: bool) {
        self.shared.state().failing = failing;
    }

    /// Requests that were not signed as they should be.
    pub(crate) fn refused(&self) -> usize {
        self.shared.state().refused
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(respond(400, "")) };
    let body = body.to_bytes();
    let mut state = shared.state();
    let signature = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope = format!("AWS4-HMAC-SHA256 Credential={}/", shared.id);
    if !signature.starts_with(&scope) || !signature.contains("Signature=") {
        state.refused += 1;
        return Ok(respond(403, ""));
    }
    if state.failing {
        return Ok(respond(503, ""));
    }
    let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8().unwrap().into_owned();
    let Some(key) = path.strip_prefix('/').and_then(|path| path.strip_prefix(shared.name)) else {
        return Ok(respond(404, ""));
    };
    let key = key.trim_start_matches('/').to_owned();
    let query: HashMap<_, _> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    Ok(state.answer(&head.method, key, &query, body))
}

impl State {
    fn answer(
        &mut self,
        method: &Method,
        key: String,
        query: &HashMap<String, String>,
        body: Bytes,
    ) -> Response<Full<Bytes>> {
        let upload = query.get("uploadId");
        match (method.as_str(), upload) {
            ("POST", None) if query.contains_key("uploads") => {
                self.uploads.insert(key.clone(), BTreeMap::new());
                let id = format!("<UploadId>{key}</UploadId>");
                respond(200, format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"))
            }
            ("PUT", Some(id)) => {
                let number = query["partNumber"].parse().unwrap();
                self.uploads.get_mut(id).unwrap().insert(number, body);
                tagged(number)
            }
            ("POST", Some(id)) => {
                let parts = self.uploads.remove(id).unwrap();
                self.objects.insert(key, parts.into_values().flatten().collect());
                respond(200, "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
            }
            ("DELETE", Some(id)) => {
                self.uploads.remove(id);
                respond(204, "")
            }
            ("PUT", None) => {
                self.objects.insert(key, body);
                tagged(0)
            }
            ("DELETE", None) => {
                self.objects.remove(&key);
                respond(204, "")
            }
            ("GET", None) if key.is_empty() => self.list(query.get("prefix").map_or("", String::as_str)),
            ("GET", None) => match self.objects.get(&key) {
                Some(object) => {
                    let mut response = respond(200, object.clone());
                    let headers = response.headers_mut();
                    headers.insert("etag", "\"x\"".parse().unwrap());
                    headers.insert("last-modified", "Sun, 22 Nov 2026 10:00:00 GMT".parse().unwrap());
                    response
                }
                None => respond(404, "<Error><Code>NoSuchKey</Code></Error>"),
            },
            _ => respond(405, ""),
        }
    }

    fn list(&self, prefix: &str) -> Response<Full<Bytes>> {
        let mut rows = String::new();
        for (key, object) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let (size, modified) = (object.len(), "2099-11-22T10:00:00.000Z");
            write!(rows, "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>x</ETag>").unwrap();
            write!(rows, "<LastModified>{modified}</LastModified></Contents>").unwrap();
        }
        respond(200, format!("<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"))
    }
}

fn tagged(number: u32) -> Response<Full<Bytes>> {
    let mut response = respond(200, "");
    response.headers_mut().insert("etag", format!("\"{number}\"").parse().unwrap());
    response
}

fn respond(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
