//! One HTTP request to a webhook over a connection of its own: sent, answered, closed.
//!
//! Refuses: redirects, servers that do not prove who they are where https is asked for, answers without end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use patchbay_outbound::{Policy, tls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::call::{Answer, Call, read};
use super::tokens::unix_now;
use crate::config::{self, Form};

/// Longest answer that is read, bytes.
const ANSWER_MAX: usize = 16 << 10;

/// Where calls go, and in which form.
pub struct Target {
    url: Url,
    form: Form,
    key: Option<hmac::Key>,
    /// Certificates that vouch for the server, instead of the machine's.
    ca_file: Option<PathBuf>,
    /// Read at the first call.
    trust: OnceCell<Arc<ClientConfig>>,
}

impl Target {
    /// As configured; `None` without a URL.
    ///
    /// # Errors
    /// What is wrong with the URL; not the URL itself, which may hold a secret.
    pub fn new(config: &config::Webhook) -> Result<Option<Self>, String> {
        let Some(text) = &config.url else { return Ok(None) };
        let url = Url::parse(text.reveal()).map_err(|e| e.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("expected https://HOST[:PORT]/PATH or http://HOST[:PORT]/PATH".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it may have no user name and password; set webhook.secret, and check the signature".into());
        }
        let key = config.secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Ok(Some(Self { url, form: config.form, key, ca_file: config.ca_file.clone(), trust: OnceCell::new() }))
    }
}

/// Asks; `Err` says what failed, without the URL.
pub async fn send(target: &Target, call: &Call) -> Result<Answer, String> {
    let request = request(target, call)?;
    let host = match target.url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => return Err("its URL has no host".into()),
    };
    let port = target.url.port_or_known_default().unwrap_or(80);
    let stream = Policy::ALL.connect(&host, port).await.map_err(|e| format!("it cannot be reached: {e}"))?;
    match target.url.scheme() {
        "https" => exchange(secure(target, stream, host).await.map_err(|e| format!("TLS: {e}"))?, target, request).await,
        _ => exchange(stream, target, request).await,
    }
}

/// The connection once the server has proved to be `host`.
async fn secure(target: &Target, stream: TcpStream, host: String) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let trust = target.trust.get_or_try_init(|| tls::client(target.ca_file.clone())).await?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    TlsConnector::from(trust.clone()).connect(name, stream).await
}

async fn exchange<S>(stream: S, target: &Target, request: Request<Body>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let body = to_bytes(Body::new(response.into_body()), ANSWER_MAX).await.map_err(|e| format!("its answer: {e}"))?;
        read(target.form, status, &body)
    };
    // The connection does the work; it ends when the exchange does, or when this is dropped.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        closed = connection => match closed {
            Ok(()) => exchange.await,
            Err(e) => Err(e.to_string()),
        },
    }
}

fn request(target: &Target, call: &Call) -> Result<Request<Body>, String> {
    let body = call.body(target.form).to_string();
    let url = &target.url;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("patchbay/", env!("CARGO_PKG_VERSION")));
    let request = match &target.key {
        Some(key) => {
            let time = unix_now().to_string();
            let signature = hmac::sign(key, format!("{time}.{body}").as_bytes());
            let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request.header("patchbay-timestamp", time).header("patchbay-signature", format!("sha256={hex}"))
        }
        None => request,
    };
    request.body(Body::from(body)).map_err(|e| e.to_string())
}
