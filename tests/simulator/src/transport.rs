//! Listeners: websockets, with or without TLS, and the TLS port for media.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::connection;
use crate::error::StartError;
use crate::world::World;

/// How long to wait when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds a port.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

/// An acceptor with a fresh self-signed certificate for this machine.
pub(crate) fn self_signed() -> Result<TlsAcceptor, StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Certificate(e.to_string());
    let names = vec!["localhost".to_string(), "127.0.0.1".to_string()];
    let certified = rcgen::generate_simple_self_signed(names).map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(|e| failed(&e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .map_err(|e| failed(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts clients until the simulator stops.
pub(crate) async fn accept_clients(world: Arc<World>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    while let Some(socket) = accept(&world, &listener).await {
        if !world.stats.connected(world.config.limits.connections) {
            continue;
        }
        let (client, tls) = (world.clone(), tls.clone());
        world.tasks.spawn(async move {
            serve(&client, socket, tls).await;
            client.stats.disconnected();
        });
    }
}

async fn serve(world: &Arc<World>, socket: TcpStream, tls: Option<TlsAcceptor>) {
    let Some(tls) = tls else {
        return connection::serve(world.clone(), socket).await;
    };
    let handshake = tokio::time::timeout(world.config.handshake_timeout, tls.accept(socket));
    if let Some(Ok(Ok(socket))) = world.stop.run_until_cancelled(handshake).await {
        connection::serve(world.clone(), socket).await;
    } else {
        world.stats.count("closed: no tls");
        tracing::debug!("no TLS handshake");
    }
}

/// Serves media over TLS: bytes go to and from the admin port, which has the routes.
pub(crate) async fn accept_media(world: Arc<World>, listener: TcpListener, tls: TlsAcceptor, admin: SocketAddr) {
    while let Some(socket) = accept(&world, &listener).await {
        let (client, tls) = (world.clone(), tls.clone());
        let timeout = world.config.handshake_timeout;
        world.tasks.spawn(async move {
            let forward = async {
                let mut socket = tokio::time::timeout(timeout, tls.accept(socket)).await??;
                let mut admin = TcpStream::connect(admin).await?;
                copy_bidirectional(&mut socket, &mut admin).await
            };
            if let Some(Err(error)) = client.stop.run_until_cancelled(forward).await {
                tracing::debug!(%error, "media connection ended");
            }
        });
    }
}

/// The next socket; `None` when the simulator stops.
async fn accept(world: &World, listener: &TcpListener) -> Option<TcpStream> {
    loop {
        match world.stop.run_until_cancelled(listener.accept()).await? {
            Ok((socket, _)) => {
                // Stanzas are small and answered at once. Best effort.
                let _ = socket.set_nodelay(true);
                return Some(socket);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                world.stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}
