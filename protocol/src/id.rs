//! Identifiers. Each is valid by construction and none is ever passed as a bare string.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{borrow::Cow, fmt, str::FromStr};
use uuid::Uuid;

/// Why a text is no identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdError(Cow<'static, str>);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $new:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh identifier.
            pub fn generate() -> Self {
                Self(Uuid::$new())
            }

            /// From the 16 bytes that [`Self::as_bytes`] gives.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes, whose order is the order of the identifiers.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Takes the hyphenated form alone: other spellings of one identifier would be other cache keys.
            fn from_str(text: &str) -> Result<Self, IdError> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
                    _ => Err(IdError("must be a UUID".into())),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    Uuid::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

uuid_id!(
    /// A session: one WhatsApp link and all that belongs to it. Time-ordered, so a list of sessions is in
    /// order of creation.
    SessionId,
    now_v7
);
uuid_id!(
    /// A user of the API: the owner of tokens and sessions. Given by the caller, opaque to us.
    UserId,
    new_v4
);
uuid_id!(
    /// An API token's public identifier; it grants nothing.
    TokenId,
    new_v4
);

/// A node's stable name: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=64).contains(&text.len()) && text.chars().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError("must be 1 to 64 letters, digits, '-', '_' or '.'".into()))
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One run of a node's process; every start has a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A fresh random incarnation, never zero.
    pub fn generate() -> Self {
        Self(rand::random_range(1..=u64::MAX >> 1))
    }
}

/// The count of a session's claims. It only grows; whoever holds the highest is the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next claim.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A WhatsApp message id as it stands on the wire: 1 to 128 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError("must be 1 to 128 printable characters".into()))
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The kind of address that a [`Jid`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JidServer {
    /// `s.whatsapp.net`: a phone number.
    PhoneNumber,
    /// `lid`: a hidden identity that WhatsApp gives beside the phone number.
    Lid,
    /// `g.us`: a group.
    Group,
    /// Anything else that WhatsApp delivers from (`broadcast`, `newsletter`, `bot`, ...).
    Other,
}

/// A WhatsApp address without a device: `user@server`.
///
/// At most 128 characters; the user part is letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Jid(String);

impl Jid {
    /// The address of a phone number: 5 to 20 digits, international without a prefix.
    pub fn from_phone(digits: &str) -> Result<Self, IdError> {
        if !(5..=20).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(IdError("must be a phone number of 5 to 20 digits".into()));
        }
        Ok(Self(format!("{digits}@s.whatsapp.net")))
    }

    /// What a caller may name as recipient: a phone number (spaces, dashes, dots, parentheses, `+` and a
    /// leading `00` allowed), a phone number's JID, a LID or a group JID.
    pub fn from_recipient(text: &str) -> Result<Self, IdError> {
        let text = text.trim();
        if let Some((user, _)) = text.split_once('@') {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let device_fits = user.split_once(':').is_none_or(|(_, device)| digits(device));
            let jid: Self = text.parse()?;
            return match jid.server() {
                JidServer::PhoneNumber if device_fits => Self::from_phone(jid.user()),
                JidServer::Lid if device_fits && digits(jid.user()) => Ok(jid),
                // The old form is the creator's number and a time, the new one a number alone.
                JidServer::Group if jid.user().splitn(2, '-').all(digits) => Ok(jid),
                _ => Err(IdError("must be a phone number, or a JID of a user, a LID or a group".into())),
            };
        }
        let (international, rest) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.chars().any(|c| !(c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')'))) {
            return Err(IdError("must be a phone number, or a JID of a user, a LID or a group".into()));
        }
        let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
        let digits = if international { digits.as_str() } else { digits.strip_prefix("00").unwrap_or(&digits) };
        if !(7..=15).contains(&digits.len()) || digits.starts_with('0') {
            return Err(IdError("must be a phone number of 7 to 15 digits with its country code".into()));
        }
        Self::from_phone(digits)
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    pub fn user(&self) -> &str {
        self.0.split_once('@').map_or("", |(user, _)| user)
    }

    /// What kind of address this is.
    pub fn server(&self) -> JidServer {
        match self.0.split_once('@').map_or("", |(_, server)| server) {
            "s.whatsapp.net" => JidServer::PhoneNumber,
            "lid" => JidServer::Lid,
            "g.us" => JidServer::Group,
            _ => JidServer::Other,
        }
    }

    /// The phone number, when the address is one.
    pub fn phone(&self) -> Option<&str> {
        (self.server() == JidServer::PhoneNumber).then(|| self.user())
    }
}

