//! How many statements a send and a message take.

use super::{Options, Password, client::Client, operations::Operations, schema};
use crate::{
    Accepted, Fence, HistoryRow, HistoryStore, KeyKind, KeyOp, KeyStore, OutboxRow, OutboxStore, Owner, OwnerStore,
    SendOutcome, SendRecord, SessionRow, SessionStore,
    embedded::{Embedded, engines::Handle},
    fence::always_open,
};
use rookery_protocol::{Epoch, Incarnation, Jid, Timestamp, UserId, api::MessageType};

/// The statements that one message each way may take, whatever they are.
const MOST_OF_A_SEND: u64 = 14;
const MOST_OF_A_MESSAGE: u64 = 8;

struct Bench {
    operations: Operations,
    store: Embedded,
    fence: Fence,
    chat: Jid,
}

impl Bench {
    async fn open() -> Option<Self> {
        let access = tokio::task::block_in_place(rookery_cql_server::shared).unwrap()?;
        let options = Options {
            login: access.login.map(|(user, password)| (user, Password(password))),
            migrate: true,
            replication_factor: 1,
            ..Options::new(access.contact_points, format!("cost_{:016x}", rand::random::<u64>()))
        };
        let client = Client::connect(&options).await.unwrap();
        schema::prepare(&client, &options).await.unwrap();
        let operations = Operations::new(client, always_open());
        let store = Embedded(Handle::Cql(operations.clone()));
        let row = SessionRow::new(UserId::generate(), "s", Timestamp::from_secs(1));
        store.create(&row).await.unwrap();
        let nobody = Owner { epoch: Epoch(0), node: None };
        let node = "n".parse().unwrap();
        let fence = operations.claim(row.session_id, &nobody, &node, Incarnation::generate()).await.unwrap();
        Some(Self { operations, store, fence, chat: "15550001@s.whatsapp.net".parse().unwrap() })
    }

    fn statements(&self) -> u64 {
        self.operations.0.client.session().get_metrics().get_requests_unpaged_num()
    }

    fn row(&self, id: &str, number: u64, from_me: bool) -> HistoryRow {
        let at = Timestamp::from_secs(1_755_000_000 + number.cast_signed());
        HistoryRow {
            sort_key: at.as_secs().cast_unsigned() << 20,
            from_me,
            sender: (!from_me).then(|| self.chat.clone()),
            text: Some("text".to_owned()),
            ..HistoryRow::new(format!("{id}{number}").parse().unwrap(), self.chat.clone(), MessageType::Text, at)
        }
    }

    /// A text from its acceptance until WhatsApp has it.
    async fn send(&self, number: u64) -> (u64, u64) {
        let before = self.statements();
        let history = self.row("OUT", number, true);
        let (message_id, sort_key, accepted_at) = (history.message_id.clone(), history.sort_key, history.timestamp);
        let outbox = OutboxRow {
            seq: number,
            message_id: message_id.clone(),
            chat: self.chat.clone(),
            payload: vec![1; 100].into(),
            accepted_at,
            sort_key,
            file: None,
        };
        let (to, chat) = ("15550001".to_owned(), self.chat.clone());
        let record = SendRecord { request_hash: [7; 32], message_id, to, chat, accepted_at, sort_key };
        let idempotency = Some(([number as u8; 32], record));
        self.store.accept(&self.fence, Accepted { outbox, history, idempotency }).await.unwrap();
        let accepted = self.statements();
        self.store.resolve(&self.fence, number, SendOutcome::Sent(accepted_at)).await.unwrap();
        (accepted - before, self.statements() - accepted)
    }

    /// A text that came: history and chat, then the ratchet that decrypted it.
    async fn receive(&self, number: u64) -> u64 {
        let before = self.statements();
        self.store.insert(&self.fence, vec![self.row("IN", number, false)]).await.unwrap();
        let ratchet = KeyOp::Put { kind: KeyKind::Session, key: "peer".into(), value: vec![1; 500].into() };
        KeyStore::write(&self.operations, &self.fence, vec![ratchet]).await.unwrap();
        self.statements() - before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_each_way_takes_few_statements() {
    let Some(bench) = Bench::open().await else { return };
    for number in 0..3 {
        let (accept, resolve) = bench.send(2 * number + 1).await;
        let receive = bench.receive(2 * number + 2).await;
        println!("text {number}: {accept} statements to accept it, {resolve} to resolve it, {receive} to receive one");
        // The first one lists a window and makes a chat.
        if number > 0 {
            assert!(accept + resolve <= MOST_OF_A_SEND, "{accept} + {resolve}");
            assert!(receive <= MOST_OF_A_MESSAGE, "{receive}");
        }
    }
}
