//! The catalogue of every table and key of the embedded engine.
//!
//! A key is a concatenation of parts whose byte order is their order: integers big-endian, ids as their 16
//! bytes, text behind its length. What belongs to a session begins with the session's id, which is what a
//! partition is in CQL; the rest of the key is what clustering columns are. Sort keys are stored inverted, so
//! that newest comes first in a forward scan.
//!
//! | table | key | value |
//! |---|---|---|
//! | `control` | `00` | the format of the data |
//! | | `01` | the probe's row |
//! | | `10` token hash | [`crate::TokenRow`] |
//! | | `11` user, created at, token | token hash |
//! | | `20` session | [`crate::SessionRow`] |
//! | | `21` user, session | nothing |
//! | | `22` user, phone, session | nothing |
//! | | `23` session | [`crate::Owner`] |
//! | | `24` node | [`crate::NodeRow`] |
//! | | `30` accepted at, session, idempotency key | nothing |
//! | | `31` received at, key of an early row of `marks` | nothing |
//! | `keys` | session, kind, key | key material, opaque |
//! | `outbox` | session, sequence | [`crate::OutboxRow`] |
//! | `idempotency` | session, idempotency key | [`crate::SendRecord`] |
//! | `history` | session, inverted sort key | [`crate::HistoryRow`] |
//! | `history_by_chat` | session, chat, inverted sort key | nothing |
//! | `history_by_id` | session, message id, chat, author | sort key |
//! | `peers` | session, `1`, address | [`crate::ContactRow`] |
//! | | session, `2`, address | [`crate::ChatRow`] |
//! | | session, `3` | [`crate::HistorySyncRow`] |
//! | `marks` | session, `1`, message id, sort of thing, chat, who | [`crate::EarlyRow`] |
//! | | session, `2`, inverted sort key, member | [`crate::ParticipantRow`] |
//! | | session, `3`, generation, inverted sort key of a late message | nothing |
//! | `words` | session, `00` | [`crate::search::IndexState`] |
//! | | session, word, `00`, inverted newest sort key, segment | the sort keys of a [`crate::search::Posting`] |
//!
//! Every value begins with one byte that is the version of its format; "nothing" is that byte alone.

use crate::{HistoryRow, KeyKind};
use rookery_protocol::{Jid, MessageId, NodeId, SessionId, Timestamp, TokenId, UserId};

/// A table: a keyspace of the embedded engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Everything small: format, tokens, sessions, owners, and the index of idempotency records by time.
    Control,
    /// Key material of sessions.
    Keys,
    /// Accepted sends that are not resolved.
    Outbox,
    /// What idempotency keys stand for.
    Idempotency,
    /// Messages in order of time.
    History,
    /// Index of messages by chat.
    HistoryByChat,
    /// Index of messages by id.
    HistoryById,
    /// People, chats, and how far the history sync has come.
    Peers,
    /// What goes with messages: what came before them, receipts of members of groups, what the index has passed by.
    Marks,
    /// Index of words.
    Words,
}

impl Table {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 10] = [
        Self::Control,
        Self::Keys,
        Self::Outbox,
        Self::Idempotency,
        Self::History,
        Self::HistoryByChat,
        Self::HistoryById,
        Self::Peers,
        Self::Marks,
        Self::Words,
    ];

    /// Those whose rows all begin with the id of the session that they belong to, in the order in which a
    /// session's data is removed.
    pub(crate) const OF_SESSIONS: [Self; 9] = [
        Self::Keys,
        Self::Outbox,
        Self::History,
        Self::HistoryByChat,
        Self::HistoryById,
        Self::Idempotency,
        Self::Peers,
        Self::Marks,
        Self::Words,
    ];

    /// Its name on disk; never changes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Keys => "keys",
            Self::Outbox => "outbox",
            Self::Idempotency => "idempotency",
            Self::History => "history",
            Self::HistoryByChat => "history_by_chat",
            Self::HistoryById => "history_by_id",
            Self::Peers => "peers",
            Self::Marks => "marks",
            Self::Words => "words",
        }
    }
}

/// Builds a key part by part.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn tag(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn of(session: SessionId) -> Self {
        Self::default().raw(session.as_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.raw(&[byte])
    }

    fn number(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn time(self, time: Timestamp) -> Self {
        self.number(u64::try_from(time.as_micros()).unwrap_or(0))
    }

    /// Text of at most 255 bytes, behind its length, so that no text is the beginning of another.
    fn text(self, text: &str) -> Self {
        let length = u8::try_from(text.len()).expect("identifiers are at most 128 bytes");
        self.byte(length).raw(text.as_bytes())
    }
}

