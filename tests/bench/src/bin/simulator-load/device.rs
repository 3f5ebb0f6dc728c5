//! One linked device: pairs, stays connected, acknowledges, and sends what it is told to.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use buffa::Message as _;
use tokio::sync::{mpsc, oneshot};
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::{Jid, Node, builder::NodeBuilder};
use waproto::whatsapp as wa;

use crate::{
    http,
    wire::{Wire, content, text},
};

/// Messages that a device sends before it waits for their acknowledgements.
const WINDOW: usize = 32;
/// Bytes of a message's ciphertext: a short text with its padding.
const CIPHERTEXT: usize = 96;

/// Where the simulator is.
pub(crate) struct Place {
    url: String,
    address: SocketAddr,
    pub admin: SocketAddr,
    prekeys: usize,
}

impl Place {
    /// Of a simulator with this URL.
    pub(crate) fn new(url: &str, admin: SocketAddr, prekeys: usize) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("ws://").context("the URL is not ws://")?;
        let address = rest.split('/').next().unwrap_or_default().parse().context("no address in the URL")?;
        Ok(Self { url: url.to_owned(), address, admin, prekeys })
    }
}

/// What a device is told to send, and who is told that it was done.
struct Relay {
    to: Jid,
    count: usize,
    done: oneshot::Sender<()>,
}

/// A device that is connected. Dropping it closes its connection.
pub(crate) struct Device {
    pub jid: Jid,
    orders: mpsc::Sender<Relay>,
}

impl Device {
    /// Pairs a device with the phone of this number and logs it in.
    pub(crate) async fn pair(place: &Place, admin: &mut http::Client, phone: String) -> anyhow::Result<Self> {
        let [noise, identity] = std::array::from_fn(|_| KeyPair::generate(&mut rand::rng()));
        let jid = link(place, admin, &phone, &noise, &identity).await?;
        let payload = wa::ClientPayload {
            username: Some(jid.user.parse()?),
            device: Some(u32::from(jid.device)),
            ..Default::default()
        };
        let mut wire = Wire::connect(place.address, &place.url, noise, &payload).await?;
        wire.wait("success", |node| node.tag == "success").await?;
        wire.iq("keys", "encrypt", keys(&identity, place.prekeys)?).await?;
        wire.iq("active", "passive", vec![NodeBuilder::new("active").build()]).await?;
        let (orders, orders_taken) = mpsc::channel(1);
        let name = phone;
        tokio::spawn(async move {
            if let Err(error) = live(wire, orders_taken, &name).await {
                // Whoever waits for this device learns that it has ended.
                eprintln!("device of {name}: {error:#}");
            }
        });
        Ok(Self { jid, orders })
    }

    /// Sends so many messages to another device; returns when all are acknowledged.
    pub(crate) async fn relay(&self, to: Jid, count: usize) -> anyhow::Result<()> {
        let (done, finished) = oneshot::channel();
        self.orders.send(Relay { to, count, done }).await.ok().context("a device has ended")?;
        finished.await.context("a device has ended")
    }
}

/// Shows a QR code, lets the phone scan it, and signs the identity.
async fn link(
    place: &Place,
    admin: &mut http::Client,
    phone: &str,
    noise: &KeyPair,
    identity: &KeyPair,
) -> anyhow::Result<Jid> {
    let mut wire = Wire::connect(place.address, &place.url, noise.clone(), &wa::ClientPayload::default()).await?;
    let offer = wire.wait("references", |node| node.get_optional_child("pair-device").is_some()).await?;
    let references = offer.get_optional_child("pair-device").context("no <pair-device>")?;
    let reference = content(references.get_optional_child("ref").context("no <ref>")?)?;
    let fields = [noise.public_key.public_key_bytes(), identity.public_key.public_key_bytes(), &[7; 32]];
    let qr = format!("{},{}", str::from_utf8(reference)?, fields.map(|field| BASE64_STANDARD.encode(field)).join(","));
    admin.send(&http::request("POST", &format!("/scan?phone={phone}"), None, &qr)).await?.text(200)?;
    let success = wire.wait("pair-success", |node| node.get_optional_child("pair-success").is_some()).await?;
    let paired = success.get_optional_child("pair-success").context("no <pair-success>")?;
    let jid = text(paired.get_optional_child("device").context("no <device>")?, "jid").parse::<Jid>()?;
    let container = content(paired.get_optional_child("device-identity").context("no <device-identity>")?)?;
    let signed = sign(container, identity)?;
    let signed = NodeBuilder::new("device-identity").attr("key-index", jid.device).bytes(signed).build();
    let sign = NodeBuilder::new("pair-device-sign").children([signed]).build();
    let answer = NodeBuilder::new("iq").attr("id", text(&success, "id")).attr("type", "result").children([sign]);
    wire.send(&[answer.build()]).await?;
    let told = wire.wait("an end", |node| node.tag == "stream:error").await?;
    ensure!(text(&told, "code") == "515", "pairing failed: {told:?}");
    wire.close().await;
    Ok(jid)
}

