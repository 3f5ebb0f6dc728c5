//! Where a row is: from the stores' table and key to a CQL table, a partition and a key in it. Pure.
//!
//! | rows | CQL table | partition | key |
//! |---|---|---|---|
//! | tokens, probe | `control` | tag and user, or the whole key | the rest |
//! | sessions | `sessions` | tag and one of 16 parts | session |
//! | lists of sessions | `sessions` | tag and user | the rest |
//! | key material | `keys` | session | kind, key |
//! | outbox | `outbox` | session | sequence modulo [`RING`] |
//! | idempotency records | `idempotency` | session | key |
//! | messages | `history` | session, window | 0, inverted sort key |
//! | entries of chats | `history` | session, window | 1, chat, inverted sort key |
//! | where an id is | `history_by_id` | session, one of 64 parts | id, chat, author |
//! | contacts, chats, history sync | `session_rows` | session, 1 | the rest |
//! | what waits for a message, receipts of members, late messages | `session_rows` | session, 2 | the rest |
//! | the index of words | `session_rows` | session, 64 + one of 64 parts | word and the rest |
//!
//! A *window* is 2^16 seconds of a session's history, numbered backwards, so that a message and its entry in its chat
//! are in one partition, and partitions are bounded. `windows` says which windows there are: of a session (key 0,
//! window) and of a chat (key 1, chat, window). An empty window is in no list, so a page never reads one.
//!
//! Owner rows and nodes are not here: they have tables with columns of their own. The indexes of idempotency records and of early
//! rows by time are not stored: both go by themselves.

use super::statements::Stored;
use crate::tables::Table;

/// Places in a session's outbox. A send's place is free again when it is resolved and a ring of others has been
/// accepted; more than this may not wait.
pub(super) const RING: u64 = 1 << 14;

/// Parts of the table of all sessions, so that no partition is hot.
pub(super) const SESSION_PARTS: u8 = 16;

/// Parts of a session's index of messages by id.
pub(super) const ID_PARTS: u8 = 64;

/// The kinds of rows in the table of all else.
pub(super) fn further() -> impl Iterator<Item = u8> {
    [PEERS, MARKS].into_iter().chain(word_kinds())
}

/// The kinds of all parts of the index of words.
pub(super) fn word_kinds() -> impl Iterator<Item = u8> {
    WORDS..WORDS + WORD_PARTS
}

/// Bits of an inverted sort key that are within a window: 20 of arrival, 16 of seconds.
const WINDOW_BITS: u32 = 36;

/// The kinds of rows in the table of all else, a partition a session each.
const PEERS: u8 = 1;
const MARKS: u8 = 2;
/// The first of the kinds of the index of words: one a part.
const WORDS: u8 = 64;
/// Parts of a session's index of words.
const WORD_PARTS: u8 = 64;

/// Tags of keys in the table of the control rows.
pub(super) const SESSION: u8 = 0x20;
pub(super) const OWNER: u8 = 0x23;
const NODE: u8 = 0x24;
const TOKENS_OF: u8 = 0x11;
const SESSIONS_OF: u8 = 0x21;
const SESSIONS_OF_PHONE: u8 = 0x22;
const IDEMPOTENCY_BY_TIME: u8 = 0x30;
const EARLY_BY_TIME: u8 = 0x31;

/// Tags of keys in a window.
const MESSAGE: u8 = 0;
const ENTRY: u8 = 1;

/// Where a row is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) stored: Stored,
    pub(super) partition: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// The place of a row; none when it is not stored in such a table, as the module says.
