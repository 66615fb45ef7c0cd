//! Bodies of requests: all of one that is read as a whole must come in time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use patchbay_contract::{Code, Refusal};

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
        Ok(Err(error)) => unread(&error),
        Err(_) => {
            closing(Refusal::new(Code::RequestTimeout, format!("the body of the request must come within {} s", WHOLE_MAX.as_secs())))
        }
    }
}

/// The answer to a body that could not be read to its end.
fn unread(error: &axum::Error) -> Response {
    let too_large = std::error::Error::source(error).is_some_and(|source| source.is::<LengthLimitError>());
    closing(match too_large {
        true => Refusal::new(Code::TooLarge, format!("the body of the request is larger than {BYTES_MAX} bytes")),
        false => Refusal::new(Code::BadRequest, format!("the body of the request cannot be read: {error}")),
    })
}

/// The rest of the body is not read, so the connection ends with the answer.
fn closing(refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
