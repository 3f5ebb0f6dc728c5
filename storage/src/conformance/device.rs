//! What a device's storage promises the library, over any engine: the pitfalls one by one.

use super::sample;
use crate::{DeviceBackend, StoreError, Stores};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::Arc;
use wacore::{
    store::{
        Device,
        error::StoreError as LibraryError,
        traits::{
            AppSyncStore, DeviceListRecord, DeviceStore, LidPnMappingEntry, MsgSecretEntry, MsgSecretStore,
            PendingInboundKey, PendingInboundRow, ProtocolStore, SignalStore,
        },
    },
    time::now_secs,
};

pub(super) async fn run(stores: &Stores) -> Result<()> {
    record(stores).await?;
    prekeys(stores).await?;
    sessions(stores).await?;
    taking(stores).await?;
    sender_key_devices(stores).await?;
    mappings(stores).await?;
    pending_inbound(stores).await?;
    secrets(stores).await?;
    together(stores).await?;
    fence(stores).await
}

async fn device(stores: &Stores) -> Result<DeviceBackend> {
    Ok(DeviceBackend::new(stores.keys.clone(), sample::claimed(stores).await?))
}

/// All that is stored of a device.
fn stored(device: &Device) -> Result<Vec<u8>> {
    Ok(rmp_serde::to_vec_named(device)?)
}

async fn record(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    assert!(!backend.exists().await?);
    assert!(backend.load().await?.is_none());
    let number = backend.create().await?;
    let made = backend.load().await?.context("a device")?;
    assert_eq!(backend.create().await?, number, "there is one, and it stays");
    assert_eq!(stored(&backend.load().await?.context("a device")?)?, stored(&made)?);

    let mut device = Device::new();
    device.pn = Some("15550001:3@s.whatsapp.net".parse()?);
    device.lid = Some("1000155:3@lid".parse()?);
    "Rookery".clone_into(&mut device.push_name);
    device.next_pre_key_id = 813;
    device.edge_routing_info = Some(vec![0, 127, 128, 255]);
    device.account = Some(Arc::default());
    backend.save(&device).await?;
    let loaded = backend.load().await?.context("a device")?;
    assert_eq!(stored(&loaded)?, stored(&device)?);
    assert!(loaded.is_registered());
    assert_eq!(loaded.device_props, device.device_props, "it presents itself as a new device does");
    Ok(())
}

async fn prekeys(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    assert_eq!(backend.get_max_prekey_id().await?, 0);
    let batch: Vec<_> = [1, 300, 70_000].map(|id| (id, Bytes::from(format!("record {id}")))).to_vec();
    backend.store_prekeys_batch(&batch, false).await?;
    backend.store_prekey(2, b"record 2", true).await?;
    assert_eq!(backend.get_max_prekey_id().await?, 70_000, "by number and not by text");
    assert_eq!(backend.load_prekeys_batch(&[300, 5, 1]).await?, [batch[1].clone(), batch[0].clone()]);

    backend.remove_prekey(70_000).await?;
    backend.remove_prekey(300).await?;
    backend.mark_prekeys_uploaded(&[1, 2, 300, 70_000]).await?;
    assert_eq!(backend.load_prekey(300).await?, None, "a consumed key does not come back");
    assert_eq!(backend.load_prekey(1).await?.as_deref(), Some(&b"record 1"[..]));
    assert_eq!(backend.get_max_prekey_id().await?, 70_000, "a consumed id is not given out again");

    backend.store_signed_prekey(1, b"old").await?;
    backend.store_signed_prekey(256, b"new").await?;
    let mut all = backend.load_all_signed_prekeys().await?;
    all.sort_unstable();
    assert_eq!(all, [(1, b"old".to_vec()), (256, b"new".to_vec())]);
    backend.remove_signed_prekey(1).await?;
    assert_eq!(backend.load_signed_prekey(1).await?, None);
    Ok(())
}

async fn sessions(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    let address = "1555000@s.whatsapp.net";
    backend.put_sessions_batch(&[(address.into(), "one".into()), ("1555000:3@lid".into(), "two".into())]).await?;
    assert!(backend.has_session(address).await?);
    assert_eq!(backend.get_session(address).await?.as_deref(), Some(&b"one"[..]));
    backend.put_identities_batch(&[("77:1@lid".into(), [7; 32])]).await?;
    assert_eq!(backend.load_identity("77:1@lid").await?, Some([7; 32]));
    for (user, known) in [("1555000", true), ("77", true), ("7", false), ("155500", false), ("", false)] {
        assert_eq!(backend.has_signal_state_for_user(user).await?, known, "{user}");
    }
    backend.delete_session(address).await?;
    assert!(!backend.has_session(address).await?);
    assert!(backend.has_signal_state_for_user("1555000").await?, "another device has a session");

    assert_eq!(backend.get_latest_sync_key_id().await?, None);
    backend.set_sync_key(&[1], AppStateKey::default()).await?;
    backend.set_sync_key(&[0], AppStateKey { key_data: vec![1; 32], ..AppStateKey::default() }).await?;
    assert_eq!(backend.get_latest_sync_key_id().await?, Some(vec![0]), "the one stored last");
    Ok(())
}

