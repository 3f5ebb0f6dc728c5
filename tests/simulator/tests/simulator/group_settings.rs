//! How groups work: who may do what, who may join, how members are addressed.

use wacore::types::events::Event;
use whatsapp_rust::{
    GroupDescription, Jid, JoinGroupResult, MemberAddMode, MembershipApprovalMode, PreviousDescription,
};
use whatsapp_simulator::{GroupOptions, PhoneError};

use crate::client::{DEADLINE, TestClient, assert_clean, eventually, jid, message, simulator};
use crate::groups::told;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_changes_how_a_group_works() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15565001"), TestClient::pair(&simulator, "15565002"));
    let carol = simulator.phone("15565003");
    let group = simulator.phone("15565001").create_group("settings", &["15565002", "15565003"]).unwrap();
    told(&bob, &group, "Create").await;
    let id: Jid = group.parse().unwrap();
    let groups = alice.client.groups();

    groups.set_announce(&id, true).await.unwrap();
    told(&bob, &group, "Announce").await;
    assert!(matches!(carol.send_text(&group, "no"), Err(PhoneError::Refused(_))));
    // Whether the client waits for the acknowledgement is its own affair.
    let _ = bob.client.send_message(id.clone(), message("neither")).await;
    eventually("refused", || simulator.stats().count("message refused") > 0).await;
    groups.set_announce(&id, false).await.unwrap();
    told(&bob, &group, "NotAnnounce").await;
    carol.send_text(&group, "yes").unwrap();
    bob.text("yes").await;

    groups.set_locked(&id, true).await.unwrap();
    told(&bob, &group, "Locked").await;
    assert!(carol.set_group_subject(&group, "mine").is_err());
    groups.set_locked(&id, false).await.unwrap();
    told(&bob, &group, "Unlocked").await;
    carol.set_group_subject(&group, "ours").unwrap();
    told(&bob, &group, "Subject").await;
    groups.set_ephemeral(&id, 86_400).await.unwrap();
    told(&bob, &group, "Ephemeral").await;
    groups.set_member_add_mode(&id, MemberAddMode::AllMemberAdd).await.unwrap();
    told(&bob, &group, "MemberAddMode").await;
    let text = GroupDescription::new("what we talk about").unwrap();
    groups.set_description(&id, Some(text), PreviousDescription::Absent).await.unwrap();
    told(&bob, &group, "Description").await;
    groups.promote_participants(&id, &[jid("15565003")]).await.unwrap();
    told(&bob, &group, "Promote").await;
    carol.demote_in_group(&group, &["15565003"]).unwrap();
    told(&bob, &group, "Demote").await;

    let known = bob.client.groups().get_metadata(&id).await.unwrap();
    assert_eq!((known.subject.as_str(), known.description.as_deref()), ("ours", Some("what we talk about")));
    assert_eq!(known.ephemeral.and_then(|e| e.expiration), Some(86_400));
    simulator.phone("15565005");
    carol.add_to_group(&group, &["15565005"]).unwrap();
    told(&bob, &group, "Add").await;
    carol.set_group_description(&group, "").unwrap();
    told(&bob, &group, "Description").await;
    assert!(bob.client.groups().get_metadata(&id).await.unwrap().description.is_none());
    carol.set_group_picture(&group, Some(&[1; 300])).unwrap();
    bob.wait("a picture", |e| matches!(e, Event::PictureUpdate(u) if u.jid == id && !u.removed).then_some(())).await;
    assert!(bob.client.contacts().get_profile_picture(&id, false).await.unwrap().is_some());
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_join_by_link() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15565004"), TestClient::pair(&simulator, "15565005"));
    let host = simulator.phone("15565004");
    let group = host.create_group("open", &[]).unwrap();
    let id: Jid = group.parse().unwrap();
    let link = alice.client.groups().get_invite_link(&id, false).await.unwrap();
    let code = link.rsplit('/').next().unwrap().to_string();
    assert_eq!(host.group_invite(&group).unwrap(), code);
    let info = bob.client.groups().get_invite_info(&code).await.unwrap();
    assert_eq!((info.subject.as_str(), info.size), ("open", Some(1)));
    let joined = bob.client.groups().join_with_invite_code(&code).await.unwrap();
    assert!(matches!(joined, JoinGroupResult::Joined(j) if j == id));
    told(&alice, &group, "Add").await;
    bob.client.send_message(id.clone(), message("I am in")).await.unwrap();
    alice.text("I am in").await;

    // Another link: the former leads nowhere.
    let other = alice.client.groups().get_invite_link(&id, true).await.unwrap();
    assert_ne!(other, link);
    let carol = simulator.phone("15565006");
    assert!(carol.join_group(&code).is_err());
    // Who joins now must be approved.
    alice.client.groups().set_membership_approval(&id, MembershipApprovalMode::On).await.unwrap();
    told(&bob, &group, "MembershipApprovalMode").await;
    let code = other.rsplit('/').next().unwrap();
    carol.join_group(code).unwrap();
    told(&alice, &group, "CreatedMembershipRequests").await;
    let asked = alice.client.groups().get_membership_requests(&id).await.unwrap();
    assert_eq!(asked.iter().map(|r| r.jid.clone()).collect::<Vec<_>>(), [jid("15565006")]);
    alice.client.groups().approve_membership_requests(&id, &[jid("15565006")]).await.unwrap();
    told(&bob, &group, "Add").await;
    assert_eq!(carol.group_members(&group).unwrap(), ["15565004", "15565005", "15565006"]);
    carol.leave_group(&group).unwrap();
    told(&bob, &group, "Remove").await;
    carol.join_group(code).unwrap();
    host.decide_group_requests(&group, &["15565006"], false).unwrap();
    told(&alice, &group, "RevokedMembershipRequests").await;
    assert!(carol.group_members(&group).is_err());
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_addresses_its_members_by_lid() {
    let simulator = simulator().await;
    let (alice, bob) = tokio::join!(TestClient::pair(&simulator, "15565007"), TestClient::pair(&simulator, "15565008"));
    let carol = simulator.phone("15565009");
    let options = GroupOptions { by_lid: true, ..Default::default() };
    let group = carol.create_group_with("by lid", &["15565007", "15565008"], options).unwrap();
    told(&alice, &group, "Create").await;
    for n in 0..2 {
        let text = format!("from the phone {n}");
        carol.send_text(&group, &text).unwrap();
        assert_eq!(alice.text(&text).await, format!("{group}/{}@lid", carol.lid()));
        bob.text(&text).await;
        let text = format!("from a client {n}");
        alice.client.send_message(group.parse::<Jid>().unwrap(), message(&text)).await.unwrap();
        let from = bob.text(&text).await;
        assert!(from.starts_with(&format!("{group}/{}", simulator.phone("15565007").lid())), "{from}");
        let got = carol.wait_for(DEADLINE, |m| m.text == text).await.unwrap();
        assert!(got.by_lid && got.from == "15565007", "{got:?}");
    }
    let known = bob.client.groups().get_metadata(&group.parse::<Jid>().unwrap()).await.unwrap();
    assert!(known.participants.iter().all(|p| p.jid.is_lid()), "{:?}", known.participants);
    carol.add_to_group(&group, &["15565010"]).unwrap_err();
    simulator.phone("15565010");
    carol.add_to_group(&group, &["15565010"]).unwrap();
    told(&bob, &group, "Add").await;
    let phone = simulator.phone("15565008");
    eventually("acknowledged", || phone.devices()[0].queued == 0).await;
    assert_clean(&simulator);
}
