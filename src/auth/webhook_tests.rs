//! A webhook against a server that says yes, says no, is slow, and is gone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use patchbay_bus::StreamName;
use patchbay_certificates::Made;
use patchbay_contract::{Caller, Code, Credentials, Refusal};
use patchbay_inbound::{Listen, Ports, Tls};
use patchbay_rules::EndpointKind;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Auth, Form, Secret, Webhook as Config, WhenDown};

/// How the other side behaves, and what it has heard.
#[derive(Default)]
struct Other {
    reply: (u16, &'static str),
    delay: Duration,
    heard: Vec<(HeaderMap, Bytes)>,
}

#[derive(Clone)]
struct Server {
    state: Arc<Mutex<Other>>,
    url: String,
    secure: SocketAddr,
    ca_file: PathBuf,
    task: Arc<tokio::task::JoinHandle<()>>,
}

impl Server {
    async fn start() -> Self {
        async fn answer(State(state): State<Arc<Mutex<Other>>>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
            let ((status, text), delay) = {
                let mut state = state.lock().unwrap();
                state.heard.push((headers, body));
                (state.reply, state.delay)
            };
            tokio::time::sleep(delay).await;
            (StatusCode::from_u16(status).unwrap(), text)
        }
        let state = Arc::new(Mutex::new(Other { reply: (200, ""), ..Other::default() }));
        let here = "127.0.0.1:0".parse().unwrap();
        let made = certificate("hook");
        let tls = Tls { address: here, chain: Some(&made.chain), key: Some(&made.key), protocols: &[] };
        let ports = Ports::bind(Listen { section: "hook", plain: here, tls: Some(tls) }).await.unwrap();
        let (plain, secure) = (ports.address().unwrap(), ports.tls_address().unwrap());
        let router = Router::new().route("/hook", post(answer)).with_state(state.clone());
        let task = Arc::new(tokio::spawn(crate::http::serve(ports, router, CancellationToken::new())));
        Self { state, url: format!("http://{plain}/hook?of=ours"), secure, ca_file: made.chain, task }
    }

    /// The same by https, as `host`, whom `ca_file` vouches for.
    fn secure_gate(&self, host: &str, ca_file: Option<PathBuf>) -> Gate {
        let url = Secret::new(format!("https://{host}:{}/hook", self.secure.port())).ok();
        Gate::new(&Auth { webhook: Config { url, ca_file, timeout_ms: 2_000, ..Config::default() }, ..Auth::default() }).unwrap()
    }

    fn reply(&self, status: u16, text: &'static str) {
        self.state.lock().unwrap().reply = (status, text);
    }

    fn heard(&self) -> Vec<Json> {
        self.state.lock().unwrap().heard.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }

    fn gate(&self, config: Config) -> Gate {
        let webhook = Config { url: Secret::new(&self.url).ok(), timeout_ms: 300, ..config };
        Gate::new(&Auth { webhook, ..Auth::default() }).unwrap()
    }

