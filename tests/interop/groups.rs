//! A group of both clients and a phone, made by each client in turn.

use crate::{exchange::Pair, peer::Peer};
use whatsapp_simulator::Phone;

const MEMBER: &str = "15550203003";

async fn meet(host: &mut Peer, guest: &mut Peer, phone: &Phone) {
    let subject = format!("of {}", host.number);
    let group = host.create_group(&subject, &[&guest.number, phone.number()]).await;
    let news = guest.event("group", |event| event["group"] == group.as_str()).await;
    assert_eq!(news["subject"], subject.as_str());

    for round in 0..2 {
        // The first text brings the sender key, the second one uses it.
        let text = format!("the host's {round} in {group}");
        let id = host.send_text(&group, &text).await;
        assert_eq!(guest.has_text(&group, &host.number, &text).await, id);
        host.phone_has(phone, &id, &text).await;
        host.phone_has(&host.phone(), &id, &text).await;
        host.has_receipt(&id, &guest.number, "delivered").await;
        guest.read(&id).await;
        host.has_receipt(&id, &guest.number, "read").await;

        let text = format!("the guest's {round} in {group}");
        let answer = guest.send_text(&group, &text).await;
        assert_eq!(host.has_text(&group, &guest.number, &text).await, answer);
        guest.phone_has(phone, &answer, &text).await;
        let reaction = host.react(&group, &answer, "👍").await;
        guest.has_reaction(&host.number, &answer, "👍").await;
        host.phone_has(phone, &reaction, "<reaction 👍>").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_and_a_phone_meet_in_groups() {
    let Some(mut pair) = Pair::start().await else { return };
    let phone = pair.simulator.phone(MEMBER);
    meet(&mut pair.baileys, &mut pair.whatsmeow, &phone).await;
    meet(&mut pair.whatsmeow, &mut pair.baileys, &phone).await;
    for message in phone.inbox() {
        assert!(message.chat.ends_with("@g.us"), "{message:?}");
    }
    pair.finish();
}
