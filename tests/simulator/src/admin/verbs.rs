//! What phones do and show.

use warp::http::StatusCode;

use super::Request;
use super::answer::{Answer, Failure, done, json, not_found, text};
use crate::stats::Stats;

/// Messages of one burst.
const BURST: usize = 10_000;

impl Request {
    /// What a phone does.
    pub(super) fn verb(&self, path: &str) -> Answer {
        match path {
            "/scan" => Ok(text(self.phone("phone")?.scan(self.text()?)?)),
            "/inject" => {
                let to = self.phone("to")?;
                let id = self.phone("from")?.send_text(to.number(), self.text()?)?;
                Ok(text(id))
            }
            "/history" => {
                let (chats, messages) = (self.number("chats", 3)?, self.number("msgs", 5)?);
                self.phone("phone")?.send_history(chats, messages)?;
                Ok(done())
            }
            "/read" => {
                self.phone("phone")?.mark_read(self.required("id")?)?;
                Ok(done())
            }
            "/echo" => {
                self.phone("phone")?.set_echo(self.on()?);
                Ok(done())
            }
            "/unlink" => {
                self.phone("phone")?.unlink(self.device()?)?;
                Ok(done())
            }
            _ => Err(not_found()),
        }
    }

    /// What can be seen.
    pub(super) fn view(&self, path: &str) -> Answer {
        match path {
            "/inbox" => {
                let inbox = self.phone("phone")?.inbox();
                if self.json {
                    return json(&inbox);
                }
                let lines = inbox.iter().map(|m| format!("{}: {}\n", m.from, m.text));
                Ok(text(lines.collect::<String>()))
            }
            "/receipts" => json(&self.phone("phone")?.receipts(self.required("id")?)),
            "/devices" => json(&self.phone("phone")?.devices()),
            "/stats" if self.json => json(&Stats::of(&self.world)),
            "/stats" => Ok(text(Stats::of(&self.world).to_string())),
            "/trace" => json(&self.world.ledger.trace(self.required("id")?).ok_or_else(not_found)?),
            "/violations" => json(&self.world.oracle.violations()),
            "/root" => Ok(text(hex::encode(self.world.identity.root()))),
            _ => Err(not_found()),
        }
    }

    /// Deriving the keys from the code takes long, so that it runs apart.
    pub(super) async fn code(&self) -> Answer {
        let (phone, code) = (self.phone("phone")?, self.text()?.to_string());
        let entered = tokio::task::spawn_blocking(move || phone.enter_code(&code)).await;
        entered.map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
        Ok(done())
    }

    /// Encrypting so many messages takes long as well.
    pub(super) async fn burst(&self) -> Answer {
        let (from, to) = (self.phone("from")?, self.phone("to")?);
        let (text, count) = (self.text()?.to_string(), self.number("count", 1)?);
        if count > BURST {
            return Err(Failure::bad(format!("`count` is more than {BURST}")));
        }
        let sending = move || (0..count).try_for_each(|_| from.send_text(to.number(), &text).map(drop));
        let sent = tokio::task::spawn_blocking(sending).await;
        sent.map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
        Ok(done())
    }
}
