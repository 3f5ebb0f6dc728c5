//! How values are stored: one byte that is the version of the row's format, then the row in postcard.
//!
//! Postcard has no field names. A row gains fields only at its end, each an option and each with a version of its own,
//! so that a row of an older version is one that ends with as many absent fields. The tests pin the bytes of every row,
//! so that no format changes by accident.

use crate::{
    ChatRow, ContactRow, EarlyRow, HistoryRow, HistorySyncRow, NodeRow, OutboxRow, Owner, ParticipantRow, SendRecord,
    SessionRow, StoreError, TokenRow, search::IndexState,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The first version of every format, and the version of values that are opaque or empty.
pub(crate) const VERSION: u8 = 1;

/// How postcard writes an option that is absent.
const ABSENT: u8 = 0;

/// A row that is stored.
pub(crate) trait Row: Serialize + DeserializeOwned {
    /// Its name in errors.
    const NAME: &'static str;
    /// The version of its format.
    const VERSION: u8;
}

macro_rules! rows {
    ($($row:ty => $name:literal, $version:expr);* $(;)?) => {
        $(impl Row for $row {
            const NAME: &'static str = $name;
            const VERSION: u8 = $version;
        })*
    };
}

rows! {
    Format => "format", VERSION;
    TokenRow => "token", VERSION;
    SessionRow => "session", VERSION;
    Owner => "owner", VERSION;
    NodeRow => "node", VERSION;
    // 2: `file`.
    OutboxRow => "outbox row", 2;
    SendRecord => "idempotency record", VERSION;
    // 2: `file`. 3: `shape`.
    HistoryRow => "message", 3;
    Place => "message index", VERSION;
    ContactRow => "contact", VERSION;
    ChatRow => "chat", VERSION;
    HistorySyncRow => "history sync", VERSION;
    EarlyRow => "early row", VERSION;
    ParticipantRow => "receipt", VERSION;
    IndexState => "state of the index", VERSION;
}

/// The format of the whole database, as a row of its own: it proves that the journal was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format(pub(crate) u32);

/// Where in its session's history a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place(pub(crate) u64);

/// The stored form of a row.
pub(crate) fn encode<R: Row>(row: &R) -> Vec<u8> {
    postcard::to_extend(row, vec![R::VERSION]).expect("rows have lengths that are known beforehand")
}

/// A row from its stored form.
pub(crate) fn decode<R: Row>(stored: &[u8]) -> Result<R, StoreError> {
    let corrupt = |detail| StoreError::Corrupt { what: R::NAME, detail };
    let (version, bytes) = stored.split_first().ok_or_else(|| corrupt("it is empty".to_owned()))?;
    let newer = match *version {
        version if version == R::VERSION => Vec::new(),
        version if (VERSION..R::VERSION).contains(&version) => {
            [bytes, &vec![ABSENT; usize::from(R::VERSION - version)]].concat()
        }
        version => return Err(corrupt(format!("format {version} is not known"))),
    };
    let bytes = if newer.is_empty() { bytes } else { &newer };
    let (row, rest) = postcard::take_from_bytes(bytes).map_err(|error| corrupt(error.to_string()))?;
    if rest.is_empty() { Ok(row) } else { Err(corrupt(format!("{} bytes too long", rest.len()))) }
}

/// The same, of the row with this key, which an error names.
pub(crate) fn decode_at<R: Row>(key: &[u8], stored: &[u8]) -> Result<R, StoreError> {
    decode(stored).map_err(|error| named(key, error))
}

/// An error with the key of the row that it is about.
fn named(key: &[u8], error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what, detail } => {
            let key = key.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            StoreError::Corrupt { what, detail: format!("{detail}; its key is {key}") }
        }
        other => other,
    }
}

/// The stored form of bytes that mean nothing here.
pub(crate) fn wrap(bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(bytes.len() + 1);
    stored.push(VERSION);
    stored.extend_from_slice(bytes);
    stored
}

/// What [`wrap`] was given.
pub(crate) fn strip<'a>(stored: &'a [u8], what: &'static str) -> Result<&'a [u8], StoreError> {
    match stored.split_first() {
        Some((&VERSION, bytes)) => Ok(bytes),
        Some((version, _)) => Err(StoreError::Corrupt { what, detail: format!("format {version} is not known") }),
        None => Err(StoreError::Corrupt { what, detail: "it is empty".to_owned() }),
    }
}

