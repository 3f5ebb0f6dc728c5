//! What amendments promise, in whatever order they come.

use super::*;
use crate::MediaFile;
use proptest::prelude::*;
use rookery_protocol::api::Media;

const GROUP: &str = "120363001@g.us";
const FRIEND: &str = "15550000001@s.whatsapp.net";
const OTHER: &str = "15550000002@s.whatsapp.net";

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn row(chat: &str, sender: &str, kind: MessageType) -> HistoryRow {
    let row = HistoryRow::new("A".parse().unwrap(), jid(chat), kind, at(1));
    let media = Media { mime_type: None, size: None, file_name: Some("f".into()), sha256: None, url: None };
    let file =
        MediaFile { direct_path: None, media_key: None, sha256: vec![1].into(), encrypted_sha256: None, length: 1 };
    let words = Some("first".to_owned());
    match kind {
        MessageType::Text => HistoryRow { sender: Some(jid(sender)), text: words, ..row },
        _ => HistoryRow { sender: Some(jid(sender)), caption: words, media: Some(media), file: Some(file), ..row },
    }
}

fn amendment(chat: &str, by: &str, secs: i64, change: Change) -> Amendment {
    Amendment { chat: jid(chat), message_id: "A".parse().unwrap(), by: jid(by), from_me: false, at: at(secs), change }
}

/// What comes of a message and these amendments when the message comes at this place among them.
fn outcome(message: &HistoryRow, amendments: &[Amendment], place: usize) -> HistoryRow {
    let place = place.min(amendments.len());
    let mut row = message.clone();
    let (early, late) = amendments.split_at(place);
    for amendment in early.iter().chain(late) {
        if amendment.concerns(&row) {
            amendment.apply(&mut row);
        }
        // It may be delivered again at any time.
        row = row.delivered_again(message.clone());
    }
    row
}

fn changes() -> impl Strategy<Value = (bool, i64, Change)> {
    let change = prop_oneof![
        4 => "[ab]{1,2}".prop_map(|text| Change::Edit { text }),
        4 => prop::sample::select(vec!["", "x", "y"]).prop_map(|emoji| Change::React { emoji: emoji.to_owned() }),
        1 => any::<bool>().prop_map(|as_admin| Change::Revoke { as_admin }),
    ];
    (any::<bool>(), 0..6_i64, change)
}

proptest! {
    #[test]
    fn every_order_gives_the_same_row(
        changes in prop::collection::vec(changes(), 0..7),
        order in any::<prop::sample::Index>(),
        media: bool,
        place in 0..8_usize,
    ) {
        let message = row(GROUP, FRIEND, if media { MessageType::Image } else { MessageType::Text });
        let mut amendments: Vec<_> = changes
            .into_iter()
            .map(|(author, secs, change)| amendment(GROUP, if author { FRIEND } else { OTHER }, secs, change))
            .collect();
        let expected = outcome(&message, &amendments, 0);
        let mut seed = order.index(usize::MAX) as u64 | 1;
        for last in (1..amendments.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            amendments.swap(last, (seed >> 33) as usize % (last + 1));
        }
        prop_assert_eq!(&outcome(&message, &amendments, place), &expected, "in another order");
        let twice: Vec<_> = amendments.iter().chain(&amendments).cloned().collect();
        prop_assert_eq!(&outcome(&message, &twice, place), &expected, "each twice");
    }

    #[test]
    fn a_placeholder_that_was_edited_shows_the_edit_when_its_message_comes(secs in 2..9_i64) {
        let mut placeholder = row(FRIEND, FRIEND, MessageType::Text);
        placeholder.kind = MessageType::Undecryptable;
        placeholder.text = None;
        let edit = amendment(FRIEND, FRIEND, secs, Change::Edit { text: "new".into() });
        prop_assert!(edit.apply(&mut placeholder));
        let whole = placeholder.delivered_again(row(FRIEND, FRIEND, MessageType::Image));
        prop_assert_eq!((whole.kind, whole.caption.as_deref()), (MessageType::Image, Some("new")));
        prop_assert_eq!((whole.text, whole.edited_at), (None, Some(at(secs))));
    }
}

#[test]
fn only_who_may_changes_a_message() {
    let edit = |by| amendment(GROUP, by, 2, Change::Edit { text: "x".into() });
    let revoke = |chat, by, as_admin| amendment(chat, by, 2, Change::Revoke { as_admin });
    let message = row(GROUP, FRIEND, MessageType::Text);
    assert!(edit(FRIEND).concerns(&message) && !edit(OTHER).concerns(&message));
    assert!(revoke(GROUP, FRIEND, false).concerns(&message) && !revoke(GROUP, OTHER, false).concerns(&message));
    assert!(revoke(GROUP, OTHER, true).concerns(&message), "an admin");

    let private = row(FRIEND, "1000001@lid", MessageType::Text);
    assert!(revoke(FRIEND, FRIEND, false).concerns(&private), "under either name");
    let own = HistoryRow { from_me: true, ..private.clone() };
    assert!(!revoke(FRIEND, FRIEND, false).concerns(&own), "a contact cannot take back what we wrote");
    assert!(!revoke(FRIEND, FRIEND, true).concerns(&own), "a chat of two has no admin");
    assert!(Amendment { from_me: true, ..revoke(FRIEND, OTHER, false) }.concerns(&own));
    assert!(!Amendment { from_me: true, ..revoke(FRIEND, OTHER, false) }.concerns(&private));
    assert!(!revoke(OTHER, FRIEND, false).concerns(&private), "of another chat");
}

#[test]
fn what_is_revoked_shows_nothing() {
    let mut message = row(GROUP, FRIEND, MessageType::Image);
    assert!(amendment(GROUP, OTHER, 3, Change::React { emoji: "x".into() }).apply(&mut message));
    assert!(amendment(GROUP, FRIEND, 4, Change::Revoke { as_admin: false }).apply(&mut message));
    assert!(!amendment(GROUP, FRIEND, 5, Change::Revoke { as_admin: false }).apply(&mut message));
    assert!(!amendment(GROUP, FRIEND, 9, Change::Edit { text: "x".into() }).apply(&mut message));
    let gone = (&message.text, &message.caption, message.media.is_none(), message.file.is_none());
    assert_eq!(gone, (&None, &None, true, true));
    assert_eq!((message.revoked_at, message.reactions.len()), (Some(at(4)), 0));
}

#[test]
fn a_bounded_number_of_people_react() {
    let mut message = row(GROUP, FRIEND, MessageType::Text);
    for number in 0..MAX_REACTIONS + 5 {
        let by = format!("1555{number}@s.whatsapp.net");
        amendment(GROUP, &by, 2, Change::React { emoji: "x".into() }).apply(&mut message);
    }
    assert_eq!(message.reactions.len(), MAX_REACTIONS);
}
