//! kill -9 again and again under everything at once: texts, files, repeats, messages and files from phones.
//!
//! Whatever was answered holds, whatever was not is there once or not at all, nothing is sent or stored twice.

use crate::{
    client::{Client, TEXT},
    hosts::{Host, picture},
    media::{MEDIA, form, linked_with},
    node::eventually,
    world::{FRIEND, OWNER, World, seed},
};
use image::ImageFormat;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use whatsapp_simulator::{Content, MediaFault, MediumKind, Phone};

const KILLS: usize = 20;
const OWNERS: [&str; 3] = [OWNER, "15550001002", "15550001003"];
const FRIENDS: [&str; 4] = [FRIEND, "15550002003", "15550002004", "15550002005"];
/// Callers a session.
const CALLERS: usize = 3;
/// The most answers of a run before it is killed.
const MOST_ANSWERS: usize = 60;
/// A run is killed at the latest after this time, however few answers there were.
const LONGEST_RUN: Duration = Duration::from_secs(4);
/// Files of incoming messages that are looked at in the end.
const SAMPLE: usize = 12;

/// What one send asks for; every repeat asks for exactly the same.
struct Wish {
    number: usize,
    session: String,
    to: &'static str,
    what: What,
    key: Option<String>,
    /// How long the caller waits for WhatsApp.
    wait_ms: u64,
}

enum What {
    Text,
    Upload(Vec<u8>),
    Url(String),
}

/// What the gateway said to one request.
enum Said {
    /// Accepted, under this message id.
    Accepted(String),
    /// Certainly not accepted.
    Refused,
    /// Nothing: the connection broke.
    Nothing,
}

impl Wish {
    /// What the recipient reads, as text or as caption.
    fn words(&self) -> String {
        format!("out {}", self.number)
    }

    async fn ask(&self, client: &Client) -> Said {
        let path = if matches!(self.what, What::Text) { TEXT } else { MEDIA };
        let request = client.request(Method::POST, &format!("{path}?wait_ms={}", self.wait_ms));
        let (session, to, words) = (&self.session, self.to, self.words());
        let request = match &self.what {
            What::Text => request.json(&json!({"session_id": session, "to": to, "message": words})),
            What::Url(url) => request.json(
                &json!({"session_id": session, "to": to, "type": "document", "media_url": url, "caption": words}),
            ),
            What::Upload(file) => {
                let (kind, body) = form(&[
                    ("session_id", None, session.as_bytes()),
                    ("to", None, to.as_bytes()),
                    ("type", None, b"image"),
                    ("caption", None, words.as_bytes()),
                    ("file", Some("a.png"), file),
                ]);
                request.header("content-type", kind).body(body)
            }
        };
        let request = match &self.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let Ok(response) = request.send().await else { return Said::Nothing };
        let status = response.status().as_u16();
        let Ok(body) = response.json::<Value>().await else { return Said::Nothing };
        match status {
            200 | 202 => Said::Accepted(body["message_id"].as_str().unwrap().to_owned()),
            503 => Said::Refused,
            _ => panic!("{words}: {status} {body}"),
        }
    }
}

/// A wish and all that was ever said to it.
struct Entry {
    wish: Arc<Wish>,
    ids: BTreeSet<String>,
    unanswered: bool,
}

/// All wishes so far, by number.
#[derive(Default)]
struct Ledger(Mutex<Vec<Entry>>);

impl Ledger {
    fn add(&self, make: impl FnOnce(usize) -> Wish) -> Arc<Wish> {
        let mut entries = self.0.lock().unwrap();
        let wish = Arc::new(make(entries.len()));
        entries.push(Entry { wish: Arc::clone(&wish), ids: BTreeSet::new(), unanswered: false });
        wish
    }

    /// One that can be repeated, possibly while it is under way.
    fn any_with_key(&self, random: &mut StdRng) -> Option<Arc<Wish>> {
        let entries = self.0.lock().unwrap();
        let start = if entries.is_empty() { 0 } else { random.random_range(0..entries.len()) };
        let (after, before) = (entries.iter().skip(start), entries.iter().take(start));
        after.chain(before).find(|entry| entry.wish.key.is_some()).map(|entry| Arc::clone(&entry.wish))
    }