pub(super) fn place(table: Table, key: &[u8]) -> Option<Place> {
    if table == Table::Control && matches!(key.first(), Some(&(OWNER | NODE | IDEMPOTENCY_BY_TIME | EARLY_BY_TIME))) {
        return None;
    }
    if table == Table::Outbox {
        let (session, seq) = key.split_at_checked(16)?;
        let slot = slot(u64::from_be_bytes(seq.try_into().ok()?));
        return Some(Place { stored: Stored::Outbox, partition: session.to_vec(), key: slot.to_vec() });
    }
    if matches!(table, Table::History | Table::HistoryByChat) {
        let (scope, tail) = key.split_last_chunk::<8>()?;
        return Some(in_window(scope.get(..16)?, window(u64::from_be_bytes(*tail)), table, &key[16..]));
    }
    let (stored, length) = partition_of(table, key);
    let (partition, rest) = key.split_at_checked(length)?;
    Some(Place { stored, partition: with_part(table, partition, rest), key: rest.to_vec() })
}

/// The place of a send in its session's ring.
pub(super) fn slot(seq: u64) -> [u8; 4] {
    u32::try_from(seq % RING).expect("a ring is small").to_be_bytes()
}

/// The window of an inverted sort key; newer ones are lower.
pub(super) fn window(inverted: u64) -> u32 {
    u32::try_from(inverted >> WINDOW_BITS).expect("28 bits are left")
}

/// The partition of a window.
pub(super) fn window_partition(session: &[u8], window: u32) -> Vec<u8> {
    [session, &window.to_be_bytes()].concat()
}

fn in_window(session: &[u8], window: u32, table: Table, rest: &[u8]) -> Place {
    let tag = if table == Table::History { MESSAGE } else { ENTRY };
    let key = [&[tag], rest].concat();
    Place { stored: Stored::History, partition: window_partition(session, window), key }
}

/// The key of a list of windows: of a session's, or of the chat that `scope` names behind its session.
pub(super) fn windows_of(table: Table, scope: &[u8]) -> Vec<u8> {
    let tag = if table == Table::History { MESSAGE } else { ENTRY };
    [&[tag], scope.get(16..).unwrap_or_default()].concat()
}

/// The entry in the list of windows that a row of the history needs.
pub(super) fn window_entry(table: Table, key: &[u8]) -> Option<Place> {
    if !matches!(table, Table::History | Table::HistoryByChat) {
        return None;
    }
    let (scope, tail) = key.split_last_chunk::<8>()?;
    let window = window(u64::from_be_bytes(*tail)).to_be_bytes();
    let key = [&windows_of(table, scope), &window[..]].concat();
    Some(Place { stored: Stored::Windows, partition: scope.get(..16)?.to_vec(), key })
}

/// The table that a row is in and how much of its key is the partition's.
fn partition_of(table: Table, key: &[u8]) -> (Stored, usize) {
    match table {
        Table::Control => match key.first() {
            Some(&SESSION) => (Stored::Sessions, 1),
            Some(&(SESSIONS_OF | SESSIONS_OF_PHONE)) => (Stored::Sessions, 17),
            Some(&TOKENS_OF) => (Stored::Control, 17),
            _ => (Stored::Control, key.len()),
        },
        Table::Keys => (Stored::Keys, 16),
        Table::Outbox => (Stored::Outbox, 16),
        Table::Idempotency => (Stored::Idempotency, 16),
        Table::History | Table::HistoryByChat => (Stored::History, 16),
        Table::HistoryById => (Stored::HistoryById, 16),
        Table::Peers | Table::Marks | Table::Words => (Stored::SessionRows, 16),
    }
}

/// The partition with what bounds it behind what it is about.
fn with_part(table: Table, partition: &[u8], rest: &[u8]) -> Vec<u8> {
    let part = match (table, partition.first()) {
        (Table::Control, Some(&SESSION)) => rest.last().map(|last| last % SESSION_PARTS),
        (Table::HistoryById, _) => Some(id_part(rest)),
        (Table::Peers, _) => Some(PEERS),
        (Table::Marks, _) => Some(MARKS),
        (Table::Words, _) => Some(WORDS + word_part(rest)),
        _ => None,
    };
    partition.iter().copied().chain(part).collect()
}

/// The part of the index by id that keys with this beginning are in: by the id alone, which stands behind its length.
fn id_part(rest: &[u8]) -> u8 {
    let length = usize::from(rest.first().copied().unwrap_or_default());
    one_of(ID_PARTS, rest.get(1..=length).unwrap_or_default())
}

