//! Certificates of a cluster, so that an operator needs nothing else to make them: an authority, and one per node.
//!
//! A node's certificate names the node as the URI `rookery://<cluster>/<node>`: node names may differ in case alone,
//! which DNS names cannot. It also has the DNS name [`SERVER_NAME`], the same for every node, and both usages.
//! Certificates of another authority (Vault, cert-manager) work when they have the same.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, string::Ia5String,
};
use rookery_protocol::{NodeId, cluster::ClusterName};
use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use webpki::EndEntityCert;

/// The DNS name in every node's certificate.
pub const SERVER_NAME: &str = "node.rookery.internal";

/// The longest that certificates are made for.
pub const MAX_YEARS: u32 = 50;

const SCHEME: &str = "rookery://";
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Clocks of other machines may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file is there already; it is not overwritten.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not that of an authority made by [`init`].
    #[error("{}: {problem}", path.display())]
    Authority {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An address is neither an IP address nor a DNS name.
    #[error("{0:?} is neither an IP address nor a DNS name")]
    Address(String),
    /// A number of years that makes no sense.
    #[error("years must be 1 to {MAX_YEARS}")]
    Years,
    /// The certificate could not be made.
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The files that were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key: whoever has it is the node, or can make any node.
    pub key: PathBuf,
}

/// How a certificate names a node.
pub fn node_uri(cluster: &ClusterName, node: &NodeId) -> String {
    format!("{SCHEME}{cluster}/{node}")
}

/// The cluster and the node of a URI that [`node_uri`] made.
pub fn parse_node_uri(uri: &str) -> Option<(ClusterName, NodeId)> {
    let (cluster, node) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some((cluster.parse().ok()?, node.parse().ok()?))
}

/// Makes a cluster's authority, `ca.crt` and `ca.key`, in this folder. The key is needed on no node.
pub fn init(dir: &Path, cluster: &ClusterName, years: u32) -> Result<Made, CertsError> {
    let made = names(dir, "ca");
    vacant(&made)?;
    let key = KeyPair::generate()?;
    let mut params = authority(cluster)?;
    (params.not_before, params.not_after) = validity(years)?;
    let certificate = params.self_signed(&key)?;
    keep(dir, &made, &certificate.pem(), &key)?;
    Ok(made)
}

/// Makes a node's certificate, `<node>.crt` and `<node>.key`, by the authority in this folder. `addresses` are IP
/// addresses and DNS names that the certificate has as well; links do not need them.
pub fn node(dir: &Path, node: &NodeId, addresses: &[String], years: u32) -> Result<Made, CertsError> {
    let (made, ca) = (names(dir, node.as_str()), names(dir, "ca"));
    if made == ca {
        return Err(CertsError::Exists(ca.certificate));
    }
    vacant(&made)?;
    let cluster = cluster_of(&ca.certificate)?;
    let issuer_key = KeyPair::from_pem(&read(&ca.key)?)
        .map_err(|error| CertsError::Authority { path: ca.key.clone(), problem: error.to_string() })?;
    let issuer = Issuer::new(authority(&cluster)?, issuer_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    params.subject_alt_names.push(SanType::URI(text(&node_uri(&cluster, node))?));
    params.subject_alt_names.push(SanType::DnsName(text(SERVER_NAME)?));
    for address in addresses {
        params.subject_alt_names.push(alternative(address)?);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = validity(years)?;
    let certificate = params.signed_by(&key, &issuer)?;
    keep(dir, &made, &certificate.pem(), &key)?;
    Ok(made)
}

/// The authority's certificate but for its time; its name is what links a node's certificate to it.
fn authority(cluster: &ClusterName) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, format!("Rookery cluster {cluster}"));
    params.subject_alt_names.push(SanType::URI(text(&format!("{SCHEME}{cluster}"))?));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The cluster whose authority this is, from its certificate.
fn cluster_of(path: &Path) -> Result<ClusterName, CertsError> {
    let wrong = |problem: String| CertsError::Authority { path: path.to_owned(), problem };
    let pem = read(path)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let certificate = EndEntityCert::try_from(&der).map_err(|error| wrong(error.to_string()))?;
    certificate
        .valid_uri_names()
        .find_map(|uri| uri.strip_prefix(SCHEME)?.parse().ok())
        .ok_or_else(|| wrong("names no cluster".into()))
}

fn alternative(address: &str) -> Result<SanType, CertsError> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(1..=253).contains(&address.len()) || !address.chars().all(legal) {
        return Err(CertsError::Address(address.to_owned()));
    }
    Ok(SanType::DnsName(text(address)?))
}

