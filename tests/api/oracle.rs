//! What the simulator's oracle sees of a gateway: who connects under which claim, and that what the gateway says
//! agrees with what the server saw.

use crate::{
    node::eventually,
    world::{FRIEND, OWNER, World},
};
use serde_json::Value;
use whatsapp_simulator::{Connection, ViolationKind};

fn ids(rows: &[Value], from_me: bool) -> Vec<String> {
    let own = rows.iter().filter(|row| row["from_me"] == from_me);
    own.map(|row| row["message_id"].as_str().unwrap().to_owned()).collect()
}

async fn quiet(world: &World) {
    eventually("nothing waits", async || match world.simulator.undelivered() {
        waiting if waiting.is_empty() => Ok(()),
        waiting => Err(format!("{waiting:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_states_its_owner_and_what_was_promised_was_kept() {
    let (mut world, session) = World::linked(&[("ROOKERY_NODE__ID", "node-a")]).await;
    for n in 0..5 {
        world.send(&session, FRIEND, &format!("out {n}")).await;
        world.phone(FRIEND).send_text(OWNER, &format!("in {n}")).unwrap();
    }
    world.history_where(&session, "all ten", |rows| rows.len() == 10).await;
    world.restart().await;
    world.status_is(&session, "WORKING").await;
    world.send(&session, FRIEND, "after the restart").await;
    quiet(&world).await;

    let rows = world.client.history(&session).await;
    let (sent, received) = (ids(&rows, true), ids(&rows, false));
    assert_eq!((sent.len(), received.len()), (6, 5));
    assert_eq!(world.simulator.check_sent(OWNER, sent.iter().map(String::as_str)), []);
    assert_eq!(world.simulator.check_stored(OWNER, 1, received.iter().map(String::as_str)), []);
    assert_eq!(world.simulator.acknowledged(OWNER, 1).len(), 5);
    assert_eq!(world.simulator.duplicates(), []);
    let connections = world.simulator.connections(Some((OWNER, 1)));
    assert!(connections.iter().all(|c| c.owner.as_deref() == Some("node-a")), "{connections:?}");
    let epochs: Vec<u64> = connections.iter().filter_map(|c: &Connection| c.epoch).collect();
    assert!(epochs.len() == connections.len() && epochs.is_sorted(), "{epochs:?}");
    assert!(epochs.last() > epochs.first(), "the restarted gateway has claimed anew: {epochs:?}");
    world.finish();
}

/// A gateway that runs on a copy of old data stands for an owner that does not know of its successors.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_kicks_its_successor_is_caught() {
    let (mut world, session) = World::linked(&[]).await;
    world.node.stop().await;
    let old = world.node.copy();
    for _ in 0..2 {
        world.start_again().await;
        world.status_is(&session, "WORKING").await;
        world.node.stop().await;
    }
    world.start_again().await;
    world.status_is(&session, "WORKING").await;
    assert_eq!(world.simulator.violations(), []);
    let mut old = old.start().await;
    let violations = eventually("a violation", async || match world.simulator.violations() {
        none if none.is_empty() => Err("none".to_owned()),
        some => Ok(some),
    })
    .await;
    assert_eq!(violations[0].kind, ViolationKind::OldOwnerKicks, "{violations:?}");
    old.stop().await;
    world.node.stop().await;
}
