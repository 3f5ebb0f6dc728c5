//! Fetches what callers name by URL, from the public internet alone.
//!
//! The invariant: a connection goes to an address that was checked, and to no other. The name is resolved here, every
//! address it has must be allowed, and the socket is opened to one of them; each redirect starts from the beginning.
//! No proxy, no cookies, no credentials. It knows nothing of messages and of where the bytes go.

mod disposition;
mod guard;

pub(crate) use guard::AllowList;

use self::guard::{NOT_PUBLIC, Target, is_public, target};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{
            CertificateDer, ServerName,
            pem::{self, PemObject},
        },
    },
};
use url::Url;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;
/// How long a name may take to be resolved, and each of a host's addresses to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 3;
/// How long a host may take to begin its answer, TLS included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a host may pause within its answer.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Room for an answer's head, and for what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;
/// The longest URL.
pub(crate) const MAX_URL_CHARS: usize = 4096;

const USER_AGENT: &str = concat!("Rookery/", env!("CARGO_PKG_VERSION"));

/// What follows `data:` in a URL that holds its file itself. The case of a scheme does not matter (RFC 3986).
pub(crate) fn data_of(url: &str) -> Option<&str> {
    let (scheme, data) = url.split_once(':')?;
    scheme.eq_ignore_ascii_case("data").then_some(data)
}

/// Why nothing was fetched, in words for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The URL is not one to fetch: another one is needed.
    #[error("{0}")]
    Refused(String),
    /// The host failed: it may work when tried again.
    #[error("{0}")]
    Failed(String),
}

impl FetchError {
    fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

/// Fetches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    tls: TlsConnector,
    allowed: Arc<AllowList>,
}

/// An answer whose body is on its way. Dropping it closes the connection.
pub(crate) struct Fetched {
    /// The length that the host promises.
    pub length: Option<u64>,
    /// The file's name: the host's, or the last part of the URL's path.
    pub file_name: Option<String>,
    body: Incoming,
    _connection: Connection,
}