type AppStateKey = wacore::store::traits::AppStateSyncKey;

/// A sent message is given out once, however many ask.
async fn taking(stores: &Stores) -> Result<()> {
    let backend = Arc::new(device(stores).await?);
    backend.store_sent_message("chat", "id", b"payload").await?;
    let takers = (0..16).map(|_| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.take_sent_message("chat", "id").await })
    });
    let mut taken = 0;
    for taker in takers.collect::<Vec<_>>() {
        taken += usize::from(taker.await??.is_some());
    }
    assert_eq!(taken, 1);

    backend.store_sent_message("chat", "a", b"1").await?;
    backend.store_sent_message("chat", "b", b"2").await?;
    assert_eq!(backend.delete_expired_sent_messages(now_secs() - 60).await?, 0);
    assert_eq!(backend.delete_expired_sent_messages(now_secs() + 60).await?, 2);
    assert_eq!(backend.take_sent_message("chat", "a").await?, None);
    assert_eq!(backend.delete_expired_sent_messages(now_secs() + 60).await?, 0, "nothing is left behind");
    Ok(())
}

async fn sender_key_devices(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    let all = [("a", true), ("b", false), ("ab", true)];
    for group in ["g1", "g2", "g12"] {
        backend.set_sender_key_status(group, &all).await?;
    }
    backend.set_sender_key_status("g1", &[("b", true)]).await?;
    let of = |group: &'static str| {
        let backend = &backend;
        async move {
            let mut devices = backend.get_sender_key_devices(group).await?;
            devices.sort_unstable();
            Ok::<_, LibraryError>(devices)
        }
    };
    let named = |list: &[(&str, bool)]| list.iter().map(|(jid, has)| ((*jid).to_owned(), *has)).collect::<Vec<_>>();
    assert_eq!(of("g1").await?, named(&[("a", true), ("ab", true), ("b", true)]));
    backend.delete_sender_key_device_rows(&["a", "nobody"]).await?;
    assert_eq!(of("g1").await?, named(&[("ab", true), ("b", true)]));
    assert_eq!(of("g2").await?, named(&[("ab", true), ("b", false)]), "in all groups");
    backend.clear_sender_key_devices("g1").await?;
    assert_eq!(of("g1").await?, []);
    assert_eq!(of("g12").await?.len(), 2, "a group's name is not the beginning of another's");
    backend.clear_all_sender_key_devices().await?;
    assert_eq!(of("g2").await?, []);
    Ok(())
}

fn mapping(lid: &str, phone: &str) -> LidPnMappingEntry {
    LidPnMappingEntry {
        lid: lid.to_owned(),
        phone_number: phone.to_owned(),
        created_at: 1,
        updated_at: 2,
        learning_source: "usync".to_owned(),
    }
}

async fn mappings(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    backend.put_lid_mappings(&[mapping("L1", "P1"), mapping("L2", "P2"), mapping("L1", "P3")]).await?;
    let lid_of = |phone: &'static str| {
        let backend = &backend;
        async move { Ok::<_, LibraryError>(backend.get_pn_mapping(phone).await?.map(|entry| entry.lid)) }
    };
    assert_eq!(lid_of("P1").await?, None, "a number that its LID has left leads nowhere");
    assert_eq!(lid_of("P3").await?.as_deref(), Some("L1"));
    backend.put_lid_mapping(&mapping("L3", "P3")).await?;
    assert_eq!(lid_of("P3").await?.as_deref(), Some("L3"), "the most recent LID of a number");
    backend.put_lid_mapping(&mapping("L1", "P4")).await?;
    assert_eq!(lid_of("P3").await?.as_deref(), Some("L3"), "it stays when an earlier LID moves on");
    let mut all: Vec<_> = backend.get_all_lid_mappings().await?.into_iter().map(|entry| entry.lid).collect();
    all.sort_unstable();
    assert_eq!(all, ["L1", "L2", "L3"]);

    let list =
        DeviceListRecord { user: "1555".to_owned(), devices: Vec::new(), timestamp: 1, phash: None, raw_id: None };
    backend.update_device_lists(vec![list.clone(), DeviceListRecord { raw_id: Some(7), ..list }]).await?;
    assert_eq!(backend.get_devices("1555").await?.context("a list")?.raw_id, Some(7), "the last one counts");
    backend.delete_devices("1555").await?;
    assert!(backend.get_devices("1555").await?.is_none());
    Ok(())
}

