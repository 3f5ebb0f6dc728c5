//! TLS to the server: what is configured, as the driver wants it. It runs on ring, whatever else is compiled in.

use super::options::{OpenError, Tls};
use std::{fmt::Display, sync::Arc};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What the driver makes connections with.
pub(super) fn config(tls: &Tls) -> Result<Arc<ClientConfig>, OpenError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&tls.authorities, "the authorities")? {
        roots.add(authority).map_err(|error| wrong("the authorities", &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("the provider", &error))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let chain = certificates(certificate, "the client's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("the client's private key", &error))?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map(Arc::new).map_err(|error| wrong("the client's certificate and private key", &error))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(what, &"there is no certificate (PEM)")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(what, &error)),
    }
}

fn wrong(what: &str, error: &dyn Display) -> OpenError {
    OpenError::Tls(format!("{what}: {error}").replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named() {
        for authorities in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let tls = Tls { authorities: authorities.into(), identity: None };
            let error = config(&tls).err().unwrap().to_string();
            assert!(error.contains("the authorities") && !error.contains('\n'), "{error}");
        }
    }
}
