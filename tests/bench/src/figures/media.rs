//! Images through REST: how many a second reach the phones, and how much memory many at once take.

use crate::{
    fleet::Fleet,
    gateway::{Gateway, send},
    http,
    process::{Cpu, Programs},
    report::{Goal, Report, Rounds},
    simulator,
};
use anyhow::ensure;
use futures_util::future::try_join_all;
use image::{RgbImage, codecs::jpeg::JpegEncoder};
use std::time::{Duration, Instant};

/// The size of an image.
const IMAGE_BYTES: usize = 1 << 20;
/// What a phone's camera makes of that size, in pixels.
const WIDTH: u32 = 2048;
const HEIGHT: u32 = 1536;
/// Sessions that send.
const SESSIONS: usize = 8;
/// Callers that send side by side; each waits for the answer and sends again.
const CALLERS: usize = 8;
/// How long callers send in a round.
const SPAN: Duration = Duration::from_secs(8);
/// Images at once, where memory is measured; and how many times in a round.
const AT_ONCE: usize = 16;
const TIMES: usize = 5;
/// How long the phones may take to get the last images.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// `media_send`
pub(super) async fn throughput(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start(programs, SESSIONS).await?;
    let requests = requests(&fleet, CALLERS).await?;
    each_once(&fleet, &requests).await?;
    let mut per_second = Rounds::default();
    for _ in 0..rounds {
        let (value, cpu) = round(&fleet, &requests).await?;
        per_second.add(value, cpu);
        fleet.rest().await?;
    }
    let note = format!(
        "JPEGs of 1 MiB ({WIDTH} x {HEIGHT}) as uploads, {CALLERS} callers over {SESSIONS} sessions; each answered \
         `sent`, until the phones have them all"
    );
    report.add_with_note("media_send", "images/s", Goal::AtLeast(20.0), &per_second, Some(note));
    fleet.end().await
}

/// `media_memory`
pub(super) async fn memory(programs: &Programs, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start(programs, SESSIONS).await?;
    let requests = requests(&fleet, AT_ONCE).await?;
    each_once(&fleet, &requests[..1]).await?;
    fleet.rest().await?;
    let mut more = Rounds::default();
    for _ in 0..rounds {
        let before = fleet.gateway().process.rss_kib()?;
        let meter = fleet.meter()?;
        let sending = async {
            for _ in 0..TIMES {
                each_once(&fleet, &requests).await?;
            }
            anyhow::Ok(())
        };
        let mut most = before;
        tokio::select! {
            sent = sending => sent?,
            watched = watch(fleet.gateway(), &mut most) => watched?,
        }
        more.add((most - before) / 1024.0, fleet.used(&meter)?);
        fleet.rest().await?;
    }
    let note = format!(
        "resident memory at most, less that before the round; {AT_ONCE} uploads of 1 MiB at once, {TIMES} times a round"
    );
    report.add_with_note("media_memory", "MiB", Goal::AtMost(64.0), &more, Some(note));
    fleet.end().await
}

/// Images a second, until the phones have the last.
async fn round(fleet: &Fleet, requests: &[Vec<u8>]) -> anyhow::Result<(f64, Cpu)> {
    let meter = fleet.meter()?;
    let start = Instant::now();
    let sending = requests.iter().map(|request| async move {
        let (mut client, mut sent) = (fleet.gateway().client(), 0_usize);
        while start.elapsed() < SPAN {
            send(&mut client, request).await?;
            sent += 1;
        }
        anyhow::Ok(sent)
    });
    let sent: usize = try_join_all(sending).await?.into_iter().sum();
    arrived(fleet).await?;
    let value = sent as f64 / start.elapsed().as_secs_f64();
    Ok((value, fleet.used(&meter)?))
}

/// Notes the most memory that the gateway has.
async fn watch(gateway: &Gateway, most: &mut f64) -> anyhow::Result<()> {
    loop {
        *most = most.max(gateway.process.rss_kib()?);
        tokio::time::sleep(POLL).await;
    }
}

/// Each of these requests once, all at a time.
async fn each_once(fleet: &Fleet, requests: &[Vec<u8>]) -> anyhow::Result<()> {
    let sending = requests.iter().map(|request| async move { send(&mut fleet.gateway().client(), request).await });
    try_join_all(sending).await.map(drop)
}

/// Waits until every device has what was sent to it.
async fn arrived(fleet: &Fleet) -> anyhow::Result<()> {
    let mut client = fleet.simulator.client();
    let deadline = Instant::now() + ARRIVAL_TIMEOUT;
    let request = http::request("GET", "/undelivered", None, "");
    while client.send(&request).await?.text(200)?.trim() != "[]" {
        ensure!(Instant::now() < deadline, "images did not reach the phones");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Uploads of one image, each from a session to a contact of its own.
async fn requests(fleet: &Fleet, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let image = image()?;
    let mut admin = fleet.simulator.client();
    let mut requests = vec![];
    for number in 0..count {
        let contact = format!("1666{number:07}");
        simulator::make_phone(&mut admin, &contact).await?;
        let session = &fleet.sessions[number % fleet.sessions.len()];
        let mut body = vec![];
        for (name, text) in [("session_id", session.id.as_str()), ("to", &contact), ("type", "image")] {
            body.extend(format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n").bytes());
        }
        body.extend(b"--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n");
        body.extend(&image);
        body.extend(b"\r\n--cut--\r\n");
        let kind = "multipart/form-data; boundary=cut";
        requests.push(upload("/api/whatsapp/messages/media", &fleet.token, kind, &body));
    }
    Ok(requests)
}

/// An upload as it goes over the wire.
fn upload(path: &str, token: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A JPEG of [`IMAGE_BYTES`]: slow changes and some noise, as in a photograph.
fn image() -> anyhow::Result<Vec<u8>> {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    let pixels = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let slow = |scale: u32, shift: u32| (((x + shift) / scale) ^ (y / scale)) as u8 / 2;
        image::Rgb([
            slow(16, 0).wrapping_add(noise()),
            slow(24, 9).wrapping_add(noise()),
            slow(40, 90).wrapping_add(noise()),
        ])
    });
    for quality in (10..=95).rev() {
        let mut jpeg = vec![];
        pixels.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, quality))?;
        if jpeg.len() <= IMAGE_BYTES {
            // What stands behind a JPEG's end is of no meaning.
            jpeg.resize(IMAGE_BYTES, 0);
            return Ok(jpeg);
        }
    }
    anyhow::bail!("no quality makes an image that small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_one_of_its_size() {
        let jpeg = image().unwrap();
        assert_eq!(jpeg.len(), IMAGE_BYTES);
        let end = jpeg.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(end > IMAGE_BYTES / 2, "most of it is image: {end}");
        assert!(image::load_from_memory(&jpeg).is_ok_and(|image| image.width() == WIDTH));
    }
}
