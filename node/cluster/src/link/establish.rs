//! From a TCP connection to a link: handshake, preface, verdict, and the hand-over to `ractor_cluster`.

use super::{
    Peer, Refusal,
    config::{Config, PeerAddress},
    preface::{self, Hello, Token},
    shared::Shared,
    table::{Link, LinkNumber},
    tls::{self, Identity},
    transport::{Duplex, Transport},
};
use ractor_cluster::NodeServerMessage;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// How long the end of the link before may take.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// The peer's address does not answer.
    #[error("cannot be reached: {0}")]
    Connect(io::Error),
    /// Without certificates only loopback addresses are spoken to.
    #[error("{0} is not a loopback address, and there are no certificates")]
    NotLoopback(SocketAddr),
    /// There was no TLS handshake, or a certificate is not accepted.
    #[error("{0}")]
    Tls(String),
    /// There was no greeting.
    #[error("did not greet: {0}")]
    Preface(io::Error),
    /// We do not want it.
    #[error("{0}")]
    Refused(Refusal),
    /// It does not want us.
    #[error("refuses this node, which it says {0}")]
    RefusedBy(Refusal),
    /// It took too long.
    #[error("handshake took too long")]
    Timeout,
    /// A newer handshake needed the room.
    #[error("made room for newer handshakes")]
    Evicted,
    /// The link before it does not end.
    #[error("the link before does not end")]
    NotReplaced,
    /// It ended before it was a link.
    #[error("connection ended before it was ready")]
    Lost,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

impl LinkFailure {
    /// Whether it is nothing to worry about: members learn of each other one by one, and nodes stop.
    pub(super) fn is_expected(&self) -> bool {
        matches!(
            self,
            Self::Stopping | Self::Refused(Refusal::Stranger) | Self::RefusedBy(Refusal::Stranger | Refusal::Stopping)
        )
    }
}

/// A connection whose two sides know and want each other.
pub(super) struct Established {
    stream: Box<dyn Duplex>,
    remote: SocketAddr,
    dialled: bool,
    version: u16,
    token: Token,
    hello: Hello,
}

/// What proves who the peer is.
enum Proof {
    /// Nothing is asked for.
    None,
    /// Its certificate, and whom that names.
    Certificate(Option<Identity>),
}

/// The accepting side's handshake, without a deadline of its own.
pub(super) async fn accepted(
    shared: &Shared,
    stream: TcpStream,
    remote: SocketAddr,
) -> Result<Established, LinkFailure> {
    stream.set_nodelay(true).map_err(LinkFailure::Connect)?;
    let (mut stream, proof): (Box<dyn Duplex>, _) = match &shared.tls {
        None if !remote.ip().is_loopback() => return Err(LinkFailure::NotLoopback(remote)),
        None => (Box::new(stream), Proof::None),
        Some(tls) => {
            let (stream, identity) = tls.accept(stream).await.map_err(|error| handshake_failed(&error))?;
            (Box::new(stream), Proof::Certificate(identity))
        }
    };
    let hello = preface::receive(&mut stream).await.map_err(failed)?;
    let token = Token::generate();
    match judge(shared, &hello, &proof) {
        Ok(version) => {
            let ours = Hello::of(&shared.config, token);
            preface::send_verdict(&mut stream, Ok(&ours)).await.map_err(failed)?;
            Ok(Established { stream, remote, dialled: false, version, token, hello })
        }
        Err(refusal) => {
            // What it hears of it is for its log; ours says it in any case.
            let _ = preface::send_verdict(&mut stream, Err(refusal)).await;
            shared.note_refused(&hello.peer, refusal);
            Err(LinkFailure::Refused(refusal))
        }
    }
}

