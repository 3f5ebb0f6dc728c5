//! The admin port: all that phones do, faults and evidence over HTTP, as its document says.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json as value};
use wacore::types::events::Event;
use whatsapp_simulator::{MessageKind, ViolationKind};

use crate::client::{DEADLINE, PairBy, TestClient, assert_clean, eventually, simulator};
use crate::http::{ask, assert_documented, document, done, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_is_there_and_no_other() {
    let simulator = simulator().await;
    let document = document(&simulator).await;
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let place = path.replace("{type}", "image").replace("{name}", "none");
            let (status, answer) = ask(&simulator, &method, &place, b"").await;
            assert!(status != 405 && !answer.contains("no such route"), "{method} {path}: {status} {answer}");
            // What it needs it asks for.
            let needs =
                operation["parameters"].as_array().unwrap().iter().any(|p| p["required"] == true && p["in"] == "query");
            assert!(!needs || status == 400, "{method} {path}: {status} {answer}");
            routes += 1;
        }
    }
    assert!(routes > 40, "{routes}");
    for (method, path, status) in
        [("GET", "/none", 404), ("POST", "/", 404), ("PUT", "/scan", 405), ("GET", "/scan", 405)]
    {
        let (answered, body) = ask(&simulator, method, path, b"").await;
        assert_eq!(answered, status, "{method} {path}");
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(error["message"].is_string(), "{body}");
    }
    let (status, body) = ask(&simulator, "POST", "/scan?fone=15550500", b"x").await;
    assert!(status == 400 && body.contains("fone"), "{body}");
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_linked_written_to_and_judged_over_http_alone() {
    let simulator = simulator().await;
    let client = TestClient::start(&simulator, "15550501", std::sync::Arc::default(), PairBy::Nothing).await;
    let qr = client
        .wait("a QR code", |e| match e {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await;
    assert_eq!(done(&simulator, "POST", "/scan?phone=15550501", &qr).await, "15550501:1");
    client.connected().await;
    let friend = "15550502";
    done(&simulator, "GET", &format!("/devices?phone={friend}"), "").await;
    let inject = format!("/inject?from={friend}&to=15550501");
    let id = done(&simulator, "POST", &inject, "over HTTP").await;
    client.text("over HTTP").await;
    done(&simulator, "POST", &format!("/echo?phone={friend}&on=true"), "").await;
    let sent = client.send(friend, "hello").await;
    let arrived = json(&simulator, &format!("/wait?phone={friend}&text=hello&from=%2B15550501")).await;
    assert_eq!((&arrived["id"], &arrived["kind"]), (&value!(sent), &value!("text")));
    client.text("echo: hello").await;
    done(&simulator, "POST", &format!("/read?phone={friend}&id={sent}"), "").await;
    let (status, _) = ask(&simulator, "GET", &format!("/wait?phone={friend}&text=never&timeout-ms=50"), b"").await;
    assert_eq!(status, 408);
    eventually("all arrived", || simulator.undelivered().is_empty()).await;

    let receipts = json(&simulator, &format!("/receipts?phone={friend}&id={id}")).await;
    assert_eq!(receipts[0]["kind"], "delivered");
    let inbox = json(&simulator, &format!("/inbox?phone={friend}&format=json")).await;
    assert_eq!(inbox.as_array().unwrap().len(), 1);
    let lines = done(&simulator, "GET", &format!("/inbox?phone={friend}"), "").await;
    assert_eq!(lines, "15550501: hello\n");
    assert_eq!(json(&simulator, "/devices?phone=15550501").await[0]["connected"], true);
    assert!(json(&simulator, "/stats?format=json").await["counts"]["login"].as_u64().unwrap() >= 1);
    let trace = json(&simulator, &format!("/trace?id={id}")).await;
    assert_eq!(trace["devices"]["15550501:1"]["deliveries"][0]["cause"], "first", "{trace}");
    let acknowledged = json(&simulator, "/acknowledged?phone=15550501&device=1").await;
    assert_eq!(acknowledged[0]["id"], value!(id));
    let connections = json(&simulator, "/connections?phone=15550501&device=1").await;
    assert_eq!(json(&simulator, "/connections?phone=15550501").await, connections);
    assert!(connections.as_array().unwrap().iter().any(|c| c["until_ms"].is_null()), "{connections}");
    for none in ["/violations", "/undelivered", "/duplicates"] {
        assert_eq!(json(&simulator, none).await, value!([]), "{none}");
    }
    for (path, body, found) in [
        ("/check/stored?phone=15550501&device=1", String::new(), ViolationKind::AcknowledgedNotStored),
        ("/check/sent?phone=15550501", format!("{sent}\nNEVER\n"), ViolationKind::NotDelivered),
    ] {
        let answer: Value = serde_json::from_str(&done(&simulator, "POST", path, &body).await).unwrap();
        assert_documented(&simulator, "post", path, &answer).await;
        assert_eq!(answer[0]["kind"], value!(found), "{answer}");
    }
    assert_eq!(done(&simulator, "GET", "/root", "").await, hex::encode(simulator.root_key()));
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_send_everything_and_keep_groups_over_http() {
    let simulator = simulator().await;
    let [alice, bob, carol] = ["15550511", "15550512", "15550513"].map(|n| simulator.phone(n));
    let send = async |to: &str, content: Value| {
        let path = format!("/send?from={}&to={to}", alice.number());
        done(&simulator, "POST", &path, &content.to_string()).await
    };
    let text = send("+15550512", value!({"kind": "text", "text": "first"})).await;
    bob.wait_for(DEADLINE, |m| m.id == text).await.unwrap();
    let data = BASE64_STANDARD.encode([7; 3_000]);
    let contents = [
        (value!({"kind": "reaction", "message_id": text, "emoji": "👍"}), MessageKind::Reaction),
        (value!({"kind": "edit", "message_id": text, "text": "better"}), MessageKind::Edit),
        (value!({"kind": "poll", "question": "tea?", "options": ["yes", "no"]}), MessageKind::Poll),
        (
            value!({"kind": "medium", "medium": "image", "data": data, "mimetype": "image/png", "caption": "c"}),
            MessageKind::Image,
        ),
        (value!({"kind": "medium", "medium": "audio", "data": data, "mimetype": "audio/ogg"}), MessageKind::Audio),
        (value!({"kind": "revoke", "message_id": text}), MessageKind::Revoke),
    ];
    for (content, kind) in contents {
        let id = send("15550512", content.clone()).await;
        let arrived = bob.wait_for(DEADLINE, |m| m.id == id).await.unwrap();
        assert_eq!(arrived.kind, kind, "{content}");
    }
    let group = value!({"subject": "friends", "members": ["+15550512"]}).to_string();
    let group = done(&simulator, "POST", "/groups?phone=15550511", &group).await;
    let member = value!({"members": ["15550513"]}).to_string();
    done(&simulator, "POST", &format!("/groups/add?phone=15550511&group={group}"), &member).await;
    done(&simulator, "POST", &format!("/groups/subject?phone=15550511&group={group}"), "closer friends").await;
    let to_all = send(&group, value!({"kind": "text", "text": "to all"})).await;
    for phone in [&bob, &carol] {
        let arrived = phone.wait_for(DEADLINE, |m| m.id == to_all).await.unwrap();
        assert_eq!(arrived.chat, group);
    }
    done(&simulator, "POST", &format!("/groups/remove?phone=15550511&group={group}"), &member).await;
    let to_one = send(&group, value!({"kind": "text", "text": "to one"})).await;
    bob.wait_for(DEADLINE, |m| m.id == to_one).await.unwrap();
    assert!(!simulator.trace(&to_one).unwrap().devices.contains_key("15550513:0"));
    done(&simulator, "POST", "/forget-sessions?phone=15550512", "").await;
    let again = send("15550512", value!({"kind": "text", "text": "again"})).await;
    bob.wait_for(DEADLINE, |m| m.id == again).await.unwrap();
    let bad = [
        (value!({"kind": "song"}), "unknown variant"),
        (value!({"kind": "text"}), "missing field"),
        (value!({"kind": "medium", "medium": "image", "data": "!", "mimetype": "x"}), "base64"),
        (value!({"kind": "poll", "question": "?", "options": []}), "options"),
    ];
    for (content, why) in bad {
        let (status, body) =
            ask(&simulator, "POST", "/send?from=15550511&to=15550512", content.to_string().as_bytes()).await;
        assert!(status == 400 && body.contains(why), "{content}: {status} {body}");
    }
    assert_clean(&simulator);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_injected_over_http() {
    let simulator = simulator().await;
    let client = TestClient::pair(&simulator, "15550521").await;
    let fault = async |path: &str| done(&simulator, "POST", &format!("/fault/{path}"), "").await;
    let phone = simulator.phone("15550521");
    let login = async |path: &str| {
        eventually("active", || phone.devices()[0].active).await;
        let before = simulator.stats().count("login");
        assert_eq!(fault(path).await, "1", "{path}");
        eventually("a new login", || simulator.stats().count("login") > before).await;
    };
    login("drop").await;
    login("drop?phone=15550521").await;
    login("cut?phone=15550521&device=1").await;
    login("stream-error?phone=15550521&code=503").await;
    eventually("active", || phone.devices()[0].active).await;
    assert_eq!(fault("unknown?phone=15550521&device=1").await, "1");
    assert_eq!(fault("freeze?phone=15550521&on=true").await, "1");
    assert_eq!(fault("freeze?phone=15550521&on=false").await, "1");
    assert_ne!(fault("exhaust-prekeys?phone=15550521").await, "0");
    assert!(fault("redeliver?phone=15550521&device=1").await.parse::<usize>().is_ok());
    for (set, take_back) in [
        ("refuse-logins?phone=15550521&reason=503", "refuse-logins"),
        ("hold-acks?on=true", "hold-acks?on=false"),
        ("duplicate?phone=15550521&device=1&on=true", "duplicate?on=false"),
        ("hold-receipts?on=true", "hold-receipts?on=false&seed=7"),
        ("reject?phone=15550521&code=463", "reject"),
        ("delay?ms=1&jitter-ms=1&seed=7", "delay"),
        ("break?phone=15550521&probability=0.5&seed=7", "break?probability=0"),
        ("clock?ahead=-3600", "clock?ahead=0"),
        ("media?state=slow&ms=1", "media?state=well"),
    ] {
        assert_eq!(fault(set).await, "ok");
        assert_eq!(fault(take_back).await, "ok");
    }
    for (path, status) in [
        ("drop?phone=15550521&device=9", 404),
        ("drop?device=1", 400),
        ("break?probability=2", 400),
        ("media?state=odd", 400),
        ("refuse-logins?reason=x", 400),
        ("none", 404),
    ] {
        assert_eq!(ask(&simulator, "POST", &format!("/fault/{path}"), b"").await.0, status, "{path}");
    }
    simulator.phone("15550522").send_text("15550521", "all is well").unwrap();
    client.text("all is well").await;
    eventually("active", || phone.devices()[0].active).await;
    assert_eq!(fault("second-login?phone=15550521").await, "1");
    client.wait("replaced", |e| matches!(e, Event::StreamReplaced(_)).then_some(())).await;
    assert_eq!(fault("remove-device?phone=15550521&device=1").await, "1");
    assert_eq!(phone.devices(), []);
    assert_clean(&simulator);
}
