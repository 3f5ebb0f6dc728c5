//! What a person sets on a phone: what others see, what the account's devices agree on, who may do what; and
//! what others see him doing.

use std::sync::Arc;

use super::Phone;
use super::events::Activity;
use crate::account::Account;
use crate::app_state::{self, ChatState, StateChange};
use crate::error::PhoneError;
use crate::profile::{self, BusinessProfile};
use crate::stanza::unix_now;
use crate::{presence, settings};

impl Phone {
    /// Changes what the account's devices agree on: chats that are muted, names of contacts, the own name, ...
    /// Changes that are made together come together.
    pub fn change_state(&self, changes: &[StateChange]) -> Result<(), PhoneError> {
        app_state::write(&self.world, &self.account, changes)
    }

    /// What the account's devices agree on about a chat: a number or a group's JID.
    pub fn chat_state(&self, chat: &str) -> ChatState {
        app_state::chat_state(&self.account, chat)
    }

    /// The account's name, as contacts see it.
    pub fn push_name(&self) -> String {
        self.account.push_name()
    }

    /// What the account says of itself.
    pub fn about(&self) -> String {
        self.account.profile().about.clone()
    }

    /// Says something else; contacts are told.
    pub fn set_about(&self, text: &str) {
        profile::set_about(&self.world, &self.account, text.to_string(), None);
    }

    /// Sets the account's picture, a JPEG with a smaller one of it, or removes it; contacts are told.
    pub fn set_picture(&self, picture: Option<&[u8]>, preview: Option<&[u8]>) -> Result<(), PhoneError> {
        profile::set_picture(&self.world, &self.account, picture, preview, None)?;
        Ok(())
    }

    /// Makes the account a business, or no longer.
    pub fn set_business(&self, business: Option<BusinessProfile>) {
        self.account.profile().business = business;
    }

    /// Sets a category of privacy, e.g. `last` to `none`.
    pub fn set_privacy(&self, category: &str, value: &str) -> Result<(), PhoneError> {
        settings::set_privacy(&self.world, &self.account, category, value, None)?;
        Ok(())
    }

    /// Trusts a contact, who may write and see what is for contacts alone from now on.
    pub fn trust(&self, number: &str) -> Result<(), PhoneError> {
        let time = unix_now().to_string();
        settings::give_token(&self.world, &self.account, &self.contact(number)?, &time);
        Ok(())
    }

    /// Blocks a contact, or no longer.
    pub fn set_blocked(&self, number: &str, block: bool) -> Result<(), PhoneError> {
        settings::set_blocked(&self.world, &self.account, &*self.contact(number)?, block, None);
        Ok(())
    }

    /// Numbers of blocked contacts.
    pub fn blocked(&self) -> Vec<String> {
        self.account.state().blocked.iter().map(ToString::to_string).collect()
    }

    /// Comes or goes, as those see who watch the account.
    pub fn set_available(&self, available: bool) {
        presence::set_available(&self.world, &self.account, available);
    }

    /// Watches a contact come and go ([`PhoneEvent::Presence`](super::PhoneEvent::Presence)). Returns whether it is
    /// there now.
    pub fn watch(&self, number: &str) -> Result<bool, PhoneError> {
        let contact = self.contact(number)?;
        presence::watch(&contact, self.account.key(0));
        Ok(contact.state().online)
    }

    /// Shows a contact or a group that the account types, or no longer.
    pub fn set_activity(&self, chat: &str, activity: Activity) -> Result<(), PhoneError> {
        presence::show_activity(&self.world, &self.account, chat, activity)
    }

    fn contact(&self, number: &str) -> Result<Arc<Account>, PhoneError> {
        self.world.account(number).ok_or_else(|| PhoneError::UnknownNumber(number.to_string()))
    }
}