async fn pending_inbound(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    let rows: Vec<_> =
        ["1", "2", "3"].map(|id| PendingInboundRow { chat: "c", sender: "s", id, message: b"m" }).to_vec();
    backend.store_pending_inbound_batch(&rows).await?;
    backend.store_pending_inbound("c", "other", "1", b"another's").await?;
    assert_eq!(backend.get_pending_inbound("c", "s", "1").await?.as_deref(), Some(&b"m"[..]));
    assert_eq!(backend.get_pending_inbound("c", "s", "1").await?.as_deref(), Some(&b"m"[..]), "reading leaves it");
    backend.delete_pending_inbound("c", "s", "1").await?;
    let keys: Vec<_> = ["2", "9"].map(|id| PendingInboundKey { chat: "c", sender: "s", id }).to_vec();
    backend.delete_pending_inbound_batch(&keys).await?;
    assert_eq!(backend.get_pending_inbound("c", "s", "2").await?, None);
    assert_eq!(backend.get_pending_inbound("c", "other", "1").await?.as_deref(), Some(&b"another's"[..]));
    assert_eq!(backend.delete_expired_pending_inbound(now_secs() - 60).await?, 0);
    assert_eq!(backend.delete_expired_pending_inbound(now_secs() + 60).await?, 2);
    assert_eq!(backend.get_pending_inbound("c", "s", "3").await?, None);
    Ok(())
}

fn secret(id: &str, byte: u8, expires_at: i64, message_ts: i64) -> MsgSecretEntry {
    let (chat, sender) = ("c".into(), "s".into());
    MsgSecretEntry { chat, sender, msg_id: id.into(), secret: [byte; 32], expires_at, message_ts }
}

async fn secrets(stores: &Stores) -> Result<()> {
    let backend = device(stores).await?;
    let entries = vec![secret("a", 1, 100, 5), secret("a", 2, 50, 0), secret("b", 3, 200, 0), secret("c", 4, 10, 0)];
    assert_eq!(backend.put_msg_secrets(entries).await?, 4);
    assert_eq!(backend.get_msg_secret_with_ts("c", "s", "a").await?, Some((vec![2; 32], 5)), "known times stay");
    assert_eq!(backend.delete_expired_msg_secrets(50).await?, 1, "the later deadline counts");
    assert_eq!(backend.delete_expired_msg_secrets(100).await?, 1, "a deadline that is reached has passed");
    assert_eq!(backend.get_msg_secret("c", "s", "a").await?, None);
    backend.put_msg_secret("c", "s", "b", &[9; 32]).await?;
    assert_eq!(backend.put_msg_secrets(vec![secret("b", 5, 300, 7)]).await?, 1);
    assert_eq!(backend.delete_expired_msg_secrets(i64::MAX).await?, 0, "never stays never");
    assert_eq!(backend.get_msg_secret("c", "s", "b").await?, Some(vec![5; 32]));
    Ok(())
}

/// What is read and then written is atomic: no update is lost when many come at once.
async fn together(stores: &Stores) -> Result<()> {
    let backend = Arc::new(device(stores).await?);
    let touches = (1..=32_i64).map(|time| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            if time % 2 == 0 {
                backend.touch_tc_token_sender_timestamp("jid", time).await
            } else {
                backend.store_received_tc_token("jid", &[1], time).await
            }
        })
    });
    for touch in touches.collect::<Vec<_>>() {
        touch.await??;
    }
    let entry = backend.get_tc_token("jid").await?.context("a token")?;
    assert_eq!((entry.sender_timestamp, entry.token_timestamp, entry.token), (Some(32), 31, vec![1]));

    let stores = (1..=32_u32).map(|id| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.store_prekey(id, b"record", false).await })
    });
    for store in stores.collect::<Vec<_>>() {
        store.await??;
    }
    assert_eq!(backend.get_max_prekey_id().await?, 32);
    Ok(())
}

/// The store's error within the library's.
fn cause(error: &LibraryError) -> Option<&StoreError> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

async fn fence(stores: &Stores) -> Result<()> {
    let fence = sample::claimed(stores).await?;
    let backend = DeviceBackend::new(stores.keys.clone(), fence.clone());
    backend.put_session("peer", b"1").await?;
    let next = DeviceBackend::new(stores.keys.clone(), sample::claim(stores, fence.session()).await?);
    let fenced = backend.put_session("peer", b"2").await.err().context("another owner has claimed")?;
    assert!(matches!(cause(&fenced), Some(StoreError::Fenced { .. })), "{fenced:?}");
    assert_eq!(next.get_session("peer").await?.as_deref(), Some(&b"1"[..]), "the next owner has what was written");
    Ok(())
}