/// The same, of the row with this key, which an error names.
pub(crate) fn strip_at<'a>(key: &[u8], stored: &'a [u8], what: &'static str) -> Result<&'a [u8], StoreError> {
    strip(stored, what).map_err(|error| named(key, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LastMessage, MediaFile, Mute, NodeStatus, WaitingChunk};
    use proptest::prelude::*;
    use rookery_protocol::{
        Epoch, Incarnation, Jid, SessionId, Timestamp, TokenId, UserId,
        api::{Media, MediaShape, MessageType, Reaction, SessionStatus, StatusChange},
    };
    use std::fmt::Debug;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn message() -> HistoryRow {
        let (id, chat) = ("3EB0".parse().unwrap(), jid("15550@s.whatsapp.net"));
        HistoryRow {
            sort_key: 5 << 20 | 7,
            sender: Some(jid("1@lid")),
            text: Some("text".to_owned()),
            media: Some(Media {
                mime_type: Some("a/b".to_owned()),
                size: Some(300),
                file_name: None,
                sha256: None,
                url: None,
            }),
            reply_to: Some("A".parse().unwrap()),
            delivered_at: Some(at(6)),
            reactions: vec![Reaction { sender: jid("1@lid"), emoji: "x".to_owned(), timestamp: at(1) }],
            ..HistoryRow::new(id, chat, MessageType::Undecryptable, at(5))
        }
    }

    fn file() -> MediaFile {
        MediaFile {
            direct_path: Some("/v".to_owned()),
            media_key: Some(vec![5; 2].into()),
            sha256: vec![6; 2].into(),
            encrypted_sha256: None,
            length: 300,
        }
    }

    fn session() -> SessionRow {
        SessionRow {
            session_id: SessionId::from_bytes([1; 16]),
            device: Some("15550:3".parse().unwrap()),
            connected_at: Some(at(2)),
            statuses: vec![StatusChange { status: SessionStatus::Failed, at: at(3) }],
            ..SessionRow::new(UserId::from_bytes([2; 16]), "n", at(1))
        }
    }

    /// The stored form, which must be these bytes, and from which the row must come back.
    fn pinned<R: Row + Debug + PartialEq>(row: &R, expected: &str) {
        let stored = encode(row);
        let hex = stored.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hex, expected, "the format of a stored {} has changed; it needs a new version", R::NAME);
        assert_eq!(decode::<R>(&stored).unwrap(), *row);
    }

    /// The stored form of an older version, from which the row must come back.
    fn older<R: Row + Debug + PartialEq>(row: &R, stored: &str) {
        let digits = stored.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let stored: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        assert!(stored[0] < R::VERSION);
        assert_eq!(decode::<R>(&stored).unwrap(), *row, "a {} of format {}", R::NAME, stored[0]);
        let cut = &stored[..stored.len() - 1];
        assert!(matches!(decode::<R>(cut), Err(StoreError::Corrupt { .. })), "a cut {}", R::NAME);
    }

    #[test]
    fn formats_are_pinned() {
        pinned(&Format(1), "0101");
        pinned(&Place(300), "01ac02");
        let node = Some(("n".parse().unwrap(), Incarnation(9)));
        pinned(&Owner { epoch: Epoch(3), node }, "010301016e09");
        let node = NodeRow {
            node: "n".parse().unwrap(),
            incarnation: Incarnation(9),
            seq: 300,
            status: NodeStatus::Dead,
            link_address: "l".to_owned(),
            api_address: "a".to_owned(),
            weight: 1,
            protocol: 2,
            version: "v".to_owned(),
            started_at: at(1),
        };
        pinned(&node, "01016e09ac0202016c01610102017680897a");
        let token = TokenRow {
            id: TokenId::from_bytes([1; 16]),
            user_id: UserId::from_bytes([2; 16]),
            name: "n".to_owned(),
            hash: [3; 32],
            created_at: at(1),
        };
        pinned(
            &token,
            "0110010101010101010101010101010101011002020202020202020202020202020202016e0303030303030303\
             03030303030303030303030303030303030303030303030380897a",
        );
        pinned(
            &session(),
            "0110010101010101010101010101010101011002020202020202020202020202020202016e0101073135353530\
             3a33000080897a018092f401000108809bee02",
        );
        let outbox = OutboxRow {
            seq: 1,
            message_id: "A".parse().unwrap(),
            chat: jid("1@lid"),
            payload: vec![1, 2].into(),
            accepted_at: at(1),
            sort_key: 2,
            file: Some([3; 16]),
        };
        pinned(&outbox, "020101410531406c696402010280897a020103030303030303030303030303030303");
        let first = "010101410531406c696402010280897a02";
        older(&OutboxRow { file: None, ..outbox }, first);
        let record = SendRecord {
            request_hash: [4; 32],
            message_id: "A".parse().unwrap(),
            to: "1".to_owned(),
            chat: jid("1@lid"),
            accepted_at: at(1),
            sort_key: 2,
        };
        pinned(
            &record,
            "010404040404040404040404040404040404040404040404040404040404040404014101310531406c69648089\
             7a02",
        );
        let first = "018780c002043345423014313535353040732e77686174736170702e6e6574010531406c6964000a0104746578\
                     7400010103612f6201ac0200000001014180ade204000180b6dc050000000000010531406c6964017880897a";
        older(&message(), first);
        let rest = &first[2..];
        older(&message(), &format!("02{rest}00"));
        pinned(&message(), &format!("03{rest}0000"));
        let with_file = HistoryRow { file: Some(file()), ..message() };
        let file = "0101022f760102050502060600ac02";
        older(&with_file, &format!("02{rest}{file}"));
        let shape = Some(MediaShape { width: Some(300), height: Some(2), seconds: None });
        pinned(&HistoryRow { shape, ..with_file }, &format!("03{rest}{file}0101ac02010200"));
    }

    #[test]
    fn formats_of_peers_are_pinned() {
        let contact = ContactRow {
            jid: jid("15550@s.whatsapp.net"),
            other: Some(jid("1@lid")),
            full_name: Some("f".to_owned()),
            short_name: None,
            push_name: Some("p".to_owned()),
            business_name: None,
        };
        pinned(
            &contact,
            "0114313535353040732e77686174736170702e6e6574010531406c696401016600010170\
                          00",
        );
        let last = LastMessage { sort_key: 300, message_id: "A".parse().unwrap(), from_me: true, timestamp: at(1) };
        let chat = ChatRow {
            jid: jid("1@lid"),
            name: None,
            last: Some(last),
            active: 300,
            unread: 2,
            marked_unread: false,
            archived: true,
            pinned_at: Some(at(1)),
            muted: Some(Mute::Until(at(1))),
            read_until: 1,
            deleted_until: 0,
            synced: true,
        };
        pinned(
            &chat,
            "010531406c69640001ac0201410180897aac02020001018089\
                       7a010180897a010001",
        );
        let waiting = vec![WaitingChunk { id: "A".parse().unwrap(), asked: 1, owed: false }];
        let sync = HistorySyncRow { progress: 40, messages: 300, done: false, waiting };
        pinned(&sync, "0128ac02000101410100");
    }

    #[test]
    fn other_versions_and_lengths_are_damage() {
        let stored = encode(&message());
        let mut newer = stored.clone();
        newer[0] = HistoryRow::VERSION + 1;
        for damaged in [&newer, &stored[..stored.len() - 1], &[stored.as_slice(), &[0]].concat(), &[]] {
            assert!(matches!(decode::<HistoryRow>(damaged), Err(StoreError::Corrupt { .. })));
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_by_its_key() {
        let mut newer = encode(&Owner { epoch: Epoch(1), node: None });
        newer[0] = 9;
        let error = decode_at::<Owner>(&[0x23, 0xab], &newer).unwrap_err().to_string();
        assert!(error.contains("owner") && error.contains("format 9") && error.contains("23ab"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let stored = wrap(&bytes);
            prop_assert_eq!(strip(&stored, "bytes").unwrap(), &bytes);
            let _ = (decode::<HistoryRow>(&stored), decode::<SessionRow>(&stored), decode::<TokenRow>(&stored));
            let _ = (decode::<Owner>(&stored), decode::<OutboxRow>(&stored), decode::<SendRecord>(&stored));
        }

        #[test]
        fn a_damaged_row_is_an_error_or_a_row(at: prop::sample::Index, byte: u8) {
            let mut stored = encode(&message());
            let at = at.index(stored.len());
            stored[at] = byte;
            let _ = decode::<HistoryRow>(&stored);
        }
    }
}