/// The last `N` bytes of a key.
fn tail<const N: usize>(key: &[u8]) -> Option<[u8; N]> {
    key.last_chunk::<N>().copied()
}

/// The row with the format of the data.
pub(crate) fn format() -> Vec<u8> {
    vec![0x00]
}

/// The row that the probe writes.
pub(crate) fn probe() -> Vec<u8> {
    vec![0x01]
}

/// A token by the hash of its secret.
pub(crate) fn token(hash: &[u8; 32]) -> Vec<u8> {
    Key::tag(0x10).raw(hash).0
}

/// The index of a user's tokens, oldest first.
pub(crate) fn tokens_of(user: UserId) -> Vec<u8> {
    Key::tag(0x11).raw(user.as_bytes()).0
}

/// One entry of a user's tokens.
pub(crate) fn token_of(user: UserId, created_at: Timestamp, id: TokenId) -> Vec<u8> {
    Key(tokens_of(user)).time(created_at).raw(id.as_bytes()).0
}

/// The token that an entry of [`tokens_of`] is about.
pub(crate) fn token_of_entry(key: &[u8]) -> Option<TokenId> {
    tail(key).map(TokenId::from_bytes)
}

/// All sessions.
pub(crate) fn sessions() -> Vec<u8> {
    vec![0x20]
}

/// A session.
pub(crate) fn session(id: SessionId) -> Vec<u8> {
    Key(sessions()).raw(id.as_bytes()).0
}

/// The index of a user's sessions, in order of creation.
pub(crate) fn sessions_of(user: UserId) -> Vec<u8> {
    Key::tag(0x21).raw(user.as_bytes()).0
}

/// One entry of a user's sessions.
pub(crate) fn session_of(user: UserId, id: SessionId) -> Vec<u8> {
    Key(sessions_of(user)).raw(id.as_bytes()).0
}

/// The index of a user's sessions that are linked to a phone number, in order of creation. None for a text
/// that is too long to be a phone number.
pub(crate) fn sessions_of_phone(user: UserId, phone: &str) -> Option<Vec<u8>> {
    (phone.len() <= 255).then(|| Key::tag(0x22).raw(user.as_bytes()).text(phone).0)
}

/// One entry of a user's sessions that are linked to a phone number.
pub(crate) fn session_of_phone(user: UserId, phone: &str, id: SessionId) -> Option<Vec<u8>> {
    sessions_of_phone(user, phone).map(|entries| Key(entries).raw(id.as_bytes()).0)
}

/// The session that a key or an index entry of a session ends with.
pub(crate) fn session_of_entry(key: &[u8]) -> Option<SessionId> {
    tail(key).map(SessionId::from_bytes)
}

/// The owner row of a session.
pub(crate) fn owner(id: SessionId) -> Vec<u8> {
    Key(owners()).raw(id.as_bytes()).0
}

/// The session of an owner row; none when the key is of another kind.
pub(crate) fn session_of_owner(key: &[u8]) -> Option<SessionId> {
    let id = key.strip_prefix(&[0x23])?.try_into().ok()?;
    Some(SessionId::from_bytes(id))
}

/// The owner rows of all sessions.
pub(crate) fn owners() -> Vec<u8> {
    vec![0x23]
}

/// All nodes of the cluster.
pub(crate) fn nodes() -> Vec<u8> {
    vec![0x24]
}

/// A node of the cluster.
pub(crate) fn node(id: &NodeId) -> Vec<u8> {
    Key(nodes()).raw(id.as_str().as_bytes()).0
}

/// The index of all idempotency records, oldest first.
pub(crate) fn idempotency_by_time() -> Vec<u8> {
    vec![0x30]
}

/// The end, exclusive, of the index entries up to and including a time.
pub(crate) fn idempotency_through(time: Timestamp) -> Vec<u8> {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    Key(idempotency_by_time()).number(micros + 1).0
}

/// One entry of the index of idempotency records by time.
pub(crate) fn idempotency_at(accepted_at: Timestamp, session: SessionId, key: &[u8; 32]) -> Vec<u8> {
    Key(idempotency_by_time()).time(accepted_at).raw(session.as_bytes()).raw(key).0
}

/// The entry of the index by time for the record with this key in its table.
pub(crate) fn idempotency_entry(key: &[u8], accepted_at: Timestamp) -> Vec<u8> {
    Key(idempotency_by_time()).time(accepted_at).raw(key).0
}

