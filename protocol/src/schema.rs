//! How identifiers and times look in the specification of the API: they are texts and numbers there.

use crate::{DeviceId, Epoch, Jid, MessageId, NodeId, SessionId, Timestamp, TokenId, UserId};
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};

macro_rules! schemas {
    ($($name:ident: $object:expr, $text:literal;)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    $object.description(Some($text)).build().into()
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )*
    };
}

schemas! {
    SessionId: uuid(), "The id of a session.";
    TokenId: uuid(), "The id of a token.";
    UserId: uuid(), "The id of a user.";
    NodeId: text(1, 64), "The name of a node.";
    MessageId: text(1, 128), "WhatsApp's id of a message.";
    Jid: text(3, 128), "An address at WhatsApp: `NUMBER@s.whatsapp.net`, `NUMBER@lid` or `ID@g.us`.";
    DeviceId: text(3, 32), "A linked device: `NUMBER:DEVICE`.";
    Epoch: ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)), "Counts the owners of a session.";
    Timestamp: format(KnownFormat::DateTime), "A time in UTC, with microseconds.";
}

fn text(min: usize, max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(min)).max_length(Some(max))
}

fn format(format: KnownFormat) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)))
}

fn uuid() -> ObjectBuilder {
    format(KnownFormat::Uuid)
}
