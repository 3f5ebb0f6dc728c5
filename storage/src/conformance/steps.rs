//! The steps of a random history of all stores.

use super::sample;
use crate::{Amendment, Change, HistoryRow, KeyKind};
use proptest::prelude::*;
use rookery_protocol::api::MessageType;

/// How many sessions a history has.
pub(super) const SESSIONS: usize = 3;
/// The kinds of key material that it writes.
pub(super) const KINDS: [KeyKind; 3] = [KeyKind::Identity, KeyKind::Session, KeyKind::Meta];

/// A message in few words: number, chat, second, whether it is ours, and a flavour of content.
pub(super) type Words = (u64, usize, i64, bool, u8);

/// The message of these words.
pub(super) fn message((number, chat, secs, own, flavour): Words) -> HistoryRow {
    let chat = sample::chat(chat);
    let row = if own { sample::outbound(number, &chat, secs) } else { sample::inbound(number, &chat, secs) };
    HistoryRow {
        kind: if flavour % 2 == 0 { MessageType::Text } else { MessageType::Image },
        text: Some(format!("flavour {flavour}")),
        file: (flavour == 1).then(|| sample::file(Some("/path"))),
        read_at: (flavour == 3).then(|| sample::at(secs + 1)),
        ..row
    }
}

/// The amendment of these words: chat, number of the message, flavour, second.
pub(super) fn amendment((chat, number, flavour, secs): (usize, u64, u8, i64)) -> Amendment {
    let chat = sample::chat(chat);
    let from_me = flavour.is_multiple_of(2);
    let row = if from_me { sample::outbound(number, &chat, 0) } else { sample::inbound(number, &chat, 0) };
    let change = match flavour / 2 {
        0 => Change::Revoke { as_admin: false },
        1 => Change::Edit { text: format!("edit {}", secs % 2) },
        2 => Change::Edit { text: "edited".to_owned() },
        3 => Change::React { emoji: String::new() },
        _ => Change::React { emoji: "x".to_owned() },
    };
    let by = if from_me { sample::chat(9) } else { chat.clone() };
    Amendment { chat, message_id: row.message_id, by, from_me, at: sample::at(secs), change }
}

/// One step of a history. The first number is the session that it is about.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create(usize),
    Claim(usize, bool),
    Release(usize, bool),
    Update(usize, bool, Option<u16>),
    Delete(usize, bool),
    Keys(usize, bool, Vec<(usize, u8, Option<u8>)>),
    Clear(usize),
    Accept(usize, bool, u64, Words, Option<u8>),
    Resolve(usize, u64, bool, i64),
    Insert(usize, bool, Vec<Words>),
    Receipt(usize, usize, u64, u8, i64),
    Chat(usize, bool, usize, u8, i64),
    Learn(usize, bool, Vec<(usize, u8, Option<u8>)>),
    Import(usize, bool, Vec<Words>),
    Amend(usize, bool, Vec<(usize, u64, u8, i64)>),
    Sweep(i64),
    List(usize, Option<usize>, Option<i64>, Option<i64>, Option<bool>, Option<u64>, usize),
    Token(u8),
    DropToken(u8),
    Reopen,
}

fn words() -> impl Strategy<Value = Words> {
    (0..8_u64, 0..2_usize, 0..6_i64, any::<bool>(), 0..4_u8)
}

/// Random histories.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = || 0..SESSIONS;
    // Most fences are the newest.
    let old = || prop::bool::weighted(0.1);
    let key = (0..KINDS.len(), 0..4_u8, prop::option::weighted(0.7, any::<u8>()));
    let list = (
        prop::option::of(0..2_usize),
        prop::option::of(0..6_i64),
        prop::option::of(0..6_i64),
        prop::option::of(any::<bool>()),
        prop::option::of((0..6_i64, 0..8_u64).prop_map(|(secs, number)| sample::sort_key(secs, number))),
        1..6_usize,
    );
    let step = prop_oneof![
        3 => session().prop_map(Step::Create),
        3 => (session(), old()).prop_map(|(s, old)| Step::Claim(s, old)),
        1 => (session(), old()).prop_map(|(s, old)| Step::Release(s, old)),
        2 => (session(), old(), prop::option::of(0..3_u16)).prop_map(|(s, old, device)| Step::Update(s, old, device)),
        1 => (session(), old()).prop_map(|(s, old)| Step::Delete(s, old)),
        4 => (session(), old(), prop::collection::vec(key, 0..5)).prop_map(|(s, old, ops)| Step::Keys(s, old, ops)),
        1 => session().prop_map(Step::Clear),
        4 => (session(), old(), 0..6_u64, words(), prop::option::of(0..3_u8))
            .prop_map(|(s, old, seq, message, key)| Step::Accept(s, old, seq, message, key)),
        3 => (session(), 0..6_u64, any::<bool>(), 0..9_i64).prop_map(|(s, seq, sent, at)| Step::Resolve(s, seq, sent, at)),
        5 => (session(), old(), prop::collection::vec(words(), 0..4)).prop_map(|(s, old, rows)| Step::Insert(s, old, rows)),
        3 => (session(), 0..3_usize, 0..8_u64, 0..3_u8, 0..9_i64)
            .prop_map(|(s, chat, number, kind, at)| Step::Receipt(s, chat, number, kind, at)),
        3 => (session(), old(), 0..2_usize, 0..6_u8, 0..7_i64)
            .prop_map(|(s, old, chat, kind, secs)| Step::Chat(s, old, chat, kind, secs)),
        3 => (session(), old(), prop::collection::vec((0..3_usize, 0..4_u8, prop::option::of(0..3_u8)), 0..4))
            .prop_map(|(s, old, facts)| Step::Learn(s, old, facts)),
        2 => (session(), old(), prop::collection::vec(words(), 0..4)).prop_map(|(s, old, rows)| Step::Import(s, old, rows)),
        5 => (session(), old(), prop::collection::vec((0..2_usize, 0..8_u64, 0..10_u8, 0..9_i64), 0..4))
            .prop_map(|(s, old, amendments)| Step::Amend(s, old, amendments)),
        1 => (-1..6_i64).prop_map(Step::Sweep),
        4 => (session(), list).prop_map(|(s, (chat, from, until, own, before, limit))| {
            Step::List(s, chat, from, until, own, before, limit)
        }),
        1 => (0..3_u8).prop_map(Step::Token),
        1 => (0..3_u8).prop_map(Step::DropToken),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}
