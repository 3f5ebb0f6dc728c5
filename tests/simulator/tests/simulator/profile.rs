//! Pictures, abouts, businesses, block lists and privacy.

use wacore::types::events::Event;
use whatsapp_simulator::BusinessProfile;

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_set_seen_and_removed() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15562001"), TestClient::pair(&simulator, "15562002"));
    let picture = |of: &'static str, preview| {
        let client = bob.client.clone();
        async move { client.contacts().get_profile_picture(&jid(of), preview).await }
    };
    assert!(picture("15562001", false).await.map_or(true, |p| p.is_none()), "there is none");
    bob.send("15562001", "so that she is a contact").await;
    let set = alice.client.profile().set_profile_picture(vec![7; 5_000]).await.unwrap();
    let told = bob
        .wait("a picture", |e| match e {
            Event::PictureUpdate(update) if update.jid == jid("15562001") => Some(update.clone()),
            _ => None,
        })
        .await;
    assert_eq!((told.removed, told.picture_id.as_deref()), (false, Some(set.id.as_str())));
    for preview in [true, false] {
        let picture = picture("15562001", preview).await.unwrap().expect("there is one");
        assert_eq!(picture.id, set.id);
    }
    // A phone's picture has a preview of its own.
    let phone = simulator.phone("15562001");
    phone.set_picture(Some(&[1; 900]), Some(&[2; 90])).unwrap();
    let both = (picture("15562001", true).await.unwrap().unwrap(), picture("15562001", false).await.unwrap().unwrap());
    assert!(both.0.url != both.1.url && both.0.id != set.id);
    alice.client.profile().remove_profile_picture().await.unwrap();
    let removed = |e: &Event| matches!(e, Event::PictureUpdate(u) if u.removed).then_some(());
    bob.wait("no picture", removed).await;
    assert!(picture("15562001", false).await.map_or(true, |p| p.is_none()));
    // Who shows it to nobody has none for others.
    phone.set_picture(Some(&[1; 900]), None).unwrap();
    phone.set_privacy("profile", "none").unwrap();
    assert!(picture("15562001", false).await.map_or(true, |p| p.is_none()));
    assert!(alice.client.contacts().get_profile_picture(&jid("15562001"), false).await.unwrap().is_some());
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_learn_what_an_account_says_of_itself() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15562003"), TestClient::pair(&simulator, "15562004"));
    bob.send("15562003", "so that she is a contact").await;
    let phone = simulator.phone("15562003");
    alice.client.profile().set_status_text("away 🌴").await.unwrap();
    let about =
        |text: &'static str| move |e: &Event| matches!(e, Event::UserAboutUpdate(u) if u.status == text).then_some(());
    bob.wait("an about", about("away 🌴")).await;
    assert_eq!(phone.about(), "away 🌴");
    phone.set_about("");
    bob.wait("an empty about", about("")).await;
    phone.set_about("back");
    let known = bob.client.contacts().get_user_info(&[jid("15562003")]).await.unwrap();
    let info = known.values().next().expect("she is known");
    assert_eq!(info.status.as_deref(), Some("back"));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_business_has_a_profile() {
    let simulator = simulator().await;
    let alice = TestClient::pair(&simulator, "15562005").await;
    simulator.phone("15562006");
    assert!(alice.client.get_business_profile(&jid("15562006")).await.unwrap().is_none());
    let business = BusinessProfile {
        description: "we bake".into(),
        email: "bread@example.com".into(),
        websites: vec!["https://example.com".into()],
        category: "Bakery".into(),
        ..Default::default()
    };
    simulator.phone("15562006").set_business(Some(business));
    let seen = alice.client.get_business_profile(&jid("15562006")).await.unwrap().expect("a business");
    assert_eq!((seen.description.as_str(), seen.email.as_deref()), ("we bake", Some("bread@example.com")));
    assert_eq!((seen.website, seen.categories[0].name.as_str()), (vec!["https://example.com".into()], "Bakery"));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_reaches_nobody() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15562007"), TestClient::pair(&simulator, "15562008"));
    let phone = simulator.phone("15562007");
    bob.send("15562007", "before").await;
    alice.text("before").await;
    alice.client.blocking().block(&jid("15562008")).await.unwrap();
    assert_eq!(phone.blocked(), ["15562008"]);
    assert_eq!(alice.client.blocking().get_blocklist().await.unwrap().len(), 1);
    let id = bob.send("15562007", "while blocked").await;
    eventually("accepted", || simulator.trace(&id).is_some()).await;
    phone.set_blocked("15562008", false).unwrap();
    bob.send("15562007", "after").await;
    alice
        .wait("the text after it", |e| {
            let Event::Messages(batch) = e else { return None };
            let texts: Vec<_> = batch.iter().filter_map(|m| m.message.conversation.clone()).collect();
            assert!(!texts.contains(&"while blocked".to_string()), "it was acknowledged and reached nobody");
            texts.contains(&"after".to_string()).then_some(())
        })
        .await;
    assert!(!phone.inbox().iter().any(|m| m.id == id));
    assert!(alice.client.blocking().get_blocklist().await.unwrap().is_empty());
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_need_a_token_where_the_account_wants_it() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15562009"), TestClient::pair(&simulator, "15562010"));
    let phone = simulator.phone("15562009");
    phone.set_privacy("messages", "contacts").unwrap();
    // Whether the client waits for the acknowledgement is its own affair.
    let _ = bob.client.send_message(jid("15562009"), crate::client::message("let me in")).await;
    let lid = || simulator.phone("15562009").lid();
    eventually("refused", || simulator.stats().count("message refused") > 0).await;
    alice.client.tc_token().issue_tokens(&[jid("15562010")]).await.unwrap();
    let mut stored = None;
    for _ in 0..500 {
        stored = bob.client.tc_token().get(&lid()).await.unwrap();
        // The client keeps an empty one for whom it has given a token itself.
        if stored.as_ref().is_some_and(|s| !s.token.is_empty()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!stored.expect("the contact's token").token.is_empty());
    bob.send("15562009", "now I may").await;
    alice.text("now I may").await;
    phone.wait_for(DEADLINE, |m| m.text == "now I may").await.unwrap();
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_typing_are_seen_by_those_who_may() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15562011"), TestClient::pair(&simulator, "15562012"));
    let (of_alice, of_bob) = (simulator.phone("15562011"), simulator.phone("15562012"));
    bob.client.presence().set_available().await.unwrap();
    bob.client.presence().subscribe(&jid("15562011")).await.unwrap();
    let is = |gone: bool| {
        move |e: &Event| {
            matches!(e, Event::Presence(p) if p.from == jid("15562011") && p.unavailable == gone).then_some(())
        }
    };
    of_alice.set_available(true);
    bob.wait("she comes", is(false)).await;
    of_alice.set_available(false);
    bob.wait("she goes", is(true)).await;
    // Phones see the same of clients.
    of_bob.watch("15562011").unwrap();
    alice.client.presence().set_available().await.unwrap();
    let came = |e: &whatsapp_simulator::PhoneEvent| {
        matches!(e, whatsapp_simulator::PhoneEvent::Presence { available: true, .. })
    };
    of_bob.wait_for_event(DEADLINE, came).await.unwrap();
    of_alice.set_activity("15562012", whatsapp_simulator::Activity::Typing).unwrap();
    let typing = |e: &Event| matches!(e, Event::ChatPresence(p) if p.source.sender.user == "15562011").then_some(());
    bob.wait("she types", typing).await;
    let group = of_alice.create_group("typing", &["15562012"]).unwrap();
    alice.client.chatstate().send_recording(&group.parse().unwrap()).await.unwrap();
    let recording = |e: &whatsapp_simulator::PhoneEvent| match e {
        whatsapp_simulator::PhoneEvent::Activity { chat, activity, .. } => {
            *chat == group && *activity == whatsapp_simulator::Activity::Recording
        }
        _ => false,
    };
    of_bob.wait_for_event(DEADLINE, recording).await.unwrap();
    // Who hides when he was there is never seen.
    of_alice.set_privacy("last", "none").unwrap();
    of_alice.set_available(false);
    of_alice.set_available(true);
    bob.client.presence().subscribe(&jid("15562011")).await.unwrap();
    eventually("an answer", || simulator.stats().count("presence") >= 2).await;
    assert_clean(&simulator);
}