    fn note(&self, wish: &Wish, said: Said) {
        let entry = &mut self.0.lock().unwrap()[wish.number];
        match said {
            Said::Accepted(id) => drop(entry.ids.insert(id)),
            Said::Refused => {}
            Said::Nothing => entry.unanswered = true,
        }
    }
}

/// What callers of all sessions share.
struct Load {
    ledger: Ledger,
    host: Host,
    sessions: Vec<String>,
    answers: AtomicUsize,
}

impl Load {
    /// A new wish, or an old one again.
    fn choose(&self, random: &mut StdRng, session: &str) -> Arc<Wish> {
        if random.random_ratio(1, 4)
            && let Some(old) = self.ledger.any_with_key(random)
        {
            return old;
        }
        let to = FRIENDS[random.random_range(0..FRIENDS.len())];
        let keyed = random.random_ratio(3, 4);
        let wait_ms = if random.random_ratio(1, 3) { 0 } else { 10_000 };
        let (kind, salt) = (random.random_range(0..6), random.random::<u64>());
        self.ledger.add(|number| Wish {
            number,
            session: session.to_owned(),
            to,
            what: match kind {
                0 => What::Upload(picture(ImageFormat::Png, 8 + number as u32 % 50, 8)),
                1 => What::Url(self.host.file(&format!("/{number}"), format!("file {number} {salt}").as_bytes())),
                _ => What::Text,
            },
            key: keyed.then(|| format!("key {number}")),
            wait_ms,
        })
    }

