//! The sockets around the model, over loopback.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use patchbay_impair::{Profile, Proxy, Setting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// What answers comes long before that.
const LONG: Duration = Duration::from_secs(10);

fn setting(profile: &str) -> Setting {
    Setting::both(profile.parse().expect("a profile"))
}

/// Sends every datagram back.
async fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind(LOCAL).await.expect("bound");
    let addr = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..len], from).await.expect("sent");
        }
    });
    addr
}

async fn udp_client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(LOCAL).await.expect("bound");
    socket.connect(to).await.expect("connected");
    socket
}

async fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.expect("bound");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn udp_echoed(client: &UdpSocket, what: u16) -> u16 {
    client.send(&what.to_be_bytes()).await.expect("sent");
    let mut answer = [0; 2];
    timeout(LONG, client.recv(&mut answer)).await.expect("answered").expect("received");
    u16::from_be_bytes(answer)
}

#[tokio::test]
async fn udp_clients_get_their_own_answers_after_the_delay() {
    let proxy = Proxy::udp(LOCAL, udp_echo().await, setting("delay=30"), 1).await.expect("started");
    let clients = [udp_client(proxy.addr()).await, udp_client(proxy.addr()).await];
    for round in 0..5 {
        for (i, client) in clients.iter().enumerate() {
            let (what, begin) = (round * 2 + i as u16, Instant::now());
            assert_eq!(udp_echoed(client, what).await, what);
            assert!(begin.elapsed() >= Duration::from_millis(60), "{:?}", begin.elapsed());
        }
    }
    let stats = proxy.stats();
    assert_eq!((stats.clients, stats.up.sent, stats.down.sent), (2, 10, 10));
}

#[tokio::test]
async fn the_same_seed_loses_the_same_datagrams() {
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::udp(LOCAL, udp_echo().await, Setting { up: "loss=40".parse().expect("a profile"), ..Setting::default() }, 5);
        let proxy = proxy.await.expect("started");
        let client = udp_client(proxy.addr()).await;
        let mut seen = Vec::new();
        for i in 0..200u16 {
            client.send(&i.to_be_bytes()).await.expect("sent");
            // Spread, so that no socket buffer loses any.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let mut answer = [0; 2];
        while let Ok(Ok(_)) = timeout(Duration::from_millis(300), client.recv(&mut answer)).await {
            seen.push(u16::from_be_bytes(answer));
        }
        assert!((90..150).contains(&seen.len()), "{}", seen.len());
        assert_eq!(proxy.stats().up.lost, 200 - seen.len() as u64);
        rounds.push(seen);
    }
    assert_eq!(rounds[0], rounds[1]);
}

#[tokio::test]
async fn a_broken_udp_path_goes_on_from_another_port() {
    let server = UdpSocket::bind(LOCAL).await.expect("bound");
    let proxy = Proxy::udp(LOCAL, server.local_addr().expect("bound"), Setting::default(), 1).await.expect("started");
    let client = udp_client(proxy.addr()).await;
    let mut ports = Vec::new();
    for _ in 0..2 {
        client.send(b"x").await.expect("sent");
        let (_, from) = timeout(LONG, server.recv_from(&mut [0; 8])).await.expect("in time").expect("received");
        ports.push(from.port());
        proxy.break_all();
        // The order reaches the client's task before the next datagram does.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(ports[0], ports[1]);
}

#[tokio::test]
async fn tcp_keeps_every_byte_at_the_rate() {
    let proxy = Proxy::tcp(LOCAL, tcp_echo().await, setting("rate=4000 queue=50 delay=10 jitter=5 loss=50"), 1).await.expect("started");
    let mut client = TcpStream::connect(proxy.addr()).await.expect("connected");
    let sent: Vec<u8> = (0..250_000u32).map(|i| (i % 251) as u8).collect();
    let begin = Instant::now();
    let (mut from, mut to) = client.split();
    let mut got = Vec::new();
    let writing = async {
        to.write_all(&sent).await.expect("sent");
        to.shutdown().await.expect("shut down");
    };
    let (_, read) = tokio::join!(writing, timeout(LONG, from.read_to_end(&mut got)));
    read.expect("in time").expect("read");
    assert_eq!(got, sent);
    // 2 Mbit at 4 Mbit/s.
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_stalled_connection_goes_on_and_a_broken_one_is_reset() {
    let proxy = Proxy::tcp(LOCAL, tcp_echo().await, setting("clear"), 1).await.expect("started");
    let mut client = TcpStream::connect(proxy.addr()).await.expect("connected");
    let mut answer = [0; 1];
    client.write_all(b"a").await.expect("sent");
    timeout(LONG, client.read_exact(&mut answer)).await.expect("in time").expect("read");
    proxy.set(Setting::both(Profile { stall: true, ..Profile::default() }));
    client.write_all(b"b").await.expect("sent");
    assert!(timeout(Duration::from_millis(200), client.read_exact(&mut answer)).await.is_err(), "it stands still");
    proxy.set(Setting::default());
    timeout(LONG, client.read_exact(&mut answer)).await.expect("in time").expect("read");
    assert_eq!(&answer, b"b");
    proxy.break_all();
    let end = timeout(LONG, client.read(&mut answer)).await.expect("in time");
    assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dropped_proxy_is_gone() {
    let proxy = Proxy::tcp(LOCAL, tcp_echo().await, Setting::default(), 1).await.expect("started");
    let addr = proxy.addr();
    let mut client = TcpStream::connect(addr).await.expect("connected");
    client.write_all(b"a").await.expect("sent");
    client.read_exact(&mut [0; 1]).await.expect("read");
    drop(proxy);
    assert!(!matches!(timeout(LONG, client.read(&mut [0; 1])).await.expect("in time"), Ok(1)));
    assert!(TcpStream::connect(addr).await.is_err());
}
