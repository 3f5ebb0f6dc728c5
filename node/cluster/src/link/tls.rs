//! A node's certificates: read, checked against each other, replaced while links are up.
//!
//! Trust is standard TLS 1.3 with the cluster's authority as the only root, on both sides, and no session is ever
//! resumed: every handshake is judged by the certificates of that moment. Who the peer *is* stands in its certificate
//! as the URI `rookery://<cluster>/<node>` ([`crate::certs::node_uri`]); [`Tls`] reads it after the handshake, the
//! preface compares it. The provider is named outright, since two are compiled in.

use super::config::CertificateFiles;
use crate::certs;
use rookery_protocol::{NodeId, cluster::ClusterName};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::SystemTime,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore, ServerConfig,
        client::Resumption,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier},
        version::TLS13,
    },
};
use webpki::{EndEntityCert, KeyUsage};

/// The longest file that is read as a certificate or a key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Spoken in TLS, so that a connection that was meant for something else ends there.
const ALPN: &[u8] = b"rookery-link";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate is somebody else's.
    #[error("{}: names {found}, but this node is {expected}", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// The names in it.
        found: String,
        /// The name that it should have.
        expected: String,
    },
}

/// The certificates of this node.
pub(super) struct Tls {
    files: CertificateFiles,
    cluster: ClusterName,
    node: NodeId,
    current: RwLock<Arc<Configs>>,
    seen: Mutex<Stamp>,
}

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// By what a change of the files is noticed: modification time, inode and length of each.
type Stamp = [Option<(SystemTime, u64, u64)>; 3];

impl Tls {
    /// Reads the files. Blocks: they are small.
    pub(super) fn load(files: CertificateFiles, cluster: ClusterName, node: NodeId) -> Result<Self, TlsError> {
        let seen = Mutex::new(stamp(&files));
        let current = RwLock::new(Arc::new(read(&files, &cluster, &node)?));
        Ok(Self { files, cluster, node, current, seen })
    }

    /// Reads the files again. On an error what was read before stays in use.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let seen = stamp(&self.files);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let read = Arc::new(read(&self.files, &self.cluster, &self.node)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Reads the files again if they have changed; answers whether they had.
    pub(super) fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == stamp(&self.files) {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current().server.clone().into()
    }

    /// The accepting side's handshake; answers who the certificate says the peer is.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Identity>)> {
        let stream = self.acceptor().accept(stream).await?;
        let identity = Identity::of_peer(stream.get_ref().1.peer_certificates());
        Ok((stream.into(), identity))
    }

    /// The dialling side's handshake; answers who the certificate says the peer is.
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Identity>)> {
        let connector = TlsConnector::from(self.current().client.clone());
        let name = ServerName::try_from(certs::SERVER_NAME).expect("a constant that is a DNS name");
        let stream = connector.connect(name, stream).await?;
        let identity = Identity::of_peer(stream.get_ref().1.peer_certificates());
        Ok((stream.into(), identity))
    }

    fn current(&self) -> Arc<Configs> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeId,
}

impl Identity {
    fn of_peer(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(chain?.first()?).ok()?;
        certificate.valid_uri_names().find_map(|uri| {
            let (cluster, node) = certs::parse_node_uri(uri)?;
            Some(Self { cluster, node })
        })
    }
}

/// What is wrong with a peer's certificate or with ours in its eyes, in words for a log; `None` for other errors.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate is not valid yet".into()
            }
            // Two authorities of one name differ in the key alone, which shows as a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "certificate is of another authority".into()
            }
            other => format!("certificate is invalid: {other}"),
        },
        rustls::Error::NoCertificatesPresented => "shows no certificate".into(),
        rustls::Error::AlertReceived(alert) => format!("refuses our certificate or handshake: {alert:?}"),
        other => format!("no TLS handshake: {other}"),
    })
}

fn stamp(files: &CertificateFiles) -> Stamp {
    [&files.authority, &files.certificate, &files.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
    })
}

fn read(files: &CertificateFiles, cluster: &ClusterName, node: &NodeId) -> Result<Configs, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = roots(&files.authority)?;
    let chain = certificates(&files.certificate)?;
    check_own(&files.certificate, &chain, &roots, &provider, (cluster, node))?;
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls::Error| TlsError::Content { path, problem: error.to_string() }
    };
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| TlsError::Content { path: files.authority.clone(), problem: error.to_string() })?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(bad(&files.certificate))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key(&files.key)?)
        .map_err(bad(&files.key))?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(bad(&files.certificate))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key(&files.key)?)
        .map_err(bad(&files.key))?;
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}

