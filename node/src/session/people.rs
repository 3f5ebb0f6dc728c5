//! What the API asks about a session's contacts and chats.

use super::{SessionError, registry::Sessions};
use rookery_protocol::{Jid, JidServer, SessionId, UserId};
use rookery_storage::{ChatPlace, ChatRow, ContactQuery, ContactRow, Page, StoreError, Stores};

/// A profile picture as WhatsApp names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Its id; another picture has another.
    pub id: String,
    /// Where it is.
    pub url: String,
}

/// The address of a chat: the phone number in place of a LID, where it is known whose that is.
pub(super) async fn address(stores: &Stores, session: SessionId, chat: Jid) -> Result<Jid, StoreError> {
    if chat.server() != JidServer::Lid {
        return Ok(chat);
    }
    let contact = stores.contacts.get(session, std::slice::from_ref(&chat)).await?.pop().flatten();
    let known = contact.filter(|contact| contact.jid.server() == JidServer::PhoneNumber);
    Ok(known.map_or(chat, |contact| contact.jid))
}

impl Sessions {
    /// A page of a session's contacts in the order of their addresses.
    pub(crate) async fn contacts(
        &self,
        user: UserId,
        id: SessionId,
        query: &ContactQuery,
    ) -> Result<Page<ContactRow, Jid>, SessionError> {
        self.of_user(user, id).await?;
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
        self.of_user(user, id).await?;
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
        let line = handle.desk.line().ok_or(SessionError::NotConnected)?;
        line.picture(jid, preview).await.map_err(|error| SessionError::Whatsapp(format!("{error:#}")))
    }
}
