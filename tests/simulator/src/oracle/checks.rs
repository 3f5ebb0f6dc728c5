//! What a test asks when all is quiet: whether what a client claims agrees with what the server saw.
//!
//! Pure but for the ledger that it reads.

use std::collections::HashSet;

use super::{Violation, ViolationKind};
use crate::account::DeviceKey;
use crate::ledger::{Cause, Ledger, Trace};
use crate::stanza::unix_now_ms;

/// Every message that a device has acknowledged is among those that its client has stored.
pub(crate) fn stored(
    ledger: &Ledger,
    device: &DeviceKey,
    stored: &HashSet<&str>,
    describe: impl Fn(u64) -> String,
) -> Vec<Violation> {
    let acknowledged = ledger.acknowledged_by(device);
    let missing = acknowledged.iter().filter(|a| !stored.contains(a.id.as_str()));
    missing
        .map(|a| Violation {
            kind: ViolationKind::AcknowledgedNotStored,
            evidence: format!(
                "{device}: message {} from {} was acknowledged over {} and is not stored",
                a.id,
                a.from,
                describe(a.connection)
            ),
            at_ms: a.at_ms,
        })
        .collect()
}

/// Every message that an account's client says it has sent has come to each device that it was for, and once.
pub(crate) fn sent<'a>(ledger: &Ledger, number: &str, ids: impl IntoIterator<Item = &'a str>) -> Vec<Violation> {
    ids.into_iter().flat_map(|id| judge_sent(number, id, ledger.trace_of(number, id))).collect()
}

fn judge_sent(number: &str, id: &str, trace: Option<Trace>) -> Vec<Violation> {
    let found =
        |kind, at_ms, what: String| Violation { kind, evidence: format!("{number}: message {id} {what}"), at_ms };
    let Some(trace) = trace else {
        let what = "never came to the server".to_string();
        return vec![found(ViolationKind::NotDelivered, unix_now_ms(), what)];
    };
    if trace.devices.is_empty() {
        let what = "was for no device at all".to_string();
        return vec![found(ViolationKind::NotDelivered, trace.accepted_ms, what)];
    }
    let mut violations = Vec::new();
    for (name, device) in &trace.devices {
        if !device.is_acknowledged() && device.lost.is_none() {
            let what = format!("has not been acknowledged by {name}; deliveries: {:?}", device.deliveries);
            violations.push(found(ViolationKind::NotDelivered, device.queued_ms, what));
        }
        if let Some(again) = device.deliveries.iter().find(|d| d.cause == Cause::Unasked) {
            let what = format!("came to {name} again for no reason; deliveries: {:?}", device.deliveries);
            violations.push(found(ViolationKind::DeliveredTwice, again.at_ms, what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_compared_with_what_was_seen() {
        let ledger = Ledger::default();
        let device = |number: &str, device| DeviceKey { number: number.into(), device };
        let (alice, bob) = (device("1", 1), device("2", 1));
        for id in ["A", "B", "C"] {
            ledger.accepted_over(&alice, id, 0, 9, true);
        }
        let ticket = ledger.queued("1", "A", bob.clone()).unwrap();
        ledger.acknowledged_over(ticket, 5);
        ledger.queued("1", "B", bob.clone());
        assert_eq!(sent(&ledger, "1", ["A"]), []);
        let kinds = |found: Vec<Violation>| found.into_iter().map(|v| v.kind).collect::<Vec<_>>();
        assert_eq!(kinds(sent(&ledger, "1", ["A", "B", "C", "D"])), [ViolationKind::NotDelivered; 3]);
        ledger.accepted_over(&alice, "A", 0, 9, true);
        let again = ledger.queued("1", "A", bob.clone()).unwrap();
        ledger.delivered(again, 5, again.cause);
        assert_eq!(kinds(sent(&ledger, "1", ["A"])), [ViolationKind::DeliveredTwice]);
        let describe = |id| format!("connection {id}");
        assert_eq!(stored(&ledger, &bob, &HashSet::from(["A"]), describe), []);
        let missing = stored(&ledger, &bob, &HashSet::from(["B"]), describe);
        assert_eq!(missing.len(), 1, "only what was acknowledged counts");
        assert!(missing[0].evidence.contains("message A from 1:1 was acknowledged over connection 5"), "{missing:?}");
    }
}
