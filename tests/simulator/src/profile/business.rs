//! `xmlns=w:biz`: what a business says of itself.

use serde::{Deserialize, Serialize};
use wacore_binary::Node;

use crate::error::StanzaError;
use crate::router::Session;
use crate::stanza::{children, element, jid_of};

/// Businesses of one request.
const PROFILES: usize = 64;

/// What a business says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BusinessProfile {
    /// What it does.
    pub description: String,
    /// Where it is.
    pub address: String,
    /// How to write to it.
    pub email: String,
    /// Its web sites.
    pub websites: Vec<String>,
    /// Its category, e.g. `Restaurant`.
    pub category: String,
}

impl BusinessProfile {
    fn parts(&self) -> Vec<Node> {
        let text = |tag, text: &str| element(tag).bytes(text.as_bytes().to_vec()).build();
        let mut parts = vec![
            text("description", &self.description),
            text("address", &self.address),
            text("email", &self.email),
            element("categories")
                .children([element("category").attr("id", 1).bytes(self.category.as_bytes().to_vec()).build()])
                .build(),
        ];
        parts.extend(self.websites.iter().map(|site| text("website", site)));
        parts
    }
}

/// Answers `xmlns=w:biz`: an account that is no business has no profile.
pub(crate) fn handle(session: &Session, node: &Node) -> Result<(), StanzaError> {
    session.login()?;
    let asked = node.get_optional_child("business_profile");
    let asked = asked.ok_or(StanzaError::Refused { code: 501, text: "feature-not-implemented" })?;
    if children(asked).len() > PROFILES {
        return Err(StanzaError::Malformed("business_profile"));
    }
    let mut profiles = Vec::new();
    for profile in asked.get_children_by_tag("profile") {
        let jid = jid_of(profile, "jid").ok_or(StanzaError::Malformed("jid"))?;
        let account = session.world.resolve(&jid);
        let business = account.and_then(|a| a.profile().business.clone());
        profiles.extend(business.map(|b| element("profile").attr("jid", jid).children(b.parts()).build()));
    }
    session.reply(node, Some(element("business_profile").attr("v", 244).children(profiles).build()));
    Ok(())
}