/// The dialling side's handshake, without a deadline of its own.
pub(super) async fn dialled(
    shared: &Shared,
    stream: TcpStream,
    member: &PeerAddress,
) -> Result<Established, LinkFailure> {
    let remote = stream.peer_addr().map_err(LinkFailure::Connect)?;
    stream.set_nodelay(true).map_err(LinkFailure::Connect)?;
    let (mut stream, proof): (Box<dyn Duplex>, _) = match &shared.tls {
        None => (Box::new(stream), Proof::None),
        Some(tls) => {
            let (stream, identity) = tls.connect(stream).await.map_err(|error| handshake_failed(&error))?;
            (Box::new(stream), Proof::Certificate(identity))
        }
    };
    let token = Token::generate();
    preface::send(&mut stream, &Hello::of(&shared.config, token)).await.map_err(failed)?;
    let hello = preface::receive_verdict(&mut stream).await.map_err(failed)?.map_err(LinkFailure::RefusedBy)?;
    if hello.peer.node != member.node {
        return Err(LinkFailure::Refused(Refusal::OtherNode));
    }
    let version = judge(shared, &hello, &proof).map_err(LinkFailure::Refused)?;
    Ok(Established { stream, remote, dialled: true, version, token, hello })
}

/// What went wrong in the TLS handshake.
fn handshake_failed(error: &io::Error) -> LinkFailure {
    match tls::explain(error) {
        Some(reason) => LinkFailure::Tls(reason),
        // Whoever only looks whether the port is open: probes of peers, load balancers.
        None if error.kind() == io::ErrorKind::UnexpectedEof => LinkFailure::Lost,
        None => LinkFailure::Tls(format!("no TLS handshake: {error}")),
    }
}

/// What went wrong after it: the peer's opinion of our certificate comes only then.
fn failed(error: io::Error) -> LinkFailure {
    match tls::explain(&error) {
        Some(reason) => LinkFailure::Tls(reason),
        None if error.kind() == io::ErrorKind::UnexpectedEof => LinkFailure::Lost,
        None => LinkFailure::Preface(error),
    }
}

fn judge(shared: &Shared, hello: &Hello, proof: &Proof) -> Result<u16, Refusal> {
    if shared.stopping.is_cancelled() {
        return Err(Refusal::Stopping);
    }
    verdict(&shared.config, &shared.view.borrow(), hello, proof)
}

/// Whether a peer is wanted, and in which version it is spoken to.
fn verdict(config: &Config, members: &[PeerAddress], hello: &Hello, proof: &Proof) -> Result<u16, Refusal> {
    if let Proof::Certificate(identity) = proof {
        let identity = identity.as_ref().ok_or(Refusal::Nameless)?;
        if identity.cluster != config.cluster {
            return Err(Refusal::OtherCluster);
        }
        if identity.node != hello.peer.node {
            return Err(Refusal::OtherNode);
        }
    }
    if hello.cluster != config.cluster {
        return Err(Refusal::OtherCluster);
    }
    if hello.peer.node == config.node {
        return Err(Refusal::SameName);
    }
    let version = config.versions.agreed(hello.versions).ok_or(Refusal::Version)?;
    match members.iter().find(|member| member.node == hello.peer.node) {
        None => Err(Refusal::Stranger),
        Some(member) if member.incarnation != hello.peer.incarnation => Err(Refusal::OtherIncarnation),
        Some(_) => Ok(version),
    }
}

/// Gives an established connection to `ractor_cluster`, once the link before it has ended, and waits until it carries
/// calls.
pub(super) async fn bring_up(shared: &Shared, established: Established) -> Result<Peer, LinkFailure> {
    let peer = established.hello.peer.clone();
    let number = hand_over(shared, established).await?;
    let mut changes = shared.changes();
    let settled = async {
        loop {
            changes.borrow_and_update();
            match shared.table().get(number) {
                None => return Err(LinkFailure::Lost),
                Some(link) if link.up_since().is_some() => return Ok(()),
                Some(_) => {}
            }
            if changes.changed().await.is_err() {
                return Err(LinkFailure::Stopping);
            }
        }
    };
    if let Ok(result) = timeout(shared.config.limits.handshake, settled).await {
        return result.map(|()| peer);
    }
    shared.table().end(number, "not ready in time");
    Err(LinkFailure::Timeout)
}

