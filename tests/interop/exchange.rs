//! The two clients with each other: texts, receipts, reactions and images.

use crate::{
    peer::{self, Peer},
    tools::{Kind, Tool},
};
use whatsapp_simulator::{Config, Handle, Simulator};

const BAILEYS: &str = "15550201001";
const WHATSMEOW: &str = "15550202002";

/// One client of each author, linked to accounts of one simulator.
pub(crate) struct Pair {
    pub simulator: Handle,
    pub baileys: Peer,
    pub whatsmeow: Peer,
}

impl Pair {
    /// `None` when one of the two cannot be run here.
    pub(crate) async fn start() -> Option<Self> {
        let tools: (Option<Tool>, Option<Tool>) = (Kind::Baileys.ready().await, Kind::Whatsmeow.ready().await);
        let (Some(baileys), Some(whatsmeow)) = tools else { return None };
        let simulator = Simulator::start(Config::default()).await.unwrap();
        let baileys = Peer::linked(&baileys, &simulator, BAILEYS).await;
        let whatsmeow = Peer::linked(&whatsmeow, &simulator, WHATSMEOW).await;
        Some(Self { simulator, baileys, whatsmeow })
    }

    #[track_caller]
    pub(crate) fn finish(&self) {
        self.baileys.finish();
        self.whatsmeow.finish();
        peer::finish(&self.simulator);
    }
}

/// A text that is delivered, read and reacted to.
async fn converse(from: &mut Peer, to: &mut Peer, round: usize) {
    let text = format!("text {round} from {}", from.number);
    let id = from.send_text(&to.number, &text).await;
    assert_eq!(to.has_text(&from.number, &from.number, &text).await, id);
    from.has_receipt(&id, &to.number, "delivered").await;
    to.read(&id).await;
    from.has_receipt(&id, &to.number, "read").await;
    let reaction = to.react(&from.number, &id, "❤").await;
    from.has_reaction(&to.number, &id, "❤").await;
    // The phones have what their companions have: as recipients and as the senders' own devices.
    from.phone_has(&to.phone(), &id, &text).await;
    from.phone_has(&from.phone(), &id, &text).await;
    to.phone_has(&from.phone(), &reaction, "<reaction ❤>").await;
}

/// Texts that are addressed to the recipient's LID.
async fn converse_by_lid(from: &mut Peer, to: &mut Peer) {
    let lid = format!("{}@lid", to.phone().lid());
    for round in 0..2 {
        let text = format!("text {round} to {lid}");
        let id = from.send_text(&lid, &text).await;
        assert_eq!(to.has_text(&from.number, &from.number, &text).await, id);
        from.phone_has(&to.phone(), &id, &text).await;
        to.nothing_waits().await;
    }
}

/// Images of sizes around the cipher's block and around a request's first packets.
async fn show(from: &mut Peer, to: &Peer) {
    for size in [1, 4_096, 300_001] {
        let image: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        let caption = format!("{size} bytes");
        let id = from.send_image(&to.number, &image, &caption).await;
        to.has_image(&id, &image, &caption).await;
        from.phone_has(&to.phone(), &id, &caption).await;
        from.has_receipt(&id, &to.number, "delivered").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_converse() {
    let Some(mut pair) = Pair::start().await else { return };
    for round in 0..2 {
        converse(&mut pair.baileys, &mut pair.whatsmeow, round).await;
        converse(&mut pair.whatsmeow, &mut pair.baileys, round).await;
    }
    converse_by_lid(&mut pair.baileys, &mut pair.whatsmeow).await;
    converse_by_lid(&mut pair.whatsmeow, &mut pair.baileys).await;
    converse(&mut pair.baileys, &mut pair.whatsmeow, 2).await;
    converse(&mut pair.whatsmeow, &mut pair.baileys, 2).await;
    pair.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_show_each_other_images() {
    let Some(mut pair) = Pair::start().await else { return };
    show(&mut pair.baileys, &pair.whatsmeow).await;
    show(&mut pair.whatsmeow, &pair.baileys).await;
    pair.finish();
}
