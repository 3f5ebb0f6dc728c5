//! Several devices of one account: what one sends the others see, and contacts learn of new ones.

use crate::{exchange::Pair, peer::Peer};

const FRIEND: &str = "15550403003";

/// Both clients on one account, and a friend's phone.
#[tokio::test(flavor = "multi_thread")]
async fn two_clients_are_devices_of_one_account() {
    let Some(pair) = Pair::start().await else { return };
    let Pair { simulator, mut baileys, whatsmeow } = pair;
    let friend = simulator.phone(FRIEND);
    let number = baileys.number.clone();
    let mut second = Peer::linked(&whatsmeow.tool, &simulator, &number).await;

    let received = friend.send_text(&number, "to both").unwrap();
    for device in [&baileys, &second] {
        assert_eq!(device.has_text(FRIEND, FRIEND, "to both").await, received);
    }
    second.nothing_waits().await;
    let sent = baileys.send_text(FRIEND, "by the first").await;
    assert_eq!(second.has_text(FRIEND, &number, "by the first").await, sent);
    baileys.phone_has(&friend, &sent, "by the first").await;
    second.nothing_waits().await;
    let sent = second.send_text(FRIEND, "by the second").await;
    assert_eq!(baileys.has_text(FRIEND, &number, "by the second").await, sent);
    second.phone_has(&friend, &sent, "by the second").await;
    second.finish();
    Pair { simulator, baileys, whatsmeow }.finish();
}

/// A client has cached the devices of a contact when the contact links another one, and loses it again.
#[tokio::test(flavor = "multi_thread")]
async fn clients_learn_of_their_contacts_devices() {
    let Some(mut pair) = Pair::start().await else { return };
    cached_devices(&mut pair.baileys, &pair.whatsmeow).await;
    cached_devices(&mut pair.whatsmeow, &pair.baileys).await;
    pair.finish();
}

async fn cached_devices(from: &mut Peer, to: &Peer) {
    say(from, "while it has one device", &[to]).await;
    let second = Peer::linked(&to.tool, to.simulator(), &to.number).await;
    from.nothing_waits().await;
    say(from, "while it has two", &[to, &second]).await;
    let unlinked = to.phone().devices().last().unwrap().device;
    to.phone().unlink(unlinked).unwrap();
    second.event("disconnected", |event| event["logged_out"] == true).await;
    from.nothing_waits().await;
    say(from, "while it has one again", &[to]).await;
    second.finish();
}

/// All of the recipient's devices get a text.
async fn say(from: &mut Peer, what: &str, to: &[&Peer]) {
    let text = format!("{what}, from {}", from.number);
    let id = from.send_text(&to[0].number, &text).await;
    for device in to {
        assert_eq!(device.has_text(&from.number, &from.number, &text).await, id);
    }
}
