//! What a webhook is sent and answers, in the two forms it may have. Refuses: sockets.

use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Credentials};
use patchbay_rules::EndpointKind;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::tokens::unix_now;
use super::{Grant, Wish};
use crate::config::{Event, Form};

/// Longest reason of a refusal that is passed on, characters.
const REASON_MAX: usize = 200;

/// One call.
#[derive(Clone)]
pub struct Call {
    pub event: Event,
    /// The same for all calls of one session.
    pub id: String,
    pub stream: StreamName,
    pub kind: EndpointKind,
    pub caller: Caller,
    pub query: String,
    pub token: Option<String>,
    pub subject: Option<String>,
}

/// What it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allow: bool,
    pub reason: Option<String>,
}

impl Answer {
    pub fn yes() -> Self {
        Self { allow: true, reason: None }
    }

    fn no(reason: Option<String>) -> Self {
        let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
        Self { allow: false, reason: reason.map(clean) }
    }
}

impl Call {
    /// The question that goes with a wish.
    pub fn new(wish: &Wish<'_>, grant: &Grant) -> Self {
        let mut id = [0; 8];
        // Only tells sessions apart: if there is no chance, all are 0.
        _ = aws_lc_rs::rand::fill(&mut id);
        Self {
            event: Event::before(wish.act),
            id: format!("{:016x}", u64::from_be_bytes(id)),
            stream: wish.stream.clone(),
            kind: wish.kind,
            caller: Caller { credentials: Credentials::default(), ..wish.caller.clone() },
            query: wish.caller.credentials.query().to_owned(),
            token: wish.caller.credentials.token().map(str::to_owned),
            subject: grant.subject.as_deref().map(str::to_owned),
        }
    }

    pub fn ip(&self) -> String {
        self.caller.peer.map_or_else(String::new, |peer| peer.ip().to_canonical().to_string())
    }

    /// The body.
    pub fn body(&self, form: Form) -> Json {
        match form {
            Form::Json => json!({
                "event": self.event.name(), "id": self.id, "time": unix_now(), "stream": self.stream.as_str(), "kind": self.kind.name(),
                "protocol": self.caller.protocol, "ip": self.ip(), "agent": self.caller.agent, "query": self.query, "token": self.token,
                "subject": self.subject,
            }),
            // https://ossrs.io/lts/en-us/docs/v6/doc/http-callback
            Form::Srs => {
                let (app, stream) = self.stream.as_str().rsplit_once('/').unwrap_or(("", self.stream.as_str()));
                let param = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
                json!({
                    "action": format!("on_{}", self.event.name()), "client_id": self.id, "ip": self.ip(), "vhost": "__defaultVhost__",
                    "app": app, "stream": stream, "param": param, "stream_url": format!("/{}", self.stream), "pageUrl": "",
                })
            }
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// It is none: the other side is out of order.
pub fn read(form: Form, status: u16, body: &[u8]) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Ours {
        #[serde(default = "yes")]
        allow: bool,
        reason: Option<String>,
    }
    #[derive(Deserialize)]
    struct Srs {
        code: i64,
    }
    fn yes() -> bool {
        true
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text.trim(),
        Err(_) if status >= 400 => "",
        Err(e) => return Err(format!("its answer is no text: {e}")),
    };
    match (status, form) {
        (400..=499, _) => Ok(Answer::no(serde_json::from_str::<Ours>(text).ok().and_then(|ours| ours.reason))),
        (200, Form::Srs) => {
            let code = text.parse::<i64>().ok().or_else(|| serde_json::from_str::<Srs>(text).ok().map(|srs| srs.code));
            match code {
                Some(0) => Ok(Answer::yes()),
                Some(code) => Ok(Answer::no(Some(format!("code {code}")))),
                None => Err("its answer is neither 0 nor {\"code\": 0}".into()),
            }
        }
        (200..=299, Form::Json) if text.is_empty() => Ok(Answer::yes()),
        (200..=299, Form::Json) => match serde_json::from_str::<Ours>(text) {
            Ok(Ours { allow: true, .. }) => Ok(Answer::yes()),
            Ok(Ours { reason, .. }) => Ok(Answer::no(reason)),
            Err(_) => Err("its answer is neither empty nor {\"allow\": true}".into()),
        },
        _ => Err(format!("it answers with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_each_form_has_them() {
        let yes = Ok(Answer::yes());
        let no = |reason: &str| Ok(Answer { allow: false, reason: (!reason.is_empty()).then(|| reason.to_owned()) });
        for (form, status, body, expected) in [
            (Form::Srs, 200, "0", yes.clone()),
            (Form::Srs, 200, "{\"code\":0,\"msg\":\"ok\"}\n", yes.clone()),
            (Form::Srs, 200, "1", no("code 1")),
            (Form::Srs, 200, "{\"code\":-7}", no("code -7")),
            (Form::Srs, 403, "", no("")),
            (Form::Json, 200, "", yes.clone()),
            (Form::Json, 204, "", yes.clone()),
            (Form::Json, 200, "{\"allow\":true}", yes),
            (Form::Json, 200, "{\"allow\":false,\"reason\":\"un\\npaid\"}", no("unpaid")),
            (Form::Json, 403, "{\"reason\":\"unpaid\"}", no("unpaid")),
        ] {
            assert_eq!(read(form, status, body.as_bytes()), expected, "{form:?} {status} {body}");
        }
        for (form, status, body) in [
            (Form::Srs, 200, ""),
            (Form::Srs, 200, "ok"),
            (Form::Srs, 204, "0"),
            (Form::Srs, 302, "0"),
            (Form::Json, 200, "ok"),
            (Form::Json, 200, "{\"allow\":\"yes\"}"),
            (Form::Json, 302, ""),
            (Form::Json, 500, "{\"allow\":true}"),
            (Form::Json, 200, "\u{fffd}"),
        ] {
            assert!(read(form, status, body.as_bytes()).is_err(), "{form:?} {status} {body}");
        }
        assert!(read(Form::Json, 200, &[0xff]).is_err() && read(Form::Json, 403, &[0xff]).is_ok_and(|answer| !answer.allow));
    }

    #[test]
    fn the_body_is_that_of_srs() {
        let caller = Caller { peer: Some("[::ffff:192.0.2.1]:5".parse().unwrap()), ..Caller::default() };
        let call = Call {
            event: Event::Publish,
            id: "7f".into(),
            stream: "live/room/a".parse().unwrap(),
            kind: EndpointKind::Rtmp,
            caller,
            query: "token=t".into(),
            token: Some("t".into()),
            subject: None,
        };
        let body = call.body(Form::Srs);
        for (name, value) in [
            ("action", "on_publish"),
            ("client_id", "7f"),
            ("ip", "192.0.2.1"),
            ("vhost", "__defaultVhost__"),
            ("app", "live/room"),
            ("stream", "a"),
            ("param", "?token=t"),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
    }
}
