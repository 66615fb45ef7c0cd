//! Who is let in with what. Attacks on tokens are one table: each row is refused, and says why.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Code, Credentials, Refusal};
use patchbay_rules::EndpointKind;
use serde_json::{Value as Json, json};

use super::tokens::{Tokens, unix_now};
use super::*;
use crate::config::{Auth, Jwt, JwtAlgorithm, Secret};

const SECRET: &str = "a secret of at least thirty-two bytes";
/// Made for these tests, and used for nothing else.
const RSA: (&str, &str) = (include_str!("../../fixtures/keys/rsa.pem"), include_str!("../../fixtures/keys/rsa.pub.pem"));
const EC: (&str, &str) = (include_str!("../../fixtures/keys/ec.pem"), include_str!("../../fixtures/keys/ec.pub.pem"));
const ED: (&str, &str) = (include_str!("../../fixtures/keys/ed25519.pem"), include_str!("../../fixtures/keys/ed25519.pub.pem"));

fn secret(text: &str) -> Option<Secret> {
    Secret::new(text).ok()
}

fn hmac() -> Jwt {
    Jwt { secret: secret(SECRET), issuer: vec!["us".into()], ..Jwt::default() }
}

fn public(key: &str, algorithm: JwtAlgorithm) -> Jwt {
    Jwt { public_key: secret(key), algorithms: vec![algorithm], ..Jwt::default() }
}

/// Claims that are in order, changed by `with`; `null` takes one out.
fn claims(with: Json) -> Json {
    let now = unix_now();
    let mut all = json!({ "sub": "cam-7", "iss": "us", "aud": "patchbay", "exp": now + 300, "patchbay": { "publish": ["live/*"] } });
    for (name, value) in with.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    all
}

fn sign(header: &Header, key: &EncodingKey, with: Json) -> String {
    encode(header, &claims(with), key).unwrap()
}

fn signed(with: Json) -> String {
    sign(&Header::default(), &EncodingKey::from_secret(SECRET.as_bytes()), with)
}

fn tokens(config: &Jwt) -> Tokens {
    Tokens::new(config).unwrap().unwrap()
}

