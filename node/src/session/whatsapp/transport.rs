//! Where a socket to WhatsApp is opened, and only here.

use super::events::Adapter;
use crate::session::admission::Admission;
use anyhow::Context;
use async_trait::async_trait;
use http::{HeaderValue, Uri, header};
use rookery_protocol::{Epoch, NodeId};
use rookery_storage::Gate;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_websockets::ClientBuilder;
use whatsapp_rust::{
    async_channel::Receiver,
    transport::{Connector, Transport, TransportEvent, TransportFactory, default_tls_connector, from_websocket},
    wacore::net::WHATSAPP_WEB_ORIGIN,
};

/// How long a reconnect may stand in line. Below the library's own limit for opening a connection (20 s), so
/// that a wait is never mistaken for a network failure.
const PATIENCE: Duration = Duration::from_secs(12);

/// Opens sockets to one endpoint with one shared TLS configuration, as fast as the node may.
pub(super) struct GatedTransport {
    url: String,
    connector: Connector,
    admission: Admission,
    gate: Arc<dyn Gate>,
}

impl GatedTransport {
    pub(super) fn new(url: &str, admission: Admission, gate: Arc<dyn Gate>) -> Self {
        Self { url: url.to_owned(), connector: default_tls_connector(), admission, gate }
    }

    /// Opens a socket to `url` as the library does, but for [`connect`].
    async fn open(&self, url: &str) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let uri: Uri = url.parse()?;
        let host = uri.host().context("an address without a host")?.trim_start_matches('[').trim_end_matches(']');
        let (connector, port) = match uri.scheme_str() {
            Some("wss") => (&self.connector, 443),
            _ => (&Connector::Plain, 80),
        };
        let stream = connect(host, uri.port_u16().unwrap_or(port)).await?;
        let stream = connector.wrap(host, stream).await?;
        let origin = HeaderValue::from_static(WHATSAPP_WEB_ORIGIN);
        let builder = ClientBuilder::from_uri(uri.clone()).add_header(header::ORIGIN, origin)?;
        let (socket, _) = builder.connect_on(stream).await?;
        Ok(from_websocket(socket))
    }

    /// The factory for one client of this node under this claim. Its first socket was admitted when the client was
    /// started.
    pub(super) fn factory(self: Arc<Self>, adapter: Arc<Adapter>, node: &NodeId, epoch: Epoch) -> ClientTransport {
        let url = address(&self.url, node, epoch);
        ClientTransport { shared: self, url, adapter, first: AtomicBool::new(true) }
    }
}

/// The transport factory of one client.
pub(super) struct ClientTransport {
    shared: Arc<GatedTransport>,
    url: String,
    adapter: Arc<Adapter>,
    first: AtomicBool,
}

#[async_trait]
impl TransportFactory for ClientTransport {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        if !self.first.swap(false, Ordering::Relaxed) {
            metrics::counter!(crate::metrics::RECONNECTS).increment(1);
            anyhow::ensure!(self.shared.admission.reenter(PATIENCE).await, "too many reconnects at once");
        }
        anyhow::ensure!(self.shared.gate.open(), "this node may not act now");
        let opened = self.shared.open(&self.url).await;
        // A process that was stopped while the socket was opened must not log in when it wakes up.
        anyhow::ensure!(self.shared.gate.open(), "this node may not act any more");
        if let Err(error) = &opened {
            self.adapter.unreachable(error);
        }
        opened
    }
}

/// The address that a client dials. A sandbox build states who connects and under which claim, so that the simulator
/// sees a node that acts though it is no longer the owner. WhatsApp is told no such thing.
fn address(url: &str, node: &NodeId, epoch: Epoch) -> String {
    if !cfg!(feature = "sandbox") {
        return url.to_owned();
    }
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}owner={node}&epoch={epoch}")
}

/// A TCP connection that sends what is written at once. Stanzas are small: otherwise each waits until WhatsApp's
/// side has acknowledged the one before, which it delays by up to 40 ms.
async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use super::address;
    use rookery_protocol::{Epoch, NodeId};

    #[test]
    fn only_a_sandbox_build_states_who_connects() {
        let node: NodeId = "node-1".parse().unwrap();
        let dial = |url| address(url, &node, Epoch(7));
        let (plain, with_query) = (dial("wss://127.0.0.1:1/ws/chat"), dial("wss://127.0.0.1:1/ws/chat?x=y"));
        if cfg!(feature = "sandbox") {
            assert_eq!(plain, "wss://127.0.0.1:1/ws/chat?owner=node-1&epoch=7");
            assert_eq!(with_query, "wss://127.0.0.1:1/ws/chat?x=y&owner=node-1&epoch=7");
        } else {
            assert_eq!(
                (plain.as_str(), with_query.as_str()),
                ("wss://127.0.0.1:1/ws/chat", "wss://127.0.0.1:1/ws/chat?x=y")
            );
        }
    }

    #[tokio::test]
    async fn stanzas_do_not_wait_for_each_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = super::connect("127.0.0.1", address.port()).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}

#[cfg(all(test, feature = "sandbox"))]
mod sandbox_tests {
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
