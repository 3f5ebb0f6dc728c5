//! What nodes say to each other: one versioned envelope for requests and one for replies.
//!
//! An envelope is its version (two bytes, big-endian) and a body in postcard. Bodies are append-only: a variant that
//! was released keeps its place and its fields for ever, and what is new is a new variant at the end, named in
//! [`Request::since`] or [`Reply::since`]. Two neighbours of a rolling upgrade speak the newest version that both
//! understand ([`Versions::agreed`]), and whoever gets an envelope of another version answers
//! [`Reply::Unsupported`], which every version reads. Nothing here knows how an envelope travels.

use crate::{Epoch, IdError, Incarnation, NodeId, SessionId, UserId};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// The version of the envelope that this build speaks.
pub const PROTOCOL: u16 = 1;

/// The oldest version that this build understands.
pub const OLDEST_PROTOCOL: u16 = 1;

/// The longest request id that is passed on, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The versions of the envelope that a node understands: from `oldest` to `newest`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest version understood.
    pub oldest: u16,
    /// The newest version understood, spoken when the peer understands it too.
    pub newest: u16,
}

impl Versions {
    /// What this build understands.
    pub const OURS: Self = Self { oldest: OLDEST_PROTOCOL, newest: PROTOCOL };

    /// The newest version that both understand; `None` when they have none in common.
    pub fn agreed(self, peer: Self) -> Option<u16> {
        let version = self.newest.min(peer.newest);
        (version >= self.oldest.max(peer.oldest)).then_some(version)
    }

    /// Whether this version is understood.
    pub fn contains(self, version: u16) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// A cluster's name: 1 to 64 letters, digits, `-`, `_` and `.`. Nodes of different clusters never link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<NodeId>().map(|name| Self(name.as_str().to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ClusterName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClusterName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A request with what belongs to every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The id under which both nodes log the request; at most [`MAX_REQUEST_ID_BYTES`].
    pub request_id: String,
    /// How long the caller still waits, in milliseconds from the moment of sending. Relative, so that no clock is
    /// trusted.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: Request,
}

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there? Answered by [`Reply::Pong`].
    Ping,
    /// An API request to be run where the session is. Answered by [`Reply::Http`], [`Reply::NotOwner`],
    /// [`Reply::Moved`] or [`Reply::Frozen`].
    Http(Forwarded),
    /// Take this session over and run it. Answered by [`Reply::Activated`] or [`Reply::NotOwner`].
    Activate {
        /// The session.
        session: SessionId,
        /// Why now.
        reason: ActivateReason,
    },
    /// What runs on you? Answered by [`Reply::Stats`].
    Stats,
    /// Hand over all sessions and stay without. Answered by [`Reply::Draining`].
    Drain,
}

impl Request {
    /// The version of the envelope that brought this request; a peer of an older one is not sent it.
    pub fn since(&self) -> u16 {
        match self {
            Self::Ping | Self::Http(_) | Self::Activate { .. } | Self::Stats | Self::Drain => 1,
        }
    }
}

/// An API request, authenticated and validated by the node that took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The session that the request is about; `None` when it is about the node itself.
    pub session: Option<SessionId>,
    /// Who asks, as the caller's node has established. Credentials are not passed on.
    pub principal: Principal,
    /// The method, in capital letters.
    pub method: String,
    /// Path and query as they were requested.
    pub path: String,
    /// The headers that the request's handler reads. Never `Authorization`.
    pub headers: Vec<Header>,
    /// The body.
    pub body: Bytes,
    /// How many nodes have passed the request on. A node that gets more than it allows answers instead of passing on.
    pub hops: u8,
}

/// The name and the value of an HTTP header.
pub type Header = (String, Bytes);

/// Who has been authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// The user to whom the token belongs.
    User(UserId),
    /// Whoever holds the admin key.
    Admin,
}

