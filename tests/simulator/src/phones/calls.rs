//! Calls that a phone makes and takes. Nothing is heard: only that somebody calls, takes or refuses it and ends it.

use super::Phone;
use super::events::CallState;
use crate::calls;
use crate::error::PhoneError;

impl Phone {
    /// Calls a number: its phone and all its companions ring. Returns the call's id.
    pub fn call(&self, number: &str, video: bool) -> Result<String, PhoneError> {
        let callee = self.world.account(number).ok_or_else(|| PhoneError::UnknownNumber(number.to_string()))?;
        Ok(calls::offer(&self.world, &self.account, &callee, video))
    }

    /// Takes a call; the callee's other devices stop ringing.
    pub fn accept_call(&self, call_id: &str) -> Result<(), PhoneError> {
        self.act_on_call(call_id, CallState::Accepted)
    }

    /// Refuses a call.
    pub fn reject_call(&self, call_id: &str) -> Result<(), PhoneError> {
        self.act_on_call(call_id, CallState::Rejected)
    }

    /// Ends a call, or stops calling.
    pub fn end_call(&self, call_id: &str) -> Result<(), PhoneError> {
        self.act_on_call(call_id, CallState::Ended)
    }

    fn act_on_call(&self, call_id: &str, state: CallState) -> Result<(), PhoneError> {
        calls::act(&self.world, &self.account, call_id, state)
            .ok_or_else(|| PhoneError::Invalid(format!("the phone has no call {call_id}")))
    }
}