/// Refuses a certificate with which no peer would take us, so that a mistake is known at once.
fn check_own(
    path: &Path,
    chain: &[CertificateDer<'static>],
    roots: &RootCertStore,
    provider: &CryptoProvider,
    (cluster, node): (&ClusterName, &NodeId),
) -> Result<(), TlsError> {
    let content = |problem: String| TlsError::Content { path: path.to_owned(), problem };
    let (first, intermediates) = chain.split_first().ok_or_else(|| content("holds no certificate".into()))?;
    let certificate = EndEntityCert::try_from(first).map_err(|error| content(error.to_string()))?;
    let expected = certs::node_uri(cluster, node);
    let names: Vec<&str> = certificate.valid_uri_names().collect();
    if !names.contains(&expected.as_str()) {
        let found = if names.is_empty() { "no node".into() } else { names.join(", ") };
        return Err(TlsError::Identity { path: path.to_owned(), found, expected });
    }
    if !certificate.valid_dns_names().any(|name| name == certs::SERVER_NAME) {
        return Err(content(format!("lacks the DNS name {}", certs::SERVER_NAME)));
    }
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        certificate
            .verify_for_usage(
                provider.signature_verification_algorithms.all,
                &roots.roots,
                intermediates,
                UnixTime::now(),
                usage,
                None,
                None,
            )
            .map_err(|error| content(in_words(&error)))?;
    }
    Ok(())
}

fn in_words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { .. } => "has expired".into(),
        webpki::Error::CertNotValidYet { .. } => "is not valid yet".into(),
        other => format!("not valid under the cluster's authority: {other}"),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Content { path: path.to_owned(), problem: error.to_string() })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_file(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Content { path: path.to_owned(), problem: "holds no certificate in PEM".into() }),
        Err(error) => Err(TlsError::Content { path: path.to_owned(), problem: error.to_string() }),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?)
        .map_err(|error| TlsError::Content { path: path.to_owned(), problem: error.to_string() })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::File { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(TlsError::Content { path: path.to_owned(), problem: "is too long".into() });
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn files(dir: &Path, node: &str) -> CertificateFiles {
        CertificateFiles {
            authority: dir.join("ca.crt"),
            certificate: dir.join(format!("{node}.crt")),
            key: dir.join(format!("{node}.key")),
        }
    }

    fn made(cluster: &str, nodes: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path(), &cluster.parse().unwrap(), 10).unwrap();
        for node in nodes {
            certs::node(dir.path(), &node.parse().unwrap(), &[], 1).unwrap();
        }
        dir
    }

    fn load(files: CertificateFiles, cluster: &str, node: &str) -> Result<Tls, TlsError> {
        Tls::load(files, cluster.parse().unwrap(), node.parse().unwrap())
    }

    #[test]
    fn a_certificate_of_somebody_else_is_refused_at_once() {
        let dir = made("c", &["a", "A"]);
        assert!(load(files(dir.path(), "a"), "c", "a").is_ok());
        let problem = |result: Result<Tls, TlsError>| result.err().unwrap().to_string();
        assert!(problem(load(files(dir.path(), "A"), "c", "a")).contains("names rookery://c/A"));
        assert!(problem(load(files(dir.path(), "a"), "d", "a")).contains("this node is rookery://d/a"));
        assert!(problem(load(files(dir.path(), "b"), "c", "b")).contains("b.crt"));
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let (one, two) = (made("c", &["a", "b"]), made("c", &["a"]));
        let mixed = |change: fn(&mut CertificateFiles, &Path)| {
            let mut files = files(one.path(), "a");
            change(&mut files, two.path());
            load(files, "c", "a").err().unwrap().to_string()
        };
        let error = mixed(|files, other| files.authority = other.join("ca.crt"));
        assert!(error.contains("not valid under the cluster's authority"), "{error}");
        assert!(mixed(|files, other| files.key = other.join("a.key")).contains("a.key"));
        assert!(mixed(|files, other| files.key = other.join("a.crt")).contains("a.crt"));
        assert!(mixed(|files, other| files.certificate = other.join("a.key")).contains("no certificate"));
    }

    #[test]
    fn a_change_is_taken_and_a_broken_one_is_not() {
        let (dir, other) = (made("c", &["a"]), made("c", &["a"]));
        let tls = load(files(dir.path(), "a"), "c", "a").unwrap();
        assert!(!tls.reload_if_changed().unwrap());
        let before = tls.current();

        fs::write(dir.path().join("a.crt"), "broken").unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current()));
        assert!(!tls.reload_if_changed().unwrap(), "the same broken file is not complained about again");

        for file in ["ca.crt", "a.crt", "a.key"] {
            fs::rename(other.path().join(file), dir.path().join(file)).unwrap();
        }
        assert!(tls.reload_if_changed().unwrap());
        assert!(!Arc::ptr_eq(&before, &tls.current()));
    }
}
