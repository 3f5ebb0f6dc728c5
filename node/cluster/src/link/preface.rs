//! The first words on a connection, before `ractor_cluster` sees it: who are you, and in which versions do we speak?
//!
//! Both sides send a hello of one fixed layout; the accepting side puts its verdict in front, so that a refusal is
//! logged by the dialler too. Layout: 8 bytes of magic, the length of the rest (two bytes), oldest and newest version
//! (two bytes each), incarnation (eight), token (sixteen), node and cluster (a byte of length each). All numbers are
//! big-endian. Later releases may append; what is longer than known is read over.
//!
//! The token is a secret of this one link: whoever gets it puts it in front of its calls, which is how a call's sender
//! is known to be the one whose certificate opened the link.

use super::{Peer, config::Config};
use rookery_protocol::{
    Incarnation,
    cluster::{ClusterName, Versions},
};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"rookery\x01";

/// Longest hello after the magic and the length.
const MAX_HELLO_BYTES: usize = 1024;

const ACCEPTED: u8 = 0;

/// A link's secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token(pub(super) [u8; 16]);

impl Token {
    pub(super) const BYTES: usize = 16;

    pub(super) fn generate() -> Self {
        Self(rand::random())
    }
}

/// What a side says of itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) peer: Peer,
    pub(super) cluster: ClusterName,
    /// What the other side is to put in front of its calls.
    pub(super) token: Token,
}

/// Why a side does not want the link. The numbers are on the wire and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("belongs to another cluster")]
    OtherCluster = 1,
    /// The certificate is another node's.
    #[error("shows a certificate of another node")]
    OtherNode = 2,
    /// It is not among the members, or not yet.
    #[error("is not among the members")]
    Stranger = 3,
    /// Another run of the node is among the members: it is dead, or two nodes have one name.
    #[error("is not the run of this node that is a member")]
    OtherIncarnation = 4,
    /// There is no version of the envelope that both understand.
    #[error("speaks no common version")]
    Version = 5,
    /// It has the name of this very node.
    #[error("has this node's own name")]
    SameName = 6,
    /// The node is stopping.
    #[error("is stopping")]
    Stopping = 7,
    /// The certificate names no node.
    #[error("shows a certificate that names no node")]
    Nameless = 8,
    /// A reason that this release does not know.
    #[error("refused for a reason that this release does not know")]
    Unknown = 255,
}

impl Refusal {
    fn from_byte(byte: u8) -> Self {
        [
            Self::OtherCluster,
            Self::OtherNode,
            Self::Stranger,
            Self::OtherIncarnation,
            Self::Version,
            Self::SameName,
            Self::Stopping,
            Self::Nameless,
        ]
        .into_iter()
        .find(|refusal| *refusal as u8 == byte)
        .unwrap_or(Self::Unknown)
    }
}

impl Hello {
    pub(super) fn of(config: &Config, token: Token) -> Self {
        Self { versions: config.versions, peer: config.me(), cluster: config.cluster.clone(), token }
    }

    fn write(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(192);
        body.extend(self.versions.oldest.to_be_bytes());
        body.extend(self.versions.newest.to_be_bytes());
        body.extend(self.peer.incarnation.0.to_be_bytes());
        body.extend(self.token.0);
        for name in [self.peer.node.as_str(), self.cluster.as_str()] {
            body.push(u8::try_from(name.len()).expect("names have at most 64 characters"));
            body.extend(name.as_bytes());
        }
        let length = u16::try_from(body.len()).expect("two names and four numbers");
        [&MAGIC[..], &length.to_be_bytes(), &body].concat()
    }

    fn read(mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        let versions = Versions { oldest: u16::from_be_bytes(take(body)?), newest: u16::from_be_bytes(take(body)?) };
        let incarnation = Incarnation(u64::from_be_bytes(take(body)?));
        let token = Token(take(body)?);
        let mut name = || {
            let [length] = take(body)?;
            std::str::from_utf8(body.split_off(..usize::from(length))?).ok()
        };
        let node = name()?.parse().ok()?;
        let cluster = name()?.parse().ok()?;
        Some(Self { versions, peer: Peer { node, incarnation }, cluster, token })
    }
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(*first)
}

/// Sends a hello.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    stream.write_all(&hello.write()).await?;
    stream.flush().await
}

/// Receives a hello, reading not a byte more.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "does not speak this protocol"));
    }
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_HELLO_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "hello is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Hello::read(&body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "hello cannot be read"))
}

/// Accepts the dialler.
pub(super) async fn send_verdict(
    stream: &mut (impl AsyncWrite + Unpin),
    verdict: Result<&Hello, Refusal>,
) -> io::Result<()> {
    match verdict {
        Ok(hello) => stream.write_all(&[&[ACCEPTED], &hello.write()[..]].concat()).await?,
        Err(refusal) => {
            stream.write_all(&[refusal as u8]).await?;
            stream.flush().await?;
            return stream.shutdown().await;
        }
    }
    stream.flush().await
}

/// The accepting side's verdict.
pub(super) async fn receive_verdict(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Hello, Refusal>> {
    match stream.read_u8().await? {
        ACCEPTED => receive(stream).await.map(Ok),
        refusal => Ok(Err(Refusal::from_byte(refusal))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: Versions { oldest: 1, newest: 2 },
            peer: Peer { node: "n1".parse().unwrap(), incarnation: Incarnation(5) },
            cluster: "c".parse().unwrap(),
            token: Token([9; 16]),
        }
    }

    /// These bytes are on wires between nodes of different releases.
    #[test]
    fn the_layout_never_changes() {
        let expected =
            [&b"rookery\x01\x00\x21\x00\x01\x00\x02\0\0\0\0\0\0\0\x05"[..], &[9; 16], b"\x02n1\x01c"].concat();
        assert!(hello().write() == expected, "{:02x?}", hello().write());
    }

    #[tokio::test]
    async fn a_hello_is_read_to_its_end_and_no_further() {
        let bytes = [&hello().write()[..], b"next"].concat();
        let mut stream = &bytes[..];
        assert!(receive(&mut stream).await.unwrap() == hello());
        assert_eq!(stream, b"next");
    }

    #[tokio::test]
    async fn what_a_later_release_appends_is_read_over() {
        let mut bytes = hello().write();
        bytes.extend(b"more");
        bytes[9] += 4;
        assert!(receive(&mut &bytes[..]).await.unwrap() == hello());
    }

    #[tokio::test]
    async fn every_cut_and_other_bytes_are_errors() {
        let bytes = hello().write();
        for cut in 0..bytes.len() {
            assert!(receive(&mut &bytes[..cut]).await.is_err(), "{cut}");
        }
        assert!(receive(&mut &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]).await.is_err());
        assert!(receive(&mut &[&MAGIC[..], &[0xff, 0xff], &[0; 2000]].concat()[..]).await.is_err());
        assert!(receive(&mut &[&MAGIC[..], &[0, 4], &[0; 40]].concat()[..]).await.is_err());
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let mut wire = vec![];
        send_verdict(&mut wire, Err(Refusal::Stranger)).await.unwrap();
        assert!(matches!(receive_verdict(&mut &wire[..]).await, Ok(Err(Refusal::Stranger))));
        assert!(matches!(receive_verdict(&mut &[99][..]).await, Ok(Err(Refusal::Unknown))));
    }
}
