//! Receipts that a phone sends: for what arrived, what it cannot read, what a person has read or played.

use std::sync::Arc;

use wacore_binary::Jid;
use wacore_binary::builder::NodeBuilder;

use crate::account::{Account, lock};
use crate::error::PhoneError;
use crate::stanza::{element, unix_now};
use crate::world::World;

/// What a receipt of a phone refers to.
pub(super) struct Reply {
    pub(super) id: String,
    /// The device that sent the message.
    pub(super) device: Jid,
    /// The group, or the status.
    pub(super) room: Option<Jid>,
}

impl Reply {
    fn receipt(&self, account: &Account) -> NodeBuilder {
        let me = if self.device.is_lid() { account.lid(0) } else { account.pn(0) };
        let receipt = element("receipt").attr("id", self.id.as_str()).attr("t", unix_now());
        match &self.room {
            Some(room) => receipt.attr("from", room).attr("participant", me),
            None => receipt.attr("from", me),
        }
    }
}

/// Tells the sender's device that its message has arrived.
pub(super) fn delivered(world: &Arc<World>, account: &Account, sender: &Arc<Account>, reply: &Reply, peer: bool) {
    if peer || sender.number == account.number {
        return;
    }
    let receipt = reply.receipt(account).build();
    world.deliver(sender, reply.device.device, receipt);
}

/// Asks the sender's device to encrypt its message anew, and gives it keys for a new session.
pub(super) fn retry(
    world: &Arc<World>,
    account: &Account,
    sender: &Arc<Account>,
    reply: &Reply,
    time: &str,
    count: u8,
) {
    let keys = account.phone.bundle();
    world.oracle.prekeys_given(&account.key(0), keys.ids());
    let retry =
        element("retry").attr("v", "1").attr("count", count).attr("id", reply.id.as_str()).attr("t", time).build();
    let signed = element("skey").children([
        element("id").bytes(keys.signed.id).build(),
        element("value").bytes(keys.signed.key).build(),
        element("signature").bytes(keys.signed.signature).build(),
    ]);
    let mut bundle = vec![element("type").bytes([5]).build(), element("identity").bytes(keys.identity).build()];
    if let Some(key) = keys.one_time {
        let key = [element("id").bytes(key.id).build(), element("value").bytes(key.key).build()];
        bundle.push(element("key").children(key).build());
    }
    bundle.push(signed.build());
    let bundle = element("keys").children(bundle);
    let receipt = reply.receipt(account).attr("type", "retry").children([
        retry,
        element("registration").bytes(keys.registration).build(),
        bundle.build(),
    ]);
    world.deliver(sender, reply.device.device, receipt.build());
}

/// Tells all devices of a message's sender that a person has read or played it, and the own companions too.
pub(super) fn seen(world: &Arc<World>, account: &Arc<Account>, id: &str, kind: &'static str) -> Result<(), PhoneError> {
    let unknown = || PhoneError::UnknownMessage(id.to_string());
    let received = lock(&account.phone.inbox).by_id(id).ok_or_else(unknown)?;
    let sender = world.resolve(&received.sender).ok_or_else(unknown)?;
    let reply = Reply { id: id.to_string(), device: received.sender.to_non_ad(), room: received.room };
    let mut devices = sender.state().companions();
    devices.push(0);
    let stanza = reply.receipt(account).attr("type", kind).build();
    for device in devices {
        world.deliver(&sender, device, stanza.clone());
    }
    let mut own = reply.receipt(account).attr("type", kind);
    if reply.room.is_none() {
        own = own.attr("recipient", &reply.device);
    }
    let own = own.build();
    let companions = account.state().companions();
    for companion in companions {
        world.deliver(account, companion, own.clone());
    }
    Ok(())
}
