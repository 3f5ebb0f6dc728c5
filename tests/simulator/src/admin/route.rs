//! What a route is: where it is, what it takes, what it gives, and what it does.
//!
//! The one table of routes is made of these; requests are dispatched by it, and the help and the OpenAPI document
//! are made from it, so that none can be wrong about another.

use std::pin::Pin;

use super::Request;
use super::answer::{Answer, Failure};

/// A route.
pub(super) struct Route {
    /// `GET`, `POST` or `DELETE`.
    pub(super) method: &'static str,
    /// Its path; `{name}` stands for one segment.
    pub(super) path: &'static str,
    /// What it does, as one line.
    pub(super) about: &'static str,
    /// What its query may hold.
    pub(super) query: &'static [Param],
    /// What it takes.
    pub(super) body: Body,
    /// What it answers.
    pub(super) reply: Reply,
    /// What it does.
    pub(super) run: Run,
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) about: &'static str,
}

impl Param {
    /// One that must be there.
    pub(super) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: true, about }
    }

    /// One that may be there.
    pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: false, about }
    }
}

/// What a parameter is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A phone number: 5 to 15 digits, perhaps after a `+`.
    Phone,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// What a route takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// Text: what it is.
    Text(&'static str),
    /// JSON of a schema.
    Json(&'static str),
    /// A medium.
    Bytes,
}

/// What a route answers when it could do what it was asked to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    /// `ok`.
    Done,
    /// Text: what it is.
    Text(&'static str),
    /// JSON of a schema.
    Json(&'static str),
    /// A JSON array of a schema.
    List(&'static str),
    /// Text, or JSON of a schema with `format=json`.
    TextOrJson(&'static str),
    /// Text, or a JSON array of a schema with `format=json`.
    TextOrList(&'static str),
    /// A medium.
    Bytes,
}

/// What a route does.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// At once.
    Now(fn(&Request) -> Answer),
    /// At once; answers how many were hit.
    Hit(fn(&Request) -> Result<usize, Failure>),
    /// At once; answers a number.
    Count(fn(&Request) -> Result<usize, Failure>),
    /// Nothing here: the media host has answered before.
    MediaHost,
    /// In its time.
    Later(fn(Request) -> Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Route {
    /// Whether a path is this route's.
    pub(super) fn is_at(&self, path: &str) -> bool {
        let (mut own, mut asked) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || (own.starts_with('{') && !asked.is_empty()) => {}
                _ => return false,
            }
        }
    }

    /// Whether the query may hold a parameter. What clients append to the path of a medium is their affair.
    pub(super) fn takes(&self, name: &str) -> bool {
        let known = || self.query.iter().any(|p| p.name == name);
        name == "format" || self.path.contains('{') || known()
    }

    /// One line for people: method, path, parameters and what it does.
    pub(super) fn line(&self) -> String {
        let parameter = |p: &Param| if p.required { format!("{}=", p.name) } else { format!("[{}=]", p.name) };
        let query: Vec<_> = self.query.iter().map(parameter).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let body = match self.body {
            Body::Text(what) => format!("; body: {what}"),
            Body::Json(schema) => format!("; body: JSON, {schema}"),
            Body::Bytes => "; body: its bytes".to_string(),
            Body::None => String::new(),
        };
        let place = format!("{}{query}", self.path);
        format!("{:<6} {place:<50} {}{body}", self.method, self.about)
    }
}
