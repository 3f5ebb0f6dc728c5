//! Where a socket to WhatsApp is opened, and only here.

use crate::session::admission::Admission;
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use whatsapp_rust::transport::{
    TokioWebSocketTransportFactory, Transport, TransportEvent, TransportFactory, default_tls_connector,
};

/// How long a reconnect may stand in line. Below the library's own limit for opening a connection (20 s), so
/// that a wait is never mistaken for a network failure.
const PATIENCE: Duration = Duration::from_secs(12);

/// Opens sockets to one endpoint with one shared TLS configuration, as fast as the node may.
pub(super) struct GatedTransport {
    inner: TokioWebSocketTransportFactory,
    admission: Admission,
}

impl GatedTransport {
    pub(super) fn new(url: &str, admission: Admission) -> Self {
        let inner = TokioWebSocketTransportFactory::new().with_url(url).with_connector(default_tls_connector());
        Self { inner, admission }
    }

    /// The factory for one client. Its first socket was admitted when the client was started.
    pub(super) fn factory(self: Arc<Self>) -> ClientTransport {
        ClientTransport { shared: self, first: std::sync::atomic::AtomicBool::new(true) }
    }
}

/// The transport factory of one client.
pub(super) struct ClientTransport {
    shared: Arc<GatedTransport>,
    first: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl TransportFactory for ClientTransport {
    async fn create_transport(
        &self,
    ) -> anyhow::Result<(Arc<dyn Transport>, whatsapp_rust::async_channel::Receiver<TransportEvent>)> {
        if !self.first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            metrics::counter!(crate::metrics::RECONNECTS).increment(1);
            anyhow::ensure!(self.shared.admission.reenter(PATIENCE).await, "too many reconnects at once");
        }
        self.shared.inner.create_transport().await
    }
}

/// An endpoint that this build may not connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    /// No WebSocket address.
    #[error("must be a ws:// or wss:// address")]
    Scheme,
    /// A sandbox build was pointed at something else than a simulator on this machine.
    #[error("this is a sandbox build: it may only connect to a simulator on a loopback address")]
    Host,
    /// A real build was pointed at an unencrypted endpoint.
    #[error("must be a wss:// address")]
    Plain,
}

/// Whether this build may connect to `url`. A sandbox build trusts any certificate, so it must never leave the
/// machine.
pub(crate) fn check_endpoint(url: &str) -> Result<(), EndpointError> {
    let uri: http::Uri = url.parse().map_err(|_| EndpointError::Scheme)?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(EndpointError::Scheme);
    };
    if !matches!(scheme, "ws" | "wss") {
        return Err(EndpointError::Scheme);
    }
    if cfg!(feature = "sandbox") {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        return if loopback { Ok(()) } else { Err(EndpointError::Host) };
    }
    if scheme == "wss" { Ok(()) } else { Err(EndpointError::Plain) }
}

#[cfg(all(test, feature = "sandbox"))]
mod tests {
    use super::check_endpoint;

    #[test]
    fn a_sandbox_build_stays_on_this_machine() {
        for url in ["ws://127.0.0.1:1/ws/chat", "wss://127.8.9.1/ws", "wss://[::1]:4/ws"] {
            assert!(check_endpoint(url).is_ok(), "{url}");
        }
        let others = [
            "wss://web.whatsapp.com/ws/chat",
            "ws://localhost.example.org/",
            "wss://10.0.0.1/",
            "http://127.0.0.1/",
            "x",
        ];
        for url in others {
            assert!(check_endpoint(url).is_err(), "{url}");
        }
    }
}