/// The part of the index of words that words with this beginning are in: by their first letter alone, so that words
/// with a common beginning are in one.
fn word_part(word: &[u8]) -> u8 {
    let length = match word.first() {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    one_of(WORD_PARTS, word.get(..length).unwrap_or(word))
}

/// One of so many parts, by the FNV-1a hash of these bytes: it has to be the same in every version.
fn one_of(parts: u8, bytes: &[u8]) -> u8 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash % u32::from(parts)) as u8
}

/// The partition that rows whose keys begin with `prefix` are in, and the length of what keys have before the part of
/// theirs that is stored. For the tables that are neither windows nor a ring nor all sessions.
pub(super) fn partition(table: Table, prefix: &[u8]) -> Option<(Stored, Vec<u8>, usize)> {
    if table == Table::Control && matches!(prefix.first(), Some(&(OWNER | NODE | IDEMPOTENCY_BY_TIME | EARLY_BY_TIME)))
    {
        return None;
    }
    let (stored, length) = partition_of(table, prefix);
    let (partition, rest) = prefix.split_at_checked(length)?;
    Some((stored, with_part(table, partition, rest), length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;
    use proptest::prelude::*;
    use rookery_protocol::{Jid, MessageId, SessionId};

    proptest! {
        #[test]
        fn a_message_is_in_one_partition_with_the_entry_of_its_chat(sort_key: u64) {
            let session = SessionId::generate();
            let chat: Jid = "15550@s.whatsapp.net".parse().unwrap();
            let (message, entry) = (tables::history(session, sort_key), tables::history_in_chat(session, &chat, sort_key));
            let message = place(Table::History, &message).unwrap();
            let entry = place(Table::HistoryByChat, &entry).unwrap();
            prop_assert_eq!((message.stored, &message.partition), (entry.stored, &entry.partition));
            prop_assert_ne!(message.key, entry.key);
        }

        #[test]
        fn windows_are_in_the_order_of_their_messages(a: u64, b: u64) {
            prop_assert!(a > b || window(!a) >= window(!b));
        }

        #[test]
        fn an_id_is_in_one_part_whatever_stands_behind_it(id in "[A-Z0-9]{1,20}", chat in "[0-9]{5,9}") {
            let (session, id): (_, MessageId) = (SessionId::generate(), id.parse().unwrap());
            let chat = Jid::from_phone(&chat).unwrap();
            let all = partition(Table::HistoryById, &tables::history_of_id(session, &id)).unwrap();
            let one = place(Table::HistoryById, &tables::own_history_by_id(session, &id, &chat)).unwrap();
            prop_assert_eq!((all.0, all.1), (one.stored, one.partition));
        }

        #[test]
        fn words_with_a_common_beginning_are_in_one_part(beginning in "\\PC{1,3}", end in "\\PC{0,9}") {
            let session = SessionId::generate();
            let all = partition(Table::Words, &tables::words_from(session, &beginning)).unwrap();
            let one = place(Table::Words, &tables::posting(session, &format!("{beginning}{end}"), 7, 1)).unwrap();
            prop_assert_eq!((all.0, &all.1), (one.stored, &one.partition));
            prop_assert!(further().any(|kind| one.partition.last() == Some(&kind)));
        }

        #[test]
        fn the_ring_has_a_place_for_every_send(seq: u64) {
            prop_assert_eq!(slot(seq), slot(seq.wrapping_add(RING)));
            prop_assert!(u64::from(u32::from_be_bytes(slot(seq))) < RING);
        }
    }

    #[test]
    fn owners_and_the_indexes_by_time_are_elsewhere() {
        assert_eq!(place(Table::Control, &tables::owner(SessionId::generate())), None);
        for index in [tables::idempotency_by_time(), tables::early_by_time()] {
            assert_eq!(place(Table::Control, &index), None);
            assert_eq!(partition(Table::Control, &index), None);
        }
    }
}
