//! Starts nodes, tells them what to do, waits for what they tell, and ends them.

use crate::node::{Answer, Order, PeerLine, Setup, Told, VARIABLE, What};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::sleep,
};

/// How long whatever should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A node in a process of its own.
pub(crate) struct Node {
    pub(crate) setup: Setup,
    pub(crate) address: String,
    child: Child,
    orders: ChildStdin,
    told: Arc<Mutex<Vec<(Instant, Told)>>>,
    log: Arc<Mutex<Vec<String>>>,
    next: AtomicU64,
}

/// What a node named so is started with unless a test changes it.
pub(crate) fn setup(node: &str, incarnation: u64, certificates: Option<&Path>) -> Setup {
    Setup {
        node: node.into(),
        incarnation,
        cluster: "c".into(),
        certificates: certificates.map(Path::to_owned),
        reload_ms: None,
        fast_death: true,
        calls_per_peer: 256,
        versions: (1, 1),
    }
}

/// Starts these nodes and tells each of all.
pub(crate) async fn start<const N: usize>(setups: [Setup; N]) -> [Node; N] {
    let mut nodes = vec![];
    for setup in setups {
        nodes.push(Node::start(setup).await);
    }
    let mut nodes: [Node; N] = nodes.try_into().ok().unwrap();
    introduce(&mut nodes.iter_mut().collect::<Vec<_>>()).await;
    nodes
}

/// Tells each of these nodes of all of them.
pub(crate) async fn introduce(nodes: &mut [&mut Node]) {
    let members: Vec<_> = nodes.iter().map(|node| node.member()).collect();
    for node in nodes {
        node.order(&Order::Members(members.clone())).await;
    }
}

