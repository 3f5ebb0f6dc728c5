//! What the admin port's routes for profiles, calls, app state and groups do, as others see it.

use serde_json::{Value, json};
use wacore::types::events::Event;
use whatsapp_rust::Jid;
use whatsapp_simulator::Handle;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, message, simulator};
use crate::groups::told;
use crate::http::{ask, done, json as get};

async fn post(simulator: &Handle, path: &str, body: &str) -> String {
    done(simulator, "POST", path, body).await
}

/// Waits until a phone has seen something.
async fn seen(simulator: &Handle, phone: &str, event: Value) {
    let path = format!("/events?phone={phone}");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let matches = |e: &Value| event.as_object().unwrap().iter().all(|(key, value)| e[key] == *value);
    while !get(simulator, &path).await.as_array().unwrap().iter().any(matches) {
        assert!(tokio::time::Instant::now() < deadline, "{phone} never saw {event}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn picture(client: &TestClient, of: &str, removed: bool) {
    let is = |e: &Event| matches!(e, Event::PictureUpdate(u) if u.jid.to_string() == of && u.removed == removed);
    client.wait("a change of a picture", |e| is(e).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_set_over_http_is_seen() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557201").await;
    let bob = simulator.phone("15557202");
    alice.send("15557202", "so that he is a contact").await;
    post(&simulator, "/about?phone=15557202", "on a boat").await;
    let about = |e: &Event| matches!(e, Event::UserAboutUpdate(u) if u.status == "on a boat").then_some(());
    alice.wait("an about", about).await;
    assert_eq!(get(&simulator, "/profile?phone=15557202").await["about"], "on a boat");
    let his = || async { alice.client.contacts().get_profile_picture(&jid("15557202"), false).await };
    post(&simulator, "/picture?phone=15557202", "a JPEG").await;
    picture(&alice, "15557202@s.whatsapp.net", false).await;
    assert!(his().await.unwrap().is_some());
    post(&simulator, "/privacy?phone=15557202&category=profile&value=none", "").await;
    assert!(his().await.map_or(true, |p| p.is_none()), "he shows it to nobody");
    post(&simulator, "/privacy?phone=15557202&category=profile&value=all", "").await;
    post(&simulator, "/picture?phone=15557202", "").await;
    picture(&alice, "15557202@s.whatsapp.net", true).await;
    post(&simulator, "/business?phone=15557202", r#"{"description": "we bake", "category": "Bakery"}"#).await;
    let business = alice.client.get_business_profile(&jid("15557202")).await.unwrap();
    assert_eq!(business.expect("a business").description, "we bake");
    post(&simulator, "/business?phone=15557202", "null").await;
    assert!(alice.client.get_business_profile(&jid("15557202")).await.unwrap().is_none());

    post(&simulator, "/block?phone=15557202&number=15557201&on=true", "").await;
    assert_eq!(get(&simulator, "/blocked?phone=15557202").await, json!(["15557201"]));
    let lost = alice.send("15557202", "while blocked").await;
    eventually("WhatsApp has the message", || simulator.trace(&lost).is_some()).await;
    post(&simulator, "/block?phone=15557202&number=15557201&on=false", "").await;
    assert_eq!(get(&simulator, "/blocked?phone=15557202").await, json!([]));
    alice.send("15557202", "after it").await;
    bob.wait_for(DEADLINE, |m| m.text == "after it").await.unwrap();
    assert!(!bob.inbox().iter().any(|m| m.id == lost));
    post(&simulator, "/privacy?phone=15557202&category=messages&value=contacts", "").await;
    let _ = alice.client.send_message(jid("15557202"), message("let me in")).await;
    eventually("refused", || simulator.stats().count("message refused") > 0).await;
    post(&simulator, "/trust?phone=15557202&number=15557201", "").await;
    alice.send("15557202", "now I may").await;
    bob.wait_for(DEADLINE, |m| m.text == "now I may").await.unwrap();

    simulator.phone("15557203");
    assert_eq!(post(&simulator, "/watch?phone=15557202&number=15557203", "").await, "false");
    post(&simulator, "/available?phone=15557203&on=true", "").await;
    seen(&simulator, "15557202", json!({ "event": "presence", "from": "15557203", "available": true })).await;
    assert_eq!(post(&simulator, "/watch?phone=15557202&number=15557203", "").await, "true");
    alice.client.presence().set_available().await.unwrap();
    eventually("she is there", || simulator.stats().count("presence") > 0).await;
    post(&simulator, "/activity?phone=15557202&chat=15557201&activity=typing", "").await;
    let types = |e: &Event| matches!(e, Event::ChatPresence(p) if p.source.sender.user == "15557202").then_some(());
    alice.wait("he types", types).await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_app_state_over_http_reach_a_client() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557204").await;
    simulator.phone("15557205");
    let said = async |tag: &str, id: &str| {
        let is =
            |e: &Event| matches!(e, Event::IncomingCall(c) if c.action.wire_tag() == tag && c.action.call_id() == id);
        alice.wait(&format!("`{tag}` of the call"), |e| is(e).then_some(())).await;
    };
    let call = |id: &str, state: &str| json!({ "event": "call", "call_id": id, "state": state });
    let id = post(&simulator, "/call?phone=15557205&number=15557204&video=true", "").await;
    said("offer", &id).await;
    post(&simulator, &format!("/call/accept?phone=15557204&id={id}"), "").await;
    said("terminate", &id).await;
    seen(&simulator, "15557205", call(&id, "accepted")).await;
    post(&simulator, &format!("/call/end?phone=15557205&id={id}"), "").await;
    seen(&simulator, "15557204", call(&id, "ended")).await;
    let id = post(&simulator, "/call?phone=15557205&number=15557204", "").await;
    said("offer", &id).await;
    post(&simulator, &format!("/call/reject?phone=15557204&id={id}"), "").await;
    seen(&simulator, "15557205", call(&id, "rejected")).await;

    let changes = json!({ "changes": [
        { "change": "mute", "chat": "15557205", "on": true, "until": null },
        { "change": "push_name", "name": "Named over HTTP" },
    ] });
    post(&simulator, "/state?phone=15557204", &changes.to_string()).await;
    assert_eq!(get(&simulator, "/chat-state?phone=15557204&chat=15557205").await["muted"], true);
    assert_eq!(get(&simulator, "/profile?phone=15557204").await["push_name"], "Named over HTTP");
    eventually("the new name", || alice.client.push_name() == "Named over HTTP").await;
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_changed_over_http_are_changed_for_their_members() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15557206").await;
    for number in ["15557207", "15557208"] {
        simulator.phone(number);
    }
    let new = json!({ "subject": "over http", "members": ["15557206"] }).to_string();
    let group = post(&simulator, "/groups?phone=15557207", &new).await;
    told(&alice, &group, "Create").await;
    let change = async |verb: &str, more: &str, body: &str| {
        post(&simulator, &format!("/groups/{verb}?phone=15557207&group={group}{more}"), body).await
    };
    for (verb, more, body, event) in [
        ("subject", "", "renamed", "Subject"),
        ("description", "", "what we talk about", "Description"),
        ("settings", "&locked=true", "", "Locked"),
        ("settings", "&announce=true", "", "Announce"),
        ("settings", "&approval=true", "", "MembershipApprovalMode"),
        ("settings", "&members-add=true", "", "MemberAddMode"),
        ("settings", "&ephemeral-seconds=86400", "", "Ephemeral"),
        ("promote", "", r#"{"members": ["15557206"]}"#, "Promote"),
        ("demote", "", r#"{"members": ["15557206"]}"#, "Demote"),
    ] {
        change(verb, more, body).await;
        told(&alice, &group, event).await;
    }
    change("picture", "", "a JPEG").await;
    picture(&alice, &group, false).await;
    let known = alice.client.groups().get_metadata(&group.parse::<Jid>().unwrap()).await.unwrap();
    assert_eq!((known.subject.as_str(), known.description.as_deref()), ("renamed", Some("what we talk about")));
    assert_eq!(known.ephemeral.and_then(|e| e.expiration), Some(86_400));

    let link = format!("/groups/invite?phone=15557207&group={group}");
    let code = done(&simulator, "GET", &link, "").await;
    let join = format!("/groups/join?phone=15557208&code={code}");
    let members = format!("/groups/members?phone=15557207&group={group}");
    assert_eq!(post(&simulator, &join, "").await, group);
    let carol = r#"{"members": ["15557208"]}"#;
    change("decide", "&approve=false", carol).await;
    assert_eq!(get(&simulator, &members).await, json!(["15557207", "15557206"]));
    post(&simulator, &join, "").await;
    change("decide", "&approve=true", carol).await;
    told(&alice, &group, "Add").await;
    assert_eq!(get(&simulator, &members).await, json!(["15557207", "15557206", "15557208"]));
    post(&simulator, &format!("/groups/leave?phone=15557208&group={group}"), "").await;
    told(&alice, &group, "Remove").await;
    change("revoke-invite", "", "").await;
    assert_ne!(done(&simulator, "GET", &link, "").await, code);
    assert!((400..500).contains(&ask(&simulator, "POST", &join, b"").await.0), "the former link leads nowhere");
    change("add", "", carol).await;
    told(&alice, &group, "Add").await;
    change("remove", "", r#"{"members": ["15557206"]}"#).await;
    told(&alice, &group, "Remove").await;
    assert_eq!(get(&simulator, &members).await, json!(["15557207", "15557208"]));
    assert_clean(&simulator);
}
