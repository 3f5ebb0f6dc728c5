//! The engine as a whole: probe and close.

use super::{Embedded, codec};
use crate::{
    Engine, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use std::time::{Duration, Instant};

#[async_trait]
impl Engine for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn recovers(&self) -> bool {
        false
    }

    fn expires(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<Duration, StoreError> {
        let start = Instant::now();
        self.0.write("probe", |transaction| transaction.put(Table::Control, tables::probe(), codec::wrap(&[]))).await?;
        let found = self.0.read_now("probe", |database| database.get(Table::Control, &tables::probe())).await?;
        if found.is_some() {
            Ok(start.elapsed())
        } else {
            Err(StoreError::Corrupt { what: "probe", detail: "it is gone".to_owned() })
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}
