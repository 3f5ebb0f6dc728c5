//! Contacts: what is known of the people that a session has met. Pure.
//!
//! A person has a phone number, a LID, or both, and either may be learned first. There is one row a person, under the
//! phone number where it is known and under the LID where it is not. Once a LID turns out to be a phone number's, its
//! row becomes a pointer to the number's: it keeps the address alone and is no contact any more. So one look at a
//! LID's row tells the number, and nothing is ever searched.
//!
//! Knows nothing of engines: [`learn`] reads rows by their key and answers which rows to write.

use crate::{StoreError, search::folded};
use rookery_protocol::{Jid, JidServer};
use serde::{Deserialize, Serialize};

/// A person, or the pointer from a LID to the person's phone number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// The address that it is kept under.
    pub jid: Jid,
    /// The person's other address. In the row of a phone number its LID; in the row of a LID the phone number, and
    /// then this row is a pointer and has no names.
    pub other: Option<Jid>,
    /// The name in the account's address book.
    pub full_name: Option<String>,
    /// The short form of that name.
    pub short_name: Option<String>,
    /// The name that the person gave themselves.
    pub push_name: Option<String>,
    /// The verified name of a business.
    pub business_name: Option<String>,
}

/// What was learned about a person. What is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactFacts {
    /// One address: a phone number or a LID.
    pub jid: Jid,
    /// The other, where it was told as well.
    pub other: Option<Jid>,
    /// The name in the account's address book; an empty one removes it.
    pub full_name: Option<String>,
    /// Its short form; an empty one removes it.
    pub short_name: Option<String>,
    /// The name that the person gave themselves.
    pub push_name: Option<String>,
    /// The verified name of a business.
    pub business_name: Option<String>,
    /// It is from the past: names that are known already stay.
    pub old: bool,
}

/// Which contacts, in the order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContactQuery {
    /// Only those with this text in a name or a number; whatever the case of letters and their diacritics.
    pub text: Option<String>,
    /// Only after this address: where the page before ended.
    pub after: Option<Jid>,
    /// At most this many rows, at least 1.
    pub limit: usize,
}

impl ContactFacts {
    /// Nothing but that there is somebody under this address.
    pub fn of(jid: Jid) -> Self {
        Self { jid, other: None, full_name: None, short_name: None, push_name: None, business_name: None, old: false }
    }
}

impl ContactRow {
    /// Somebody of whom nothing but the address is known.
    pub(crate) fn new(jid: Jid) -> Self {
        Self { jid, other: None, full_name: None, short_name: None, push_name: None, business_name: None }
    }

    /// Whether it is a pointer from a LID and no contact.
    pub(crate) fn is_pointer(&self) -> bool {
        self.jid.server() == JidServer::Lid && self.other.is_some()
    }

    /// The name to show: the account's own for the person, else the person's own.
    pub fn name(&self) -> Option<&str> {
        let names = [&self.full_name, &self.short_name, &self.business_name, &self.push_name];
        names.into_iter().find_map(|name| name.as_deref())
    }

    /// Whether a name or a number has this text, which must be [`folded`]. One of diacritics alone is nowhere.
    pub(crate) fn matches(&self, text: &str) -> bool {
        if text.is_empty() {
            return false;
        }
        let names = [&self.full_name, &self.short_name, &self.push_name, &self.business_name];
        let number = text.trim_start_matches('+');
        names.into_iter().flatten().any(|name| folded(name).contains(text))
            || self.jid.as_str().contains(text)
            || self.other.as_ref().is_some_and(|other| other.as_str().contains(text))
            || (!number.is_empty() && self.jid.user().contains(number))
    }

    fn take(&mut self, facts: &ContactFacts) {
        for (name, told) in [
            (&mut self.full_name, &facts.full_name),
            (&mut self.short_name, &facts.short_name),
            (&mut self.push_name, &facts.push_name),
            (&mut self.business_name, &facts.business_name),
        ] {
            if let Some(told) = told
                && !(facts.old && name.is_some())
            {
                *name = Some(told.clone()).filter(|told| !told.is_empty());
            }
        }
    }

    /// Takes over the names that only the other row has.
    fn fill(&mut self, from: Self) {
        for (name, other) in [
            (&mut self.full_name, from.full_name),
            (&mut self.short_name, from.short_name),
            (&mut self.push_name, from.push_name),
            (&mut self.business_name, from.business_name),
        ] {
            if name.is_none() {
                *name = other;
            }
        }
    }
}

/// What follows from what was learned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// The rows to write.
    pub rows: Vec<ContactRow>,
    /// A LID that turned out to be a phone number's: what is kept under the first belongs under the second.
    pub merged: Option<(Jid, Jid)>,
}

