//! The checks that need several keys at once: names twice, ports claimed twice.

use std::collections::HashMap;
use std::path::Path as FilePath;

use patchbay_bus::{BadName, StreamName};
use patchbay_contract::{Claim, Transport};
use patchbay_inbound::certificate;
use patchbay_outbound::tls;

use super::Config;
use super::problem::{Fault, Problem};
use super::tree::{Origin, Path, Tree};
use crate::auth;

impl Config {
    /// The sections that listen for TLS, with the files of certificate and key if both are named.
    fn tls(&self) -> impl Iterator<Item = (&'static str, Option<(&FilePath, &FilePath)>)> {
        [self.http.ports(), self.rtmp.ports()].into_iter().filter_map(|of| of.tls.map(|tls| (of.section, tls.chain.zip(tls.key))))
    }

    /// The files of certificates that vouch for servers elsewhere, each with its key.
    fn vouchers(&self) -> impl Iterator<Item = (Path, &FilePath)> {
        let webhook = [("auth.webhook".into(), self.auth.webhook.ca_file.as_deref())];
        let pushes = self.pushes.iter().enumerate().map(|(i, push)| (Path::from("pushes").index(i), push.ca_file.as_deref()));
        let pulls = self.pulls.iter().enumerate().map(|(i, pull)| (Path::from("pulls").index(i), pull.ca_file.as_deref()));
        let all = webhook.into_iter().chain(pushes).chain(pulls);
        all.filter_map(|(of, file): (Path, _)| Some((of.key("ca_file"), file?)))
    }

    /// The ports this configuration wants, each by the key that says so.
    pub fn claims(&self) -> Vec<Claim> {
        let tls = [("http.tls_listen", self.http.tls_listen), ("rtmp.tls_listen", self.rtmp.tls_listen)].into_iter();
        let tls = tls.filter_map(|(owner, address)| Some(Claim { owner, transport: Transport::Tcp, address: address? }));
        let all = [
            Claim { owner: "http.listen", transport: Transport::Tcp, address: self.http.listen },
            Claim { owner: "rtmp.listen", transport: Transport::Tcp, address: self.rtmp.listen },
            Claim { owner: "webrtc.listen", transport: Transport::Udp, address: self.webrtc.listen },
        ];
        let ice_tcp = self.webrtc.tcp_address().map(|address| Claim { owner: "webrtc.tcp_listen", transport: Transport::Tcp, address });
        all.into_iter().chain(tls).chain(ice_tcp).collect()
    }
}

/// What is wrong with certificates and their keys, and with those that vouch for others. Not asked of a process that runs: there
/// the ones before stay in force.
pub fn certificates(config: &Config, tree: &Tree) -> Vec<Problem> {
    let bad = config.tls().filter_map(|(section, files)| {
        let (chain, key) = files?;
        let bad = certificate::check(chain, key).err()?;
        let path = Path::from(section).key(if bad.file == key { "tls_key_file" } else { "tls_cert_file" });
        Some(refusal(tree, &path, bad.to_string()))
    });
    let voucher = |(path, file): (Path, &FilePath)| Some(refusal(tree, &path, tls::check(file).err()?.to_string()));
    bad.chain(config.vouchers().filter_map(voucher)).collect()
}

/// What is wrong with a value, where it was written.
fn refusal(tree: &Tree, path: &Path, why: String) -> Problem {
    let path = tree.restore(path);
    Problem { origin: tree.nearest(&path).at.clone(), path, fault: Fault::Invalid(why) }
}

/// Problems between keys. `tree` knows where they were written, and which were refused already.
pub fn check(config: &Config, tree: &Tree) -> Vec<Problem> {
    let mut problems = port_conflicts(config, tree);
    problems.extend(push_names(config, tree));
    problems.extend(idle_patterns(config, tree));
    let refuse = |path: Path, why: String| refusal(tree, &path, why);
    for (i, push) in config.pushes.iter().enumerate() {
        let path = Path::from("pushes").index(i);
        // A stream key that was refused is missing from the URL; that is no news.
        let refused = |key: &str| tree.find(&tree.restore(&path.key(key))).is_some_and(|t| t.bad);
        if !refused("stream_key") && !refused("stream_key_file") {
            problems.extend(push.target().err().map(|why| refuse(path.key("url"), why)));
        }
        if push.provider.is_some() != push.key.is_some() && !refused("key") && !refused("key_file") && !refused("provider") {
            let key = if push.key.is_some() { "key" } else { "provider" };
            problems.push(refuse(path.key(key), "provider and key (or key_file) belong together".into()));
        }
        if !refused("backup_stream_key") && !refused("backup_stream_key_file") {
            problems.extend(push.backup_target().err().map(|why| refuse(path.key("backup_url"), why)));
        }
    }
    let pulls = config.pulls.iter().enumerate();
    let bad = pulls.filter_map(|(i, pull)| Some(refuse(Path::from("pulls").index(i).key("url"), pull.bad_url()?)));
    problems.extend(bad);
    for (section, files) in config.tls() {
        if files.is_none() {
            let why = format!("needs {section}.tls_cert_file and {section}.tls_key_file");
            problems.push(refuse(Path::from(section).key("tls_listen"), why));
        }
    }
    for (i, route) in config.routes.iter().enumerate() {
        let both = [
            ("publish", route.publish.is_some() && route.publish_key.is_some()),
            ("play", route.play.is_some() && route.play_key.is_some()),
        ];
        let both = both.into_iter().filter(|(_, both)| *both);
        problems.extend(both.map(|(key, _)| {
            let why = format!("\"anyone\" and a {key}_key contradict each other; give one of the two");
            refuse(Path::from("routes").index(i).key(key), why)
        }));
    }
    problems.extend(auth::problems(&config.auth).into_iter().map(|(key, why)| refuse(key.into(), why)));
    problems.extend(config.rtmp.bad_reconnect_url().map(|why| refuse("rtmp.reconnect_url".into(), why)));
    problems.extend(bad_directive(&config.log.level).map(|why| refuse("log.level".into(), why)));
    let origins = config.http.cors_origins.iter().enumerate().filter(|(_, origin)| !is_origin(origin));
    problems.extend(origins.map(|(i, origin)| {
        let why = format!("expected \"*\" or SCHEME://HOST[:PORT] such as \"https://app.example.org\", found {origin:?}");
        refuse(Path::from("http.cors_origins").index(i), why)
    }));
    problems
}

