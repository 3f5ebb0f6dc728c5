//! Media by name: whole, in part, or expired. Bounded: the oldest are forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

struct Medium {
    data: Bytes,
    stored: Instant,
    /// All of it has been uploaded.
    whole: bool,
    /// It can be downloaded no longer; phones have it still.
    expired: bool,
}

/// What there is of a medium.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of it.
    Whole(Bytes),
    /// Its first bytes; the upload broke off.
    Part(Bytes),
    /// It was there.
    Expired,
    /// Nothing.
    Nothing,
}

/// Media by name.
pub(crate) struct MediaStore {
    media: HashMap<String, Medium>,
    order: VecDeque<String>,
    bytes: usize,
    limit: usize,
    ttl: Duration,
}

impl MediaStore {
    /// A store of at most `limit` bytes, from which a medium can be downloaded for `ttl`.
    pub(crate) fn new(limit: usize, ttl: Duration) -> Self {
        Self { media: HashMap::new(), order: VecDeque::new(), bytes: 0, limit, ttl }
    }

    /// Keeps a medium; the oldest make room. False when it is larger than the whole store.
    pub(crate) fn put(&mut self, name: &str, data: Bytes, whole: bool) -> bool {
        if data.len() > self.limit {
            return false;
        }
        self.remove(name);
        while self.bytes + data.len() > self.limit {
            let Some(oldest) = self.order.front().cloned() else {
                break;
            };
            self.remove(&oldest);
        }
        self.bytes += data.len();
        self.order.push_back(name.to_string());
        self.media.insert(name.to_string(), Medium { data, stored: Instant::now(), whole, expired: false });
        true
    }

    /// What can be downloaded of a medium.
    pub(crate) fn find(&self, name: &str) -> Found {
        match self.media.get(name) {
            None => Found::Nothing,
            Some(medium) if medium.expired || medium.stored.elapsed() > self.ttl => Found::Expired,
            Some(medium) if medium.whole => Found::Whole(medium.data.clone()),
            Some(medium) => Found::Part(medium.data.clone()),
        }
    }

    /// A medium as a phone has it that has sent or received it, expired or not.
    pub(crate) fn on_a_phone(&self, name: &str) -> Option<Bytes> {
        self.media.get(name).filter(|m| m.whole).map(|m| m.data.clone())
    }

    /// A medium can be downloaded no longer, or no medium can. Returns how many there were.
    pub(crate) fn expire(&mut self, name: Option<&str>) -> usize {
        let mut expired = 0;
        for (_, medium) in self.media.iter_mut().filter(|(n, m)| !m.expired && name.is_none_or(|name| *n == name)) {
            medium.expired = true;
            expired += 1;
        }
        expired
    }

    /// Forgets a medium, or all. Returns how many there were.
    pub(crate) fn forget(&mut self, name: Option<&str>) -> usize {
        let known = |one: &String| name.is_none_or(|name| *one == name);
        let names: Vec<_> = self.media.keys().filter(|one| known(one)).cloned().collect();
        for name in &names {
            self.remove(name);
        }
        names.len()
    }

    /// Forgets a medium.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(medium) = self.media.remove(name) {
            self.bytes -= medium.data.len();
            if self.order.front().is_some_and(|n| n == name) {
                self.order.pop_front();
            } else {
                self.order.retain(|n| n != name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: usize) -> Bytes {
        Bytes::from(vec![0; length])
    }

    #[test]
    fn the_oldest_media_make_room() {
        let mut store = MediaStore::new(100, Duration::MAX);
        assert!(!store.put("huge", data(101), true));
        for name in ["a", "b", "c"] {
            assert!(store.put(name, data(40), true));
        }
        assert_eq!(store.find("a"), Found::Nothing);
        assert!(store.find("b") == Found::Whole(data(40)) && store.find("c") == Found::Whole(data(40)));
        assert!(store.put("b", data(60), true), "replaced");
        assert_eq!(store.bytes, 100);
    }

    #[test]
    fn what_has_expired_is_on_phones_alone() {
        let mut store = MediaStore::new(100, Duration::MAX);
        store.put("a", data(1), true);
        store.put("b", data(2), false);
        assert_eq!(store.find("b"), Found::Part(data(2)));
        assert_eq!((store.expire(Some("a")), store.expire(Some("a"))), (1, 0));
        assert_eq!((store.find("a"), store.on_a_phone("a")), (Found::Expired, Some(data(1))));
        assert_eq!(store.on_a_phone("b"), None, "never sent");
        assert_eq!((store.forget(Some("a")), store.forget(Some("a")), store.forget(None)), (1, 0, 1));
        assert_eq!((store.find("a"), store.on_a_phone("a"), store.bytes), (Found::Nothing, None, 0));
        let mut store = MediaStore::new(100, Duration::ZERO);
        store.put("a", data(1), true);
        let put = Instant::now();
        while store.find("a") != Found::Expired {
            assert!(put.elapsed() < Duration::from_secs(1), "it stays");
        }
    }
}
