//! Whatever connects to a node's port without being a peer, or being one that has gone mad.

use crate::{
    cluster::{Node, SOON, introduce, setup, start},
    node::{Answer, Order},
    pki,
};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Says hello as this node and answers the verdict: 0 is an acceptance.
pub(crate) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    node: &str,
    incarnation: u64,
    cluster: &str,
    versions: (u16, u16),
) -> io::Result<u8> {
    let mut hello = vec![];
    hello.extend(versions.0.to_be_bytes());
    hello.extend(versions.1.to_be_bytes());
    hello.extend(incarnation.to_be_bytes());
    hello.extend([7; 16]);
    for name in [node, cluster] {
        hello.push(u8::try_from(name.len()).unwrap());
        hello.extend(name.as_bytes());
    }
    let length = u16::try_from(hello.len()).unwrap().to_be_bytes();
    stream.write_all(&[&b"rookery\x01"[..], &length, &hello].concat()).await?;
    stream.flush().await?;
    stream.read_u8().await
}

/// Reads until the node ends the connection.
async fn ended(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = vec![];
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is not ended").ok();
}

#[tokio::test]
async fn silent_and_slow_dialers_are_sent_away_in_time() {
    let dir = pki::cluster("c", &["a"]);
    let a = Node::start(setup("a", 1, Some(dir.path()))).await;
    let mut silent = TcpStream::connect(&a.address).await.unwrap();
    let (mut slow, mut drip) = TcpStream::connect(&a.address).await.unwrap().into_split();
    let started = Instant::now();
    // A TLS record that never ends, a byte at a time.
    let dripping = tokio::spawn(async move {
        drip.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 252]).await.unwrap();
        while drip.write_all(&[3]).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    });
    tokio::join!(ended(&mut silent), ended(&mut slow));
    let took = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
    a.wait_log(&["link refused", "handshake took too long"]).await;
    dripping.await.unwrap();
}

#[tokio::test]
async fn a_thousand_half_open_connections_hurt_nobody() {
    let dir = pki::cluster("c", &["a", "b", "d"]);
    let dir = Some(dir.path());
    let [mut a, mut b] = start([setup("a", 1, dir), setup("b", 2, dir)]).await;
    b.linked("a").await;
    let mut half_open = vec![];
    for _ in 0..1000 {
        half_open.push(TcpStream::connect(&a.address).await.unwrap());
    }
    let (_, _, open) = a.counts().await;
    assert!(open <= 32, "{open}");
    // Who is linked goes on, and who comes is linked although the flood goes on from the same address.
    let address = a.address.clone();
    let flood = tokio::spawn(async move {
        loop {
            half_open.push(TcpStream::connect(&address).await.unwrap());
            half_open.remove(0);
            sleep(Duration::from_millis(2)).await;
        }
    });
    let started = Instant::now();
    assert!(matches!(b.call("a", "/echo").await, Answer::Http { .. }));
    let mut d = Node::start(setup("d", 3, dir)).await;
    introduce(&mut [&mut a, &mut b, &mut d]).await;
    d.linked("a").await;
    assert!(matches!(d.call("a", "/echo").await, Answer::Http { .. }));
    println!("linked and called after {:?}", started.elapsed());
    let (_, evicted, open) = a.counts().await;
    assert!(evicted >= 900 && open <= 33, "{evicted} evicted, {open} open");
    assert!(a.count_logged("too many handshakes at once") < 20, "the log is not flooded");
    assert!(!flood.is_finished(), "the flood has been going on");
    flood.abort();
}