/// Why a session is to be activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivateReason {
    /// Its owner has handed it over.
    Move,
    /// Its owner is dead.
    OwnerDead,
    /// A request for it has come and nobody runs it.
    Request,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The envelope's version is not understood; nothing was done. The first of all variants for ever, with these
    /// fields: every version reads it.
    Unsupported {
        /// The oldest version that would have been understood.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
    /// The request was run.
    Http(HttpReply),
    /// The session is not ours; nothing was done.
    NotOwner {
        /// Whose it is, if anybody's.
        owner: Option<(NodeId, Incarnation)>,
        /// The epoch of the newest claim.
        epoch: Epoch,
    },
    /// The session is being handed over; nothing was done.
    Moved {
        /// Who is to take it, when that is known.
        to: Option<NodeId>,
    },
    /// The node's lease has run out and it does not act; nothing was done.
    Frozen,
    /// Too much at once; nothing was done.
    Busy {
        /// When to ask again.
        retry_after_ms: u32,
    },
    /// The session runs here.
    Activated {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// Here.
    Pong(Pong),
    /// What runs here.
    Stats(NodeStats),
    /// The sessions are being handed over.
    Draining {
        /// How many are left.
        sessions: u32,
    },
    /// Nothing of the above.
    Failed(Failure),
}

impl Reply {
    /// The version of the envelope that brought this reply; a peer of an older one is not sent it.
    pub fn since(&self) -> u16 {
        match self {
            Self::Unsupported { .. }
            | Self::Http(_)
            | Self::NotOwner { .. }
            | Self::Moved { .. }
            | Self::Frozen
            | Self::Busy { .. }
            | Self::Activated { .. }
            | Self::Pong(_)
            | Self::Stats(_)
            | Self::Draining { .. }
            | Self::Failed(_) => 1,
        }
    }

    /// Whether this reply says for certain that the request had no effect, so that it can be made again elsewhere.
    pub fn certainly_not_done(&self) -> bool {
        match self {
            Self::Unsupported { .. }
            | Self::NotOwner { .. }
            | Self::Moved { .. }
            | Self::Frozen
            | Self::Busy { .. } => true,
            Self::Failed(failure) => failure.kind.certainly_not_done(),
            Self::Http(_) | Self::Activated { .. } | Self::Pong(_) | Self::Stats(_) | Self::Draining { .. } => false,
        }
    }
}

/// The response to a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpReply {
    /// The status code.
    pub status: u16,
    /// The headers that the client is to see.
    pub headers: Vec<Header>,
    /// The body.
    pub body: Bytes,
}

/// A node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The node's software version.
    pub version: String,
    /// The time on its clock, in milliseconds since 1970: clocks that are apart are an operator's business.
    pub unix_ms: u64,
}

/// What runs on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStats {
    /// The node's software version.
    pub version: String,
    /// Whether its lease has run out.
    pub frozen: bool,
    /// Whether it is handing its sessions over.
    pub draining: bool,
    /// Its share of the sessions relative to other nodes', in percent of the usual one.
    pub weight_percent: u32,
    /// How many sessions it takes at most; `None` without a limit.
    pub capacity: Option<u32>,
    /// How many sessions it has of each status, by the name that the API gives the status.
    pub sessions: Vec<(String, u32)>,
}

/// Why there is no other reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// What an operator may want to know. Never a message's text, a key or a token.
    pub detail: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The request could not be read; nothing was done.
    Malformed,
    /// The sender is no peer of this node, or not over this link; nothing was done.
    Stranger,
    /// The request came after its deadline; nothing was done.
    DeadlinePassed,
    /// The node is stopping; nothing was done.
    Stopping,
    /// The reply is larger than a link carries. The request was run.
    ReplyTooLarge,
    /// Something is broken; the request may have been run in part.
    Internal,
}

impl FailureKind {
    /// Whether a request that failed so has had no effect.
    pub fn certainly_not_done(self) -> bool {
        match self {
            Self::Malformed | Self::Stranger | Self::DeadlinePassed | Self::Stopping => true,
            Self::ReplyTooLarge | Self::Internal => false,
        }
    }
}

/// Why an envelope could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It ends before its version.
    #[error("no envelope")]
    Short,
    /// Its version is not understood.
    #[error("version {0} of the envelope is not understood")]
    Version(u16),
    /// Its body is not what its version says.
    #[error("the envelope's body cannot be read")]
    Body,
}

impl Call {
    /// The envelope of this call in a version that the peer understands.
    pub fn seal(&self, version: u16) -> Vec<u8> {
        self.seal_after(vec![], version)
    }

    /// The same after what a link puts in front of it.
    pub fn seal_after(&self, front: Vec<u8>, version: u16) -> Vec<u8> {
        seal(front, version, self)
    }

    /// Opens an envelope; also answers its version.
    pub fn open(envelope: &[u8], understood: Versions) -> Result<(u16, Self), EnvelopeError> {
        let (version, body) = split(envelope)?;
        if !understood.contains(version) {
            return Err(EnvelopeError::Version(version));
        }
        let call = read(body)?;
        Ok((version, call))
    }
}

