//! Addresses that people type from habit, because another server taught them, turned into ours before anything is routed.
//!
//! Refuses: to touch an address of our own, and to judge names and keys; the route that an alias leads to does.

use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use patchbay_bus::StreamName;
use url::form_urlencoded;

/// First parts of our own addresses. What begins with one is never an alias.
const OWN: &[&str] = &["v1", "assets", "metrics", "healthz", "readyz", "whip", "whep", "webrtc", "flv", "h5", "play", "h5-play", "publish"];

/// What an address from elsewhere means here.
#[derive(Debug, PartialEq, Eq)]
enum Alias {
    /// Answer it as if this had been asked.
    Rewrite(String),
    /// A page: send the browser to this, because pages read the stream's name from their address.
    Redirect(String),
}

/// Wraps the whole router: what it rewrites has not been routed yet.
pub async fn apply(mut request: Request, next: Next) -> Response {
    match resolve(request.method(), request.uri(), wants_page(request.headers())) {
        None => next.run(request).await,
        Some(Alias::Redirect(to)) => Redirect::temporary(&to).into_response(),
        Some(Alias::Rewrite(to)) => {
            // Pieces of an address that was one: it is one again. If not, the router answers for the address as typed.
            if let Ok(uri) = to.parse() {
                *request.uri_mut() = uri;
            }
            next.run(request).await
        }
    }
}

/// Whether a person asks, and not a player.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn resolve(method: &Method, uri: &Uri, wants_page: bool) -> Option<Alias> {
    let path = uri.path().strip_prefix('/')?;
    let mut query = Query::of(uri);
    if let Some(way) = match path.trim_end_matches('/') {
        "rtc/v1/whip" | "index/api/whip" => Some("whip"),
        "rtc/v1/whep" | "index/api/whep" => Some("whep"),
        _ => None,
    } {
        let (app, stream) = (query.take("app"), query.take("stream")?);
        return query.rewrite(way, &format!("{}/{}", escaped(app.as_deref().unwrap_or("live")), escaped(&stream)));
    }
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if first.is_empty() || OWN.contains(&first) {
        return None;
    }
    if first == "push" && method == Method::POST {
        return query.rewrite("h5", rest);
    }
    let reads = [Method::GET, Method::HEAD].contains(method);
    let (name, last) = path.rsplit_once('/').unwrap_or(("", path));
    match last {
        "whip" | "whep" if !name.is_empty() => return query.rewrite(last, name),
        "jsmpeg" if reads && !name.is_empty() => return query.rewrite("h5", name),
        "publish" if reads && wants_page => return query.redirect("publish", name),
        _ => {}
    }
    if let Some(direction) = query.take("direction").filter(|d| d == "whip" || d == "whep") {
        return query.rewrite(&direction, path);
    }
    if !reads {
        return None;
    }
    if let Some(name) = path.strip_suffix(".jsmpeg") {
        return query.rewrite("h5", name);
    }
    if let Some(name) = path.strip_suffix(".live.flv").or_else(|| path.strip_suffix(".flv")) {
        return query.rewrite("flv", &format!("{name}.flv"));
    }
    // A dot makes it a file that a browser or a robot asks for of itself (favicon.ico, robots.txt).
    if wants_page && !last.contains('.') { query.redirect("play", path) } else { None }
}

/// The query, for taking out what only the alias needs; the rest goes on as it came.
struct Query<'a>(Vec<&'a str>);

impl<'a> Query<'a> {
    fn of(uri: &'a Uri) -> Self {
        Self(uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).collect())
    }

    /// Takes out the first value of `name` that is not empty.
    fn take(&mut self, name: &str) -> Option<String> {
        let value = |pair: &str| form_urlencoded::parse(pair.as_bytes()).next().filter(|(key, _)| key == name).map(|(_, v)| v.into_owned());
        let place = self.0.iter().position(|pair| value(pair).is_some_and(|v| !v.is_empty()))?;
        value(self.0.remove(place))
    }

    fn rewrite(&self, way: &str, name: &str) -> Option<Alias> {
        Some(Alias::Rewrite(self.address(way, name)))
    }

    /// Only for a name that a stream can have: anything else that a browser asks for stays "not found".
    fn redirect(&self, page: &str, name: &str) -> Option<Alias> {
        let (plain, _) = form_urlencoded::parse(name.as_bytes()).next()?;
        plain.parse::<StreamName>().ok()?;
        Some(Alias::Redirect(self.address(page, name)))
    }

    fn address(&self, first: &str, name: &str) -> String {
        let (name, query) = (name.trim_matches('/'), self.0.join("&"));
        format!("/{first}/{name}{}{query}", if query.is_empty() { "" } else { "?" })
    }
}