    async fn stop(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

fn certificate(name: &str) -> Made {
    patchbay_certificates::make(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp/webhook"), name, 2090)
}

async fn publish(gate: &Gate, stream: &str, query: &str) -> Result<Grant, Refusal> {
    let credentials = Credentials::of_queries(&[query], None);
    let caller = Caller { protocol: "rtmp", peer: Some("192.0.2.1:5".parse().unwrap()), credentials, ..Caller::default() };
    let stream: StreamName = stream.parse().unwrap();
    let wish = Wish { act: Act::Publish, stream: &stream, kind: EndpointKind::Rtmp, caller: &caller, route: None };
    gate.admit(wish).await
}

async fn until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(5), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn it_is_asked_its_no_is_final_and_it_is_told_of_the_end() {
    let server = Server::start().await;
    let gate = server.gate(Config::default());
    let grant = publish(&gate, "live/a", "token=t").await.unwrap();
    let asked = &server.heard()[0];
    for (name, value) in
        [("event", "publish"), ("stream", "live/a"), ("ip", "192.0.2.1"), ("query", "token=t"), ("token", "t"), ("kind", "rtmp")]
    {
        assert_eq!(asked[name], value, "{asked}");
    }
    let copy = grant.clone();
    drop(grant);
    assert!(gate.is_quiet(), "the session goes on");
    drop(copy);
    until(|| server.heard().len() == 2 && gate.is_quiet()).await;
    let told = &server.heard()[1];
    assert_eq!((&told["event"], &told["id"]), (&"unpublish".into(), &asked["id"]));

    server.reply(200, "{\"allow\":false,\"reason\":\"unpaid\"}");
    let refusal = publish(&gate, "live/a", "").await.map(|_| ()).unwrap_err();
    assert!(refusal.code == Code::Forbidden && refusal.message.contains("unpaid"), "{refusal}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.heard().len(), 3, "who was not let in does not leave");
}

#[tokio::test]
async fn by_https_only_a_server_that_proves_its_name_is_asked() {
    let server = Server::start().await;
    for host in ["localhost", "127.0.0.1"] {
        publish(&server.secure_gate(host, Some(server.ca_file.clone())), "live/a", "").await.map(|_| ()).expect(host);
    }
    let heard = server.heard().iter().filter(|call| call["event"] == "publish").count();
    assert_eq!(heard, 2);
    let stranger = certificate("stranger").chain;
    for (host, ca_file) in [("127.0.0.2", Some(server.ca_file.clone())), ("localhost", Some(stranger)), ("localhost", None)] {
        let refusal = publish(&server.secure_gate(host, ca_file), "live/b", "").await.map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, Code::NotReady, "{host}");
    }
    assert!(server.heard().iter().all(|call| call["stream"] == "live/a"), "nobody else heard of it");
}

#[tokio::test]
async fn calls_in_the_form_of_srs_are_signed_and_answered_by_a_code() {
    let server = Server::start().await;
    let gate = server.gate(Config { form: Form::Srs, secret: Secret::new("s3cret").ok(), ..Config::default() });
    server.reply(200, "{\"code\":0}");
    assert!(publish(&gate, "live/a", "").await.is_ok());
    server.reply(200, "1");
    assert_eq!(publish(&gate, "live/a", "").await.map(|_| ()).unwrap_err().code, Code::Forbidden);
    let (headers, body) = server.state.lock().unwrap().heard[0].clone();
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let message = [text("patchbay-timestamp").as_bytes(), b".", &body].concat();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"s3cret");
    let signature = text("patchbay-signature");
    let pairs = signature.strip_prefix("sha256=").unwrap().as_bytes().chunks(2);
    let signature: Vec<u8> = pairs.map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()).collect();
    aws_lc_rs::hmac::verify(&key, &message, &signature).expect("the signature fits");
    assert!(text("patchbay-timestamp").parse::<u64>().unwrap().abs_diff(tokens::unix_now()) < 5);
}

#[tokio::test]
async fn a_slow_one_holds_up_nobody_longer_than_its_timeout() {
    let server = Server::start().await;
    server.state.lock().unwrap().delay = Duration::from_secs(30);
    let gate = server.gate(Config { calls_max: 1, ..Config::default() });
    let begin = Instant::now();
    let (first, second) = tokio::join!(publish(&gate, "live/a", ""), publish(&gate, "live/b", ""));
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    for result in [first, second] {
        assert_eq!(result.map(|_| ()).unwrap_err().code, Code::NotReady);
    }
}

#[tokio::test]
async fn when_it_is_gone_the_configuration_answers() {
    let server = Server::start().await;
    let gate = |when_down| server.gate(Config { when_down, ..Config::default() });
    let (deny, allow, cached) = (gate(WhenDown::Deny), gate(WhenDown::Allow), gate(WhenDown::Cached));
    assert!(publish(&cached, "live/known", "token=a").await.is_ok());
    server.reply(403, "");
    assert!(publish(&cached, "live/refused", "token=a").await.is_err());
    server.reply(500, "{\"allow\":true}");
    assert!(publish(&deny, "live/known", "token=a").await.is_err(), "an error is no answer");
    server.clone().stop().await;
    assert!(publish(&deny, "live/known", "token=a").await.is_err());
    assert!(publish(&allow, "live/x", "").await.is_ok());
    assert!(publish(&cached, "live/known", "token=a").await.is_ok());
    for (stream, query) in [("live/known", "token=b"), ("live/other", "token=a"), ("live/refused", "token=a")] {
        assert!(publish(&cached, stream, query).await.is_err(), "{stream} {query}");
    }
}

#[tokio::test]
async fn it_is_not_led_elsewhere_nor_flooded() {
    let server = Server::start().await;
    let gate = server.gate(Config::default());
    server.reply(307, "");
    assert!(publish(&gate, "live/a", "").await.is_err());
    let flood: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    server.reply(200, flood);
    assert!(publish(&gate, "live/a", "").await.is_err());
}

#[test]
fn urls_that_cannot_be_called_are_named_without_being_shown() {
    for url in ["file:///s3cret", "ftp://h/s3cret", "http://u:s3cret@h/", "s3cret"] {
        let (key, why) =
            problems(&Auth { webhook: Config { url: Secret::new(url).ok(), ..Config::default() }, ..Auth::default() }).remove(0);
        assert!(key == "auth.webhook.url" && !why.contains("s3cret"), "{why}");
    }
}