impl Reply {
    /// The envelope of this reply in the version of the call that it answers.
    pub fn seal(&self, version: u16) -> Vec<u8> {
        seal(vec![], version, self)
    }

    /// Opens an envelope. [`Reply::Unsupported`] is read in whatever version it comes.
    pub fn open(envelope: &[u8], understood: Versions) -> Result<Self, EnvelopeError> {
        let (version, body) = split(envelope)?;
        if understood.contains(version) {
            return read(body);
        }
        match postcard::take_from_bytes(body) {
            Ok((reply @ Self::Unsupported { .. }, _)) => Ok(reply),
            _ => Err(EnvelopeError::Version(version)),
        }
    }
}

fn seal<T: Serialize>(mut front: Vec<u8>, version: u16, body: &T) -> Vec<u8> {
    front.extend(version.to_be_bytes());
    postcard::to_extend(body, front).expect("plain data in memory is always serialised")
}

fn split(envelope: &[u8]) -> Result<(u16, &[u8]), EnvelopeError> {
    let (version, body) = envelope.split_first_chunk::<2>().ok_or(EnvelopeError::Short)?;
    Ok((u16::from_be_bytes(*version), body))
}

/// Reads a body to its end: what follows it would be a version's own addition, and those are told by the version.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, EnvelopeError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(EnvelopeError::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> SessionId {
        SessionId::from_bytes(std::array::from_fn(|i| i as u8))
    }

    fn forwarded() -> Forwarded {
        Forwarded {
            session: Some(session()),
            principal: Principal::User(UserId::from_bytes([7; 16])),
            method: "POST".into(),
            path: "/a?b=1".into(),
            headers: vec![("x".into(), Bytes::from_static(b"\xffy"))],
            body: Bytes::from_static(b"{}"),
            hops: 1,
        }
    }

    fn requests() -> Vec<Request> {
        vec![
            Request::Ping,
            Request::Http(forwarded()),
            Request::Activate { session: session(), reason: ActivateReason::OwnerDead },
            Request::Stats,
            Request::Drain,
        ]
    }

    fn replies() -> Vec<Reply> {
        let body = Bytes::from_static(b"ok");
        vec![
            Reply::Unsupported { oldest: 1, newest: 300 },
            Reply::Http(HttpReply { status: 200, headers: vec![("a".into(), body.clone())], body }),
            Reply::NotOwner { owner: Some(("n1".parse().unwrap(), Incarnation(9))), epoch: Epoch(3) },
            Reply::Moved { to: Some("n2".parse().unwrap()) },
            Reply::Frozen,
            Reply::Busy { retry_after_ms: 1000 },
            Reply::Activated { epoch: Epoch(4) },
            Reply::Pong(Pong { version: "0.1.0".into(), unix_ms: 1 << 40 }),
            Reply::Stats(NodeStats {
                version: "0.1.0".into(),
                frozen: false,
                draining: true,
                weight_percent: 100,
                capacity: Some(1000),
                sessions: vec![("WORKING".into(), 12)],
            }),
            Reply::Draining { sessions: 5 },
            Reply::Failed(Failure { kind: FailureKind::Internal, detail: "x".into() }),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// These bytes are on wires between nodes of different releases: a change here breaks rolling upgrades.
    #[test]
    fn the_bytes_of_version_1_never_change() {
        let calls: Vec<String> = requests()
            .into_iter()
            .map(|request| hex(&Call { request_id: "r".into(), deadline_ms: 5000, request }.seal(1)))
            .collect();
        assert_eq!(calls, GOLDEN_CALLS);
        let replies: Vec<String> = replies().iter().map(|reply| hex(&reply.seal(1))).collect();
        assert_eq!(replies, GOLDEN_REPLIES);
    }

    #[test]
    fn what_was_sealed_is_what_is_opened() {
        for request in requests() {
            let call = Call { request_id: "r".into(), deadline_ms: u32::MAX, request };
            assert_eq!(Call::open(&call.seal(1), Versions::OURS), Ok((1, call)));
        }
        for reply in replies() {
            assert_eq!(Reply::open(&reply.seal(1), Versions::OURS), Ok(reply));
        }
    }

    /// A made-up release that has appended to version 1.
    mod version_2 {
        use super::*;

        pub(super) const VERSIONS: Versions = Versions { oldest: 1, newest: 2 };

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct Call {
            pub(super) request_id: String,
            pub(super) deadline_ms: u32,
            pub(super) request: Request,
        }

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        pub(super) enum Request {
            Ping,
            Http(Forwarded),
            Activate { session: SessionId, reason: ActivateReason },
            Stats,
            Drain,
            Rename { to: String },
        }
    }

    #[test]
    fn neighbouring_versions_understand_each_other() {
        let agreed = Versions::OURS.agreed(version_2::VERSIONS).unwrap();
        assert_eq!(agreed, 1);

        // The newer speaks the agreed version, and the older reads it.
        let call =
            version_2::Call { request_id: "r".into(), deadline_ms: 1, request: version_2::Request::Http(forwarded()) };
        let (version, opened) = Call::open(&seal(vec![], agreed, &call), Versions::OURS).unwrap();
        assert_eq!((version, opened.request), (1, Request::Http(forwarded())));

        // The older speaks its own, and the newer reads it.
        for (old, new) in requests().into_iter().zip([
            version_2::Request::Ping,
            version_2::Request::Http(forwarded()),
            version_2::Request::Activate { session: session(), reason: ActivateReason::OwnerDead },
            version_2::Request::Stats,
            version_2::Request::Drain,
        ]) {
            let envelope = Call { request_id: "r".into(), deadline_ms: 1, request: old }.seal(agreed);
            let (_, body) = split(&envelope).unwrap();
            assert_eq!(read::<version_2::Call>(body).unwrap().request, new);
        }
    }

    #[test]
    fn an_envelope_of_the_future_is_told_from_a_broken_one() {
        let call = version_2::Call {
            request_id: "r".into(),
            deadline_ms: 1,
            request: version_2::Request::Rename { to: "x".into() },
        };
        assert_eq!(Call::open(&seal(vec![], 2, &call), Versions::OURS), Err(EnvelopeError::Version(2)));
        assert_eq!(Call::open(&seal(vec![], 1, &call), Versions::OURS), Err(EnvelopeError::Body));
        assert_eq!(Call::open(&[1], Versions::OURS), Err(EnvelopeError::Short));
        let refusal = Reply::Unsupported { oldest: 1, newest: 1 };
        let future = Versions { oldest: 5, newest: 6 };
        assert_eq!(Reply::open(&refusal.seal(1), future), Ok(refusal));
        assert_eq!(Reply::open(&Reply::Frozen.seal(1), future), Err(EnvelopeError::Version(1)));
    }

    #[test]
    fn versions_agree_on_the_newest_in_common_or_not_at_all() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 1).agreed(versions(1, 2)), Some(1));
        assert_eq!(versions(2, 3).agreed(versions(1, 2)), Some(2));
        assert_eq!(versions(1, 3).agreed(versions(2, 4)), Some(3));
        assert_eq!(versions(1, 1).agreed(versions(2, 2)), None);
        assert_eq!(versions(3, 4).agreed(versions(1, 2)), None);
    }

    #[test]
    fn nothing_is_newer_than_the_version_spoken() {
        assert!(requests().iter().all(|request| (OLDEST_PROTOCOL..=PROTOCOL).contains(&request.since())));
        assert!(replies().iter().all(|reply| (OLDEST_PROTOCOL..=PROTOCOL).contains(&reply.since())));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Call::open(&bytes, Versions::OURS);
            let _ = Reply::open(&bytes, Versions::OURS);
            let mut known = vec![0, 1];
            known.extend(bytes);
            let _ = Call::open(&known, Versions::OURS);
            let _ = Reply::open(&known, Versions::OURS);
        }

        #[test]
        fn a_cut_envelope_is_refused(cut in 0usize..60) {
            let envelope = Call { request_id: "r".into(), deadline_ms: 9, request: Request::Http(forwarded()) }.seal(1);
            prop_assume!(cut < envelope.len());
            prop_assert!(Call::open(&envelope[..cut], Versions::OURS).is_err());
        }
    }

    const GOLDEN_CALLS: [&str; 5] = [
        "00010172882700",
        "000101728827010110000102030405060708090a0b0c0d0e0f00100707070707070707070707070707070704504f5354062f613f623d3101017802ff79027b7d01",
        "0001017288270210000102030405060708090a0b0c0d0e0f01",
        "00010172882703",
        "00010172882704",
    ];

    const GOLDEN_REPLIES: [&str; 11] = [
        "00010001ac02",
        "000101c801010161026f6b026f6b",
        "00010201026e310903",
        "00010301026e32",
        "000104",
        "000105e807",
        "00010604",
        "00010705302e312e30808080808020",
        "00010805302e312e3000016401e8070107574f524b494e470c",
        "00010905",
        "00010a050178",
    ];
}