/// A name out of a query as part of a path; its slashes stay.
fn escaped(name: &str) -> String {
    name.split('/').map(|part| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &Method, wants_page: bool, table: &[(&str, &str)]) {
        for (typed, meant) in table {
            let got = match resolve(method, &typed.parse().unwrap(), wants_page) {
                Some(Alias::Rewrite(to)) => to,
                Some(Alias::Redirect(to)) => format!("→ {to}"),
                None => String::new(),
            };
            assert_eq!(&got, meant, "{method} {typed}");
        }
    }

    #[test]
    fn offers_reach_whip_and_whep_from_every_habit() {
        let table = [
            // SRS
            ("/rtc/v1/whip/?app=live&stream=x", "/whip/live/x"),
            ("/rtc/v1/whep?vhost=v&app=a/b&stream=x&token=t%26", "/whep/a/b/x?vhost=v&token=t%26"),
            ("/rtc/v1/whip/?stream=x&key=k", "/whip/live/x?key=k"),
            ("/rtc/v1/whep/?app=live&stream=%E4%BC%9A", "/whep/live/%E4%BC%9A"),
            ("/rtc/v1/whep/?app=live", ""),
            // ZLMediaKit
            ("/index/api/whip?app=live&stream=x", "/whip/live/x"),
            ("/index/api/whep?app=live&stream=x&wait=1", "/whep/live/x?wait=1"),
            // MediaMTX
            ("/x/whip", "/whip/x"),
            ("/live/x/whep?token=t", "/whep/live/x?token=t"),
            // OvenMediaEngine
            ("/app/x?direction=whip", "/whip/app/x"),
            ("/app/x?a=1&direction=whep&key=k", "/whep/app/x?a=1&key=k"),
            ("/app/x?direction=up", ""),
            // names do not leave their part of the path
            ("/rtc/v1/whip/?app=..&stream=%3Fx%2F..%23", "/whip/../%3Fx/..%23"),
        ];
        for method in [Method::POST, Method::OPTIONS] {
            check(&method, false, &table);
        }
    }

    #[test]
    fn players_reach_h5_and_flv_from_every_habit() {
        check(
            &Method::GET,
            false,
            &[
                ("/x.jsmpeg", "/h5/x"),
                ("/live/x.jsmpeg?token=t", "/h5/live/x?token=t"),
                ("/live/x/jsmpeg", "/h5/live/x"),
                ("/live/x.flv", "/flv/live/x.flv"),
                ("/live/x.live.flv?key=k", "/flv/live/x.flv?key=k"),
                ("/x.flv", "/flv/x.flv"),
                ("/live/x", ""),
                ("/push/x", ""),
            ],
        );
        check(&Method::POST, false, &[("/push/x?key=k", "/h5/x?key=k"), ("/push/live/x", "/h5/live/x"), ("/live/x.flv", ""), ("/x", "")]);
    }

    #[test]
    fn a_browser_that_asks_for_a_name_gets_its_page() {
        check(
            &Method::GET,
            true,
            &[
                ("/live/x", "→ /play/live/x"),
                ("/x?muted=0", "→ /play/x?muted=0"),
                ("/live/x/", "→ /play/live/x"),
                ("/live/%E4%BC%9A", "→ /play/live/%E4%BC%9A"),
                ("/live/x/publish?source=pattern", "→ /publish/live/x?source=pattern"),
                ("/favicon.ico", ""),
                ("/.env", ""),
                ("/a/b/c/d/e", ""),
                ("//host/x", ""),
                ("/x%2F..", ""),
                ("/publish", ""),
            ],
        );
    }

    #[test]
    fn our_own_addresses_are_never_touched() {
        for first in OWN {
            for rest in ["", "/", "/x", "/x/whip", "/x/publish", "/x.flv", "/x.jsmpeg", "/x?direction=whip"] {
                let typed = format!("/{first}{rest}");
                for (method, wants_page) in [(Method::GET, false), (Method::GET, true), (Method::POST, false)] {
                    check(&method, wants_page, &[(&typed, "")]);
                }
            }
        }
        check(&Method::GET, true, &[("/", ""), ("/?direction=whip", "")]);
        // The resource that a WHIP or WHEP answer names in Location.
        check(&Method::DELETE, false, &[("/webrtc/sessions/0123", ""), ("/live/x", "")]);
    }
}
