//! Viewers that read too slowly, or not at all, cost the others no frame and the process little memory, and are cut in time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Client, Patchbay, Watching, fixture, play, publish, text, turn, wait_for};

/// What one slow viewer may cost, KiB.
const MEMORY_MAX_KIB: u64 = 4 << 10;
/// Bytes per second of a viewer that reads a tenth of the source's rate.
const TENTH: usize = 75_000;

/// The stamped picture under so much noise that sockets' buffers are soon full.
fn noisy() -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("noisy.flv");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-t", "20", "-i", &fixture("baseline-360p.flv")]);
    command.args(["-vf", "drawbox=y=60:h=ih-60:c=gray:t=fill,noise=alls=30:allf=t", "-c:v", "libx264", "-preset", "ultrafast"]);
    command.args(["-profile:v", "baseline", "-g", "30", "-b:v", "6M", "-minrate", "6M", "-maxrate", "6M", "-bufsize", "6M"]);
    command.args(["-c:a", "copy", "-f", "flv"]).arg(&file);
    assert!(command.status().expect("ffmpeg runs").success(), "{command:?}");
    file.to_string_lossy().into_owned()
}

/// Asks for HTTP-FLV and reads so many bytes per second, on a thread of its own, until `over` or cut.
fn read_slowly(hub: &Patchbay, rate: usize, over: &Arc<AtomicBool>) {
    let mut socket = TcpStream::connect(("127.0.0.1", hub.http)).expect("connected");
    socket.write_all(b"GET /flv/live/n.flv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("asked");
    let over = over.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; (rate / 10).max(1)];
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            if rate > 0 && !socket.read(&mut buffer).is_ok_and(|n| n > 0) {
                return;
            }
        }
    });
}

#[test]
fn slow_viewers_cost_the_others_nothing_and_those_who_read_nothing_are_cut() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&noisy(), &hub.rtmp_url("live/n"));
    hub.wait_live("live/n");
    let viewer = Watching::start(Client::Stamps, &["read", &hub.rtmp_url("live/n")]);
    let pairs = |protocol| hub.pairs(protocol).len();
    wait_for("the good viewer", Duration::from_secs(10), || (hub.pairs("rtmp").first()?["frames"].as_u64()? > 60).then_some(()));
    let before = hub.memory_kib();

    let over = Arc::new(AtomicBool::new(false));
    (0..6).for_each(|_| read_slowly(&hub, TENTH, &over));
    (0..3).for_each(|_| read_slowly(&hub, 0, &over));
    let frozen = play(&hub.rtmp_url("live/n"));
    wait_for("all of them", Duration::from_secs(10), || (pairs("http-flv") == 9 && pairs("rtmp") == 2).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    frozen.signal("STOP");
    let mut most = 0;
    wait_for("the cut of those who read nothing", Duration::from_secs(40), || {
        most = most.max(hub.memory_kib());
        (pairs("http-flv") == 6 && pairs("rtmp") == 1).then_some(())
    });
    frozen.signal("CONT");
    let slow = hub.pairs("http-flv");
    eprintln!(
        "{} KiB more for ten slow viewers; skipped {:?}",
        most.saturating_sub(before),
        slow.iter().map(|p| &p["skipped"]).collect::<Vec<_>>()
    );
    assert!(slow.iter().all(|pair| pair["skipped"].as_u64() > Some(30)), "{slow:?}");
    assert!(most.saturating_sub(before) < 10 * MEMORY_MAX_KIB, "{before} KiB before, {most} KiB at most");
    assert!(hub.log().lines().filter(|line| line.contains("session ends") && line.contains("too_slow")).count() >= 4, "{}", hub.log());
    let seen = viewer.report();
    over.store(true, Ordering::Relaxed);
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(99.0), "{seen}");
    assert_eq!(seen["stamps"]["outOfOrder"], 0, "{seen}");
    assert_eq!(text(&hub.get("/v1/streams")["streams"][0]["name"]), "live/n");
}
