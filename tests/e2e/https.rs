//! Everything over TLS too: browsers and aiortc by https and wss, what is said to who speaks wrongly, and certificates that
//! `patchbay check` refuses.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use patchbay_certificates::make;
use serde_json::Value;

use crate::support::{Client, Patchbay, Watching, browser, fixture, free_port, publish, text, turn};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("https")
}

/// A hub that listens for https, and its port.
fn start(name: &str) -> (Patchbay, u16) {
    let (made, port) = (make(&folder(), name, 2090), free_port());
    let flat = |path: &Path| path.to_str().expect("utf-8").to_owned();
    let (chain, key) = (flat(&made.chain), flat(&made.key));
    let extra = format!("http.tls_listen = \"127.0.0.1:{port}\"\nhttp.tls_cert_file = \"{chain}\"\nhttp.tls_key_file = \"{key}\"\n");
    (Patchbay::start(&extra), port)
}

#[test]
fn browsers_and_aiortc_publish_and_play_by_https_and_wss() {
    let _turn = turn();
    let (hub, port) = start("real");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let watch = |what: &[&str]| -> Value {
        browser(&[what, &["--insecure", "--stamp", "n", "--settle", "1", "--seconds", "3"]].concat(), Duration::from_secs(60))
    };
    let whip = Watching::start(Client::Aiortc, &["whip", &format!("https://127.0.0.1:{port}/whip/live/cam"), "--insecure"]);
    hub.wait_live("live/cam");
    assert_eq!(whip.report()["delete"], 200, "its resource is at an address that https reaches");

    let whep = watch(&["--whep", &format!("https://127.0.0.1:{port}/whep/live/a")]);
    let flv = watch(&["--flv", &format!("wss://127.0.0.1:{port}/flv/live/a.flv")]);
    for seen in [&whep, &flv] {
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0) && seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    }
    let page = watch(&["--page", &format!("https://127.0.0.1:{port}/h5-play/live/a?muted=0")]);
    assert_eq!((text(&page["page"]["state"]).as_str(), text(&page["page"]["via"]).as_str()), ("playing", "h5"), "{page}");
}

fn ask(port: u16, first: &[u8]) -> (Vec<u8>, Duration) {
    let (begin, mut socket, mut answer) = (Instant::now(), TcpStream::connect(("127.0.0.1", port)).expect("connected"), Vec::new());
    socket.set_read_timeout(Some(Duration::from_secs(12))).expect("a timeout");
    socket.write_all(first).expect("asked");
    socket.read_to_end(&mut answer).expect("closed from there");
    (answer, begin.elapsed())
}

#[test]
fn who_speaks_wrongly_at_a_port_is_told_and_who_says_nothing_is_let_go() {
    let (hub, port) = start("strangers");
    let (answer, took) = ask(port, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The begin of a client's hello.
    let (answer, took) = ask(hub.http, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 0, 0, 0]);
    assert!(answer.starts_with(b"HTTP/1.1 400") && took < Duration::from_secs(1), "{took:?} {}", String::from_utf8_lossy(&answer));
    for silent in [&b""[..], &[0x16, 3, 1]] {
        let (answer, took) = ask(port, silent);
        assert!(answer.is_empty() && (4..7).contains(&took.as_secs()), "{took:?} {answer:?}");
    }
    let speak = |protocol: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-alpn", protocol]);
        String::from_utf8_lossy(&command.stdin(Stdio::null()).output().expect("openssl runs").stdout).into_owned()
    };
    assert!(speak("http/1.1").contains("ALPN protocol: http/1.1"));
    assert!(!speak("h2").contains("ALPN protocol: h2"));
}

#[test]
fn check_names_the_certificate_that_cannot_be_used_and_why() {
    let folder = folder();
    let (good, old) = (make(&folder, "good", 2090), make(&folder, "old", 2021));
    let garbage = folder.join("garbage.pem");
    std::fs::write(&garbage, "garbage").expect("written");
    let check_text = |text: &str| {
        let file = folder.join("patchbay.toml");
        std::fs::write(&file, text).expect("written");
        let out = Command::new(env!("CARGO_BIN_EXE_patchbay")).arg("check").arg(&file).output().expect("patchbay runs");
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let check = |section: &str, chain: &Path, key: &Path| {
        let (chain, key) = (chain.display(), key.display());
        check_text(&format!("[{section}]\ntls_listen = \"127.0.0.1:8443\"\ntls_cert_file = \"{chain}\"\ntls_key_file = \"{key}\"\n"))
    };
    for section in ["http", "rtmp"] {
        assert_eq!(check(section, &good.chain, &good.key), (true, String::new()));
        for (chain, key, line, name, why) in [
            (&old.chain, &old.key, 3, "tls_cert_file", "has expired"),
            (&garbage, &good.key, 3, "tls_cert_file", "garbage.pem: there is no certificate in it"),
            (&good.chain, &old.key, 4, "tls_key_file", "is not the key of"),
        ] {
            let (ok, said) = check(section, chain, key);
            let place = format!("patchbay.toml:{line}:");
            assert!(!ok && said.contains(&place) && said.contains(&format!("{section}.{name}")) && said.contains(why), "{said}");
        }
    }
    let sections = [
        ("auth.webhook", "[auth.webhook]\nurl = \"https://example.org/hook\"\n"),
        ("pushes[0]", "[[pushes]]\nname = \"a\"\nstream = \"live/a\"\nurl = \"rtmps://example.org/live/a\"\n"),
        ("pulls[0]", "[[pulls]]\nstream = \"live/a\"\nurl = \"rtmps://example.org/live/a\"\n"),
    ];
    for (section, text) in sections {
        let check = |file: &Path| check_text(&format!("{text}ca_file = \"{}\"\n", file.display()));
        assert_eq!(check(&good.chain), (true, String::new()));
        for (file, why) in [(&garbage, "garbage.pem: there is no certificate in it"), (&folder.join("none.pem"), "none.pem: ")] {
            let (ok, said) = check(file);
            assert!(!ok && said.contains(&format!("{section}.ca_file")) && said.contains(why), "{said}");
        }
    }
}
