//! The embedded pages. No build step, no third party, no inline script.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::State;

/// Scripts, styles and connections of this origin only; media may come from blobs (MSE).
const CSP: &str = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; connect-src 'self' ws: wss: http: https:; \
                   worker-src 'self' blob:; object-src 'none'; base-uri 'none'";

macro_rules! assets {
    ($($file:literal, $mime:literal;)*) => {
        fn asset(name: &str) -> Option<(&'static str, &'static [u8])> {
            match name {
                $($file => Some(($mime, include_bytes!(concat!("pages/", $file)).as_slice())),)*
                _ => None,
            }
        }
    };
}

assets! {
    "index.html", "text/html; charset=utf-8";
    "play.html", "text/html; charset=utf-8";
    "publish.html", "text/html; charset=utf-8";
    "app.css", "text/css; charset=utf-8";
    "index.js", "text/javascript; charset=utf-8";
    "play.js", "text/javascript; charset=utf-8";
    "publish.js", "text/javascript; charset=utf-8";
    "webrtc.js", "text/javascript; charset=utf-8";
    "pattern.js", "text/javascript; charset=utf-8";
    "pairs.js", "text/javascript; charset=utf-8";
    "api.js", "text/javascript; charset=utf-8";
    "ui.js", "text/javascript; charset=utf-8";
    "words.js", "text/javascript; charset=utf-8";
    "icon.svg", "image/svg+xml";
}

pub fn routes() -> Router<State> {
    Router::new()
        .route("/", get(|| async { serve("index.html") }))
        .route("/play/{*stream}", get(|| async { serve("play.html") }))
        .route("/publish/{*stream}", get(|| async { serve("publish.html") }))
        .route("/assets/{file}", get(|Path(file): Path<String>| async move { serve(&file) }))
}

fn serve(name: &str) -> Response {
    let Some((mime, body)) = asset(name) else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(mime)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The pages belong to the running binary; an upgrade must not meet an old script.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}
