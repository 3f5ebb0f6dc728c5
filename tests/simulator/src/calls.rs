//! `<call>`: offered, taken, refused and ended, by clients and phones. What is said in a call goes past the
//! server; the simulator has no relay, so that nothing is heard.
//!
//! Invariant: a call that was taken or refused by one device of the callee rings on no other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use wacore_binary::{Jid, Node};

use crate::account::{Account, DeviceKey, lock};
use crate::error::StanzaError;
use crate::phones::{CallState, PhoneEvent};
use crate::router::Session;
use crate::settings;
use crate::stanza::{children, element, jid_of, required_jid, text_of};
use crate::world::World;

/// Calls that are remembered.
const CALLS: usize = 10_000;

/// A call.
#[derive(Clone)]
struct Call {
    caller: DeviceKey,
    callee: Arc<str>,
    /// As the caller names itself.
    creator: Jid,
    video: bool,
    over: bool,
}

/// The calls of one simulator, by id.
#[derive(Default)]
pub(crate) struct Calls {
    calls: HashMap<String, Call>,
    order: VecDeque<String>,
}

impl Calls {
    fn add(&mut self, id: &str, call: Call) {
        self.order.push_back(id.to_string());
        if self.order.len() > CALLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        self.calls.insert(id.to_string(), call);
    }
}

/// What an element in a `<call>` says, for those that change the state of a call.
fn state(tag: &str) -> Option<CallState> {
    match tag {
        "offer" => Some(CallState::Offered),
        "preaccept" => Some(CallState::Ringing),
        "accept" => Some(CallState::Accepted),
        "reject" => Some(CallState::Rejected),
        "terminate" => Some(CallState::Ended),
        _ => None,
    }
}

fn tag(state: CallState) -> &'static str {
    match state {
        CallState::Offered => "offer",
        CallState::Ringing => "preaccept",
        CallState::Accepted => "accept",
        CallState::Rejected => "reject",
        CallState::Ended => "terminate",
    }
}

/// Answers a client's `<call>` and passes it on.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let (login, world) = (session.login()?, &session.world);
    let action = children(node).first().ok_or(StanzaError::Malformed("call"))?;
    let (to, id) = (required_jid(node, "to")?, text_of(action, "call-id"));
    let acknowledgement = element("ack")
        .attr("class", "call")
        .attr("id", text_of(node, "id"))
        .attr("from", &to)
        .attr("type", action.tag.as_ref());
    let Some(target) = world.resolve(&to).filter(|_| !id.is_empty()) else {
        session.send(&acknowledgement.attr("error", 404).build());
        return Ok(());
    };
    session.send(&acknowledgement.build());
    if action.tag == "offer" {
        let creator = jid_of(action, "call-creator").unwrap_or_else(|| login.account.pn(login.device));
        let video = action.get_optional_child("video").is_some();
        let caller = login.key();
        let call = Call { caller, callee: target.number.clone(), creator, video, over: false };
        lock(&world.calls).add(&id, call);
    }
    let by = By { account: &login.account, device: login.device, lid: to.is_lid() };
    after(world, &by, &id, action.tag.as_ref());
    pass_on(world, &by, &target, to.device, action);
    Ok(())
}

/// Who acts.
struct By<'a> {
    account: &'a Arc<Account>,
    device: u16,
    /// It is named by LID.
    lid: bool,
}

impl By<'_> {
    fn jid(&self) -> Jid {
        if self.lid { self.account.lid(self.device) } else { self.account.pn(self.device) }
    }

    fn stanza(&self, world: &World, action: Node) -> Node {
        element("call")
            .attr("from", self.jid())
            .attr("id", world.next_id())
            .attr("t", world.faults.now())
            .attr("notify", self.account.push_name())
            .attr("platform", "android")
            .attr("version", "2.26.1.1")
            .children([action])
            .build()
    }
}

/// Brings what somebody does to the devices of the other side: an offer to all of them, anything else to the one
/// that it names, to all if it names the phone.
fn pass_on(world: &Arc<World>, by: &By<'_>, to: &Arc<Account>, device: u16, action: &Node) {
    if settings::is_blocked(by.account, to) {
        return;
    }
    tell_phone(world, by, to, action);
    let companions = to.state().companions();
    let all = action.tag == "offer" || device == 0;
    for companion in companions.into_iter().filter(|c| all || *c == device) {
        let action = for_device(world, action, to, companion);
        world.deliver(to, companion, by.stanza(world, action));
    }
}