/// A header and payload of any form, with a signature that is right for HMAC where it matters.
fn crafted(header: &str, payload: &Json) -> String {
    use std::process::{Command, Stdio};
    let base64 = |text: &str| {
        let script = "base64 -w0 | tr '+/' '-_' | tr -d '='";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let message = format!("{}.{}", base64(header), base64(&payload.to_string()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn a_token_of_every_family_is_taken() {
    let of = |algorithm, key: EncodingKey| sign(&Header::new(algorithm), &key, json!({}));
    let cases = [
        (hmac(), of(Algorithm::HS256, EncodingKey::from_secret(SECRET.as_bytes()))),
        (public(RSA.1, JwtAlgorithm::Rs256), of(Algorithm::RS256, EncodingKey::from_rsa_pem(RSA.0.as_bytes()).unwrap())),
        (public(EC.1, JwtAlgorithm::Es256), of(Algorithm::ES256, EncodingKey::from_ec_pem(EC.0.as_bytes()).unwrap())),
        (public(ED.1, JwtAlgorithm::EdDsa), of(Algorithm::EdDSA, EncodingKey::from_ed_pem(ED.0.as_bytes()).unwrap())),
    ];
    for (config, token) in cases {
        let found = tokens(&config).verify(&token).unwrap_or_else(|e| panic!("{:?}: {e}", config.algorithms));
        assert_eq!(found.sub, "cam-7");
    }
}

#[test]
fn attacks_and_mistakes_are_refused_and_named() {
    let now = unix_now();
    let right = EncodingKey::from_secret(SECRET.as_bytes());
    let kid = |kid: &str| sign(&Header { kid: Some(kid.into()), ..Header::default() }, &right, json!({}));
    let plain = r#"{"alg":"HS256"}"#;
    let table = [
        ("not a JWT", "abc".to_owned(), "not a signed JSON Web Token"),
        ("empty parts", "..".into(), "not a signed JSON Web Token"),
        ("alg none", crafted(r#"{"alg":"none"}"#, &claims(json!({}))).rsplit_once('.').unwrap().0.to_owned() + ".", "not a signed"),
        ("alg None", crafted(r#"{"alg":"None"}"#, &claims(json!({}))), "not a signed"),
        ("no alg", crafted("{}", &claims(json!({}))), "not a signed"),
        ("another hash", sign(&Header::new(Algorithm::HS512), &right, json!({})), "algorithm is none of"),
        ("critical extension", crafted(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims(json!({}))), "critical"),
        (
            "wrong secret",
            sign(&Header::default(), &EncodingKey::from_secret(b"another secret, long enough to be one"), json!({})),
            "signature",
        ),
        ("expired", signed(json!({ "exp": now - 61 })), "expired"),
        ("no exp", signed(json!({ "exp": null })), "no claim \"exp\""),
        ("exp is text", signed(json!({ "exp": "never" })), "\"exp\""),
        ("exp in the far past", signed(json!({ "exp": -1 })), "\"exp\""),
        ("not yet", signed(json!({ "nbf": now + 120 })), "not valid yet"),
        ("another audience", signed(json!({ "aud": "billing" })), "another audience"),
        ("no audience", signed(json!({ "aud": null })), "no claim \"aud\""),
        ("another issuer", signed(json!({ "iss": "them" })), "another issuer"),
        ("no issuer", signed(json!({ "iss": null })), "no claim \"iss\""),
        ("no subject", signed(json!({ "sub": null })), "no claim \"sub\""),
        ("subject is empty", signed(json!({ "sub": "" })), "sub may not be empty"),
        ("misspelt restriction", signed(json!({ "patchbay": { "no_transcoed": true } })), "no_transcoed"),
        ("pattern is empty", signed(json!({ "patchbay": { "publish": [""] } })), "pattern"),
        ("too many patterns", signed(json!({ "patchbay": { "play": vec!["a"; 65] } })), "more than 64"),
        ("kind that is none", signed(json!({ "patchbay": { "kinds": ["rtsp"] } })), "rtsp"),
        ("claims are a list", crafted(plain, &json!([1])), "not a signed"),
        ("claims nest without end", crafted(plain, &serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).unwrap()), "not a signed"),
    ];
    let tokens = tokens(&hmac());
    for (what, token, why) in table {
        let refusal = tokens.verify(&token).map(|claims| claims.sub).expect_err(what);
        assert_eq!(refusal.code, Code::Unauthorized, "{what}");
        assert!(refusal.message.contains(why), "{what}: {refusal}");
        assert!(!token.split('.').any(|part| part.len() > 8 && refusal.message.contains(part)), "{what}: {refusal}");
    }
    // With one key configured, `kid` is no more than a remark.
    for name in ["../../etc/passwd", "x' OR 1=1", "http://evil.example/key", &"k".repeat(2_000)] {
        assert!(tokens.verify(&kid(name)).is_ok(), "{name}");
    }
}

#[test]
fn a_public_key_is_never_a_shared_secret() {
    // RFC 8725 §2.1: the token is signed by HMAC with the text of the public key, which everybody has.
    let forged = sign(&Header::default(), &EncodingKey::from_secret(RSA.1.as_bytes()), json!({}));
    let config = Jwt { algorithms: vec![JwtAlgorithm::Rs256, JwtAlgorithm::Hs256], ..public(RSA.1, JwtAlgorithm::Rs256) };
    let refusal = tokens(&config).verify(&forged).map(|c| c.sub).unwrap_err();
    assert!(refusal.message.contains("algorithm"), "{refusal}");
}

#[test]
fn the_leeway_covers_clocks_that_differ() {
    let now = unix_now();
    assert!(tokens(&hmac()).verify(&signed(json!({ "exp": now - 30, "nbf": now + 30 }))).is_ok());
    let strict = tokens(&Jwt { leeway_s: 0, ..hmac() });
    assert!(strict.verify(&signed(json!({ "exp": now - 30 }))).is_err());
}

#[test]
fn a_set_of_keys_is_searched_by_name() {
    let jwks = json!({ "keys": [
        { "kty": "oct", "kid": "old", "k": "YSBzZWNyZXQgb2YgYXQgbGVhc3QgdGhpcnR5LXR3byBieXRlcw" },
        { "kty": "oct", "kid": "../../x", "k": "YW5vdGhlciBzZWNyZXQsIGxvbmcgZW5vdWdoIHRvIGJlIG9uZQ" },
    ] });
    let tokens = tokens(&Jwt { jwks: secret(&jwks.to_string()), ..Jwt::default() });
    let token = |kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
        sign(&header, &EncodingKey::from_secret(SECRET.as_bytes()), json!({}))
    };
    assert!(tokens.verify(&token(Some("old"))).is_ok() && tokens.verify(&token(None)).is_ok());
    assert!(tokens.verify(&token(Some("../../x"))).map(|c| c.sub).unwrap_err().message.contains("signature"));
    assert!(tokens.verify(&token(Some("/etc/passwd"))).map(|c| c.sub).unwrap_err().message.contains("kid"));
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let refused = |config: &Jwt| Tokens::new(config).map(|_| ()).unwrap_err();
    assert_eq!(refused(&Jwt { secret: secret("short"), ..Jwt::default() }).0, "auth.jwt.secret");
    assert_eq!(refused(&Jwt { public_key: secret("x"), ..Jwt::default() }).0, "auth.jwt.public_key");
    assert!(refused(&public(RSA.0, JwtAlgorithm::Rs256)).1.contains("private key"));
    assert_eq!(refused(&public(RSA.1, JwtAlgorithm::Es256)).0, "auth.jwt.algorithms");
    assert_eq!(refused(&Jwt { jwks: secret("{\"keys\":[]}"), ..Jwt::default() }).0, "auth.jwt.jwks");
    assert_eq!(refused(&Jwt { public_key: secret(RSA.1), ..hmac() }).0, "auth.jwt.public_key");
    assert!(Tokens::new(&Jwt::default()).unwrap().is_none());
}

#[test]
fn no_mutilated_token_gets_through() {
    let (tokens, good) = (tokens(&hmac()), signed(json!({})));
    let mut seed = 7u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    for _ in 0..5_000 {
        let mut bytes = good.clone().into_bytes();
        match below(3) {
            0 => drop(bytes.remove(below(bytes.len()))),
            1 => bytes.insert(below(bytes.len()), b"Az09-_.="[below(8)]),
            _ => {
                let at = below(bytes.len());
                bytes[at] = b"Az09-_.="[below(8)];
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(text == good || tokens.verify(&text).is_err(), "{text}");
    }
}

fn gate(jwt: Jwt) -> Gate {
    Gate::new(&Auth { jwt, ..Auth::default() }).unwrap()
}

/// Asks to do `act` with `live/a` from elsewhere, with this key or token.
fn ask(gate: &Gate, act: Act, route: Option<&Route>, token: &str) -> Result<Grant, Refusal> {
    let credentials = Credentials::of_queries(&[], Some(token));
    let caller = Caller { peer: Some("192.0.2.1:5".parse().unwrap()), credentials, ..Caller::default() };
    let stream: StreamName = "live/a".parse().unwrap();
    admit(gate, act, route, &stream, &caller)
}

fn admit(gate: &Gate, act: Act, route: Option<&Route>, stream: &StreamName, caller: &Caller) -> Result<Grant, Refusal> {
    let wish = Wish { act, stream, kind: EndpointKind::Rtmp, caller, route: route.cloned() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(gate.admit(wish))
}

fn keyed() -> Route {
    let key = |text: &str| Some(text.to_owned());
    Route {
        pattern: "live/*".parse().unwrap(),
        kind: None,
        publish_key: key("pk"),
        second_publisher: None,
        play_key: key("vk"),
        publish_open: false,
        play_open: false,
    }
}

#[track_caller]
fn refused(result: Result<Grant, Refusal>) -> Code {
    result.map(|grant| format!("{grant:?}")).unwrap_err().code
}

#[test]
fn a_key_or_a_token_opens_a_route_with_a_key() {
    let (gate, route) = (gate(hmac()), keyed());
    let token = signed(json!({}));
    for good in ["pk", &token] {
        assert!(ask(&gate, Act::Publish, Some(&route), good).is_ok());
    }
    for bad in ["", "vk", "pk2", "ey.x.y"] {
        assert_eq!(refused(ask(&gate, Act::Publish, Some(&route), bad)), Code::Unauthorized);
    }
    assert_eq!(refused(ask(&gate, Act::Play, Some(&route), &token)), Code::Forbidden, "it may publish only");
    assert!(ask(&gate, Act::Play, Some(&route), "vk").is_ok());
}

#[test]
fn a_token_is_needed_where_the_configuration_says_so() {
    let gate = gate(hmac());
    assert_eq!(refused(ask(&gate, Act::Publish, None, "")), Code::Unauthorized);
    assert!(ask(&gate, Act::Publish, None, &signed(json!({}))).is_ok());
    assert_eq!(refused(ask(&gate, Act::Publish, None, &signed(json!({ "patchbay": { "publish": ["other/*"] } })))), Code::Forbidden);
    let webrtc_only = json!({ "patchbay": { "publish": ["**"], "kinds": ["webrtc"] } });
    assert_eq!(refused(ask(&gate, Act::Publish, None, &signed(webrtc_only))), Code::Forbidden);
    // Playing needs none by default, so that no bad one is in the way.
    assert!(ask(&gate, Act::Play, None, "ey.x.y").is_ok());
}

#[test]
fn a_revoked_token_is_good_for_nothing() {
    let gate = gate(Jwt { revoked: vec!["7".into()], ..hmac() });
    assert_eq!(refused(ask(&gate, Act::Publish, None, &signed(json!({ "jti": "7" })))), Code::Unauthorized);
    let token = signed(json!({ "jti": "8" }));
    assert_eq!(ask(&gate, Act::Publish, None, &token).unwrap().token_id.as_deref(), Some("8"));
    gate.revoke("8", None).unwrap();
    assert_eq!(refused(ask(&gate, Act::Publish, None, &token)), Code::Unauthorized);
}

#[test]
fn bounds_come_with_the_grant_and_rights_with_the_token() {
    let gate = gate(hmac());
    let token = signed(json!({ "patchbay": { "publish": ["**"], "api": ["read"], "max_height": 360, "no_transcode": true } }));
    let grant = ask(&gate, Act::Publish, None, &token).unwrap();
    assert_eq!((grant.subject.as_deref(), grant.max_height, grant.no_transcode), (Some("cam-7"), Some(360), true));
    assert!(gate.admit_to_api(&token, Right::Read).is_ok());
    assert_eq!(gate.admit_to_api(&token, Right::Control).unwrap_err().code, Code::Forbidden);
    let control = signed(json!({ "patchbay": { "api": ["control"] } }));
    assert!(gate.admit_to_api(&control, Right::Read).is_ok() && gate.admit_to_api(&control, Right::Control).is_ok());
    assert_eq!(gate.admit_to_api("guess", Right::Read).unwrap_err().code, Code::Unauthorized);
}

#[test]
fn publishing_is_closed_to_other_machines_unless_something_opens_it() {
    let closed = Gate::new(&Auth::default()).unwrap();
    let refusal = ask(&closed, Act::Publish, None, "").map(|_| ()).unwrap_err();
    assert!(refusal.code == Code::Unauthorized && refusal.message.contains("auth.open"), "{refusal}");
    assert_eq!(refused(ask(&closed, Act::Publish, None, "some-key")), Code::Unauthorized);
    assert!(ask(&closed, Act::Play, None, "").is_ok());
    let open = Gate::new(&Auth { open: true, ..Auth::default() }).unwrap();
    assert!(ask(&open, Act::Publish, None, "").is_ok());
    let route = Route { publish_key: None, publish_open: true, ..keyed() };
    assert!(ask(&closed, Act::Publish, Some(&route), "").is_ok() && ask(&gate(hmac()), Act::Publish, Some(&route), "").is_ok());
    // `open` gives nothing away that asks for a key or a token.
    let both = Gate::new(&Auth { open: true, jwt: hmac(), ..Auth::default() }).unwrap();
    for route in [None, Some(&keyed())] {
        assert_eq!(refused(ask(&both, Act::Publish, route, "")), Code::Unauthorized);
    }
}

#[test]
fn callers_on_this_machine_and_the_operator_publish_as_they_like() {
    let gate = Gate::new(&Auth::default()).unwrap();
    let stream: StreamName = "live/a".parse().unwrap();
    let from = |peer: Option<&str>, operator| Caller { peer: peer.map(|p| p.parse().unwrap()), operator, ..Caller::default() };
    let admitted = |caller: &Caller| admit(&gate, Act::Publish, None, &stream, caller).is_ok();
    for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(admitted(&from(Some(peer), false)), "{peer}");
    }
    for peer in [Some("0.0.0.0:1"), Some("10.0.0.1:1"), Some("[::ffff:10.0.0.1]:1"), None] {
        assert!(!admitted(&from(peer, false)), "{peer:?}");
    }
    assert!(admitted(&from(None, true)));
}
