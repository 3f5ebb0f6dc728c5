//! Certificates for tests: good ones, bad ones, and a client that shows any of them.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rookery_cluster::certs;
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// A folder with the certificates of a cluster and of these nodes.
pub(crate) fn cluster(name: &str, nodes: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), &name.parse().unwrap(), 10).unwrap();
    for node in nodes {
        certs::node(dir.path(), &node.parse().unwrap(), &[], 1).unwrap();
    }
    dir
}

/// Makes `<stem>.crt` and `<stem>.key` by the authority of cluster `c` in this folder, with this URI and for this time
/// from now.
pub(crate) fn issue(dir: &Path, stem: &str, uri: &str, age: Duration, left: Option<Duration>) {
    let mut name = CertificateParams::default();
    name.distinguished_name.push(DnType::CommonName, "Rookery cluster c");
    let authority_key = KeyPair::from_pem(&fs::read_to_string(dir.join("ca.key")).unwrap()).unwrap();
    let issuer = Issuer::new(name, authority_key);
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.push(SanType::DnsName(certs::SERVER_NAME.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    params.not_before = (now - age).into();
    params.not_after = left.map_or(now - age / 2, |left| now + left).into();
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join(format!("{stem}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(dir.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
}

/// Connects to a node with TLS as a client that trusts the authority in `dir` and shows the certificate with this stem
/// in the other folder, or none. Answers before the node has judged the certificate.
pub(crate) async fn connect(
    address: &str,
    dir: &Path,
    shows: Option<(&Path, &str)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some((dir, stem)) => {
            let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{stem}.crt"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{stem}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"rookery-link".to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(certs::SERVER_NAME).unwrap(), stream).await
}
