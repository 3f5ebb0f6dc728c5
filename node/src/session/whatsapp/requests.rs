//! What is asked through a connection besides messages: pictures and names of groups of WhatsApp, history of the phone.

use super::{Line, peers::name};
use crate::session::people::Picture;
use anyhow::{Context, bail, ensure};
use rookery_protocol::{Jid, MessageId};
use std::time::Duration;
use whatsapp_rust::{
    buffa::MessageField,
    wacore::{message_processing::EncType, messages::MessageUtils},
    wacore_binary::builder::NodeBuilder,
    waproto::whatsapp::{
        self as wa,
        message::{PeerDataOperationRequestMessage, PeerDataOperationRequestType, ProtocolMessage, protocol_message},
    },
};

/// How long WhatsApp may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

impl Line {
    /// The profile picture of a person or a group; none when there is none, or none for us.
    pub(crate) async fn picture(&self, jid: &Jid, preview: bool) -> anyhow::Result<Option<Picture>> {
        let jid = jid.as_str().parse::<whatsapp_rust::Jid>().context("the address")?;
        let contacts = self.0.client.contacts();
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, contacts.get_profile_picture(&jid, preview)).await;
        let picture = asked.context("no answer in time")??;
        Ok(picture.map(|picture| Picture { id: picture.id, url: picture.url }))
    }

    /// The name of a group; none when it has none.
    pub(crate) async fn subject(&self, group: &Jid) -> anyhow::Result<Option<String>> {
        let group = group.as_str().parse::<whatsapp_rust::Jid>().context("the address")?;
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, self.0.client.groups().get_metadata(&group)).await;
        Ok(name(&asked.context("no answer in time")??.subject))
    }

    /// Asks the phone to announce a chunk of history again, by the id of its announcement, as WhatsApp Web does.
    pub(crate) async fn ask_for_chunk(&self, announcement: &MessageId) -> anyhow::Result<()> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.send_to_phone(&chunk_request(announcement)))
            .await
            .context("no answer in time")?
    }

    /// Sends a message between the account's devices. The library has no public way for it, but all its parts.
    async fn send_to_phone(&self, message: &wa::Message) -> anyhow::Result<()> {
        let client = &self.0.client;
        let phone = client.lid().or_else(|| client.pn()).context("not linked")?.to_non_ad();
        let (kind, ciphertext) =
            client.signal().encrypt_message(&phone, &MessageUtils::encode_and_pad(message)).await?;
        // The phone has written first, so there is a session; a new one would need our identity beside it.
        ensure!(kind == EncType::Message, "no session with the phone");
        let id = format!("3EB0{}", hex::encode_upper(rand::random::<[u8; 9]>()));
        let parts = [
            NodeBuilder::new("meta").attr("appdata", "default").build(),
            NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(ciphertext).build(),
        ];
        let stanza = NodeBuilder::new("message")
            .attr("to", phone)
            .attr("id", id)
            .attr("type", "text")
            .attr("category", "peer")
            .attr("push_priority", "high")
            .children(parts)
            .build();
        if let Err(error) = client.send_node(stanza).await {
            bail!("not sent: {error}");
        }
        Ok(())
    }
}

fn chunk_request(announcement: &MessageId) -> wa::Message {
    let retry = wa::message::peer_data_operation_request_message::HistorySyncChunkRetryRequest {
        chunk_notification_id: Some(announcement.to_string()),
        ..Default::default()
    };
    let request = PeerDataOperationRequestMessage {
        peer_data_operation_request_type: Some(PeerDataOperationRequestType::HISTORY_SYNC_CHUNK_RETRY),
        history_sync_chunk_retry_request: MessageField::some(retry),
        ..Default::default()
    };
    let protocol = ProtocolMessage {
        r#type: Some(protocol_message::Type::PEER_DATA_OPERATION_REQUEST_MESSAGE),
        peer_data_operation_request_message: MessageField::some(request),
        ..Default::default()
    };
    wa::Message { protocol_message: MessageField::some(protocol), ..Default::default() }
}
