//! A bucket that speaks the S3 protocol, over this program's own HTTP and TLS: there is one TLS in it, not two.
//!
//! The address comes from the operator, so any is allowed; credentials come from files or the environment and are
//! never shown.

use anyhow::Context;
use async_trait::async_trait;
use http::{HeaderValue, Uri, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use std::{fmt, io, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

/// How long the host may take to accept a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to answer a request whose body it has to take in before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request is repeated that may be, and for how long.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// A bucket and how to get in.
#[derive(Clone)]
pub(crate) struct S3Settings {
    pub bucket: String,
    /// Under which all files are.
    pub prefix: String,
    /// The address of the service; none for Amazon's own.
    pub endpoint: Option<String>,
    pub region: String,
    /// Files with the credentials; without them the environment has them (`AWS_ACCESS_KEY_ID` and so on).
    pub key_files: Option<(PathBuf, PathBuf)>,
    /// Whom to trust.
    pub tls: TlsConnector,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings").field("bucket", &self.bucket).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The bucket. Blocks; nothing is asked of it yet.
pub(super) fn open(settings: S3Settings) -> anyhow::Result<AmazonS3> {
    let S3Settings { bucket, endpoint, region, key_files, tls, prefix: _ } = settings;
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_retry(retry)
        // Not every service has it.
        .with_disable_bulk_delete(true)
        .with_http_connector(Connector(tls));
    if let Some(endpoint) = endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    if let Some((id, secret)) = key_files {
        let read = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            anyhow::Ok(text.trim().to_owned())
        };
        builder = builder.with_access_key_id(read(id)?).with_secret_access_key(read(secret)?);
    }
    Ok(builder.build()?)
}

/// Makes HTTP clients for the library.
struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

/// An HTTP client: a connection a request, since a request here is a file.
struct Service(TlsConnector);

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let late = |kind| move |_| HttpError::new(kind, io::Error::from(io::ErrorKind::TimedOut));
        let host = uri.host().ok_or_else(|| invalid("the address has no host"))?.to_owned();
        let encrypted = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let connecting = async {
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(unconnected)?;
            let _ = stream.set_nodelay(true);
            if !encrypted {
                return Ok::<_, HttpError>(Either::Plain(stream));
            }
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
            let name = name.map_err(|_| invalid("the address has no valid host"))?;
            Ok(Either::Tls(Box::new(self.0.connect(name, stream).await.map_err(unconnected)?)))
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(late(HttpErrorKind::Connect))??;
        let answering = async {
            match stream {
                Either::Plain(stream) => exchange(stream, request, &uri).await,
                Either::Tls(stream) => exchange(stream, request, &uri).await,
            }
        };
        timeout(ANSWER_TIMEOUT, answering).await.map_err(late(HttpErrorKind::Timeout))?
    }
}

enum Either {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: HttpRequest,
    uri: &Uri,
) -> Result<HttpResponse, HttpError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer, or when nobody waits for that any more.
    tokio::spawn(connection);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let host = HeaderValue::try_from(authority).map_err(|_| invalid("the address has no valid host"))?;
    request.headers_mut().insert(header::HOST, host);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse().map_err(|_| invalid("the address has no valid path"))?;
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(broken))))
}

fn invalid(why: &'static str) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn unconnected(error: io::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Connect, error)
}

fn broken(error: hyper::Error) -> HttpError {
    let kind = if error.is_timeout() { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
