//! Bodies of requests: all of one that is read as a whole must come in time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// How long a body may take. One that drips is cut as well as one that never comes.
const WHOLE_MAX: Duration = Duration::from_secs(10);
/// Largest body; what reads it has smaller limits of its own.
const BYTES_MAX: usize = 2 << 20;

/// Waits for the body, unless it is a stream of media.
pub async fn wait(request: Request, next: Next) -> Response {
    let is_media = request.uri().path().starts_with("/h5/");
    if is_media || matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(WHOLE_MAX, to_bytes(body, BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, [("connection", "close")]).into_response(),
    }
}