async fn hand_over(shared: &Shared, established: Established) -> Result<LinkNumber, LinkFailure> {
    let Established { stream, remote, dialled, version, token, hello } = established;
    let tokens = (token, hello.token);
    let mut link = Box::new(Link::new(hello.peer, remote, version, tokens, shared.budget()));
    let notes = link.notes.clone();
    let mut changes = shared.changes();
    let deadline = Instant::now() + REPLACE_TIMEOUT;
    let number = loop {
        changes.borrow_and_update();
        let inserted = shared.table().insert(link);
        match inserted {
            Ok(number) => break number,
            Err(back) => link = back,
        }
        if timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(LinkFailure::NotReplaced);
        }
    };
    let transport = Transport { stream, idle: shared.config.limits.read_idle, notes, label: number.to_string() };
    let opened = NodeServerMessage::ConnectionOpenedExternal { stream: Box::new(transport), is_server: !dialled };
    if shared.node_server.cast(opened).is_err() {
        shared.table().remove(number);
        return Err(LinkFailure::Stopping);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::config::sample;
    use rookery_protocol::{Incarnation, NodeId, cluster::Versions};

    fn hello() -> Hello {
        Hello {
            versions: Versions::OURS,
            peer: Peer { node: "b".parse().unwrap(), incarnation: Incarnation(2) },
            cluster: "c".parse().unwrap(),
            token: Token::generate(),
        }
    }

    fn certificate(cluster: &str, node: &str) -> Proof {
        Proof::Certificate(Some(Identity { cluster: cluster.parse().unwrap(), node: node.parse().unwrap() }))
    }

    fn members() -> Vec<PeerAddress> {
        [("a", 1), ("b", 2)]
            .map(|(node, incarnation)| PeerAddress {
                node: node.parse::<NodeId>().unwrap(),
                incarnation: Incarnation(incarnation),
                address: String::new(),
            })
            .to_vec()
    }

    #[test]
    fn a_member_with_its_own_certificate_is_wanted() {
        assert_eq!(verdict(&sample(), &members(), &hello(), &certificate("c", "b")), Ok(1));
        assert_eq!(verdict(&sample(), &members(), &hello(), &Proof::None), Ok(1));
    }

    #[test]
    fn everybody_else_is_told_why_not() {
        let refused = |hello: Hello, proof: Proof| verdict(&sample(), &members(), &hello, &proof).unwrap_err();
        let of = |node: &str, incarnation| Hello {
            peer: Peer { node: node.parse().unwrap(), incarnation: Incarnation(incarnation) },
            ..hello()
        };
        assert_eq!(refused(hello(), Proof::Certificate(None)), Refusal::Nameless);
        assert_eq!(refused(hello(), certificate("d", "b")), Refusal::OtherCluster);
        assert_eq!(refused(hello(), certificate("c", "B")), Refusal::OtherNode);
        assert_eq!(refused(of("B", 2), certificate("c", "b")), Refusal::OtherNode);
        let other = Hello { cluster: "d".parse().unwrap(), ..hello() };
        assert_eq!(refused(other, certificate("c", "b")), Refusal::OtherCluster);
        assert_eq!(refused(of("a", 2), certificate("c", "a")), Refusal::SameName);
        assert_eq!(refused(of("b", 3), certificate("c", "b")), Refusal::OtherIncarnation);
        assert_eq!(refused(of("x", 3), certificate("c", "x")), Refusal::Stranger);
        let future = Hello { versions: Versions { oldest: 2, newest: 3 }, ..hello() };
        assert_eq!(refused(future, certificate("c", "b")), Refusal::Version);
    }
}