/// The key of the record that an entry of the index by time is about.
pub(crate) fn idempotency_of_entry(entry: &[u8]) -> Option<[u8; 48]> {
    tail(entry)
}

/// The kinds of rows in [`Table::Marks`].
const EARLY: u8 = 1;
const RECEIPT: u8 = 2;
const LATE: u8 = 3;

/// The index of all that waits for its message, oldest first.
pub(crate) fn early_by_time() -> Vec<u8> {
    vec![0x31]
}

/// The end, exclusive, of the entries up to and including a time.
pub(crate) fn early_through(time: Timestamp) -> Vec<u8> {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    Key(early_by_time()).number(micros + 1).0
}

/// The entry by time of an early row with this key.
pub(crate) fn early_entry(key: &[u8], received_at: Timestamp) -> Vec<u8> {
    Key(early_by_time()).time(received_at).raw(key).0
}

/// The key of the row that an entry by time is about.
pub(crate) fn early_of_entry(entry: &[u8]) -> Option<&[u8]> {
    entry.get(9..)
}

/// All that waits for the message with this id.
pub(crate) fn early_of(session: SessionId, id: &MessageId) -> Vec<u8> {
    Key::of(session).byte(EARLY).text(id.as_str()).0
}

/// Whether a key of [`Table::Marks`] is one of a row that waits for its message.
pub(crate) fn is_early(key: &[u8]) -> bool {
    key.get(16) == Some(&EARLY)
}

/// What waits for a message: the sort of thing, the chat, and whose it is.
pub(crate) fn early(session: SessionId, id: &MessageId, sort: u8, chat: &Jid, who: &str) -> Vec<u8> {
    Key(early_of(session, id)).byte(sort).text(chat.as_str()).raw(who.as_bytes()).0
}

/// The receipts of the members of a group for one message.
pub(crate) fn receipts_of(session: SessionId, sort_key: u64) -> Vec<u8> {
    Key::of(session).byte(RECEIPT).number(!sort_key).0
}

/// The receipts of one member for one message.
pub(crate) fn receipt_of(session: SessionId, sort_key: u64, member: &Jid) -> Vec<u8> {
    Key(receipts_of(session, sort_key)).raw(member.as_str().as_bytes()).0
}

/// How far the index of words is. No word begins with this byte.
pub(crate) fn index_state(session: SessionId) -> Vec<u8> {
    Key::of(session).byte(0).0
}

/// The postings of the words that begin with this.
pub(crate) fn words_from(session: SessionId, prefix: &str) -> Vec<u8> {
    Key::of(session).raw(prefix.as_bytes()).0
}

/// The postings of a word.
pub(crate) fn postings_of(session: SessionId, word: &str) -> Vec<u8> {
    Key(words_from(session, word)).byte(0).0
}

/// The end, exclusive, of the postings of a word.
pub(crate) fn postings_end(session: SessionId, word: &str) -> Vec<u8> {
    Key(words_from(session, word)).byte(1).0
}

/// A posting of a word.
pub(crate) fn posting(session: SessionId, word: &str, newest: u64, segment: u32) -> Vec<u8> {
    Key(postings_of(session, word)).number(!newest).raw(&segment.to_be_bytes()).0
}

/// The word, the newest sort key and the segment of a posting.
pub(crate) fn posting_of(key: &[u8]) -> Option<(&str, u64, u32)> {
    let (rest, segment) = key.split_last_chunk::<4>()?;
    let (rest, newest) = rest.split_last_chunk::<8>()?;
    let (end, word) = rest.get(16..)?.split_last()?;
    let word = std::str::from_utf8(word).ok()?;
    (*end == 0 && !word.is_empty()).then_some((word, !u64::from_be_bytes(*newest), u32::from_be_bytes(*segment)))
}

/// A generation of late messages.
pub(crate) fn late_of(session: SessionId, generation: u32) -> Vec<u8> {
    Key::of(session).byte(LATE).raw(&generation.to_be_bytes()).0
}

/// A late message.
pub(crate) fn late(session: SessionId, generation: u32, sort_key: u64) -> Vec<u8> {
    Key(late_of(session, generation)).number(!sort_key).0
}

/// All that a table of [`Table::OF_SESSIONS`] has of a session.
pub(crate) fn of_session(session: SessionId) -> Vec<u8> {
    Key::of(session).0
}

