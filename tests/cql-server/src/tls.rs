//! Certificates of one test's authority: for its server and for its client.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{fs, net::Ipv4Addr, path::Path};

/// The files that the server reads.
pub(crate) const AUTHORITY: &str = "authority.pem";
pub(crate) const NODE: &str = "node.pem";

/// What a client needs, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: String,
    /// The client's certificate.
    pub certificate: String,
    /// The client's private key.
    pub key: String,
}

impl Certificates {
    /// Makes an authority and what it signs; the server's part goes into files in the folder.
    pub(crate) fn make(addresses: &[Ipv4Addr], dir: &Path) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let (node, node_key) = signed(names, &issuer)?;
        let (certificate, key) = signed(vec!["client".to_owned()], &issuer)?;
        fs::write(dir.join(AUTHORITY), &authority_pem)?;
        fs::write(dir.join(NODE), format!("{node_key}{node}"))?;
        Ok(Self { authority: authority_pem, certificate, key })
    }
}

/// A certificate for these names and addresses, and its private key.
fn signed(names: Vec<String>, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
