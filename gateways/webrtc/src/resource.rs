//! The URL of a session (RFC 9725 §4.2, §4.3): its end, trickled candidates, ICE restarts.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use patchbay_contract::{Cause, Code, Refusal};
use str0m::IceCreds;
use tokio::sync::oneshot;

use crate::directory::{Card, SessionKey};
use crate::sdp::Fragment;
use crate::signalling::{App, FRAGMENT, Request};
use crate::worker::Command;

/// ICE restarts of one session: beyond any roaming; each costs the agent memory.
const RESTARTS_MAX: u32 = 64;
/// How long a request waits for the worker.
const WORKER_WAIT: Duration = Duration::from_secs(2);
const ALLOW: &str = "DELETE, GET, HEAD, OPTIONS, PATCH";

/// What tells the ICE sessions of one resource apart.
pub(crate) fn etag(card: &Card) -> String {
    format!("\"{:x}\"", card.restarts)
}

fn gone() -> Refusal {
    Refusal::new(Code::SessionNotFound, "no such session; it may have ended")
}

pub(crate) async fn session(
    State(app): State<App>,
    Path(id): Path<String>,
    method: Method,
    request: Request,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = SessionKey::parse(&id).ok_or_else(gone)?;
    let card = app.shared.directory.get(key).ok_or_else(gone)?;
    // The URL itself is a secret of 128 bits; a token, when given, must be the creator's.
    if request.credentials.token().is_some() && request.credentials.token() != card.token.as_deref() {
        return Err(Refusal::new(Code::Unauthorized, "this session was created with another token"));
    }
    match method {
        Method::DELETE => {
            let (done, wait) = oneshot::channel();
            ask(&app, &card, Command::Close(key, Cause::peer("deleted"), done))?;
            // If the worker is slow the session still ends; the answer only comes earlier.
            let _ = tokio::time::timeout(WORKER_WAIT, wait).await;
            Ok(StatusCode::OK.into_response())
        }
        Method::PATCH => patch(&app, key, &card, &request, &body).await,
        Method::GET | Method::HEAD => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, ALLOW)]).into_response()),
    }
}

fn ask(app: &App, card: &Card, command: Command) -> Result<(), Refusal> {
    let busy = |_| Refusal::new(Code::TooMany, "the media worker is busy; try again in a moment");
    app.shared.mailboxes[card.worker].try_send(command).map_err(|e| busy(e.to_string()))
}

/// Trickled candidates are accepted and not needed: an ICE-lite agent learns addresses from the peer's checks. Another
/// user name fragment is an ICE restart.
async fn patch(app: &App, key: SessionKey, card: &Card, request: &Request, body: &[u8]) -> Result<Response, Refusal> {
    request.expect_type(FRAGMENT)?;
    let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadRequest, "the fragment is not UTF-8"))?;
    let fragment = Fragment::read(text)?;
    let Some(condition) = request.headers.get(header::IF_MATCH) else {
        let words = "send If-Match: the session's ETag for candidates, * for an ICE restart";
        return Err(Refusal::new(Code::PreconditionRequired, words));
    };
    if condition != "*" && *condition != *etag(card) {
        return Err(Refusal::new(Code::PreconditionFailed, "the ETag in If-Match is of an ICE session that was restarted"));
    }
    match (fragment.ufrag, fragment.pwd) {
        (Some(ufrag), pwd) if ufrag != card.remote_ufrag => {
            let pass = pwd.ok_or_else(|| Refusal::new(Code::BadRequest, "an ICE restart needs a=ice-pwd beside its new a=ice-ufrag"))?;
            restart(app, key, card, IceCreds { ufrag, pass }, &fragment.mid.unwrap_or_else(|| "0".into())).await
        }
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

async fn restart(app: &App, key: SessionKey, card: &Card, remote: IceCreds, mid: &str) -> Result<Response, Refusal> {
    if card.restarts >= RESTARTS_MAX {
        return Err(Refusal::new(Code::TooMany, format!("the session was restarted {RESTARTS_MAX} times; create a new one")));
    }
    let (done, wait) = oneshot::channel();
    ask(app, card, Command::Restart(key, remote, done))?;
    let (ours, card) = tokio::time::timeout(WORKER_WAIT, wait).await.ok().and_then(Result::ok).ok_or_else(gone)?;
    let mut body =
        format!("a=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", ours.ufrag, ours.pass);
    let udp = app.identity.candidates.iter().map(|address| (126, "udp", address, ""));
    let tcp = app.identity.tcp_candidates.iter().map(|address| (90, "tcp", address, " tcptype passive"));
    for (n, (preference, proto, address, role)) in udp.chain(tcp).enumerate() {
        // RFC 8445 §5.1.2.1, with the type preferences of the answer.
        let priority = (preference << 24) + ((65_535 - n) << 8) + 255;
        // Writing to a String does not fail.
        let _ = write!(body, "a=candidate:{} 1 {proto} {priority} {} {} typ host{role}\r\n", n + 1, address.ip(), address.port());
    }
    body += "a=end-of-candidates\r\n";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, etag(&card))], body).into_response())
}
