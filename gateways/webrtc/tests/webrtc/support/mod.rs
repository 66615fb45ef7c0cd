//! What the tests share: the gateway in process, a str0m client over real sockets, and generated media.

pub mod client;
pub mod hub;
pub mod wire;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use patchbay_contract::Gateway as _;
use patchbay_media::h264::{annex_b_nals, nal_type, nal_unit_type};
use patchbay_webrtc::{Config, Gateway};
use tokio_util::sync::CancellationToken;

/// The gateway with its HTTP routes on free loopback ports.
pub struct Server {
    pub http: SocketAddr,
    pub udp: SocketAddr,
    pub hub: Arc<hub::PassHub>,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(workers: usize) -> Self {
        Self::with(Config { workers, ..Config::default() })
    }

    pub fn with(config: Config) -> Self {
        let hub = hub::PassHub::new();
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let gateway = Gateway::bind(config, hub.clone()).unwrap();
        let udp = gateway.local_addr();
        let shutdown = CancellationToken::new();
        let (stop, (send, receive)) = (shutdown.clone(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                let running = tokio::spawn(gateway.clone().run(stop.clone()));
                let routes = gateway.routes().into_make_service_with_connect_info::<SocketAddr>();
                axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await }).await.unwrap();
                running.await.unwrap().unwrap();
            });
        });
        Self { http: receive.recv().unwrap(), udp, hub, shutdown, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Annex B access units of a generated picture, constrained baseline, 30 fps, one slice per frame.
pub fn h264(frames: usize, group: usize) -> Vec<Vec<u8>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-frames:v", &frames.to_string()])
        .args(["-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-threads", "1", "-g", &group.to_string()])
        .args(["-sc_threshold", "0", "-f", "h264", "-"])
        .output()
        .expect("ffmpeg runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut units: Vec<Vec<u8>> = vec![Vec::new()];
    for nal in annex_b_nals(&out.stdout) {
        let unit = units.last_mut().unwrap();
        unit.extend([0, 0, 0, 1]);
        unit.extend(nal);
        if matches!(nal_unit_type(nal), nal_type::SLICE | nal_type::IDR) {
            units.push(Vec::new());
        }
    }
    units.pop();
    assert_eq!(units.len(), frames);
    units
}

/// The coded slices of an access unit, by which frames are compared.
pub fn slices(unit: &[u8]) -> Vec<Vec<u8>> {
    let coded = |nal: &&[u8]| matches!(nal_unit_type(nal), nal_type::SLICE | nal_type::IDR);
    annex_b_nals(unit).filter(coded).map(<[u8]>::to_vec).collect()
}

/// A 20 ms Opus packet that can be told from the others (CELT, full band, mono, one frame).
pub fn opus(n: usize) -> Vec<u8> {
    let mut packet = vec![0xf8];
    packet.extend(n.to_be_bytes());
    packet.extend([0x55; 40]);
    packet
}
