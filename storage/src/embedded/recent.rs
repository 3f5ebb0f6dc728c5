//! Rows that were written a moment ago, for the writer.
//!
//! A message is written when it is accepted, again when WhatsApp has it, and again with each receipt, all within a moment.
//! Looking it up in the engine each time costs more than writing it. Only the writer changes rows, and it tells of every
//! change here, so what is here is as it is stored, or as it will be once the batches under way are.

use crate::tables::Table;
use fjall::UserValue;
use std::collections::HashMap;

/// Rows of one table that are kept: at least so many, at most twice as many.
const ROWS: usize = 1_024;

/// Larger values are not kept.
const MAX_BYTES: usize = 1_024;

/// Rows of a table: those that were written last, and those before them, which go next.
#[derive(Default)]
struct Rows {
    young: HashMap<Vec<u8>, UserValue>,
    old: HashMap<Vec<u8>, UserValue>,
}

/// The tables whose rows are kept: those that are looked into for every message.
const TABLES: [Table; 4] = [Table::Outbox, Table::History, Table::HistoryById, Table::Peers];

/// The rows.
#[derive(Default)]
pub(super) struct Recent([Rows; TABLES.len()]);

impl Recent {
    /// The value of a row, if it is here.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&UserValue> {
        let rows = &self.0[place(table)?];
        rows.young.get(key).or_else(|| rows.old.get(key))
    }

    /// A row has this value now.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &UserValue) {
        let Some(rows) = place(table).map(|place| &mut self.0[place]) else { return };
        if value.len() > MAX_BYTES {
            rows.forget(key);
            return;
        }
        if rows.young.len() >= ROWS {
            rows.old = std::mem::take(&mut rows.young);
        }
        rows.young.insert(key.to_vec(), value.clone());
    }

    /// A row is gone, or its value is not known any more.
    pub(super) fn forget(&mut self, table: Table, key: &[u8]) {
        if let Some(place) = place(table) {
            self.0[place].forget(key);
        }
    }
}

fn place(table: Table) -> Option<usize> {
    TABLES.iter().position(|kept| *kept == table)
}

impl Rows {
    fn forget(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table::History;

    #[test]
    fn the_last_rows_are_kept_with_their_last_value() {
        let mut recent = Recent::default();
        let key = |number: usize| number.to_be_bytes();
        for number in 0..10 * ROWS {
            recent.put(TABLE, &key(number), &UserValue::from(key(number)));
        }
        for number in 9 * ROWS..10 * ROWS {
            assert_eq!(recent.get(TABLE, &key(number)).unwrap().as_ref(), key(number));
        }
        assert!(recent.get(TABLE, &key(7 * ROWS)).is_none());

        // In the older half, then written again.
        let again = key(9 * ROWS - 1);
        recent.put(TABLE, &again, &UserValue::from(b"new"));
        assert_eq!(recent.get(TABLE, &again).unwrap().as_ref(), b"new");
        recent.forget(TABLE, &again);
        assert!(recent.get(TABLE, &again).is_none(), "no older value shows");
    }

    #[test]
    fn a_value_that_is_too_large_hides_the_one_before() {
        let mut recent = Recent::default();
        recent.put(TABLE, b"k", &UserValue::from(b"small"));
        recent.put(TABLE, b"k", &UserValue::from(vec![0; MAX_BYTES + 1]));
        assert!(recent.get(TABLE, b"k").is_none());
    }

    #[test]
    fn other_tables_are_not_kept() {
        let mut recent = Recent::default();
        recent.put(Table::Keys, b"k", &UserValue::from(b"v"));
        assert!(recent.get(Table::Keys, b"k").is_none());
    }
}
