//! The device itself: one row.

use super::{
    DeviceBackend,
    encoding::{decode, encode},
    put,
};
use crate::KeyKind;
use async_trait::async_trait;
use std::sync::Arc;
use wacore::{
    client_profile::ClientProfile,
    stats::StorageResourceReport,
    store::{Device, device::DEVICE_PROPS, error::Result, traits::DeviceStore},
};

const KEY: &[u8] = b"device";

/// The number of the only device that a session has.
const NUMBER: i32 = 1;

#[async_trait]
impl DeviceStore for DeviceBackend {
    async fn save(&self, device: &Device) -> Result<()> {
        self.write(vec![put(KeyKind::Device, KEY, encode(device)?)]).await
    }

    /// The device, with the properties of a new one where they are not stored: how it presents itself is set
    /// at every start.
    async fn load(&self) -> Result<Option<Device>> {
        let Some(stored) = self.get(KeyKind::Device, KEY).await? else { return Ok(None) };
        let mut device: Device = decode("device", &stored)?;
        device.device_props = Arc::new(DEVICE_PROPS.clone());
        device.client_profile = ClientProfile::web();
        Ok(Some(device))
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.get(KeyKind::Device, KEY).await?.is_some())
    }

    async fn create(&self) -> Result<i32> {
        let _alone = self.order.write().await;
        if !self.exists().await? {
            self.apply(vec![put(KeyKind::Device, KEY, encode(&Device::new())?)]).await?;
        }
        Ok(NUMBER)
    }

    /// No memory: nothing is cached here.
    async fn resource_report(&self) -> StorageResourceReport {
        StorageResourceReport { memory_bytes: Some(0), ..StorageResourceReport::default() }
    }
}
