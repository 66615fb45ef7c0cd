//! A browser whose UDP does not get through publishes and plays over TCP; whoever asks is told his address.

use std::process::Command;
use std::time::Duration;

use crate::support::{Client, Patchbay, Watching, root, text, turn, wait_for};

/// What carries the media of every session.
fn transports(hub: &Patchbay) -> Vec<String> {
    let all = hub.get("/v1/sessions");
    all["sessions"].as_array().expect("sessions").iter().map(|session| text(&session["transport"])).collect()
}

#[test]
fn a_browser_without_udp_publishes_and_plays_over_tcp() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let (whip, whep) = (hub.url("/whip/live/a"), hub.url("/whep/live/a"));
    let options = ["--whip", &whip, "--canvas", "--whep", &whep, "--max-kbps", "1500", "--min-kbps", "1000"];
    let client = Watching::start(Client::Browser, &[&options[..], &["--without", "udp"]].concat());
    wait_for("both over TCP", Duration::from_secs(25), || (transports(&hub) == ["tcp", "tcp"]).then_some(()));
    std::thread::sleep(Duration::from_secs(6));
    let seen = client.report();
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{seen}");
    assert!(seen["audio"]["loudest"].as_f64() > Some(0.01), "{seen}");
    for connection in seen["stats"].as_array().expect("two connections") {
        assert_eq!(text(&connection["pair"]["protocol"]), "tcp", "{seen}");
    }
}

#[test]
fn udp_is_preferred_and_the_media_port_tells_addresses() {
    let _turn = turn();
    let hub = Patchbay::start("webrtc.stun = true");
    let (whip, whep) = (hub.url("/whip/live/a"), hub.url("/whep/live/a"));
    let client = Watching::start(Client::Browser, &["--whip", &whip, "--canvas", "--whep", &whep]);
    wait_for("both over UDP", Duration::from_secs(25), || (transports(&hub) == ["udp", "udp"]).then_some(()));
    // Nothing of the browser's own is open on this port; aioice gathers a candidate by its help.
    let script = "import asyncio, sys, aioice\n\
        async def main():\n\
        \x20   connection = aioice.Connection(ice_controlling=True, stun_server=('127.0.0.1', int(sys.argv[1])))\n\
        \x20   await connection.gather_candidates()\n\
        \x20   print([c.type for c in connection.local_candidates])\n\
        \x20   await connection.close()\n\
        asyncio.run(main())\n";
    let python = Command::new(root().join(".venv/bin/python")).args(["-c", script, &hub.udp.to_string()]).output().expect("Python runs");
    let found = String::from_utf8_lossy(&python.stdout).into_owned();
    assert!(found.contains("srflx"), "{found}{}", String::from_utf8_lossy(&python.stderr));
    assert_eq!(transports(&hub), ["udp", "udp"]);
    drop(client);
}
