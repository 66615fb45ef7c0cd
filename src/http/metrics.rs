//! `/metrics` (Prometheus text), `/healthz`, `/readyz`.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::routing::get;

use super::State;

pub fn routes() -> Router<State> {
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

async fn ready(extract::State(state): extract::State<State>) -> (StatusCode, &'static str) {
    match state.draining.is_cancelled() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        false => (StatusCode::OK, "ready\n"),
    }
}

/// One family: help, type, and its samples by label set. Labels are bounded: never a name or an address.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: BTreeMap<String, f64>,
}

impl Family {
    fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, help, samples: BTreeMap::new() }
    }

    fn add(&mut self, labels: String, value: f64) {
        *self.samples.entry(labels).or_default() += value;
    }

    fn render(&self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", self.name, self.help, self.name, self.kind);
        for (labels, value) in &self.samples {
            let _ = writeln!(out, "{}{labels} {value}", self.name);
        }
    }
}

async fn metrics(extract::State(state): extract::State<State>) -> String {
    let mut streams = Family::new("patchbay_streams", "gauge", "Live streams by kind of source.");
    let mut sessions = Family::new("patchbay_sessions", "gauge", "Live sessions by role and protocol.");
    let mut bytes = Family::new("patchbay_session_bytes", "gauge", "Bytes moved by the live sessions, by role and protocol.");
    let mut lost = Family::new("patchbay_session_lost", "gauge", "Packets or frames lost by the live sessions.");
    let mut pairs = Family::new("patchbay_pairs", "gauge", "Live source/sink pairs by kinds and verdicts.");
    let mut renditions = Family::new("patchbay_renditions", "gauge", "Running encoders by codec.");
    let mut cpu = Family::new("patchbay_rendition_cpu_seconds", "gauge", "CPU time of the running encoders.");
    for stream in state.hub.streams() {
        streams.add(format!("{{kind=\"{}\"}}", stream.kind.as_deref().unwrap_or("none")), 1.0);
        for r in &stream.renditions {
            let label = format!("{{codec=\"{}\"}}", r.target.split('-').next().unwrap_or_default());
            renditions.add(label.clone(), 1.0);
            cpu.add(label, r.cpu_ms / 1e3);
        }
    }
    for s in state.hub.sessions() {
        let label = format!("{{role=\"{}\",protocol=\"{}\"}}", s.role, s.protocol);
        sessions.add(label.clone(), 1.0);
        bytes.add(label.clone(), s.totals.bytes as f64);
        lost.add(label, s.totals.lost as f64);
    }
    for p in state.hub.pairs() {
        let action = |v: &Option<crate::hub::view::VerdictView>| v.as_ref().map_or("waiting", |v| v.action);
        let (from, video, audio) = (p.from.as_deref().unwrap_or("none"), action(&p.video), action(&p.audio));
        pairs.add(format!("{{from=\"{from}\",to=\"{}\",video=\"{video}\",audio=\"{audio}\"}}", p.to), 1.0);
    }
    let mut pushes = Family::new("patchbay_pushes", "gauge", "Pushes by state.");
    let mut failures = Family::new("patchbay_push_failures", "gauge", "Failures in a row of all pushes.");
    for push in state.pushes.list() {
        pushes.add(format!("{{state=\"{}\"}}", push.state), 1.0);
        failures.add(String::new(), push.failures.into());
    }
    let mut pulls = Family::new("patchbay_pulls", "gauge", "Pulls by state; waiting ones are entries of the configuration.");
    state.pulls.list().iter().for_each(|pull| pulls.add(format!("{{state=\"{}\"}}", pull.state), 1.0));
    let load = state.hub.load();
    let mut budget = Family::new("patchbay_transcode_budget_cores", "gauge", "Cores that transcoding may take.");
    budget.add(String::new(), load.budget_cores);
    let mut used = Family::new("patchbay_transcode_used_cores", "gauge", "Cores that transcoding takes now.");
    used.add(String::new(), load.used_cores);
    let mut level = Family::new("patchbay_transcode_step_down", "gauge", "Steps of the ladder that are taken now.");
    level.add(String::new(), load.level as f64);
    let mut steps = Family::new("patchbay_transcode_steps_total", "counter", "Steps of the ladder taken, by direction.");
    steps.add("{direction=\"down\"}".into(), load.steps_down as f64);
    steps.add("{direction=\"up\"}".into(), load.steps_up as f64);
    let mut refused = Family::new("patchbay_transcode_refused_total", "counter", "Tracks left out because the budget was spent.");
    refused.add(String::new(), load.refused as f64);
    let mut turned_away = Family::new("patchbay_refused_total", "counter", "Peers refused, by what they wanted and reason code.");
    for refused in state.hub.refusals() {
        turned_away.add(format!("{{wanted=\"{}\",code=\"{}\"}}", refused.wanted, refused.code), refused.count as f64);
    }
    let mut build = Family::new("patchbay_build_info", "gauge", "The running build.");
    build.add(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    // What the gateways count themselves, then what the ledger knows.
    let mut out = state.recorder.render();
    let families = [
        build,
        streams,
        sessions,
        pushes,
        failures,
        pulls,
        bytes,
        lost,
        pairs,
        renditions,
        cpu,
        budget,
        used,
        level,
        steps,
        refused,
        turned_away,
    ];
    for family in families {
        family.render(&mut out);
    }
    out
}