impl Fetched {
    /// The next part of the body; none at its end. A body that is shorter than promised is an error.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let late = |_| FetchError::failed("the host stopped in the middle of the file");
            match timeout(PAUSE_TIMEOUT, self.body.frame()).await.map_err(late)? {
                None => return Ok(None),
                Some(Err(_)) => return Err(FetchError::failed("the host broke off in the middle of the file")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The task that drives a connection; ends with it.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a file with certificates is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// It cannot be read, or is no PEM.
    #[error("the file cannot be read")]
    File(#[from] pem::Error),
    /// A certificate in it cannot be trusted as an authority.
    #[error("the file holds a certificate of no authority")]
    Certificate(#[from] tokio_rustls::rustls::Error),
    /// There is none.
    #[error("the file holds no certificate")]
    Empty,
}

/// TLS that trusts the public authorities and those in a file with certificates. Blocks.
pub(crate) fn tls(extra_roots: Option<&Path>) -> Result<TlsConnector, RootsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = extra_roots {
        let public = roots.len();
        for certificate in CertificateDer::pem_file_iter(file)? {
            roots.add(certificate?)?;
        }
        if roots.len() == public {
            return Err(RootsError::Empty);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Fetcher {
    /// A fetcher for the public internet and these hosts.
    pub(crate) fn new(tls: TlsConnector, allowed: AllowList) -> Self {
        Self { tls, allowed: Arc::new(allowed) }
    }

    /// Asks for a URL, follows its redirects, and answers when a 200 has begun.
    pub(crate) async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        let malformed = |_| FetchError::Refused("is not a valid URL".into());
        let mut url = Url::parse(url).map_err(malformed)?;
        for _ in 0..=MAX_REDIRECTS {
            let target = target(&url, &self.allowed).map_err(|why| FetchError::Refused(why.into()))?;
            let (response, connection) = self.ask(&url, &target).await?;
            match response.status() {
                StatusCode::OK => return fetched(response, connection, &url),
                status if is_redirect(status) => url = redirected(&url, response.headers())?,
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return Err(FetchError::Failed(format!("the host answered {}", status.as_u16())));
                }
                status => return Err(FetchError::Refused(format!("was answered with {}", status.as_u16()))),
            }
        }
        Err(FetchError::Refused(format!("leads through more than {MAX_REDIRECTS} redirects")))
    }

    async fn ask(&self, url: &Url, target: &Target) -> Result<(Response<Incoming>, Connection), FetchError> {
        let stream = connect(target).await?;
        let asking = async {
            if !target.encrypted {
                return exchange(stream, url).await;
            }
            // Brackets are the URL's, not the address's.
            let name = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(|_| FetchError::Refused("names no valid host".into()))?;
            let stream = self.tls.connect(name, stream).await;
            exchange(stream.map_err(|_| FetchError::failed("no TLS connection could be made to the host"))?, url).await
        };
        timeout(HEAD_TIMEOUT, asking).await.map_err(|_| FetchError::failed("the host did not answer in time"))?
    }
}

/// Opens a socket to an address of the target that was checked.
async fn connect(target: &Target) -> Result<TcpStream, FetchError> {
    let addresses = match target.address {
        Some(address) => vec![SocketAddr::new(address, target.port)],
        None => resolve(&target.host, target.port).await?,
    };
    if !target.trusted && addresses.iter().any(|address| !is_public(address.ip())) {
        return Err(FetchError::Refused(NOT_PUBLIC.into()));
    }
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    Err(FetchError::failed("the host could not be reached"))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
    let unknown = || FetchError::failed("the host's name could not be resolved");
    let found: io::Result<Vec<_>> = timeout(CONNECT_TIMEOUT, async { Ok(lookup_host((host, port)).await?.collect()) })
        .await
        .map_err(|_| unknown())?;
    found.ok().filter(|addresses| !addresses.is_empty()).ok_or_else(unknown)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Url,
) -> Result<(Response<Incoming>, Connection), FetchError> {
    let broken = |_| FetchError::failed("the host did not answer as a web server does");
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).max_headers(100);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = Connection(tokio::spawn(async move {
        // What goes wrong shows where the answer is read.
        let _ = connection.await;
    }));
    let refused = |_| FetchError::Refused("is not a valid URL".into());
    let request = Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(refused)?;
    Ok((sender.send_request(request).await.map_err(broken)?, connection))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let next = location.filter(|text| text.len() <= MAX_URL_CHARS).and_then(|location| from.join(location).ok());
    next.ok_or_else(|| FetchError::Refused("is redirected to nowhere".into()))
}

fn fetched(response: Response<Incoming>, connection: Connection, url: &Url) -> Result<Fetched, FetchError> {
    let headers = response.headers();
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(FetchError::Refused("is served compressed, which was not asked for".into()));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let file_name =
        headers.get(header::CONTENT_DISPOSITION).and_then(disposition::file_name).or_else(|| path_name(url));
    Ok(Fetched { length, file_name, body: response.into_body(), _connection: connection })
}

/// The last part of a URL's path.
fn path_name(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    let name = percent_encoding::percent_decode_str(last).decode_utf8().ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_has_no_name_has_that_of_its_path() {
        let path = |text: &str| path_name(&Url::parse(text).unwrap());
        assert_eq!(path("http://x/a/b%20c.txt?d=e").as_deref(), Some("b c.txt"));
        assert_eq!(path("http://x/"), None);
    }

    #[test]
    fn a_redirect_is_joined_to_where_it_came_from() {
        let from = Url::parse("http://x/a/b").unwrap();
        let to = |location: &'static str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            redirected(&from, &headers).map(String::from)
        };
        assert_eq!(to("c").as_deref(), Ok("http://x/a/c"));
        assert_eq!(to("//y/z").as_deref(), Ok("http://y/z"));
        assert_eq!(to("file:///etc/passwd").as_deref(), Ok("file:///etc/passwd"), "refused by the guard");
        assert!(redirected(&from, &HeaderMap::new()).is_err());
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_refused() {
        let fetcher = Fetcher::new(tls(None).unwrap(), AllowList::default());
        for url in ["http://localhost/", "http://localhost.:8080/", "https://127.0.0.1/", "http://[::]/"] {
            let refused = fetcher.get(url).await.err();
            assert_eq!(refused, Some(FetchError::Refused(NOT_PUBLIC.into())), "{url}");
        }
    }
}
