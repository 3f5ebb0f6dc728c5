//! A real client, and a simulator that is checked at the end of each test.

use std::sync::Arc;
use std::time::Duration;

use wacore::store::InMemoryBackend;
use wacore::types::events::{ChannelEventHandler, Event};
use waproto::whatsapp as wa;
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::http::UreqHttpClient;
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::{Client, Jid, TokioRuntime};
use whatsapp_simulator::{Config, Handle, Simulator};

/// How long anything may take. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Enough for these tests, and quickly made.
pub(crate) const PREKEYS: usize = 20;

/// Starts a simulator without TLS.
pub(crate) async fn simulator() -> Handle {
    simulator_with(Config::default()).await
}

/// Starts a simulator without TLS, otherwise as configured.
pub(crate) async fn simulator_with(config: Config) -> Handle {
    let config = Config { plain: true, ..config };
    Simulator::start(config).await.expect("the simulator starts")
}

/// No client did anything wrong.
pub(crate) fn assert_clean(simulator: &Handle) {
    assert_eq!(simulator.violations(), []);
    assert_eq!(simulator.noticed(), []);
    let stats = simulator.stats();
    for mistake in ["unknown iq", "unknown stanza"] {
        assert_eq!(stats.count(mistake), 0, "{mistake}\n{stats}");
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client's stored state, which outlives a client.
pub(crate) type Store = Arc<InMemoryBackend>;

/// How a client pairs.
pub(crate) enum PairBy {
    Qr,
    Code,
    /// It is paired already.
    Nothing,
}

/// A running client.
pub(crate) struct TestClient {
    pub(crate) client: Arc<Client>,
    pub(crate) events: async_channel::Receiver<Arc<Event>>,
    pub(crate) number: String,
    pub(crate) store: Store,
    handle: BotHandle,
    _subscription: Box<dyn std::any::Any + Send + Sync>,
}

impl TestClient {
    /// Pairs a new client by QR code and waits until it is connected.
    pub(crate) async fn pair(simulator: &Handle, number: &str) -> Self {
        let client = Self::start(simulator, number, Arc::default(), PairBy::Qr).await;
        client.connected().await;
        client
    }

    /// Starts a client and pairs it, without waiting until it is connected.
    pub(crate) async fn start(simulator: &Handle, number: &str, store: Store, by: PairBy) -> Self {
        Self::start_at(&simulator.websocket_url(), simulator, number, store, by).await
    }

    /// The same, but it connects to a URL that leads to the simulator.
    pub(crate) async fn start_at(url: &str, simulator: &Handle, number: &str, store: Store, by: PairBy) -> Self {
        let (handler, events) = ChannelEventHandler::new();
        let transport = TokioWebSocketTransportFactory::new().with_url(url);
        let mut builder = Bot::builder()
            .with_backend_arc(store.clone())
            .with_transport_factory(transport)
            .with_http_client(UreqHttpClient::new())
            .with_runtime(TokioRuntime)
            .with_version((2, 3000, 1_023_456_789))
            .with_push_name(format!("user {number}"))
            .with_wanted_pre_key_count(PREKEYS);
        if matches!(by, PairBy::Code) {
            builder =
                builder.with_pair_code(PairCodeOptions { phone_number: number.to_string(), ..Default::default() });
        }
        let bot = builder.build().await.expect("a client");
        let client = bot.client();
        let subscription = Box::new(client.subscribe_handler(handler));
        let started = Self {
            handle: bot.spawn(),
            client,
            events,
            number: number.to_string(),
            store,
            _subscription: subscription,
        };
        let phone = simulator.phone(number);
        match by {
            PairBy::Qr => {
                started
                    .wait("a QR code", |e| match e {
                        Event::PairingQrCode(qr) => Some(phone.scan(&qr.code).expect("scanned")),
                        _ => None,
                    })
                    .await;
            }
            PairBy::Code => {
                let code = started
                    .wait("a pairing code", |e| match e {
                        Event::PairingCode(code) => Some(code.code.clone()),
                        _ => None,
                    })
                    .await;
                let entered = tokio::task::spawn_blocking(move || phone.enter_code(&code));
                entered.await.expect("no panic").expect("the code is right");
            }
            PairBy::Nothing => {}
        }
        started
    }

    /// Waits until it is connected.
    pub(crate) async fn connected(&self) {
        self.wait("connected", |e| matches!(e, Event::Connected(_)).then_some(())).await;
    }

    /// Waits for an event from which something can be taken.
    pub(crate) async fn wait<T>(&self, what: &str, mut take: impl FnMut(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the client runs");
                if let Some(taken) = take(&event) {
                    return taken;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, search).await;
        found.unwrap_or_else(|_| panic!("{}: no {what}", self.number))
    }

    /// Waits for a text and returns where it came from, as `chat/sender`.
    pub(crate) async fn text(&self, text: &str) -> String {
        self.wait(&format!("text `{text}`"), |e| {
            let Event::Messages(batch) = e else {
                return None;
            };
            let found = batch.iter().find(|m| text_of(&m.message) == Some(text))?;
            let source = &found.info.source;
            Some(format!("{}/{}", source.chat, source.sender))
        })
        .await
    }

    /// Sends a text to a number and returns the message id.
    pub(crate) async fn send(&self, to: &str, text: &str) -> String {
        let sending = self.client.send_message(jid(to), message(text));
        let sent = tokio::time::timeout(DEADLINE, sending).await;
        let sent = sent.unwrap_or_else(|_| panic!("{}: `{text}` is not acknowledged", self.number));
        sent.expect("sent").message_id.clone()
    }

    /// The number of this client's device.
    pub(crate) fn device(&self, simulator: &Handle) -> u16 {
        let devices = simulator.phone(&self.number).devices();
        devices.last().expect("a device").device
    }

    /// Stops in an orderly way and returns what it has stored.
    pub(crate) async fn stop(self) -> Store {
        self.handle.shutdown().await;
        self.store
    }
}

/// The text of a message, its own or that of another own device.
pub(crate) fn text_of(message: &wa::Message) -> Option<&str> {
    message.conversation.as_deref()
}

/// A text.
pub(crate) fn message(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.to_string()), ..Default::default() }
}

/// A user's JID by phone number.
pub(crate) fn jid(number: &str) -> Jid {
    Jid::pn(number)
}
