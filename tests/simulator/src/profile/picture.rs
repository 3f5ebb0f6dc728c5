//! `xmlns=w:profile:picture`: pictures of accounts and groups.

use std::sync::Arc;

use bytes::Bytes;
use wacore_binary::jid::Server;
use wacore_binary::{Jid, Node};

use super::{may_see, tell};
use crate::account::Account;
use crate::error::StanzaError;
use crate::groups::{self, Change};
use crate::media;
use crate::router::Session;
use crate::stanza::{attr_is, content, element, jid_of, text_of};
use crate::world::World;

const NOT_FOUND: StanzaError = StanzaError::Refused { code: 404, text: "item-not-found" };
const NOT_AUTHORIZED: StanzaError = StanzaError::Refused { code: 401, text: "not-authorized" };
/// Bytes of a picture.
const PICTURE_BYTES: usize = 1 << 20;

/// A picture: kept as two media, one of them small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// What clients recognise it by.
    pub(crate) id: String,
}

impl Picture {
    /// Keeps a picture. There is one of it in full and one as a preview; without `preview` it is the same.
    fn keep(world: &World, full: &[u8], preview: Option<&[u8]>) -> Result<Self, StanzaError> {
        let picture = Self { id: format!("{}", 1_700_000_000 + world.next_number()) };
        let preview = preview.unwrap_or(full);
        let sizes = full.is_empty() || full.len() > PICTURE_BYTES || preview.len() > PICTURE_BYTES;
        let kept = |kind, data: &[u8]| media::store(world, &picture.name(kind), Bytes::copy_from_slice(data));
        if sizes || !kept("image", full) || !kept("preview", preview) {
            return Err(StanzaError::Refused { code: 406, text: "not-acceptable" });
        }
        Ok(picture)
    }

    fn name(&self, kind: &str) -> String {
        format!("picture-{}-{kind}", self.id)
    }

    /// `<picture>` with where it can be downloaded.
    fn node(&self, world: &World, kind: &'static str) -> Node {
        let name = self.name(kind);
        element("picture")
            .attr("id", self.id.as_str())
            .attr("type", kind)
            .attr("url", media::url(world, &name))
            .attr("direct_path", media::direct_path(&name))
            .build()
    }
}

/// Answers a request for a picture or a change of one.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    let login = session.login()?;
    let target = jid_of(node, "target").or_else(|| jid_of(node, "to").filter(|to| !to.user.is_empty()));
    if attr_is(node, "type", "set") {
        return set(session, node, target);
    }
    let asked = node.get_optional_child("picture").ok_or(StanzaError::Malformed("picture"))?;
    let target = target.unwrap_or_else(|| login.account.pn(0));
    let picture = find(session, &login.account, &target)?;
    if text_of(asked, "id") == picture.id {
        // The client has it already.
        session.reply(node, None);
        return Ok(());
    }
    let kind = if attr_is(asked, "type", "preview") { "preview" } else { "image" };
    session.reply(node, Some(picture.node(&session.world, kind)));
    Ok(())
}

fn find(session: &Session, asking: &Account, target: &Jid) -> Result<Picture, StanzaError> {
    if target.server == Server::Group {
        let group = session.world.groups.get(&target.user).ok_or(NOT_FOUND)?;
        let picture = if group.has(&asking.number) { group.picture() } else { return Err(NOT_AUTHORIZED) };
        return picture.cloned().ok_or(NOT_FOUND);
    }
    let account = session.world.resolve(target).ok_or(NOT_FOUND)?;
    if !may_see(&account, "profile", asking) {
        return Err(NOT_AUTHORIZED);
    }
    let picture = account.profile().picture.clone();
    picture.ok_or(NOT_FOUND)
}

fn set(session: &Session, node: &Node, target: Option<Jid>) -> Result<(), StanzaError> {
    let (login, world) = (session.login()?, &session.world);
    let of_kind = |kind: &str| {
        let mut pictures = node.get_children_by_tag("picture");
        pictures.find(|p| text_of(p, "type") == kind).and_then(content)
    };
    let full = of_kind("image").filter(|p| !p.is_empty());
    let set = match target {
        Some(group) if group.server == Server::Group => {
            set_group_picture(world, &login.account, &group.user, full, of_kind("preview"))?
        }
        Some(other) if world.resolve(&other).is_none_or(|a| a.number != login.account.number) => {
            return Err(NOT_AUTHORIZED);
        }
        _ => set_picture(world, &login.account, full, of_kind("preview"), Some(login.device))?,
    };
    session.reply(node, set.map(|picture| element("picture").attr("id", picture.id).build()));
    Ok(())
}

/// Sets or removes an account's picture, and tells its contacts and its other devices.
pub(crate) fn set_picture(
    world: &Arc<World>,
    account: &Arc<Account>,
    full: Option<&[u8]>,
    preview: Option<&[u8]>,
    by: Option<u16>,
) -> Result<Option<Picture>, StanzaError> {
    let picture = full.map(|full| Picture::keep(world, full, preview)).transpose()?;
    account.profile().picture.clone_from(&picture);
    tell(world, account, "picture", &change(&account.pn(0), account, picture.as_ref()), by);
    Ok(picture)
}

/// Sets or removes a group's picture, and tells its members.
pub(crate) fn set_group_picture(
    world: &Arc<World>,
    account: &Arc<Account>,
    group: &str,
    full: Option<&[u8]>,
    preview: Option<&[u8]>,
) -> Result<Option<Picture>, StanzaError> {
    let picture = full.map(|full| Picture::keep(world, full, preview)).transpose()?;
    groups::change(world, account, group, &Change::Picture(picture.clone()))?;
    Ok(picture)
}

/// `<set>` or `<delete>`, as a notification carries it.
pub(crate) fn change(of: &Jid, author: &Account, picture: Option<&Picture>) -> Node {
    let change = element(if picture.is_some() { "set" } else { "delete" });
    let change = change.attr("jid", of).attr("author", author.pn(0));
    match picture {
        Some(picture) => change.attr("id", picture.id.as_str()).build(),
        None => change.build(),
    }
}