#[tokio::test]
async fn garbage_ends_a_connection_and_nothing_else() {
    let dir = pki::cluster("c", &["a", "b", "d"]);
    let dir = dir.path();
    let [mut a, mut d] = start([setup("a", 1, Some(dir)), setup("d", 3, Some(dir))]).await;
    a.order(&Order::Members(vec![a.member(), d.member(), ("b".into(), 2, "127.0.0.1:1".into())])).await;
    d.linked("a").await;

    // Before TLS, and inside of it before the hello.
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(&a.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        ended(&mut stream).await;
    }
    a.wait_log(&["link refused", "no TLS handshake"]).await;
    let mut stream = pki::connect(&a.address, dir, Some((dir, "b"))).await.unwrap();
    stream.write_all(b"\x05\x01\x00 something else").await.unwrap();
    ended(&mut stream).await;
    a.wait_log(&["link refused", "does not speak this protocol"]).await;

    // After the hello: a frame that is no frame, one that is too large, one that never comes.
    let garbage = [&20u64.to_be_bytes()[..], &[0xee; 20]].concat();
    let too_large = [&(64u64 << 20).to_be_bytes()[..], &vec![0; 100_000]].concat();
    let endless = u64::MAX.to_be_bytes().to_vec();
    for frame in [garbage, too_large, endless] {
        let mut stream = pki::connect(&a.address, dir, Some((dir, "b"))).await.unwrap();
        assert_eq!(greet(&mut stream, "b", 2, "c", (1, 1)).await.unwrap(), 0);
        stream.write_all(&frame).await.ok();
        ended(&mut stream).await;
    }
    // Accepted, and then nothing: neither is that a link.
    let mut stream = pki::connect(&a.address, dir, Some((dir, "b"))).await.unwrap();
    assert_eq!(greet(&mut stream, "b", 2, "c", (1, 1)).await.unwrap(), 0);
    ended(&mut stream).await;

    assert!(matches!(d.call("a", "/echo").await, Answer::Http { .. }));
    assert_eq!(a.count_logged("link down"), 0, "the peer's link has not noticed");
}

#[tokio::test]
async fn every_refusal_is_told_to_the_dialer() {
    let dir = pki::cluster("c", &["a", "b", "x"]);
    let dir = dir.path();
    let mut a = Node::start(setup("a", 1, Some(dir))).await;
    a.order(&Order::Members(vec![a.member(), ("b".into(), 2, "127.0.0.1:1".into())])).await;
    let verdict = async |certificate: &str, node: &str, incarnation, cluster: &str, versions| {
        let mut stream = pki::connect(&a.address, dir, Some((dir, certificate))).await.unwrap();
        greet(&mut stream, node, incarnation, cluster, versions).await.unwrap()
    };
    assert_eq!(verdict("b", "b", 2, "d", (1, 1)).await, 1, "another cluster");
    assert_eq!(verdict("x", "b", 2, "c", (1, 1)).await, 2, "another node's certificate");
    assert_eq!(verdict("x", "x", 2, "c", (1, 1)).await, 3, "no member");
    assert_eq!(verdict("b", "b", 9, "c", (1, 1)).await, 4, "another run");
    assert_eq!(verdict("b", "b", 2, "c", (2, 3)).await, 5, "a later version");
    assert_eq!(verdict("a", "a", 2, "c", (1, 1)).await, 6, "the node's own name");
    assert_eq!(verdict("b", "b", 2, "c", (1, 9)).await, 0, "a peer");
}

#[tokio::test]
async fn a_peer_that_connects_again_replaces_its_link() {
    let dir = pki::cluster("c", &["a", "b"]);
    let dir = dir.path();
    let [mut a, mut b] = start([setup("a", 1, Some(dir)), setup("b", 2, Some(dir))]).await;
    b.linked("a").await;
    a.linked("b").await;
    // The same run from another place: the node takes the newer connection, and the true peer its place back.
    let mut stream = pki::connect(&a.address, dir, Some((dir, "b"))).await.unwrap();
    assert_eq!(greet(&mut stream, "b", 2, "c", (1, 1)).await.unwrap(), 0);
    ended(&mut stream).await;
    b.linked("a").await;
    a.linked("b").await;
    assert!(matches!(a.call("b", "/echo").await, Answer::Http { .. }));
}

#[tokio::test]
async fn nobody_gets_in_by_the_listener_that_cannot_be_switched_off() {
    let dir = pki::cluster("c", &["a", "b"]);
    let dir = dir.path();
    let [mut a, mut b] = start([setup("a", 1, Some(dir)), setup("b", 2, Some(dir))]).await;
    a.linked("b").await;
    b.linked("a").await;
    // Its port stands in what is logged about the end of a link to it.
    a.order(&Order::Members(vec![a.member()])).await;
    a.wait_log(&["Node session", "b~2@b~2"]).await;
    let line = a.find_logged("b~2@b~2").unwrap();
    let port = line.split("connection_string: \"b~2:").nth(1).unwrap().split('"').next().unwrap();
    let parked = format!("127.0.0.1:{port}");
    assert_ne!(parked, b.address);

    let mut without = TcpStream::connect(&parked).await.unwrap();
    without.write_all(&[0; 100]).await.unwrap();
    ended(&mut without).await;
    let mut with = pki::connect(&parked, dir, Some((dir, "a"))).await.unwrap();
    ended(&mut with).await;
    b.wait_log(&["link refused", "did not come by the links' own port"]).await;
}
