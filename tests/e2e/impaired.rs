//! patchbay behind a bad network: all media of WHIP and WHEP pass a proxy (tests/impair).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use patchbay_impair::{Proxy, Setting, Stats};
use tokio::runtime::Runtime;

use crate::support::{Client, Patchbay, Watching, aiortc, browser_in_background, fixture, play, publish, text, turn, wait_for};

/// Candidates have the server's port: the proxy takes the same one at another address of loopback.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The network in front of one address; ends when dropped.
pub struct Network {
    proxy: Proxy,
    _runtime: Runtime,
}

impl Network {
    /// A patchbay whose UDP port is reached through a network only.
    pub fn around(extra: &str, setting: Setting, seed: u64) -> (Patchbay, Self) {
        let hub = Patchbay::announcing(OUTSIDE, extra);
        let network = Self::udp((OUTSIDE, hub.udp).into(), ([127, 0, 0, 1], hub.udp).into(), setting, seed);
        (hub, network)
    }

    fn udp(listen: SocketAddr, target: SocketAddr, setting: Setting, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let proxy = runtime.block_on(Proxy::udp(listen, target, setting, seed)).expect("the proxy listens");
        Self { proxy, _runtime: runtime }
    }

    pub fn stats(&self) -> Stats {
        self.proxy.stats()
    }
}

#[test]
fn a_viewer_behind_a_lossy_network_sees_nearly_everything() {
    let _turn = turn();
    let (hub, network) = Network::around("", Setting::both("loss=2 delay=20 jitter=10".parse().expect("a profile")), 1);
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let seen = aiortc(&["whep", &hub.url("/whep/live/a"), "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
    let stats = network.stats();
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0), "{seen} {stats:?}");
    assert!(stats.down.lost >= 5 && stats.down.sent > 400, "it was lossy: {stats:?}");
}

#[test]
fn behind_a_narrow_link_a_viewer_gets_the_smaller_layer_of_a_simulcast() {
    let _turn = turn();
    let narrow = Setting { down: "rate=250 queue=200 delay=10".parse().expect("a profile"), ..Setting::default() };
    let (hub, network) = Network::around("", narrow, 2);
    let options = ["--canvas", "--simulcast", "--width", "960", "--height", "540", "--seconds", "60"];
    let _source = browser_in_background(&[&["--whip", &hub.url("/whip/live/cam")], &options[..]].concat());
    let layers = || hub.get("/v1/streams")["streams"][0]["tracks"].as_array().map_or(0, Vec::len);
    wait_for("three layers and sound", Duration::from_secs(25), || (layers() == 4).then_some(()));
    let _player = play(&hub.rtmp_url("live/cam"));
    let viewer = Watching::start(Client::Browser, &["--whep", &hub.url("/whep/live/cam"), "--stamp", "wall", "--settle", "0"]);
    let source_of = |protocol| hub.pairs(protocol).first().map(|pair| text(&pair["video"]["source"])).unwrap_or_default();
    let smaller = |source: &str| ["480x270", "240x134"].iter().any(|size| source.contains(size));
    wait_for("a smaller layer", Duration::from_secs(25), || smaller(&source_of("whep")).then_some(()));
    assert!(source_of("rtmp").contains("960x540"), "{}", source_of("rtmp"));
    std::thread::sleep(Duration::from_secs(6));
    let (seen, stats) = (viewer.report(), network.stats());
    assert!(seen["stamps"]["distinct"].as_u64() > Some(60), "{seen} {stats:?}");
    assert!(smaller(&text(&seen["size"])), "{seen}");
}
