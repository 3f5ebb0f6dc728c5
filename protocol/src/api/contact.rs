//! Bodies of a session's contacts.

use crate::Jid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Somebody whom a session knows: from the address book, from messages, or from the phone's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// The address to write to: by phone number where it is known.
    pub jid: Jid,
    /// The address without the phone number.
    pub lid: Option<Jid>,
    /// The phone number, digits alone.
    pub phone: Option<String>,
    /// The name to show: the first that there is of `full_name`, `short_name`, `business_name` and `push_name`.
    pub name: Option<String>,
    /// The name in the account's address book.
    pub full_name: Option<String>,
    /// The short form of that name.
    pub short_name: Option<String>,
    /// The name that the contact gave themselves.
    pub push_name: Option<String>,
    /// The verified name of a business.
    pub business_name: Option<String>,
}

/// `GET …/contacts/{jid}/picture`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfilePicture {
    /// Whose it is.
    pub jid: Jid,
    /// Its id; another picture has another.
    pub id: String,
    /// Where WhatsApp has it. Good for some hours only.
    pub url: String,
}
