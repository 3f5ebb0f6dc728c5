//! Start, the handle that everything is reached by, and stop.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::account::DeviceKey;
use crate::admin;
use crate::config::Config;
use crate::error::StartError;
use crate::faults::Faults;
use crate::handshake::Identity;
use crate::ledger::{Acknowledged, Trace};
use crate::oracle::{Connection, Notice, Violation, checks};
use crate::phones::Phone;
use crate::stats::Stats;
use crate::transport;
use crate::world::World;

/// A WhatsApp server with phones.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Starts a simulator on the present tokio runtime. Any number may run in one process.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        let (clients, websocket) = transport::bind(config.listen).await?;
        let (admin_listener, admin) = transport::bind(config.admin).await?;
        let (media_listener, media) = transport::bind(SocketAddr::new(config.admin.ip(), 0)).await?;
        let tls = transport::self_signed()?;
        let world = World::new(config, Identity::generate()?);
        world.media_host.set(media.to_string()).expect("the world is new");
        let clients_tls = (!world.config.plain).then(|| tls.clone());
        let tasks = &world.tasks;
        tasks.spawn(transport::accept_clients(world.clone(), clients, clients_tls));
        tasks.spawn(transport::accept_media(world.clone(), media_listener, tls, admin));
        tasks.spawn(admin::serve(world.clone(), admin_listener));
        Ok(Handle(Arc::new(Running { world, websocket, admin })))
    }
}

struct Running {
    world: Arc<World>,
    websocket: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.stop.cancel();
    }
}

/// A running simulator. Cheap to clone; the simulator stops when the last clone is dropped.
#[derive(Clone)]
pub struct Handle(Arc<Running>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("websocket", &self.websocket_url()).field("admin", &self.admin_url()).finish()
    }
}

impl Handle {
    /// Where clients connect, `wss://127.0.0.1:PORT/ws/chat`, or `ws://` when plain.
    pub fn websocket_url(&self) -> String {
        let scheme = if self.0.world.config.plain { "ws" } else { "wss" };
        format!("{scheme}://{}/ws/chat", self.0.websocket)
    }

    /// The admin routes, `http://127.0.0.1:PORT`.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.0.admin)
    }

    /// The public key that signs the server's certificate chain, for clients that verify it.
    pub fn root_key(&self) -> [u8; 32] {
        self.0.world.identity.root()
    }

    /// The phone with a number (digits only; anything else is dropped). Its account is made when there
    /// is none.
    pub fn phone(&self, number: &str) -> Phone {
        phone(&self.0.world, number)
    }

    /// What clients did that no correct client may do, oldest first.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.world.oracle.violations()
    }

    /// What clients did that looks wrong, and may have an innocent cause; oldest first.
    pub fn noticed(&self) -> Vec<Notice> {
        self.0.world.oracle.noticed()
    }

    /// What became of a message that the server has accepted, by its id. Should two accounts choose the
    /// same id, the first is traced.
    pub fn trace(&self, message_id: &str) -> Option<Trace> {
        self.0.world.ledger.trace(message_id)
    }

    /// Messages that some device still has to acknowledge, or that were for no device at all; oldest first. Empty
    /// when all is quiet and every device is connected.
    pub fn undelivered(&self) -> Vec<Trace> {
        self.0.world.ledger.undelivered()
    }

    /// Messages that some device got more than once for no reason ([`crate::Cause::Unasked`]).
    pub fn duplicates(&self) -> Vec<Trace> {
        self.0.world.ledger.duplicates()
    }

    /// The messages that a device has acknowledged, in the order in which the server accepted them.
    pub fn acknowledged(&self, number: &str, device: u16) -> Vec<Acknowledged> {
        self.0.world.ledger.acknowledged_by(&DeviceKey { number: number.into(), device })
    }

    /// The connections of a device, or of all; oldest first. Of each: from when to when, in whose name, and what
    /// took its place.
    pub fn connections(&self, device: Option<(&str, u16)>) -> Vec<Connection> {
        let key = device.map(|(number, device)| DeviceKey { number: number.into(), device });
        self.0.world.oracle.connections(key.as_ref())
    }

    /// What a device has acknowledged that is not among the ids of the messages that its client has stored. Empty
    /// for a client that stores before it acknowledges.
    pub fn check_stored<'a>(
        &self,
        number: &str,
        device: u16,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Violation> {
        let (world, key) = (&self.0.world, DeviceKey { number: number.into(), device });
        checks::stored(&world.ledger, &key, &ids.into_iter().collect(), |id| world.oracle.describe(id))
    }

    /// What is wrong with the messages that an account's client says it has sent: each must have come to the
    /// server, and once to each device that it was for. To be asked when all is quiet.
    pub fn check_sent<'a>(&self, number: &str, ids: impl IntoIterator<Item = &'a str>) -> Vec<Violation> {
        checks::sent(&self.0.world.ledger, number, ids)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.world)
    }

    /// Injects faults.
    pub fn faults(&self) -> Faults {
        Faults::new(self.0.world.clone())
    }

    /// Stops: connections end at once, and this returns when every task has. Other clones of the handle
    /// can still be asked what happened.
    pub async fn shutdown(&self) {
        self.0.world.stop.cancel();
        self.0.world.tasks.close();
        self.0.world.tasks.wait().await;
    }
}

/// The phone with a number; makes its account when there is none.
pub(crate) fn phone(world: &Arc<World>, number: &str) -> Phone {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    Phone::new(world.clone(), world.ensure_account(&digits))
}