fn text(text: &str) -> Result<Ia5String, CertsError> {
    Ok(Ia5String::try_from(text)?)
}

/// From an hour ago for this many years.
fn validity<T: From<SystemTime>>(years: u32) -> Result<(T, T), CertsError> {
    if !(1..=MAX_YEARS).contains(&years) {
        return Err(CertsError::Years);
    }
    let now = SystemTime::now();
    Ok(((now - CLOCK_SKEW).into(), (now + YEAR * years).into()))
}

fn names(dir: &Path, stem: &str) -> Made {
    Made { certificate: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) }
}

fn vacant(made: &Made) -> Result<(), CertsError> {
    for path in [&made.certificate, &made.key] {
        if path.symlink_metadata().is_ok() {
            return Err(CertsError::Exists(path.clone()));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|error| CertsError::File { path: path.to_owned(), error })
}

/// Writes both files, for the user alone, over none that is there.
fn keep(dir: &Path, made: &Made, certificate: &str, key: &KeyPair) -> Result<(), CertsError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| CertsError::File { path: dir.to_owned(), error })?;
    write_new(&made.key, &key.serialize_pem())?;
    write_new(&made.certificate, certificate).inspect_err(|_| {
        // Made a moment ago by us, and of no use without its certificate.
        let _ = fs::remove_file(&made.key);
    })
}

fn write_new(path: &Path, content: &str) -> Result<(), CertsError> {
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CertsError::Exists(path.to_owned())),
        Err(error) => Err(CertsError::File { path: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cluster() -> ClusterName {
        "c.1".parse().unwrap()
    }

    #[test]
    fn files_are_for_the_user_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("new");
        let ca = init(dir, &cluster(), 10).unwrap();
        let made = node(dir, &"n1".parse().unwrap(), &["10.0.0.1".into(), "n1.example".into()], 1).unwrap();
        for path in [&ca.certificate, &ca.key, &made.certificate, &made.key] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let before = fs::read(&ca.key).unwrap();
        assert!(matches!(init(dir, &cluster(), 10), Err(CertsError::Exists(_))));
        assert!(matches!(node(dir, &"n1".parse().unwrap(), &[], 1), Err(CertsError::Exists(_))));
        assert!(matches!(node(dir, &"ca".parse().unwrap(), &[], 1), Err(CertsError::Exists(_))));
        assert_eq!(fs::read(&ca.key).unwrap(), before);
        fs::remove_file(&made.certificate).unwrap();
        assert!(matches!(node(dir, &"n1".parse().unwrap(), &[], 1), Err(CertsError::Exists(path)) if path == made.key));
    }

    #[test]
    fn what_cannot_be_made_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let n1: NodeId = "n1".parse().unwrap();
        assert!(matches!(node(dir.path(), &n1, &[], 1), Err(CertsError::File { .. })), "no authority");
        assert!(matches!(init(dir.path(), &cluster(), 0), Err(CertsError::Years)));
        assert!(matches!(init(dir.path(), &cluster(), MAX_YEARS + 1), Err(CertsError::Years)));
        init(dir.path(), &cluster(), 1).unwrap();
        assert!(matches!(node(dir.path(), &n1, &["a b".into()], 1), Err(CertsError::Address(_))));
        assert!(!dir.path().join("n1.key").exists());
    }

    #[test]
    fn names_of_nodes_survive_the_certificate() {
        let node: NodeId = "Node_1.x-Y".parse().unwrap();
        assert_eq!(parse_node_uri(&node_uri(&cluster(), &node)), Some((cluster(), node)));
        for uri in ["rookery://c", "rookery://c/", "https://c/n", "rookery://c/n/x", "rookery:///n"] {
            assert_eq!(parse_node_uri(uri), None, "{uri}");
        }
    }
}