/// Works out what to write, given the rows that are there. Addresses of groups and the like are nobody's.
pub(crate) fn learn(
    facts: &ContactFacts,
    get: impl Fn(&Jid) -> Result<Option<ContactRow>, StoreError>,
) -> Result<Learned, StoreError> {
    let mut learned = Learned::default();
    let given = |server| [Some(&facts.jid), facts.other.as_ref()].into_iter().flatten().find(|j| j.server() == server);
    let (mut phone, lid) = (given(JidServer::PhoneNumber).cloned(), given(JidServer::Lid).cloned());
    let lid_row = lid.as_ref().map(&get).transpose()?.flatten();
    if phone.is_none() {
        phone = lid_row.as_ref().and_then(|row| row.other.clone());
    }
    let Some(key) = phone.clone().or_else(|| lid.clone()) else { return Ok(learned) };
    let stored = get(&key)?;
    let mut row = stored.clone().unwrap_or_else(|| ContactRow::new(key));
    if let (Some(phone), Some(lid)) = (phone, lid) {
        row.other = Some(lid.clone());
        let points_to = lid_row.as_ref().and_then(|row| row.other.as_ref());
        if points_to != Some(&phone) {
            if let Some(before) = points_to.map(&get).transpose()?.flatten()
                && before.other.as_ref() == Some(&lid)
            {
                // The person has another number now.
                learned.rows.push(ContactRow { other: None, ..before });
            }
            if let Some(under_lid) = lid_row {
                row.fill(under_lid);
            }
            learned.rows.push(ContactRow { other: Some(phone.clone()), ..ContactRow::new(lid.clone()) });
            learned.merged = Some((lid, phone));
        }
    }
    row.take(facts);
    if stored.as_ref() != Some(&row) {
        learned.rows.push(row);
    }
    Ok(learned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn named(jid: Jid, push_name: &str) -> ContactFacts {
        ContactFacts { push_name: Some(push_name.to_owned()), ..ContactFacts::of(jid) }
    }

    fn all(facts: &[ContactFacts]) -> (BTreeMap<String, ContactRow>, Vec<(Jid, Jid)>) {
        let (mut rows, mut merged) = (BTreeMap::<String, ContactRow>::new(), vec![]);
        for facts in facts {
            let learned = learn(facts, |jid| Ok(rows.get(jid.as_str()).cloned())).unwrap();
            rows.extend(learned.rows.into_iter().map(|row| (row.jid.to_string(), row)));
            merged.extend(learned.merged);
        }
        (rows, merged)
    }

    #[test]
    fn a_lid_and_a_number_become_one_whichever_comes_first() {
        let (lid, phone) = (jid("9001@lid"), jid("15550001@s.whatsapp.net"));
        let pair = ContactFacts { other: Some(lid.clone()), old: true, ..ContactFacts::of(phone.clone()) };
        let by_lid = named(lid.clone(), "Ann");
        let by_phone = ContactFacts { full_name: Some("Ann B".to_owned()), ..ContactFacts::of(phone.clone()) };
        let steps = [by_lid, by_phone, pair];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (rows, merged) = all(&order.map(|step| steps[step].clone()));
            let people: Vec<_> = rows.values().filter(|row| !row.is_pointer()).collect();
            assert_eq!(people.len(), 1, "{order:?}: {rows:?}");
            assert_eq!(people[0].jid, phone);
            assert_eq!(people[0].other.as_ref(), Some(&lid));
            assert_eq!(people[0].name(), Some("Ann B"));
            assert_eq!(people[0].push_name.as_deref(), Some("Ann"), "{order:?}");
            assert_eq!(merged, [(lid.clone(), phone.clone())]);
        }
    }

    #[test]
    fn what_is_old_never_replaces_and_what_is_known_is_not_written_again() {
        let phone = jid("15550001@s.whatsapp.net");
        let (rows, _) = all(&[named(phone.clone(), "new"), ContactFacts { old: true, ..named(phone.clone(), "old") }]);
        assert_eq!(rows[phone.as_str()].push_name.as_deref(), Some("new"));
        let again = learn(&named(phone.clone(), "new"), |jid| Ok(rows.get(jid.as_str()).cloned())).unwrap();
        assert_eq!(again, Learned::default());
        let removed = ContactFacts { push_name: Some(String::new()), ..ContactFacts::of(phone) };
        let removed = learn(&removed, |jid| Ok(rows.get(jid.as_str()).cloned())).unwrap();
        assert_eq!(removed.rows[0].push_name, None);
    }

    #[test]
    fn a_lid_that_moves_leaves_its_old_number() {
        let (lid, one, two) = (jid("9001@lid"), jid("15550001@s.whatsapp.net"), jid("15550002@s.whatsapp.net"));
        let pair = |phone: &Jid| ContactFacts { other: Some(phone.clone()), ..named(lid.clone(), "Ann") };
        let (rows, merged) = all(&[pair(&one), pair(&two)]);
        assert_eq!(rows[one.as_str()].other, None);
        assert_eq!(rows[two.as_str()].other.as_ref(), Some(&lid));
        assert_eq!(merged.len(), 2);
        let (rows, _) = all(&[named(jid("1203@g.us"), "a group")]);
        assert!(rows.is_empty(), "a group is nobody");
    }

    #[test]
    fn names_and_numbers_are_found_whatever_case_and_diacritics() {
        let row = ContactRow {
            other: Some(jid("9001@lid")),
            full_name: Some("Élodie Müller".to_owned()),
            ..ContactRow::new(jid("15550001@s.whatsapp.net"))
        };
        for text in ["élodie", "elodie", "ELO", "müll", "e mu", "mu\u{308}", "5550", "+1555", "9001", "lid"] {
            assert!(row.matches(&folded(text)), "{text}");
        }
        assert!(!row.matches("zoe") && !row.matches("+") && !row.matches(&folded("\u{308}")));
    }
}
