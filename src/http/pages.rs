//! The embedded pages. No build step, no inline script; of third parties only the two player libraries in `vendor/`,
//! unmodified (docs/licences.md).

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::State;

/// Scripts, styles and connections of this origin only; media may come from blobs (MSE). What `script-src` adds lets
/// jsmpeg compile its decoder, which is WebAssembly, and nothing that is text. The style sheet that jsmpeg would like to
/// insert is kept out: the page has its own.
const CSP: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; media-src 'self' blob:; img-src 'self' data:; \
                   connect-src 'self' ws: wss: http: https:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'";
/// The pages belong to the running binary; an upgrade must not meet an old script.
const OF_THIS_BINARY: &str = "no-cache";
/// Vendored files have their version in their name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

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
    "ladder.js", "text/javascript; charset=utf-8";
    "screen.js", "text/javascript; charset=utf-8";
    "way-whep.js", "text/javascript; charset=utf-8";
    "way-flv.js", "text/javascript; charset=utf-8";
    "way-h5.js", "text/javascript; charset=utf-8";
    "publish.js", "text/javascript; charset=utf-8";
    "link.js", "text/javascript; charset=utf-8";
    "webrtc.js", "text/javascript; charset=utf-8";
    "pattern.js", "text/javascript; charset=utf-8";
    "pairs.js", "text/javascript; charset=utf-8";
    "api.js", "text/javascript; charset=utf-8";
    "token.js", "text/javascript; charset=utf-8";
    "ui.js", "text/javascript; charset=utf-8";
    "words.js", "text/javascript; charset=utf-8";
    "icon.svg", "image/svg+xml";
    "vendor/jsmpeg-player-6.1.2.min.js", "text/javascript; charset=utf-8";
    "vendor/jsmpeg-player.LICENSE.txt", "text/plain; charset=utf-8";
    "vendor/mpegts-1.8.2.js", "text/javascript; charset=utf-8";
    "vendor/mpegts.LICENSE.txt", "text/plain; charset=utf-8";
    "vendor/es6-promise.LICENSE.txt", "text/plain; charset=utf-8";
    "vendor/events.LICENSE.txt", "text/plain; charset=utf-8";
}

pub fn routes() -> Router<State> {
    Router::new()
        .route("/", get(|| async { serve("index.html") }))
        .route("/play/{*stream}", get(|| async { serve("play.html") }))
        // The same page; its script sees the address and takes no other way.
        .route("/h5-play/{*stream}", get(|| async { serve("play.html") }))
        .route("/publish/{*stream}", get(|| async { serve("publish.html") }))
        .route("/assets/{*file}", get(|Path(file): Path<String>| async move { serve(&file) }))
}

fn serve(name: &str) -> Response {
    let Some((mime, body)) = asset(name) else { return StatusCode::NOT_FOUND.into_response() };
    let cache = if name.starts_with("vendor/") { FOR_EVER } else { OF_THIS_BINARY };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(mime)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendored_files_are_those_that_docs_licences_records() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("src/http/pages/vendor");
        let recorded = std::fs::read_to_string(root.join("docs/licences.md")).unwrap();
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap().stdout;
            let sum = String::from_utf8(sum).unwrap().split(' ').next().unwrap().to_owned();
            let row = recorded.lines().find(|line| line.contains(&format!("`{name}`")));
            assert!(
                row.is_some_and(|row| row.contains(&format!("`{sum}`"))),
                "docs/licences.md does not say that {name} has the hash {sum}"
            );
            assert!(asset(&format!("vendor/{name}")).is_some(), "{name} is not embedded");
        }
    }

    #[test]
    fn every_script_that_a_page_names_is_embedded() {
        for page in ["index.html", "play.html", "publish.html"] {
            let (_, body) = asset(page).unwrap();
            let text = std::str::from_utf8(body).unwrap();
            for name in text.split("/assets/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(asset(name).is_some(), "{page} names {name}");
            }
        }
    }
}