/// Browsers send an origin without path and compare it letter by letter.
fn is_origin(text: &str) -> bool {
    text == "*" || url::Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text)
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is wrong with log directives. The logger itself takes a misspelt level for the name of a module.
fn bad_directive(text: &str) -> Option<String> {
    text.split(',').map(str::trim).find_map(|directive| {
        let (module, level) = directive.split_once('=').map_or(("", directive), |(module, level)| (module, level));
        if !module.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)) {
            return Some(format!("{module:?} is no name of a module"));
        }
        if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return None;
        }
        let hint = super::schema::nearest(LEVELS.into_iter(), level).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        Some(format!("{level:?} is no level (known: {}){hint}", LEVELS.join(", ")))
    })
}

/// Patterns that no stream name can fit.
fn idle_patterns(config: &Config, tree: &Tree) -> Vec<Problem> {
    let routes = config.routes.iter().enumerate().map(|(i, route)| ("routes", i, &route.stream));
    let rules = config.rules.iter().enumerate().map(|(i, rule)| ("rules", i, &rule.stream));
    let pulls = config.pulls.iter().enumerate().map(|(i, pull)| ("pulls", i, &pull.stream));
    let mut problems = Vec::new();
    for (list, i, pattern) in routes.chain(rules).chain(pulls) {
        let text = pattern.as_str();
        // A wildcard may stand for a letter; what is left must be a name.
        let why = match text.replace('*', "x").parse::<StreamName>() {
            _ if text.starts_with('/') || text.ends_with('/') => "stream names neither begin nor end with '/'".to_owned(),
            Ok(_) | Err(BadName::TooLong) => continue,
            Err(e) => e.to_string(),
        };
        let path = tree.restore(&Path::from(list).index(i).key("stream"));
        let fault = Fault::Invalid(format!("no stream fits {text:?}: {why}"));
        problems.push(Problem { origin: tree.nearest(&path).at.clone(), path, fault });
    }
    problems
}

fn port_conflicts(config: &Config, tree: &Tree) -> Vec<Problem> {
    // A refused address stands here as its default; a conflict with that would be no news.
    let claims: Vec<Claim> = config.claims().into_iter().filter(|c| tree.find(&c.owner.into()).is_none_or(|t| !t.bad)).collect();
    let mut problems = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        for other in claims[..i].iter().filter(|other| claim.conflicts(other)) {
            // Name the one that was written; the other may be a default nobody typed.
            let (at, with) = if tree.find(&claim.owner.into()).is_some() { (claim, other) } else { (other, claim) };
            let path = Path::from(at.owner);
            let fault = Fault::Invalid(format!("{} is taken by {}{}", at.address, with, written(tree, &with.owner.into())));
            problems.push(Problem { origin: tree.nearest(&path).at.clone(), path, fault });
        }
    }
    problems
}

/// Says where the other of two was written.
fn written(tree: &Tree, path: &Path) -> String {
    match tree.find(path).map(|t| &t.at) {
        Some(Origin::File { line, .. }) => format!(", line {line}"),
        Some(Origin::Environment(name)) => format!(", environment {name}"),
        Some(Origin::Flag(_)) => ", command line".into(),
        None => ", by default".into(),
    }
}

fn push_names(config: &Config, tree: &Tree) -> Vec<Problem> {
    let mut seen = HashMap::new();
    let mut problems = Vec::new();
    for (i, push) in config.pushes.iter().enumerate() {
        let path = tree.restore(&Path::from("pushes").index(i).key("name"));
        if !push.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            let fault = Fault::Invalid(format!("expected letters, digits, '-', '_' and '.', found {:?}", push.name));
            problems.push(Problem { origin: tree.nearest(&path).at.clone(), path, fault });
        } else if let Some(first) = seen.get(&push.name) {
            let fault = Fault::Invalid(format!("{:?} names another push already{}", push.name, written(tree, first)));
            problems.push(Problem { origin: tree.nearest(&path).at.clone(), path, fault });
        } else {
            seen.insert(push.name.clone(), path);
        }
    }
    problems
}
