//! A device's storage at random, beside the library's own store in memory.

use super::{Factory, runner, sample};
use crate::{DeviceBackend, Stores};
use anyhow::{Context, Result};
use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestCaseError};
use std::fmt::Debug;
use tokio::{runtime::Handle, task::block_in_place};
use wacore::{
    appstate::{hash::HashState, processor::AppStateMutationMAC},
    store::{
        InMemoryBackend,
        traits::{
            AppStateSyncKey, Backend, LidPnMappingEntry, MsgSecretEntry, ProtocolStore, SignalStore, TcTokenEntry,
        },
    },
    time::now_secs,
};

/// One call. Numbers stand for names out of a small set.
#[derive(Clone, Debug)]
enum Call {
    Identity(u8, Option<u8>),
    Session(u8, Option<u8>),
    Sessions(Vec<(u8, u8)>),
    PreKeys(Vec<(u8, u8)>),
    Uploaded(Vec<u8>),
    RemovePreKey(u8),
    SignedPreKey(u8, Option<u8>),
    SenderKey(u8, Option<u8>),
    SyncKey(u8, u8),
    Version(u8, u8),
    Macs(u8, Vec<(u8, u8)>),
    DeleteMacs(u8, Vec<u8>),
    ClearMacs(u8),
    SenderKeyStatus(u8, Vec<(u8, bool)>),
    ClearGroup(u8),
    DeleteDevices(Vec<u8>),
    ClearGroups,
    Mapping(u8, u8, i64),
    BaseKey(u8, u8, Option<u8>),
    Metadata(u8, Option<u8>),
    Token(u8, u8, i64, Option<i64>),
    DeleteToken(u8),
    ExpireTokens(i64, i64),
    Touch(u8, i64),
    Received(u8, u8, i64),
    Sent(u8, u8, u8),
    Take(u8, u8),
    ExpireSent(bool),
    Inbound(u8, u8, Option<u8>),
    ExpireInbound(bool),
    Secrets(Vec<(u8, u8, i64, i64)>),
    ExpireSecrets(i64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let name = || 0..4_u8;
    let value = || prop::option::weighted(0.7, any::<u8>());
    let pairs = || prop::collection::vec((0..4_u8, any::<u8>()), 0..4);
    let names = || prop::collection::vec(0..4_u8, 0..3);
    let time = || 0..6_i64;
    let call = prop_oneof![
        (name(), value()).prop_map(|(a, v)| Call::Identity(a, v)),
        (name(), value()).prop_map(|(a, v)| Call::Session(a, v)),
        pairs().prop_map(Call::Sessions),
        pairs().prop_map(Call::PreKeys),
        names().prop_map(Call::Uploaded),
        name().prop_map(Call::RemovePreKey),
        (name(), value()).prop_map(|(a, v)| Call::SignedPreKey(a, v)),
        (name(), value()).prop_map(|(a, v)| Call::SenderKey(a, v)),
        (name(), any::<u8>()).prop_map(|(a, v)| Call::SyncKey(a, v)),
        (name(), any::<u8>()).prop_map(|(a, v)| Call::Version(a, v)),
        (name(), pairs()).prop_map(|(a, v)| Call::Macs(a, v)),
        (name(), names()).prop_map(|(a, v)| Call::DeleteMacs(a, v)),
        name().prop_map(Call::ClearMacs),
        (name(), prop::collection::vec((0..4_u8, any::<bool>()), 0..4)).prop_map(|(a, v)| Call::SenderKeyStatus(a, v)),
        name().prop_map(Call::ClearGroup),
        names().prop_map(Call::DeleteDevices),
        Just(Call::ClearGroups),
        (name(), name(), time()).prop_map(|(a, b, t)| Call::Mapping(a, b, t)),
        (name(), name(), value()).prop_map(|(a, b, v)| Call::BaseKey(a, b, v)),
        (name(), value()).prop_map(|(a, v)| Call::Metadata(a, v)),
        (name(), 0..3_u8, time(), prop::option::of(time())).prop_map(|(a, v, t, s)| Call::Token(a, v, t, s)),
        name().prop_map(Call::DeleteToken),
        (time(), time()).prop_map(|(a, b)| Call::ExpireTokens(a, b)),
        (name(), time()).prop_map(|(a, t)| Call::Touch(a, t)),
        (name(), 0..3_u8, time()).prop_map(|(a, v, t)| Call::Received(a, v, t)),
        (name(), name(), any::<u8>()).prop_map(|(a, b, v)| Call::Sent(a, b, v)),
        (name(), name()).prop_map(|(a, b)| Call::Take(a, b)),
        any::<bool>().prop_map(Call::ExpireSent),
        (name(), name(), value()).prop_map(|(a, b, v)| Call::Inbound(a, b, v)),
        any::<bool>().prop_map(Call::ExpireInbound),
        prop::collection::vec((name(), any::<u8>(), time(), time()), 0..4).prop_map(Call::Secrets),
        time().prop_map(Call::ExpireSecrets),
    ];
    prop::collection::vec(call, 1..80)
}

pub(super) async fn run(factory: &dyn Factory, seed: u64, cases: u32) -> Result<()> {
    let stores = factory.open("devices").await?;
    let runtime = Handle::current();
    let tried = runner(seed, cases).run(&calls(), |calls| {
        let case = both(&stores, calls);
        block_in_place(|| runtime.block_on(case)).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    tried.map_err(|error| anyhow::anyhow!("seed {seed}: {error}"))?;
    stores.engine.close().await.context("close")
}

/// Makes the same calls on both and compares every answer, and all that is stored at the end.
async fn both(stores: &Stores, calls: Vec<Call>) -> Result<()> {
    let ours = DeviceBackend::new(stores.keys.clone(), sample::claimed(stores).await?);
    let theirs = InMemoryBackend::new();
    let mut highest_prekey = 0;
    for call in calls {
        if let Call::PreKeys(keys) = &call {
            highest_prekey = keys.iter().map(|(id, _)| u32::from(*id)).chain([highest_prekey]).max().unwrap_or(0);
        }
        let answers = (make(&ours, &call).await?, make(&theirs, &call).await?);
        assert_eq!(answers.0, answers.1, "{call:?}");
    }
    assert_eq!(ours.get_max_prekey_id().await?, highest_prekey);
    assert_eq!(contents(&ours).await?, contents(&theirs).await?);
    for phone in 0..4 {
        // The library's store forgets a number whose earlier LID moves on; ours keeps the later LID.
        if let Some(expected) = theirs.get_pn_mapping(&name(phone)).await? {
            let found = ours.get_pn_mapping(&name(phone)).await?.context("a mapping")?;
            assert_eq!((found.lid, found.updated_at), (expected.lid, expected.updated_at));
        }
    }
    Ok(())
}

fn name(number: u8) -> String {
    // One name is the beginning of another.
    ["1555@s.whatsapp.net", "1555:1@s.whatsapp.net", "1555:1@s.whatsapp.net2", ""][usize::from(number)].to_owned()
}

fn index_mac(number: u8) -> [u8; 32] {
    [number; 32]
}

fn state(value: u8) -> HashState {
    let mut state = HashState { version: u64::from(value), ..HashState::default() };
    state.hash[5] = value;
    state.index_value_map.insert("index".to_owned(), vec![value, 200]);
    state
}

/// Makes a call; answers what it answered, as text.
async fn make(backend: &dyn Backend, call: &Call) -> Result<String> {
    fn text(answer: impl Debug) -> String {
        format!("{answer:?}")
    }
    let answer = match call {
        Call::Identity(a, Some(v)) => text(backend.put_identity(&name(*a), [*v; 32]).await?),
        Call::Identity(a, None) => text(backend.delete_identity(&name(*a)).await?),
        Call::Session(a, Some(v)) => text(backend.put_session(&name(*a), &[*v]).await?),
        Call::Session(a, None) => text(backend.delete_session(&name(*a)).await?),
        Call::Sessions(list) => {
            let list: Vec<_> = list.iter().map(|(a, v)| (name(*a).into(), Bytes::from(vec![*v]))).collect();
            text(backend.put_sessions_batch(&list).await?)
        }
        Call::PreKeys(list) => {
            let list: Vec<_> = list.iter().map(|(id, v)| (u32::from(*id), Bytes::from(vec![*v]))).collect();
            text(backend.store_prekeys_batch(&list, false).await?)
        }
        Call::Uploaded(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| u32::from(*id)).collect();
            text(backend.mark_prekeys_uploaded(&ids).await?)
        }
        Call::RemovePreKey(id) => text(backend.remove_prekey(u32::from(*id)).await?),
        Call::SignedPreKey(id, Some(v)) => text(backend.store_signed_prekey(u32::from(*id), &[*v]).await?),
        Call::SignedPreKey(id, None) => text(backend.remove_signed_prekey(u32::from(*id)).await?),
        Call::SenderKey(a, Some(v)) => text(backend.put_sender_key(&name(*a), &[*v]).await?),
        Call::SenderKey(a, None) => text(backend.delete_sender_key(&name(*a)).await?),
        Call::SyncKey(id, v) => {
            let key = AppStateSyncKey { key_data: vec![*v; 32], fingerprint: vec![*v], timestamp: i64::from(*v) };
            text(backend.set_sync_key(&[*id], key).await?)
        }
        Call::Version(a, v) => text(backend.set_version(&name(*a), state(*v)).await?),
        Call::Macs(a, list) => {
            let mac = |(index, v): &(u8, u8)| AppStateMutationMAC {
                index_mac: index_mac(*index).to_vec(),
                value_mac: vec![*v],
            };
            text(backend.put_mutation_macs(&name(*a), 1, &list.iter().map(mac).collect::<Vec<_>>()).await?)
        }
        Call::DeleteMacs(a, list) => {
            let list: Vec<_> = list.iter().map(|index| index_mac(*index).to_vec()).collect();
            text(backend.delete_mutation_macs(&name(*a), &list).await?)
        }
        Call::ClearMacs(a) => text(backend.clear_mutation_macs(&name(*a)).await?),
        other => return make_protocol(backend, other).await,
    };
    Ok(answer)
}

async fn make_protocol(backend: &dyn Backend, call: &Call) -> Result<String> {
    fn text(answer: impl Debug) -> String {
        format!("{answer:?}")
    }
    let cutoff = |all: &bool| if *all { now_secs() + 60 } else { now_secs() - 60 };
    let answer = match call {
        Call::SenderKeyStatus(group, list) => {
            let names: Vec<_> = list.iter().map(|(device, has)| (name(*device), *has)).collect();
            let list: Vec<_> = names.iter().map(|(device, has)| (device.as_str(), *has)).collect();
            text(backend.set_sender_key_status(&name(*group), &list).await?)
        }
        Call::ClearGroup(group) => text(backend.clear_sender_key_devices(&name(*group)).await?),
        Call::DeleteDevices(list) => {
            let names: Vec<_> = list.iter().map(|device| name(*device)).collect();
            let list: Vec<_> = names.iter().map(String::as_str).collect();
            text(backend.delete_sender_key_device_rows(&list).await?)
        }
        Call::ClearGroups => text(backend.clear_all_sender_key_devices().await?),
        Call::Mapping(lid, phone, time) => {
            let entry = LidPnMappingEntry {
                lid: name(*lid),
                phone_number: name(*phone),
                created_at: 0,
                updated_at: *time,
                learning_source: "usync".to_owned(),
            };
            text(backend.put_lid_mapping(&entry).await?)
        }
        Call::BaseKey(a, id, Some(v)) => text(backend.save_base_key(&name(*a), &name(*id), &[*v]).await?),
        Call::BaseKey(a, id, None) => text(backend.delete_base_key(&name(*a), &name(*id)).await?),
        Call::Metadata(a, Some(v)) => text(backend.put_group_metadata(&name(*a), &[*v]).await?),
        Call::Metadata(a, None) => text(backend.delete_group_metadata(&name(*a)).await?),
        Call::Token(a, length, time, sender) => {
            let token = vec![7; usize::from(*length)];
            let entry = TcTokenEntry { token, token_timestamp: *time, sender_timestamp: *sender };
            text(backend.put_tc_token(&name(*a), &entry).await?)
        }
        Call::DeleteToken(a) => text(backend.delete_tc_token(&name(*a)).await?),
        Call::ExpireTokens(token, sender) => text(backend.delete_expired_tc_tokens(*token, *sender).await?),
        Call::Touch(a, time) => text(backend.touch_tc_token_sender_timestamp(&name(*a), *time).await?),
        Call::Received(a, length, time) => {
            let token = vec![8; usize::from(*length)];
            text(backend.store_received_tc_token(&name(*a), &token, *time).await?)
        }
        Call::Sent(chat, id, v) => text(backend.store_sent_message(&name(*chat), &name(*id), &[*v]).await?),
        Call::Take(chat, id) => text(backend.take_sent_message(&name(*chat), &name(*id)).await?),
        Call::ExpireSent(all) => text(backend.delete_expired_sent_messages(cutoff(all)).await?),
        Call::Inbound(chat, id, Some(v)) => {
            text(backend.store_pending_inbound(&name(*chat), "sender", &name(*id), &[*v]).await?)
        }
        Call::Inbound(chat, id, None) => {
            text(backend.delete_pending_inbound(&name(*chat), "sender", &name(*id)).await?)
        }
        Call::ExpireInbound(all) => text(backend.delete_expired_pending_inbound(cutoff(all)).await?),
        Call::Secrets(list) => {
            let entry = |(id, v, expires_at, message_ts): &(u8, u8, i64, i64)| MsgSecretEntry {
                chat: "chat".into(),
                sender: "sender".into(),
                msg_id: name(*id).into(),
                secret: [*v; 32],
                expires_at: *expires_at,
                message_ts: *message_ts,
            };
            text(backend.put_msg_secrets(list.iter().map(entry).collect()).await?)
        }
        Call::ExpireSecrets(time) => text(backend.delete_expired_msg_secrets(*time).await?),
        other => anyhow::bail!("{other:?} is made elsewhere"),
    };
    Ok(answer)
}

/// All that a store answers, in an order of its own.
async fn contents(backend: &dyn Backend) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let indexes: Vec<_> = (0..4).map(index_mac).collect();
    for number in 0..4 {
        let (id, name) = (u32::from(number), name(number));
        found.push(format!("{:?}", backend.load_identity(&name).await?));
        found.push(format!("{:?} {}", backend.get_session(&name).await?, backend.has_session(&name).await?));
        found.push(format!("{:?} {:?}", backend.load_prekey(id).await?, backend.load_prekeys_batch(&[9, id]).await?));
        found.push(format!("{:?}", backend.load_signed_prekey(id).await?));
        found.push(format!("{:?}", backend.get_sender_key(&name).await?));
        found.push(format!("{:?}", backend.get_sync_key(&[number]).await?));
        found.push(format!("{:?}", backend.get_version(&name).await?));
        let mut macs: Vec<_> = backend.get_mutation_macs(&name, &indexes).await?.into_iter().collect();
        macs.sort_unstable();
        found.push(format!("{macs:?} {:?}", backend.get_mutation_mac(&name, &indexes[0]).await?));
        let mut devices = backend.get_sender_key_devices(&name).await?;
        devices.sort_unstable();
        found.push(format!("{devices:?}"));
        found.push(format!("{:?}", backend.get_lid_mapping(&name).await?));
        found.push(format!("{:?}", backend.get_group_metadata(&name).await?));
        found.push(format!("{:?}", backend.get_tc_token(&name).await?));
        found.push(format!("{:?}", backend.get_msg_secret_with_ts("chat", "sender", &name).await?));
        for other in 0..4 {
            let other = self::name(other);
            found.push(format!("{:?}", backend.get_pending_inbound(&name, "sender", &other).await?));
            found.push(format!("{:?}", backend.has_same_base_key(&name, &other, &[1]).await?));
        }
    }
    for user in ["1555", "155", "1555:1"] {
        found.push(format!("{:?}", backend.has_signal_state_for_user(user).await?));
    }
    let mut signed = backend.load_all_signed_prekeys().await?;
    signed.sort_unstable();
    let mut tokens = backend.get_all_tc_token_jids().await?;
    tokens.sort_unstable();
    let mut mappings: Vec<_> = backend.get_all_lid_mappings().await?.iter().map(|entry| format!("{entry:?}")).collect();
    mappings.sort_unstable();
    found.push(format!("{signed:?} {tokens:?} {mappings:?} {:?}", backend.get_latest_sync_key_id().await?));
    Ok(found)
}
