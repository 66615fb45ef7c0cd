//! [`Refusal`]: why something was not done, by one code that API, log line and protocol reply share.

use std::fmt;

use serde::Serialize;

macro_rules! codes {
    ($($variant:ident, $name:literal, $status:literal, $doc:literal;)*) => {
        /// Reason code of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $doc] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it appears in API bodies, log lines and protocol replies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that carries it.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, for documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

codes! {
    BadStreamName, "bad_stream_name", 400, "The stream name breaks the grammar.";
    BadRequest, "bad_request", 400, "The request does not parse or contradicts itself.";
    Unauthorized, "unauthorized", 401, "A key or token is missing or wrong.";
    Forbidden, "forbidden", 403, "The key or token is good, but not for this.";
    AddressRefused, "address_refused", 403, "The address may not be dialled from here.";
    StreamNotFound, "stream_not_found", 404, "Nobody publishes under this name.";
    SessionNotFound, "session_not_found", 404, "No such session; it may have ended.";
    NotAcceptable, "not_acceptable", 406, "No codec of the offer can be sent or received here.";
    RequestTimeout, "request_timeout", 408, "The request did not come in time.";
    StreamBusy, "stream_busy", 409, "Another publisher holds the name.";
    NotReady, "not_ready", 409, "The stream exists but nothing can be played from it yet.";
    PreconditionFailed, "precondition_failed", 412, "If-Match names a state that is over.";
    TooLarge, "too_large", 413, "More than is read at once.";
    Unsupported, "unsupported", 415, "A content type or protocol feature that is not supported.";
    Unprocessable, "unprocessable", 422, "Understood, but a part of it cannot be done.";
    PreconditionRequired, "precondition_required", 428, "The request needs an If-Match header.";
    AddressLimit, "address_limit", 429, "The peer's address has used up what one address may have.";
    TooMany, "too_many", 503, "A configured limit is reached.";
    NoTranscoder, "no_transcoder", 503, "A needed transcode cannot be started.";
    Draining, "draining", 503, "The process is about to stop.";
    Internal, "internal", 500, "A fault of patchbay; the log has more.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why something was not done, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Machine-readable reason.
    pub code: Code,
    /// For people: what failed, where, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with its words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<patchbay_bus::BadName> for Refusal {
    fn from(e: patchbay_bus::BadName) -> Self {
        Self::new(Code::BadStreamName, e.to_string())
    }
}

impl From<patchbay_bus::AlreadyLive> for Refusal {
    fn from(e: patchbay_bus::AlreadyLive) -> Self {
        Self::new(Code::StreamBusy, e.to_string())
    }
}

impl axum::response::IntoResponse for Refusal {
    /// RFC 9457 problem details.
    fn into_response(self) -> axum::response::Response {
        let status = axum::http::StatusCode::from_u16(self.code.http_status()).unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        self.into_response_as(status)
    }
}

impl Refusal {
    /// The same with a status of the protocol's own.
    pub fn into_response_as(self, status: axum::http::StatusCode) -> axum::response::Response {
        use axum::response::IntoResponse as _;
        let body = axum::Json(ProblemDetails {
            kind: format!("urn:patchbay:{}", self.code),
            title: self.code.meaning(),
            status: status.as_u16(),
            code: self.code,
            detail: self.message,
        });
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert("content-type", axum::http::HeaderValue::from_static("application/problem+json"));
        if self.code == Code::Unauthorized {
            // RFC 9110 §11.6.1: a 401 names what would help.
            headers.insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer realm=\"patchbay\""));
        }
        let not_live = self.code == Code::StreamNotFound && status == axum::http::StatusCode::CONFLICT;
        let later = matches!(self.code, Code::TooMany | Code::AddressLimit | Code::Draining | Code::NotReady | Code::NoTranscoder);
        if not_live || later {
            headers.insert("retry-after", axum::http::HeaderValue::from_static("2"));
        }
        response
    }
}

#[derive(Serialize)]
struct ProblemDetails {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: Code,
    detail: String,
}
