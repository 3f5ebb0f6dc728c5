//! Tokens: made, listed and removed by the administrator, and the two 401 answers.

use crate::{
    client::{Answer, Client, answer, raw},
    world::{STRANGER, USER, World},
};
use reqwest::Method;
use serde_json::{Value, json};

const NO_TOKEN: &str = r#"{"message":"Unauthorized - No Bearer Token"}"#;
const BAD_TOKEN: &str = r#"{"message":"Unauthorized - Invalid Bearer Token"}"#;

#[track_caller]
fn refused(answer: &Answer, body: &str) {
    assert_eq!(answer.status, 401);
    assert_eq!(String::from_utf8_lossy(&answer.bytes), body);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty() && !answer.header("www-authenticate").is_empty());
}

/// All routes that ask for a token, of users and of the administrator.
fn guarded() -> Vec<(Method, String, bool)> {
    let session = format!("/api/whatsapp/sessions/{USER}");
    let mut routes = vec![
        (Method::POST, "/api/whatsapp/messages/text".to_owned(), false),
        (Method::GET, "/api/whatsapp/sessions".to_owned(), false),
        (Method::POST, "/api/whatsapp/sessions".to_owned(), false),
        (Method::GET, "/api/api-tokens".to_owned(), true),
        (Method::DELETE, "/api/api-tokens".to_owned(), true),
        (Method::POST, "/api/api-tokens/generate".to_owned(), true),
    ];
    for (method, path) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/status"),
        (Method::GET, "/qr"),
        (Method::GET, "/messages"),
        (Method::GET, "/contacts"),
        (Method::GET, "/contacts/15559999999/picture"),
        (Method::GET, "/chats"),
        (Method::GET, "/messages/X"),
        (Method::DELETE, "/disconnect"),
        (Method::DELETE, "/device"),
        (Method::POST, "/connect"),
        (Method::POST, "/pairing-code"),
    ] {
        routes.push((method, format!("{session}{path}"), false));
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_every_route_answers_401_to_the_letter() {
    let world = World::start().await;
    for (method, path, for_admin) in guarded() {
        refused(&answer(world.client.without_token(method.clone(), &path)).await, NO_TOKEN);
        let with =
            |value: &str| answer(world.client.without_token(method.clone(), &path).header("authorization", value));
        refused(&with("Basic dXNlcjpwYXNz").await, NO_TOKEN);
        refused(&with("Bearer").await, NO_TOKEN);
        refused(&with("Bearer  ").await, NO_TOKEN);
        refused(&with("Bearer rk_0000").await, BAD_TOKEN);
        // The administrator's key is no user's token, and a user's token manages no tokens.
        let other = if for_admin { world.client.token() } else { world.node.admin_key() };
        refused(&with(&format!("Bearer {other}")).await, BAD_TOKEN);
    }
    // The scheme's case does not matter.
    let lower = world.client.without_token(Method::GET, "/api/whatsapp/sessions");
    answer(lower.header("authorization", format!("bearer {}", world.client.token()))).await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_authorization_headers_are_refused() {
    let world = World::start().await;
    let token = world.client.token();
    let values: [Vec<u8>; 5] = [
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}").into_bytes(),
        format!("Authorization: Bearer {token}\r\nAuthorization: Basic x").into_bytes(),
        [b"Authorization: Bearer ".as_slice(), b"\xff\xfe\x80"].concat(),
        format!("Authorization: Bearer {token}{token}").into_bytes(),
        format!("Authorization: Bearer {}", "x".repeat(16_000)).into_bytes(),
    ];
    for value in values {
        let request =
            [b"GET /api/whatsapp/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", &value[..], b"\r\n\r\n"];
        refused(&raw(world.node.address(), &request.concat()).await, BAD_TOKEN);
    }
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_used_and_removed() {
    let mut world = World::start().await;
    let admin = world.admin();
    let user = "7f8f3a52-60a5-4a8e-9d38-d5a2b5a1c003";
    assert_eq!(admin.get(&format!("/api/api-tokens?user_id={user}")).await.expect(200).body, json!([]));
    let body = json!({"name": "Zentrale 🐦", "user_id": user});
    let made = admin.post("/api/api-tokens/generate", &body).await.expect(201).body;
    assert_eq!((&made["name"], &made["user_id"]), (&json!("Zentrale 🐦"), &json!(user)));
    let second = admin.post("/api/api-tokens/generate", &body).await.expect(201).body;
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert!(token.len() >= 64 && made["created_at"].is_string(), "{made}");
    assert_ne!((&made["id"], &made["token"]), (&second["id"], &second["token"]));

    // The user named in the query or in the body; the token is never shown again.
    let by_query = admin.get(&format!("/api/api-tokens?user_id={user}")).await.expect(200).body;
    let by_body =
        answer(admin.request(Method::GET, "/api/api-tokens").json(&json!({"user_id": user}))).await.expect(200);
    assert_eq!(by_query, by_body.body);
    let listed: Vec<_> = by_query.as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert!(listed.len() == 2 && listed.contains(&made["id"]) && listed.contains(&second["id"]), "{by_query}");
    assert!(!by_query.to_string().contains(token) && by_query[0].get("token").is_none(), "{by_query}");

    let caller = world.client.with_token(token);
    caller.get("/api/whatsapp/sessions").await.expect(200);
    let delete = async |user: &str, id: &str| admin.delete(&format!("/api/api-tokens?user_id={user}&id={id}")).await;
    delete(STRANGER, id).await.error(404, "token_not_found");
    caller.get("/api/whatsapp/sessions").await.expect(200);
    assert_eq!(delete(user, id).await.expect(200).body, json!({"success": true}));
    refused(&caller.get("/api/whatsapp/sessions").await, BAD_TOKEN);
    delete(user, id).await.error(404, "token_not_found");
    let body = json!({"user_id": user, "id": second["id"]});
    let by_body = admin.request(Method::DELETE, "/api/api-tokens").json(&body);
    assert_eq!(answer(by_body).await.expect(200).body, json!({"success": true}));
    assert_eq!(admin.get(&format!("/api/api-tokens?user_id={user}")).await.expect(200).body, json!([]));

    // Revoked for good, and the others live on.
    world.restart().await;
    let caller = caller.at(world.node.base());
    refused(&caller.get("/api/whatsapp/sessions").await, BAD_TOKEN);
    world.client.get("/api/whatsapp/sessions").await.expect(200);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_token_requests_name_the_field_and_make_nothing() {
    let world = World::start().await;
    let admin = world.admin();
    let before = tokens(&admin).await;
    let long = "x".repeat(256);
    let cases: [(Value, &str); 13] = [
        (json!({"user_id": USER}), "name"),
        (json!({"name": "", "user_id": USER}), "name"),
        (json!({"name": "   ", "user_id": USER}), "name"),
        (json!({"name": long, "user_id": USER}), "name"),
        (json!({"name": "a\u{7}b", "user_id": USER}), "name"),
        (json!({"name": 7, "user_id": USER}), "name"),
        (json!({"name": null, "user_id": USER}), "name"),
        (json!({"name": "x"}), "user_id"),
        (json!({"name": "x", "user_id": "x"}), "user_id"),
        (json!({"name": "x", "user_id": [USER]}), "user_id"),
        (json!({"name": "x", "user_id": ""}), "user_id"),
        (json!({"name": "x", "user_id": USER.replace('-', "")}), "user_id"),
        (json!({"name": "x", "user_id": "00000000-0000-0000-0000-000000000000"}), "user_id"),
    ];
    for (body, field) in cases {
        admin.post("/api/api-tokens/generate", &body).await.names(field);
    }
    let both = admin.post("/api/api-tokens/generate", &json!({})).await.names("name");
    both.names("user_id");
    for query in ["", "?user_id=", "?user_id=x", "?user_id=00000000-0000-0000-0000-000000000000"] {
        admin.get(&format!("/api/api-tokens{query}")).await.names("user_id");
        admin.delete(&format!("/api/api-tokens{query}")).await.names("user_id");
    }
    // Said twice it has to be the same: nobody is to guess which token is meant.
    let id = before[0]["id"].as_str().unwrap();
    let both = async |method: Method, query: &str, body: Value| {
        answer(admin.request(method, &format!("/api/api-tokens?{query}")).json(&body)).await
    };
    let query = format!("user_id={USER}&id={id}");
    both(Method::DELETE, &query, json!({"user_id": STRANGER, "id": id})).await.names("user_id");
    both(Method::DELETE, &query, json!({"user_id": USER, "id": STRANGER})).await.names("id");
    let all = both(Method::DELETE, &query, json!({"user_id": STRANGER, "id": STRANGER})).await;
    all.names("id").names("user_id");
    both(Method::GET, &query, json!({"user_id": STRANGER})).await.names("user_id");
    let same = json!({"user_id": USER.to_uppercase(), "id": null});
    assert_eq!(both(Method::GET, &query, same).await.expect(200).body, before);
    admin.delete(&format!("/api/api-tokens?user_id={USER}")).await.names("id");
    admin.delete(&format!("/api/api-tokens?user_id={USER}&id=x")).await.names("id");
    assert_eq!(tokens(&admin).await, before);
    world.finish();
}

async fn tokens(admin: &Client) -> Value {
    admin.get(&format!("/api/api-tokens?user_id={USER}")).await.expect(200).body
}

#[tokio::test(flavor = "multi_thread")]
async fn open_token_management_lets_everybody_on_this_machine_make_tokens() {
    let world = World::with(&[("ROOKERY_API__OPEN_TOKEN_MANAGEMENT", "true")]).await;
    let body = json!({"name": "open", "user_id": STRANGER});
    let made = world.client.without_token(Method::POST, "/api/api-tokens/generate").json(&body);
    let token = answer(made).await.expect(201).text("token");
    world.client.with_token(&token).get("/api/whatsapp/sessions").await.expect(200);
    // Sessions are not open.
    refused(&answer(world.client.without_token(Method::GET, "/api/whatsapp/sessions")).await, NO_TOKEN);
    world.finish();
}
