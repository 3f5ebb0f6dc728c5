//! Votes in polls that a phone knows: decrypted with the poll's secret.

use std::sync::Arc;

use wacore::poll::{PollVoteCiphertext, compute_option_hash, decrypt_poll_vote_with_secret};
use waproto::whatsapp as wa;

use crate::account::{Account, lock};
use crate::world::World;

/// What a vote chooses, separated by commas; `None` when it is no vote or cannot be read.
pub(super) fn read(world: &World, account: &Account, voter: &Arc<Account>, message: &wa::Message) -> Option<String> {
    let update = super::kind::inner(message).poll_update_message.as_option()?;
    let id = update.poll_creation_message_key.as_option()?.id.as_deref()?;
    let known = lock(&account.phone.known).get(id)?;
    let poll = known.poll()?;
    let creator = world.account(&known.author)?;
    let vote = update.vote.as_option()?;
    let (payload, iv) = (vote.enc_payload.as_deref()?, vote.enc_iv.as_deref()?);
    // Clients name both by number or by LID, as the chat does; some mix the two.
    let names = |a: &Account| [a.pn(0).to_string(), a.lid(0).to_string()];
    let chosen = names(&creator).iter().find_map(|creator| {
        names(voter).iter().find_map(|voter| {
            let vote = PollVoteCiphertext { enc_payload: payload, enc_iv: iv };
            decrypt_poll_vote_with_secret(vote, &poll.secret, id, creator, voter).ok()
        })
    })?;
    let named = |option: &&String| chosen.iter().any(|hash| hash[..] == compute_option_hash(option)[..]);
    let options: Vec<&str> = poll.options.iter().filter(named).map(String::as_str).collect();
    Some(options.join(","))
}