/// An offer as one device gets it: with its own ciphertext of the call's key alone.
fn for_device(world: &World, action: &Node, to: &Account, device: u16) -> Node {
    let mut parts = Vec::new();
    for part in children(action) {
        if part.tag != "destination" {
            parts.push(part.clone());
            continue;
        }
        let own = part.get_children_by_tag("to").find(|t| {
            let jid = jid_of(t, "jid");
            jid.is_some_and(|j| j.device == device && world.resolve(&j).is_some_and(|a| a.number == to.number))
        });
        parts.extend(own.into_iter().flat_map(children).cloned());
    }
    let mut action = action.clone();
    if !parts.is_empty() {
        action.content = Some(wacore_binary::NodeContent::Nodes(parts));
    }
    action
}

fn tell_phone(world: &World, by: &By<'_>, to: &Account, action: &Node) {
    let Some(state) = state(&action.tag) else { return };
    let call_id = text_of(action, "call-id");
    let video = lock(&world.calls).calls.get(&call_id).is_some_and(|c| c.video);
    let from = by.account.number.to_string();
    to.phone.events.note(PhoneEvent::Call { call_id, from, video, state });
}

/// What follows from it, before anybody else is told: a call that was taken or refused stops ringing on the callee's other devices.
fn after(world: &Arc<World>, by: &By<'_>, id: &str, what: &str) {
    let call = {
        let mut calls = lock(&world.calls);
        let Some(call) = calls.calls.get_mut(id) else { return };
        call.over |= matches!(what, "reject" | "terminate");
        call.clone()
    };
    let reason = match what {
        "accept" => "accepted_elsewhere",
        "reject" => "rejected_elsewhere",
        _ => return,
    };
    if by.account.number != call.callee {
        return;
    }
    let end = element("terminate").attr("call-id", id).attr("call-creator", &call.creator).attr("reason", reason);
    let end = end.build();
    let Some(caller) = world.account(&call.caller.number) else { return };
    let from = By { account: &caller, device: call.caller.device, lid: call.creator.is_lid() };
    let companions = by.account.state().companions();
    for companion in companions.into_iter().filter(|c| *c != by.device) {
        world.deliver(by.account, companion, from.stanza(world, end.clone()));
    }
}

/// A phone calls. Returns the call's id.
pub(crate) fn offer(world: &Arc<World>, caller: &Arc<Account>, callee: &Arc<Account>, video: bool) -> String {
    let id = hex::encode_upper(rand::random::<[u8; 16]>());
    let creator = caller.lid(0);
    let call =
        Call { caller: caller.key(0), callee: callee.number.clone(), creator: creator.clone(), video, over: false };
    lock(&world.calls).add(&id, call);
    let codec = |rate| element("audio").attr("enc", "opus").attr("rate", rate).build();
    let mut parts = vec![codec("8000"), codec("16000")];
    parts.extend(video.then(|| element("video").attr("enc", "vp8").attr("dec", "vp8").build()));
    parts.push(element("net").attr("medium", 3).build());
    parts.push(element("encopt").attr("keygen", 2).build());
    let action = element("offer")
        .attr("call-id", id.as_str())
        .attr("call-creator", creator)
        .attr("caller_pn", caller.pn(0))
        .children(parts)
        .build();
    pass_on(world, &By { account: caller, device: 0, lid: true }, callee, 0, &action);
    id
}

/// A phone takes, refuses or ends a call. `None` when it has no such call, or the call is over.
pub(crate) fn act(world: &Arc<World>, account: &Arc<Account>, id: &str, state: CallState) -> Option<()> {
    let call = lock(&world.calls).calls.get(id).filter(|c| !c.over).cloned()?;
    let calling = *call.caller.number == *account.number;
    let called = *call.callee == *account.number;
    // Only who is called takes or refuses.
    let may = called || (calling && state == CallState::Ended);
    let (other, device) = if calling { (&call.callee, 0) } else { (&call.caller.number, call.caller.device) };
    let other = world.account(other).filter(|_| may)?;
    let action = element(tag(state)).attr("call-id", id).attr("call-creator", &call.creator).build();
    let by = By { account, device: 0, lid: call.creator.is_lid() };
    after(world, &by, id, &action.tag);
    pass_on(world, &by, &other, device, &action);
    Some(())
}