/// Signs the identity that the account has signed.
fn sign(container: &[u8], identity: &KeyPair) -> anyhow::Result<Vec<u8>> {
    let container = wa::ADVSignedDeviceIdentityHMAC::decode_from_slice(container)?;
    let mut signed = wa::ADVSignedDeviceIdentity::decode_from_slice(&container.details.context("no details")?)?;
    let details = signed.details.clone().context("no details")?;
    let account = signed.account_signature_key.clone().context("no account key")?;
    let content = [&[6, 1][..], &details, identity.public_key.public_key_bytes(), &account].concat();
    signed.device_signature = Some(identity.private_key.calculate_signature(&content, &mut rand::rng())?.to_vec());
    Ok(signed.encode_to_vec())
}

/// An upload of keys. Nobody reads what is encrypted with the one-time keys, so that any bytes will do for them.
fn keys(identity: &KeyPair, count: usize) -> anyhow::Result<Vec<Node>> {
    let bytes = |tag: &'static str, bytes: &[u8]| NodeBuilder::new(tag).bytes(bytes.to_vec()).build();
    let signed = KeyPair::generate(&mut rand::rng());
    let signature = identity.private_key.calculate_signature(&signed.public_key.serialize(), &mut rand::rng())?;
    let key = |number: usize| {
        let id = &(number as u32 + 1).to_be_bytes()[1..];
        NodeBuilder::new("key").children([bytes("id", id), bytes("value", &rand::random::<[u8; 32]>())]).build()
    };
    let skey = [
        bytes("id", &[0, 0, 1]),
        bytes("value", signed.public_key.public_key_bytes()),
        bytes("signature", &signature[..]),
    ];
    Ok(vec![
        bytes("registration", &[0, 0, 0, 9]),
        bytes("type", &[5]),
        bytes("identity", identity.public_key.public_key_bytes()),
        NodeBuilder::new("list").children((0..count).map(key)).build(),
        NodeBuilder::new("skey").children(skey).build(),
    ])
}

/// Acknowledges what comes and sends what it is told to, until nobody tells it any more.
async fn live(mut wire: Wire, mut orders: mpsc::Receiver<Relay>, name: &str) -> anyhow::Result<()> {
    let (mut counter, mut waiting) = (0, 0);
    let ratchet: [u8; 32] = rand::random();
    let mut order: Option<Relay> = None;
    loop {
        if let Some(relay) = &mut order {
            let room = WINDOW.saturating_sub(waiting).min(relay.count);
            // Half a window at a time, as a busy client writes.
            if room > WINDOW / 2 || (room > 0 && room == relay.count) {
                let batch: Vec<Node> =
                    (0..room).map(|_| message(name, &relay.to, &ratchet, next(&mut counter))).collect();
                wire.send(&batch).await?;
                relay.count -= room;
                waiting += room;
            }
            if relay.count == 0
                && waiting == 0
                && let Some(relay) = order.take()
            {
                // Who has given the order may be gone.
                let _ = relay.done.send(());
            }
        }
        tokio::select! {
            taken = orders.recv(), if order.is_none() => match taken {
                Some(relay) => order = Some(relay),
                None => break,
            },
            nodes = wire.receive() => {
                let nodes = nodes?;
                ensure!(!nodes.is_empty(), "the connection was closed");
                waiting -= nodes.iter().filter(|node| node.tag == "ack" && text(node, "class") == "message").count();
                let answers: Vec<Node> = nodes.iter().filter_map(answer).collect();
                if !answers.is_empty() {
                    wire.send(&answers).await?;
                }
            }
        }
    }
    wire.close().await;
    Ok(())
}

fn next(counter: &mut u32) -> u32 {
    *counter += 1;
    *counter - 1
}

/// The acknowledgement of a stanza, if it wants one.
fn answer(node: &Node) -> Option<Node> {
    let class = match node.tag.as_ref() {
        "message" => {
            let receipt = NodeBuilder::new("receipt").attr("id", text(node, "id")).attr("to", text(node, "from"));
            return Some(receipt.build());
        }
        "receipt" => "receipt",
        "notification" => "notification",
        _ => return None,
    };
    let ack = NodeBuilder::new("ack").attr("class", class).attr("id", text(node, "id")).attr("to", text(node, "from"));
    Some(ack.build())
}

/// A message to a device with the outside of a Signal message: a ratchet key, a counter, and nothing that anybody can
/// read.
fn message(name: &str, to: &Jid, ratchet: &[u8; 32], counter: u32) -> Node {
    let mut signal = vec![0x33, 0x0a, 33, 5];
    signal.extend(ratchet);
    signal.push(0x10);
    varint(&mut signal, counter);
    signal.extend([0x18, 0, 0x22, CIPHERTEXT as u8]);
    signal.extend([7; CIPHERTEXT]);
    signal.extend([0; 8]);
    let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(signal).build();
    let message = NodeBuilder::new("message").attr("id", format!("3EB0{name}{counter:08X}")).attr("to", to);
    message.attr("type", "text").children([enc]).build()
}

fn varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
