//! Query strings, limits and cursors of lists.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rookery_protocol::{ApiError, ErrorCode, FieldErrors, api::List};
use rookery_storage::Page;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Display,
    str::FromStr,
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
const MAX_WAIT_MS: u64 = 60_000;
const MAX_PAIRS: usize = 32;

/// The parameters of a query, taken one by one, so that every problem is named at once. Each may stand there once.
#[derive(Debug)]
pub(super) struct Query {
    pairs: BTreeMap<String, String>,
    errors: FieldErrors,
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let (mut pairs, mut errors) = (BTreeMap::new(), FieldErrors::new());
        for (place, (name, value)) in form_urlencoded::parse(text.as_bytes()).enumerate() {
            if place == MAX_PAIRS {
                return Err(ApiError::new(ErrorCode::MalformedRequest, "The query has too many parameters."));
            }
            let name = name.into_owned();
            match pairs.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value.into_owned())),
                Entry::Occupied(given) => {
                    errors.insert(given.key().clone().into(), vec!["must not be given twice".into()]);
                }
            }
        }
        Ok(Self { pairs, errors })
    }

    /// The parameters as they are, and what is wrong with them already.
    pub(super) fn into_parts(self) -> (BTreeMap<String, String>, FieldErrors) {
        (self.pairs, self.errors)
    }

    /// A parameter that `parse` understands.
    pub(super) fn get<T, E: Display>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        match parse(self.pairs.get(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, error.to_string());
                None
            }
        }
    }

    /// How many rows a page has.
    pub(super) fn limit(&mut self) -> usize {
        let parse = |text: &str| match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            _ => Err(format!("must be 1 to {MAX_LIMIT}")),
        };
        self.get("limit", parse).unwrap_or(DEFAULT_LIMIT)
    }

    /// How many milliseconds the caller wants to wait.
    pub(super) fn wait_ms(&mut self) -> Option<u64> {
        self.get("wait_ms", |text| match text.parse() {
            Ok(wait) if wait <= MAX_WAIT_MS => Ok(wait),
            _ => Err(format!("must be 0 to {MAX_WAIT_MS}")),
        })
    }

    /// Where the page begins.
    pub(super) fn cursor<T: FromStr>(&mut self, kind: CursorKind) -> Option<T> {
        self.get("cursor", |text| decode(kind, text).ok_or("is not a cursor of this list"))
    }

    /// Notes a problem with a parameter, or with what stands beside the query.
    pub(super) fn problem(&mut self, name: &'static str, problem: impl Into<String>) {
        self.errors.entry(name.into()).or_default().push(problem.into());
    }

    /// All problems that were found, as one error.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

/// Which list a cursor belongs to, and in which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorKind {
    /// Sessions, by the last session id.
    Sessions,
    /// Messages, by the last sort key.
    Messages,
    /// Contacts, by the last address.
    Contacts,
    /// Chats, by the last one's activity and address.
    Chats,
    /// Receipts of a group's members, by the last address.
    Participants,
}

impl CursorKind {
    fn tag(self) -> &'static str {
        match self {
            Self::Sessions => "s1",
            Self::Messages => "m1",
            Self::Contacts => "c1",
            Self::Chats => "h1",
            Self::Participants => "p1",
        }
    }
}

/// A page as it is answered: its rows as `show` has them, and a cursor to where the next one begins.
pub(super) fn listed<T, C: Display, R>(kind: CursorKind, page: Page<T, C>, show: impl FnMut(T) -> R) -> List<R> {
    let next_cursor = page.next.map(|next| encode(kind, &next));
    List { data: page.rows.into_iter().map(show).collect(), next_cursor }
}

/// A cursor as callers see it: opaque, and the same on every node and after a restart.
fn encode(kind: CursorKind, place: &impl ToString) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}", kind.tag(), place.to_string()))
}

fn decode<T: FromStr>(kind: CursorKind, text: &str) -> Option<T> {
    let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (tag, place) = plain.split_once('.')?;
    if tag == kind.tag() { place.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_belong_to_one_list() {
        let cursor = encode(CursorKind::Messages, &42_u64);
        assert_eq!(decode::<u64>(CursorKind::Messages, &cursor), Some(42));
        assert_eq!(decode::<u64>(CursorKind::Sessions, &cursor), None);
        assert_eq!(decode::<u64>(CursorKind::Messages, "%%"), None);
    }

    fn named(query: Query) -> Vec<String> {
        let errors = query.finish().err().map(|error| error.errors).unwrap_or_default();
        errors.into_keys().map(String::from).collect()
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut query = Query::parse("limit=0&cursor=x&wait_ms=1&a=1&a=2&a=3").unwrap();
        assert_eq!((query.limit(), query.wait_ms()), (DEFAULT_LIMIT, Some(1)));
        assert_eq!(query.cursor::<u64>(CursorKind::Messages), None);
        assert_eq!(named(query), ["a", "cursor", "limit"]);
        assert!(Query::parse(&"a=1&".repeat(MAX_PAIRS + 1)).is_err());
    }

    #[test]
    fn limits_have_bounds() {
        for (text, expected) in
            [("", Some(50)), ("limit=200", Some(200)), ("limit=0", None), ("limit=201", None), ("limit=x", None)]
        {
            let mut query = Query::parse(text).unwrap();
            let limit = query.limit();
            assert_eq!(query.finish().ok().map(|()| limit), expected, "{text}");
        }
    }
}