/// A row of key material, or all whose key begins with `key`.
pub(crate) fn key_material(session: SessionId, kind: KeyKind, key: &[u8]) -> Vec<u8> {
    Key::of(session).byte(kind as u8).raw(key).0
}

/// The key within its kind of a row of key material.
pub(crate) fn key_within_kind(key: &[u8]) -> Option<&[u8]> {
    key.get(17..)
}

/// A row of the outbox.
pub(crate) fn outbox(session: SessionId, seq: u64) -> Vec<u8> {
    Key::of(session).number(seq).0
}

/// An idempotency record.
pub(crate) fn idempotency(session: SessionId, key: &[u8; 32]) -> Vec<u8> {
    Key::of(session).raw(key).0
}

/// A message by its sort key.
pub(crate) fn history(session: SessionId, sort_key: u64) -> Vec<u8> {
    Key::of(session).number(!sort_key).0
}

/// The index of a chat's messages, newest first.
pub(crate) fn history_of_chat(session: SessionId, chat: &Jid) -> Vec<u8> {
    Key::of(session).text(chat.as_str()).0
}

/// One entry of a chat's messages.
pub(crate) fn history_in_chat(session: SessionId, chat: &Jid, sort_key: u64) -> Vec<u8> {
    Key(history_of_chat(session, chat)).number(!sort_key).0
}

/// The sort key that a key of the history or of its index by chat ends with.
pub(crate) fn sort_key_of_entry(key: &[u8]) -> Option<u64> {
    tail(key).map(|bytes| !u64::from_be_bytes(bytes))
}

/// The index of the messages with an id.
pub(crate) fn history_of_id(session: SessionId, id: &MessageId) -> Vec<u8> {
    Key::of(session).text(id.as_str()).0
}

/// The index entry of a message that the account itself wrote into a chat.
pub(crate) fn own_history_by_id(session: SessionId, id: &MessageId, chat: &Jid) -> Vec<u8> {
    Key(history_of_id(session, id)).text(chat.as_str()).raw(ME.as_bytes()).0
}

/// The index entry of one message by what makes it unique in its session: id, chat and author.
pub(crate) fn history_by_id(session: SessionId, row: &HistoryRow) -> Vec<u8> {
    Key(history_of_id(session, &row.message_id)).text(row.chat.as_str()).raw(author(row).as_bytes()).0
}

/// The contacts of a session, in the order of their addresses.
pub(crate) fn contacts(session: SessionId) -> Vec<u8> {
    Key::of(session).byte(1).0
}

/// A contact.
pub(crate) fn contact(session: SessionId, jid: &Jid) -> Vec<u8> {
    Key(contacts(session)).raw(jid.as_str().as_bytes()).0
}

/// The chats of a session.
pub(crate) fn chats(session: SessionId) -> Vec<u8> {
    Key::of(session).byte(2).0
}

/// A chat.
pub(crate) fn chat(session: SessionId, jid: &Jid) -> Vec<u8> {
    Key(chats(session)).raw(jid.as_str().as_bytes()).0
}

/// How far a session's history sync has come.
pub(crate) fn history_sync(session: SessionId) -> Vec<u8> {
    Key::of(session).byte(3).0
}

/// The account itself as an author; no JID.
const ME: &str = "me";

/// Who wrote a message, as its index entry has it. Nothing is no JID either.
fn author(row: &HistoryRow) -> &str {
    match (&row.sender, row.from_me) {
        (_, true) => ME,
        (Some(sender), false) => sender.as_str(),
        (None, false) => "",
    }
}

