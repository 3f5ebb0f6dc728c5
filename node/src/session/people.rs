//! What the API asks about a session's contacts and chats.

use super::{SessionError, registry::Sessions, service::unconnected};
use rookery_protocol::{Jid, JidServer, SessionId, UserId};
use rookery_storage::{ChatPlace, ChatRow, ContactQuery, ContactRow, Page, StoreError, Stores};
use std::collections::{HashMap, HashSet};

/// A profile picture as WhatsApp names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Its id; another picture has another.
    pub id: String,
    /// Where it is.
    pub url: String,
}

/// The phone numbers of those among these chats that are named by a LID, where it is known whose that is.
pub(super) async fn numbers(
    stores: &Stores,
    session: SessionId,
    chats: impl Iterator<Item = &Jid>,
) -> Result<HashMap<Jid, Jid>, StoreError> {
    let lids: HashSet<&Jid> = chats.filter(|chat| chat.server() == JidServer::Lid).collect();
    if lids.is_empty() {
        return Ok(HashMap::new());
    }
    let lids: Vec<Jid> = lids.into_iter().cloned().collect();
    let contacts = stores.contacts.get(session, &lids).await?;
    let known = lids.into_iter().zip(contacts).filter_map(|(lid, contact)| Some((lid, contact?.jid)));
    Ok(known.filter(|(_, jid)| jid.server() == JidServer::PhoneNumber).collect())
}

impl Sessions {
    /// A page of a session's contacts in the order of their addresses.
    pub(crate) async fn contacts(
        &self,
        user: UserId,
        id: SessionId,
        query: &ContactQuery,
    ) -> Result<Page<ContactRow, Jid>, SessionError> {
        self.readable(user, id).await?;
        Ok(self.env.stores.contacts.list(id, query).await?)
    }

    /// A page of a session's chats by their latest activity, each with the contact on its other side.
    pub(crate) async fn chats(
        &self,
        user: UserId,
        id: SessionId,
        after: Option<&ChatPlace>,
        limit: usize,
    ) -> Result<Page<(ChatRow, Option<ContactRow>), ChatPlace>, SessionError> {
        self.readable(user, id).await?;
        let page = self.env.stores.chats.list(id, after, limit).await?;
        let jids: Vec<Jid> = page.rows.iter().map(|chat| chat.jid.clone()).collect();
        let contacts = self.env.stores.contacts.get(id, &jids).await?;
        Ok(Page { rows: page.rows.into_iter().zip(contacts).collect(), next: page.next })
    }

    /// The profile picture of a person or a group, if WhatsApp shows us one; the small form with `preview`.
    pub(crate) async fn picture(
        &self,
        user: UserId,
        id: SessionId,
        jid: &Jid,
        preview: bool,
    ) -> Result<Option<Picture>, SessionError> {
        let handle = self.of_user(user, id).await?;
        let line = handle.desk.line().ok_or_else(|| unconnected(&handle.view.borrow()))?;
        line.picture(jid, preview).await.map_err(|error| SessionError::Whatsapp(format!("{error:#}")))
    }
}