impl FromStr for Jid {
    type Err = IdError;

    /// Takes `user@server`; a device (`user:3@server`) and an agent (`user_1@server`) are dropped, and the
    /// old `c.us` becomes `s.whatsapp.net`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError("must be a JID (user@server)".into());
        let (user, server) = text.split_once('@').ok_or_else(bad)?;
        let user = user.split([':', '_']).next().unwrap_or(user);
        let server = if server == "c.us" { "s.whatsapp.net" } else { server };
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        let fits = !user.is_empty() && !server.is_empty() && user.len() + server.len() < 128;
        if !fits || !user.bytes().all(legal) || !server.bytes().all(legal) {
            return Err(bad());
        }
        Ok(Self(format!("{user}@{server}")))
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A linked device of an account: `number:device`, as in `15550001:3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    phone: String,
    device: u16,
}

impl DeviceId {
    /// The device with number `device` of the account with this phone number.
    pub fn new(phone: &str, device: u16) -> Result<Self, IdError> {
        Jid::from_phone(phone)?;
        Ok(Self { phone: phone.to_owned(), device })
    }

    /// The account's phone number: digits alone.
    pub fn phone(&self) -> &str {
        &self.phone
    }

    /// The number of the device within its account.
    pub fn device(&self) -> u16 {
        self.device
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.phone, self.device)
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError("must be a device id (number:device)".into());
        let (phone, device) = text.split_once(':').ok_or_else(bad)?;
        Self::new(phone, device.parse().map_err(|_| bad())?)
    }
}

impl Serialize for DeviceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recipients_of_every_form_become_one_address() {
        for text in
            ["15550001234", "+1 555 000-1234", "0015550001234", "15550001234@s.whatsapp.net", "15550001234:7@c.us"]
        {
            assert_eq!(Jid::from_recipient(text).unwrap().as_str(), "15550001234@s.whatsapp.net", "{text}");
        }
        assert_eq!(Jid::from_recipient("120363001@g.us").unwrap().server(), JidServer::Group);
        assert_eq!(Jid::from_recipient("1000155@lid").unwrap().server(), JidServer::Lid);
    }

    #[test]
    fn what_is_no_recipient_is_refused() {
        for text in [
            "",
            "12345",
            "1555000abcd",
            "status@broadcast",
            "x@",
            "@lid",
            "../1@lid",
            "1555000123456789012",
            "0",
            "+",
            "00",
            "-@g.us",
            "12-@g.us",
            "1-2-3@g.us",
            "15550001234:x@c.us",
        ] {
            assert!(Jid::from_recipient(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uuid_spellings_other_than_the_hyphenated_one_are_refused() {
        let id = SessionId::generate();
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        assert!(id.to_string().replace('-', "").parse::<SessionId>().is_err());
        assert!(format!("{{{id}}}").parse::<SessionId>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,200}") {
            let _ = Jid::from_recipient(&text);
            let _ = text.parse::<Jid>();
            let _ = text.parse::<DeviceId>();
            let _ = text.parse::<MessageId>();
            let _ = text.parse::<SessionId>();
        }

        #[test]
        fn an_address_is_its_own_recipient(digits in "[1-9][0-9]{6,14}") {
            let jid = Jid::from_recipient(&digits).unwrap();
            prop_assert_eq!(Jid::from_recipient(jid.as_str()).unwrap(), jid);
        }
    }
}
