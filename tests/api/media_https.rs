//! Files fetched over https: whom the gateway trusts, and what it says of those whom it does not.

use crate::{
    hosts::{Host, Reply, picture},
    media::{MEDIA, body, linked_with},
    node::{rookery, run_to_end},
    world::{FRIEND, sent},
};
use image::ImageFormat;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// An authority, and the file with its certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("roots.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// A server's side of TLS with a certificate for this name, which ends with the year before `year`.
    fn server(&self, name: &str, year: i32) -> TlsAcceptor {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_to_be_trusted_valid_and_for_this_host() {
    let (ours, strange) = (Authority::new(), Authority::new());
    let good = Host::start_tls(ours.server("127.0.0.1", 2100)).await;
    let bad = [
        ("unknown authority", Host::start_tls(strange.server("127.0.0.1", 2100)).await),
        ("another name", Host::start_tls(ours.server("files.example.org", 2100)).await),
        ("expired", Host::start_tls(ours.server("127.0.0.1", 2021)).await),
        ("no TLS at all", Host::start().await),
    ];
    let hosts: Vec<_> = bad.iter().map(|(_, host)| host.name()).chain([good.name()]).collect();
    let (allowed, roots) = (format!("{hosts:?}"), ours.file());
    let settings =
        [("ROOKERY_MEDIA__ALLOW_HOSTS", allowed.as_str()), ("ROOKERY_MEDIA__EXTRA_ROOTS", roots.to_str().unwrap())];
    let (world, session) = crate::world::World::linked(&settings).await;
    let file = picture(ImageFormat::Png, 40, 40);
    let url = good.file("/a.png", &file);
    assert!(url.starts_with("https://"));
    let id = sent(world.client.post(MEDIA, &body(&session, "image", &url)).await);
    world.arrived(FRIEND, &id).await;
    let message = world.message_where(&session, &id, |message| message["media"]["url"].is_string()).await;
    assert_eq!(world.client.get(message["media"]["url"].as_str().unwrap()).await.expect(200).bytes, file);
    for (why, host) in &bad {
        host.file("/a.png", &file);
        let url = format!("https://{}/a.png", host.name());
        let answer = world.client.post(MEDIA, &body(&session, "image", &url)).await;
        assert_eq!((answer.status, host.asked("/a.png")), (502, 0), "{why}: {}", answer.body);
        answer.error(502, "media_fetch_failed");
        // A redirect is no way around it.
        let around = good.put("/around", Reply::Redirect(url));
        world.client.post(MEDIA, &body(&session, "image", &around)).await.error(502, "media_fetch_failed");
    }
    assert_eq!(world.client.history(&session).await.len(), 1);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_told_to_no_private_authority_is_trusted() {
    let ours = Authority::new();
    let host = Host::start_tls(ours.server("127.0.0.1", 2100)).await;
    let (world, session) = linked_with(&host, &[]).await;
    let url = host.file("/a.png", &picture(ImageFormat::Png, 40, 40));
    world.client.post(MEDIA, &body(&session, "image", &url)).await.error(502, "media_fetch_failed");
    assert_eq!(host.asked("/a.png"), 0);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_roots_that_is_none_stops_the_start() {
    let folder = TempDir::new().unwrap();
    let (empty, broken) = (folder.path().join("empty"), folder.path().join("broken"));
    std::fs::write(&empty, "no certificate").unwrap();
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for file in [empty, broken, folder.path().join("missing")] {
        let mut command = rookery(&[
            ("ROOKERY_WHATSAPP__URL", "ws://127.0.0.1:9/ws/chat"),
            ("ROOKERY_API__LISTEN", "127.0.0.1:0"),
            ("ROOKERY_MEDIA__EXTRA_ROOTS", file.to_str().unwrap()),
        ]);
        command.env("ROOKERY_NODE__DATA_DIR", folder.path().join("data"));
        let ended = run_to_end(command).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("media.extra_roots"), "{ended:?}");
    }
}
