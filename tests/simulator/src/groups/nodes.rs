//! Groups and changes of them as stanzas say them.

use std::sync::Arc;

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::group::{Change, Group};
use crate::stanza::element;
use crate::world::World;

impl Group {
    /// A number as it is named in the group.
    fn user(&self, world: &World, number: &Arc<str>) -> Jid {
        match world.account(number) {
            Some(account) if self.options.by_lid => account.lid(0),
            _ => Jid::pn(&**number),
        }
    }

    /// `name=JID`, and in a group by LID `name_pn=NUMBER` as well.
    fn named(
        &self,
        world: &World,
        node: NodeBuilder,
        (name, pn): (&'static str, &'static str),
        who: &Arc<str>,
    ) -> NodeBuilder {
        let node = node.attr(name, self.user(world, who));
        if self.options.by_lid { node.attr(pn, Jid::pn(&**who)) } else { node }
    }

    fn participant(&self, world: &World, number: &Arc<str>) -> Node {
        let mut participant = element("participant").attr("jid", self.user(world, number));
        if self.options.by_lid {
            participant = participant.attr("phone_number", Jid::pn(&**number));
        } else if let Some(account) = world.account(number) {
            participant = participant.attr("lid", account.lid(0));
        }
        if *number == self.creator {
            participant = participant.attr("type", "superadmin");
        } else if self.admins.contains(number) {
            participant = participant.attr("type", "admin");
        }
        participant.build()
    }

    /// `<group>` with everything that a member may know; without the members for somebody who is none.
    pub(super) fn node(&self, world: &World, to_member: bool) -> Node {
        let mut children = self.settings();
        if let Some(description) = &self.description {
            let node = element("description").attr("id", description.id.as_str()).attr("t", description.set.1);
            let node = self.named(world, node, ("participant", "participant_pn"), &description.set.0);
            children.push(node.children([body(&description.text)]).build());
        }
        if to_member {
            children.extend(self.members.iter().map(|m| self.participant(world, m)));
        }
        let node = element("group")
            .attr("id", self.id.as_str())
            .attr("creation", self.created)
            .attr("subject", self.subject.as_str())
            .attr("s_t", self.subject_set.1)
            .attr("p_v_id", self.version)
            .attr("addressing_mode", self.addressing_mode())
            .attr("size", self.members.len());
        let node = self.named(world, node, ("creator", "creator_pn"), &self.creator);
        let node = self.named(world, node, ("s_o", "s_o_pn"), &self.subject_set.0);
        node.children(children).build()
    }

    fn settings(&self) -> Vec<Node> {
        let options = &self.options;
        let mut settings = vec![members_add(options.members_add)];
        if options.locked {
            settings.push(element("locked").build());
        }
        if options.announce {
            settings.push(element("announcement").build());
        }
        if options.ephemeral_seconds > 0 {
            settings.push(ephemeral(options.ephemeral_seconds));
        }
        if options.approval {
            settings.push(approval(true));
        }
        settings
    }

    /// What the members are told of a change that made `self` of `former`; nothing of what concerns nobody
    /// else. `Picture` has a notification of its own.
    pub(super) fn change_node(&self, world: &World, former: &Group, actor: &Arc<str>, change: &Change) -> Option<Node> {
        let of_members = |tag, who: &[Arc<str>]| {
            element(tag)
                .attr("prev_v_id", former.version)
                .attr("v_id", self.version)
                .children(who.iter().map(|w| self.participant(world, w)))
        };
        let toggle = |on: bool, yes, no| element(if on { yes } else { no }).build();
        let node = match change {
            Change::Add(who) | Change::Approve(who) => of_members("add", who).build(),
            Change::Remove(who) => of_members("remove", who).build(),
            Change::Promote(who) => of_members("promote", who).build(),
            Change::Demote(who) => of_members("demote", who).build(),
            Change::Subject(subject) => {
                let node = element("subject").attr("subject", subject.as_str()).attr("s_t", self.subject_set.1);
                self.named(world, node, ("s_o", "s_o_pn"), &self.subject_set.0).build()
            }
            Change::Description(id, text) => {
                let child = text.as_deref().map_or_else(|| element("delete").build(), body);
                element("description").attr("id", id.as_str()).children([child]).build()
            }
            Change::Locked(on) => toggle(*on, "locked", "unlocked"),
            Change::Announce(on) => toggle(*on, "announcement", "not_announcement"),
            Change::Ephemeral(0) => element("not_ephemeral").build(),
            Change::Ephemeral(seconds) => ephemeral(*seconds),
            Change::Approval(on) => approval(*on),
            Change::MembersAdd(on) => members_add(*on),
            Change::Invite => element("invite").attr("code", self.invite.as_str()).build(),
            Change::Join if self.has(actor) => {
                of_members("add", std::slice::from_ref(actor)).attr("reason", "invite").build()
            }
            Change::Join => {
                let user = element("requested_user").attr("jid", self.user(world, actor)).build();
                element("created_membership_requests").attr("request_method", "invite_link").children([user]).build()
            }
            Change::Cancel => self.revoked(world, std::slice::from_ref(actor)),
            Change::Reject(who) => self.revoked(world, who),
            Change::Picture(_) => return None,
        };
        Some(node)
    }

    fn revoked(&self, world: &World, who: &[Arc<str>]) -> Node {
        let participants = who.iter().map(|w| element("participant").attr("jid", self.user(world, w)).build());
        element("revoked_membership_requests").children(participants).build()
    }

    /// Who wants to join.
    pub(super) fn requests_node(&self, world: &World) -> Node {
        let request = |(number, time): &(Arc<str>, u64)| {
            let jid = self.user(world, number);
            element("membership_approval_request").attr("jid", jid).attr("request_time", *time).build()
        };
        element("membership_approval_requests").children(self.requests.iter().map(request)).build()
    }
}

fn body(text: &str) -> Node {
    element("body").bytes(text.as_bytes().to_vec()).build()
}

fn ephemeral(seconds: u32) -> Node {
    element("ephemeral").attr("expiration", seconds).attr("trigger", 1).build()
}

fn approval(on: bool) -> Node {
    let join = element("group_join").attr("state", if on { "on" } else { "off" }).build();
    element("membership_approval_mode").children([join]).build()
}

fn members_add(all: bool) -> Node {
    let mode: &[u8] = if all { b"all_member_add" } else { b"admin_add" };
    element("member_add_mode").bytes(mode.to_vec()).build()
}