/// The end, exclusive, of all keys that begin with `prefix`; none when there is no greater key.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rookery_protocol::api::MessageType;
    use std::collections::HashSet;

    fn row(id: &str, chat: &str, sender: Option<&str>, from_me: bool) -> HistoryRow {
        let (id, chat) = (id.parse().unwrap(), chat.parse().unwrap());
        HistoryRow {
            sender: sender.map(|jid| jid.parse().unwrap()),
            from_me,
            ..HistoryRow::new(id, chat, MessageType::Text, Timestamp::from_secs(0))
        }
    }

    #[test]
    fn names_are_distinct_and_indexes_match() {
        let names: HashSet<_> = Table::ALL.iter().map(|table| table.name()).collect();
        assert_eq!(names.len(), Table::ALL.len());
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, index);
        }
        assert_eq!(Table::OF_SESSIONS.len() + 1, Table::ALL.len());
    }

    #[test]
    fn the_author_tells_messages_of_one_id_apart() {
        let session = SessionId::generate();
        let keys: HashSet<_> = [
            row("A", "1555000@s.whatsapp.net", None, true),
            row("A", "1555000@s.whatsapp.net", None, false),
            row("A", "1555000@s.whatsapp.net", Some("1555000@s.whatsapp.net"), false),
            row("A", "1555001@s.whatsapp.net", None, true),
            row("AB", "1555000@s.whatsapp.net", None, true),
        ]
        .iter()
        .map(|row| history_by_id(session, row))
        .collect();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn what_has_no_greater_key_has_no_end() {
        assert_eq!(end_of(&[0xff, 0xff]), None);
        assert_eq!(end_of(&[]), None);
        assert_eq!(end_of(&[1, 0xff]), Some(vec![2]));
    }

    proptest! {
        #[test]
        fn newest_messages_come_first(a: u64, b: u64) {
            let session = SessionId::generate();
            let chat: Jid = "1555000@s.whatsapp.net".parse().unwrap();
            prop_assert_eq!(history(session, a).cmp(&history(session, b)), b.cmp(&a));
            prop_assert_eq!(sort_key_of_entry(&history(session, a)), Some(a));
            let (in_chat, also) = (history_in_chat(session, &chat, a), history_in_chat(session, &chat, b));
            prop_assert_eq!(in_chat.cmp(&also), b.cmp(&a));
            prop_assert_eq!(sort_key_of_entry(&in_chat), Some(a));
        }

        #[test]
        fn a_prefix_holds_all_that_begin_with_it(prefix in prop::collection::vec(any::<u8>(), 1..6), rest: Vec<u8>, other: Vec<u8>) {
            let end = end_of(&prefix);
            let below = |key: &[u8]| end.as_deref().is_none_or(|end| key < end);
            let inside = [prefix.clone(), rest].concat();
            prop_assert!(inside >= prefix && below(&inside));
            prop_assert_eq!(other >= prefix && below(&other), other.starts_with(&prefix));
        }

        #[test]
        fn no_chat_is_the_beginning_of_another(a in "[0-9]{5,20}", b in "[0-9]{5,20}") {
            let session = SessionId::generate();
            let (a, b) = (Jid::from_phone(&a).unwrap(), Jid::from_phone(&b).unwrap());
            let (of_a, of_b) = (history_of_chat(session, &a), history_of_chat(session, &b));
            prop_assert_eq!(of_a.starts_with(&of_b), a == b);
        }

        #[test]
        fn entries_name_their_rows(micros in 0_i64..253_402_207_200_000_000, key: [u8; 32], phone in "[0-9]{5,20}") {
            let (user, id, at) = (UserId::generate(), SessionId::generate(), Timestamp::from_micros(micros));
            prop_assert_eq!(session_of_entry(&session(id)), Some(id));
            prop_assert_eq!(session_of_entry(&session_of(user, id)), Some(id));
            prop_assert_eq!(session_of_entry(&session_of_phone(user, &phone, id).unwrap()), Some(id));
            let token = TokenId::generate();
            prop_assert_eq!(token_of_entry(&token_of(user, at, token)), Some(token));
            let entry = idempotency_at(at, id, &key);
            prop_assert_eq!(idempotency_of_entry(&entry).unwrap().to_vec(), idempotency(id, &key));
            prop_assert_eq!(&idempotency_entry(&idempotency(id, &key), at), &entry);
            prop_assert!(entry < idempotency_through(at));
            prop_assert!(entry >= idempotency_through(Timestamp::from_micros(micros - 1)) || micros == 0);
            let (newest, chat) = (micros.unsigned_abs(), Jid::from_phone(&phone).unwrap());
            let posted = posting(id, &phone, newest, 7);
            prop_assert_eq!(posting_of(&posted), Some((phone.as_str(), newest, 7)));
            prop_assert!(posted >= postings_of(id, &phone) && posted < postings_end(id, &phone));
            prop_assert!(posted.starts_with(&words_from(id, &phone[..2])) && posting_of(&index_state(id)).is_none());
            prop_assert_eq!(sort_key_of_entry(&late(id, 3, newest)), Some(newest));
            let waiting = early(id, &phone.parse().unwrap(), 1, &chat, "me");
            let entry = early_entry(&waiting, at);
            prop_assert_eq!(early_of_entry(&entry), Some(&waiting[..]));
            prop_assert!(entry < early_through(at) && entry.starts_with(&early_by_time()));
            let kept = key_material(id, KeyKind::Session, &key);
            prop_assert_eq!(key_within_kind(&kept), Some(&key[..]));
        }
    }
}