    /// Sends until the gateway is gone.
    async fn call(&self, client: &Client, session: &str, mut random: StdRng) {
        loop {
            let wish = self.choose(&mut random, session);
            let said = wish.ask(client).await;
            let gone = matches!(said, Said::Nothing);
            self.ledger.note(&wish, said);
            if gone {
                return;
            }
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What phones have sent to one account.
struct Incoming {
    owner: &'static str,
    friends: Vec<Phone>,
    /// Message ids in order, with the file of those that have one.
    sent: Vec<(String, Option<Vec<u8>>)>,
}

impl Incoming {
    fn send(&mut self, random: &mut StdRng) {
        let friend = &self.friends[random.random_range(0..self.friends.len())];
        let number = self.sent.len();
        let (content, file) = if random.random_ratio(1, 4) {
            let file = format!("{} {number} {}", self.owner, random.random::<u64>()).into_bytes();
            let content = Content::Medium {
                kind: MediumKind::Document,
                data: file.clone().into(),
                mimetype: "text/plain".into(),
                caption: Some(format!("in {number}")),
                view_once: false,
            };
            (content, Some(file))
        } else {
            (Content::Text(format!("in {number}")), None)
        };
        self.sent.push((friend.send(self.owner, &content).unwrap(), file));
    }

    /// Sends now and then until told to stop.
    async fn keep_sending(mut self, mut random: StdRng, stop: tokio_util::sync::CancellationToken) -> Self {
        loop {
            self.send(&mut random);
            let pause = Duration::from_millis(random.random_range(5..60));
            tokio::select! {
                () = stop.cancelled() => return self,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// One life of the gateway: load on all sessions until it is killed.
async fn live_and_die(
    world: &mut World,
    load: &Arc<Load>,
    incoming: Vec<Incoming>,
    random: &mut StdRng,
) -> Vec<Incoming> {
    let enough = random.random_range(0..MOST_ANSWERS);
    load.answers.store(0, Ordering::SeqCst);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut phones = JoinSet::new();
    for incoming in incoming {
        phones.spawn(incoming.keep_sending(StdRng::seed_from_u64(random.random()), stop.clone()));
    }
    let mut callers = JoinSet::new();
    for session in &load.sessions {
        for _ in 0..CALLERS {
            let (load, client, session) = (Arc::clone(load), world.client.clone(), session.clone());
            let random = StdRng::seed_from_u64(random.random());
            callers.spawn(async move { load.call(&client, &session, random).await });
        }
    }
    let started = Instant::now();
    eventually("enough answers", async || {
        let answers = load.answers.load(Ordering::SeqCst);
        if answers >= enough || started.elapsed() > LONGEST_RUN { Ok(()) } else { Err(answers.to_string()) }
    })
    .await;
    world.node.kill();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    stop.cancel();
    let mut incoming = phones.join_all().await;
    incoming.sort_by_key(|incoming| incoming.owner);
    // Some come while the gateway is down.
    for incoming in &mut incoming {
        incoming.send(random);
    }
    incoming
}

/// What the account's device has acknowledged is in the history.
async fn acknowledged_is_stored(world: &World, acknowledged: &[whatsapp_simulator::Acknowledged], session: &str) {
    let rows = world.client.history(session).await;
    let stored: HashSet<_> = rows.iter().map(|row| row["message_id"].as_str().unwrap()).collect();
    let missing: Vec<_> = acknowledged.iter().filter(|message| !stored.contains(message.id.as_str())).collect();
    assert!(missing.is_empty(), "acknowledged and not stored: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_under_mixed_load_it_loses_and_doubles_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let host = Host::start().await;
    let (mut world, first) = linked_with(&host, &[]).await;
    let mut sessions = vec![first];
    for owner in &OWNERS[1..] {
        sessions.push(world.link(owner).await);
    }
    let friends: Vec<_> = FRIENDS.iter().map(|friend| world.phone(friend)).collect();
    let new = |owner| Incoming { owner, friends: friends.clone(), sent: vec![] };
    let mut incoming: Vec<_> = OWNERS.into_iter().map(new).collect();
    let load =
        Arc::new(Load { ledger: Ledger::default(), host, sessions: sessions.clone(), answers: AtomicUsize::new(0) });
    // So that kills fall into uploads as well.
    world.simulator.faults().media(Some(MediaFault::Slow(Duration::from_millis(20))));
    for _ in 0..KILLS {
        incoming = live_and_die(&mut world, &load, incoming, &mut random).await;
        let looked_at = random.random_range(0..OWNERS.len());
        let acknowledged = world.simulator.acknowledged(OWNERS[looked_at], 1);
        world.start_again().await;
        acknowledged_is_stored(&world, &acknowledged, &sessions[looked_at]).await;
    }
    world.simulator.faults().media(None);
    for session in &sessions {
        world.status_is(session, "WORKING").await;
    }
    ask_again(&world, &load.ledger, &mut random).await;
    let mut histories = vec![];
    for (session, incoming) in sessions.iter().zip(&incoming) {
        histories.push(settled(&world, session, incoming).await);
    }
    // Phones take in what came a moment after WhatsApp has accepted it.
    eventually("nothing waits", async || match world.simulator.undelivered() {
        waiting if waiting.is_empty() => Ok(()),
        waiting => Err(format!("{} messages, such as {:?}", waiting.len(), waiting[0])),
    })
    .await;
    for ((rows, owner), incoming) in histories.iter().zip(OWNERS).zip(&incoming) {
        check_incoming(&world, rows, incoming, owner).await;
        check_outgoing(&world, rows, owner);
    }
    check_inboxes(&friends, &load.ledger);
    assert_eq!(world.simulator.duplicates(), []);
    world.finish();
}

/// Some of those who got no answer ask once more, now that all is well.
async fn ask_again(world: &World, ledger: &Ledger, random: &mut StdRng) {
    let unanswered: Vec<_> = {
        let entries = ledger.0.lock().unwrap();
        let open = entries.iter().filter(|entry| entry.unanswered && entry.wish.key.is_some());
        open.map(|entry| Arc::clone(&entry.wish)).collect()
    };
    for wish in unanswered {
        if random.random_ratio(1, 2) {
            let said = wish.ask(&world.client).await;
            assert!(matches!(said, Said::Accepted(_)), "{}", wish.words());
            ledger.note(&wish, said);
        }
    }
}

/// The history once nothing is under way any more. What was sent may never be shown as delivered: a receipt is
/// acknowledged when it comes and written a moment later, and WhatsApp does not repeat it.
async fn settled(world: &World, session: &str, incoming: &Incoming) -> Vec<Value> {
    let is_sent = |row: &Value| row["status"] == "sent" || row["status"] == "delivered";
    eventually("nothing is under way", async || {
        let rows = world.client.history(session).await;
        let (sent, received): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["from_me"] == true);
        let open: Vec<_> = sent.into_iter().filter(|row| !is_sent(row)).collect();
        if received.len() >= incoming.sent.len() && open.is_empty() {
            return Ok(rows);
        }
        Err(format!("{} of {} received; under way: {open:?}", received.len(), incoming.sent.len()))
    })
    .await
}

/// Every incoming message is there once, readable, and its file can be had.
async fn check_incoming(world: &World, rows: &[Value], incoming: &Incoming, owner: &str) {
    let stored: Vec<_> = rows.iter().filter(|row| row["from_me"] == false).collect();
    let ids: HashMap<_, _> = stored.iter().map(|row| (row["message_id"].as_str().unwrap(), *row)).collect();
    assert_eq!(ids.len(), stored.len(), "{owner}: none twice");
    assert_eq!(ids.len(), incoming.sent.len(), "{owner}: each once");
    for (number, (id, file)) in incoming.sent.iter().enumerate() {
        let row = ids.get(id.as_str()).unwrap_or_else(|| panic!("{owner}: {id} is missing"));
        let (kind, field) = if file.is_some() { ("document", "caption") } else { ("text", "text") };
        assert_eq!((&row["type"], &row[field]), (&json!(kind), &json!(format!("in {number}"))), "{row}");
    }
    let files = incoming.sent.iter().rev().filter_map(|(id, file)| Some((id, file.as_ref()?)));
    for (id, file) in files.take(SAMPLE) {
        let url = ids[id.as_str()]["media"]["url"].as_str().unwrap();
        assert_eq!(world.client.get(url).await.expect(200).bytes, *file, "{owner}: {id}");
    }
    let ids = incoming.sent.iter().map(|(id, _)| id.as_str());
    assert_eq!(world.simulator.check_stored(owner, 1, ids), []);
}

/// Nothing stands in the history twice, and what it says was sent was sent once.
fn check_outgoing(world: &World, rows: &[Value], owner: &str) {
    let sent: Vec<_> = rows.iter().filter(|row| row["from_me"] == true).collect();
    let words = |row: &&&Value| row["text"].as_str().or(row["caption"].as_str()).unwrap().to_owned();
    let different: HashSet<_> = sent.iter().map(|row| words(&row)).collect();
    assert_eq!(different.len(), sent.len(), "{owner}: no wish made two messages");
    let ids = sent.iter().map(|row| row["message_id"].as_str().unwrap());
    assert_eq!(world.simulator.check_sent(owner, ids), []);
}

/// The phones have every accepted send once, under its id, and of the others none twice.
fn check_inboxes(friends: &[Phone], ledger: &Ledger) {
    let entries = ledger.0.lock().unwrap();
    let mut arrived: HashMap<(String, String), Vec<String>> = HashMap::new();
    for friend in friends {
        for message in friend.inbox().into_iter().filter(|message| !message.from_me) {
            arrived.entry((friend.number().to_owned(), message.text)).or_default().push(message.id);
        }
    }
    let (mut accepted, mut open) = (0, 0);
    for Entry { wish, ids, unanswered } in &*entries {
        let got = arrived.remove(&(wish.to.to_owned(), wish.words())).unwrap_or_default();
        assert!(ids.len() <= 1, "{}: one key, several messages: {ids:?}", wish.words());
        match ids.first() {
            Some(id) => {
                assert_eq!(got, std::slice::from_ref(id), "{} was accepted", wish.words());
                accepted += 1;
            }
            None if *unanswered => {
                assert!(got.len() <= 1, "{} arrived as {got:?}", wish.words());
                open += 1;
            }
            None => assert_eq!(got, Vec::<String>::new(), "{} was refused", wish.words()),
        }
    }
    assert!(arrived.is_empty(), "nobody wanted these sent: {arrived:?}");
    println!("{} wishes, {accepted} accepted, {open} without an answer", entries.len());
    assert!(accepted > 100, "a test of nothing: {accepted} accepted");
}
