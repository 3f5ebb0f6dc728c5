//! Many linked devices in one process: the load on the simulator's own figures.
//!
//! Devices shake hands, pair, upload keys and acknowledge what comes as any client does, but read no message. Told by
//! lines on its standard input; each is answered with a line:
//!
//! - `pair N`: pairs until there are N devices, all connected; `paired N SECONDS`
//! - `relay N`: devices send each other N messages in all; `relayed N SECONDS`
//!
//! Ends with its input.

mod device;
#[path = "../../http.rs"]
mod http;
mod wire;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use device::{Device, Place};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

/// Devices that pair side by side.
const PAIRING: usize = 32;
/// How long a pairing may take.
const PAIR_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a relay may take.
const RELAY_TIMEOUT: Duration = Duration::from_secs(300);

/// Keeps many devices connected to a simulator without TLS.
#[derive(Parser)]
struct Arguments {
    /// Where clients connect, `ws://ADDRESS:PORT/ws/chat`.
    #[arg(long)]
    url: String,
    /// The admin port, `ADDRESS:PORT`.
    #[arg(long)]
    admin: SocketAddr,
    /// One-time prekeys that a device uploads.
    #[arg(long, default_value_t = 50)]
    prekeys: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let place = Arc::new(Place::new(&arguments.url, arguments.admin, arguments.prekeys)?);
    let mut devices: Vec<Device> = vec![];
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        let (command, count) = line.split_once(' ').context("a command and a number")?;
        let count: usize = count.parse()?;
        let start = Instant::now();
        match command {
            "pair" => {
                devices.extend(pair(&place, devices.len()..count).await?);
                println!("paired {count} {}", start.elapsed().as_secs_f64());
            }
            "relay" => {
                tokio::time::timeout(RELAY_TIMEOUT, relay(&devices, count))
                    .await
                    .context("a relay took too long")??;
                println!("relayed {count} {}", start.elapsed().as_secs_f64());
            }
            _ => anyhow::bail!("unknown command {command}"),
        }
    }
    Ok(())
}

/// The lines of the standard input, until it ends.
fn lines() -> mpsc::Receiver<String> {
    let (give, take) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if give.blocking_send(line).is_err() {
                return;
            }
        }
    });
    take
}

/// Pairs one device with each of these phones, and asks the simulator whether all are connected.
async fn pair(place: &Arc<Place>, numbers: std::ops::Range<usize>) -> anyhow::Result<Vec<Device>> {
    let wanted = numbers.end;
    let lanes = stream::iter(0..PAIRING).map(|lane| {
        let (place, mine) = (Arc::clone(place), numbers.clone().skip(lane).step_by(PAIRING));
        async move {
            let mut admin = http::Client::new(place.admin);
            let mut devices = vec![];
            for number in mine {
                let pairing = Device::pair(&place, &mut admin, format!("1666{number:07}"));
                let paired = tokio::time::timeout(PAIR_TIMEOUT, pairing).await;
                devices.push(paired.with_context(|| format!("device {number} was not paired in time"))??);
            }
            anyhow::Ok(devices)
        }
    });
    let devices = lanes.buffer_unordered(PAIRING).try_concat().await?;
    let mut admin = http::Client::new(place.admin);
    let stats = admin.send(&http::request("GET", "/stats?format=json", None, "")).await?.json(200)?;
    let connected = stats["connections"].as_u64().unwrap_or_default();
    ensure!(connected >= wanted as u64, "only {connected} of {wanted} devices are connected");
    Ok(devices)
}

/// Every device writes to its neighbour, all at once, until `count` messages have been sent and acknowledged.
async fn relay(devices: &[Device], count: usize) -> anyhow::Result<()> {
    ensure!(devices.len() >= 2, "a relay needs two devices");
    let each = count / devices.len();
    let sending = devices.iter().enumerate().map(|(at, device)| {
        let to = &devices[(at + 1) % devices.len()];
        device.relay(to.jid.clone(), each)
    });
    futures_util::future::try_join_all(sending).await?;
    Ok(())
}