impl Node {
    pub(crate) async fn start(setup: Setup) -> Self {
        match Self::try_start(setup).await {
            Ok(node) => node,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Starts a node, or says why it does not start.
    pub(crate) async fn try_start(setup: Setup) -> Result<Self, String> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["node::node_process", "--exact", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(&setup).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (told, log) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let told_by_node = told.clone();
        read_lines(child.stdout.take().unwrap(), move |line| {
            if let Some(told) = line.strip_prefix('@') {
                told_by_node.lock().unwrap().push((Instant::now(), serde_json::from_str(told).unwrap()));
            }
        });
        let (name, log_of_node) = (setup.node.clone(), log.clone());
        read_lines(child.stderr.take().unwrap(), move |line| {
            // Shown when a test fails.
            println!("{name}: {line}");
            log_of_node.lock().unwrap().push(line);
        });
        let orders = child.stdin.take().unwrap();
        let mut node = Self { setup, address: String::new(), child, orders, told, log, next: AtomicU64::new(1) };
        let started = node
            .wait_told("that it is ready", |told| match told {
                Told::Ready { address } => Some(Ok(address.clone())),
                Told::CannotStart { reason } => Some(Err(reason.clone())),
                _ => None,
            })
            .await;
        node.address = started?;
        Ok(node)
    }

    pub(crate) fn name(&self) -> &str {
        &self.setup.node
    }

    /// The node as one of the members.
    pub(crate) fn member(&self) -> (String, u64, String) {
        (self.setup.node.clone(), self.setup.incarnation, self.address.clone())
    }

    pub(crate) async fn order(&mut self, order: &Order) {
        let line = format!("{}\n", serde_json::to_string(order).unwrap());
        self.orders.write_all(line.as_bytes()).await.unwrap();
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Orders a call; its number finds the answer.
    pub(crate) async fn begin(&mut self, to: &str, path: &str, deadline_ms: u64) -> u64 {
        self.begin_with(to, What::Path(path.into()), 0, deadline_ms).await
    }

    pub(crate) async fn begin_with(&mut self, to: &str, what: What, body_bytes: usize, deadline_ms: u64) -> u64 {
        let id = self.id();
        self.order(&Order::Call { id, to: to.into(), what, body_bytes, deadline_ms }).await;
        id
    }

    /// The answer to a call that was begun.
    pub(crate) async fn answer(&self, call: u64) -> Answer {
        self.wait_told("an answer", |told| match told {
            Told::Answer { id, answer } if *id == call => Some(answer.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) fn answered(&self, call: u64) -> bool {
        self.told.lock().unwrap().iter().any(|(_, told)| matches!(told, Told::Answer { id, .. } if *id == call))
    }

    /// Calls and waits for the answer.
    pub(crate) async fn call(&mut self, to: &str, path: &str) -> Answer {
        let call = self.begin(to, path, 20_000).await;
        self.answer(call).await
    }

    pub(crate) async fn peers(&mut self) -> Vec<PeerLine> {
        let asked = self.id();
        self.order(&Order::Peers { id: asked }).await;
        self.wait_told("its peers", |told| match told {
            Told::Peers { id, peers } if *id == asked => Some(peers.clone()),
            _ => None,
        })
        .await
    }

    /// Handled calls, evicted handshakes, handshakes under way.
    pub(crate) async fn counts(&mut self) -> (u64, u64, u64) {
        let asked = self.id();
        self.order(&Order::Counts { id: asked }).await;
        self.wait_told("its counts", |told| match told {
            Told::Counts { id, handled, evicted, half_open } if *id == asked => Some((*handled, *evicted, *half_open)),
            _ => None,
        })
        .await
    }

    /// Reads the certificates again; answers what is wrong with them.
    pub(crate) async fn reload(&mut self) -> Option<String> {
        let asked = self.id();
        self.order(&Order::Reload { id: asked }).await;
        self.wait_told("that it has reloaded", |told| match told {
            Told::Reloaded { id, problem } if *id == asked => Some(problem.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn begin_shutdown(&mut self, grace_ms: u64) -> u64 {
        let id = self.id();
        self.order(&Order::Shutdown { id, grace_ms }).await;
        id
    }

    pub(crate) async fn shut_down(&self, asked: u64) {
        self.wait_told("that it is shut down", |told| {
            matches!(told, Told::ShutDown { id } if *id == asked).then_some(())
        })
        .await;
    }

    /// Waits until the link to that peer is up, as this node's list of peers has it.
    pub(crate) async fn linked(&mut self, peer: &str) -> PeerLine {
        let deadline = Instant::now() + SOON;
        loop {
            let peers = self.peers().await;
            if let Some(line) = peers.iter().find(|line| line.node == peer && line.up) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "{} has no link to {peer}: {peers:?}", self.name());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for what the node tells.
    pub(crate) async fn wait_told<T>(&self, what: &str, find: impl Fn(&Told) -> Option<T>) -> T {
        self.wait_told_since(what, 0, find).await
    }

    /// How much the node has told so far.
    pub(crate) fn mark(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Waits for what the node tells after a mark.
    pub(crate) async fn wait_told_since<T>(&self, what: &str, mark: usize, find: impl Fn(&Told) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            let found = self.told.lock().unwrap()[mark..].iter().find_map(|(_, told)| find(told));
            if let Some(found) = found {
                return found;
            }
            assert!(Instant::now() < deadline, "{} does not tell {what}", self.name());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// When the node first told something after a mark, if it has.
    pub(crate) fn told_at(&self, mark: usize, find: impl Fn(&Told) -> bool) -> Option<Instant> {
        self.told.lock().unwrap()[mark..].iter().find(|(_, told)| find(told)).map(|(at, _)| *at)
    }

    /// Waits for a line in the node's log with all of these in it.
    pub(crate) async fn wait_log(&self, parts: &[&str]) {
        let deadline = Instant::now() + SOON;
        while !self.logged(parts) {
            assert!(Instant::now() < deadline, "{} does not log {parts:?}", self.name());
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn logged(&self, parts: &[&str]) -> bool {
        self.log.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// A line of the log with this in it.
    pub(crate) fn find_logged(&self, part: &str) -> Option<String> {
        self.log.lock().unwrap().iter().find(|line| line.contains(part)).cloned()
    }

    /// How many lines of the log have this in them.
    pub(crate) fn count_logged(&self, part: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

fn read_lines(from: impl AsyncRead + Unpin + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            each(line);
        }
    });
}

/// What of an answer a test of calls looks at.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    match answer {
        Answer::Http { headers, .. } => &headers[name],
        other => panic!("{other:?}"),
    }
}
