//! The engine as a whole: probe and close.

use super::{operations::Operations, place};
use crate::{
    Engine, StoreError,
    tables::{self, Table},
};
use async_trait::async_trait;
use std::time::{Duration, Instant};

#[async_trait]
impl Engine for Operations {
    fn name(&self) -> &'static str {
        "cql"
    }

    fn recovers(&self) -> bool {
        true
    }

    fn expires(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<Duration, StoreError> {
        let start = Instant::now();
        let place = place::place(Table::Control, &tables::probe()).expect("the probe has a place");
        let statement = &self.0.client.statements().of(place.stored).put;
        let value: &[u8] = &[1];
        self.0.client.write(statement, (&place.partition, &place.key, value)).await?;
        match self.0.get(&place).await? {
            Some(_) => Ok(start.elapsed()),
            None => Err(StoreError::Corrupt { what: "probe", detail: "it is gone".to_owned() }),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        Operations::close(self).await
    }
}
