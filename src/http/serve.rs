//! Serving: accepts connections and bounds how long each may take to say what it wants.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::header;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patchbay_contract::{Code, Refusal};
use patchbay_inbound::{Accepted, Ports};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 16_384;
/// Bytes of a connection that may wait in the kernel before they are sent.
const UNSENT_MAX: u32 = 128 << 10;
/// Bytes of a connection that may wait in the server: for the same reason, and the largest head of a request.
const BUFFER_MAX: usize = 64 << 10;
/// Bytes that may wait for the kernel once they are encrypted.
const SEALED_MAX: usize = 16 << 10;
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// First byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// How long the head of a request may take, from the accept or from the end of the request before it.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long open requests may take once the process stops.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// Serves until `shutdown`; open requests are given a moment, then dropped.
pub async fn serve(ports: Ports, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    ports.follow(shutdown.clone());
    while let Some(accepted) = shutdown.run_until_cancelled(ports.accept()).await {
        // Closed without a word when there are too many: answering would cost what the limit saves.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let serving = connection(accepted, router.clone(), shutdown.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    drop(ports);
    connections.close();
    // Media responses (HTTP-FLV) end with their sessions; whoever else lingers is cut.
    _ = tokio::time::timeout(GOODBYE_MAX, connections.wait()).await;
}

async fn connection((stream, peer, tls): Accepted, router: Router, shutdown: CancellationToken) {
    // Media goes out in small pieces; waiting for fuller packets would delay it, and what waits in the kernel can no longer
    // be skipped for a viewer that lags.
    _ = stream.set_nodelay(true);
    _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
    let Some(config) = tls else { return exchange(stream, peer, router, shutdown).await };
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, secure(stream, config));
    match shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(Secured::Tls(stream)))) => exchange(stream, peer, router, shutdown).await,
        Some(Ok(Ok(Secured::Plain(stream)))) => exchange(stream, peer, Router::new().fallback(tls_only), shutdown).await,
        Some(Ok(Err(error))) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!(%peer, "no TLS handshake in time"),
        None => {}
    }
}

/// What came at the port for TLS.
enum Secured {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Does the handshake, unless the peer speaks without TLS.
async fn secure(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<Secured> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        return Ok(Secured::Plain(stream));
    }
    let mut stream = TlsAcceptor::from(config).accept(stream).await?;
    stream.get_mut().1.set_buffer_limit(Some(SEALED_MAX));
    Ok(Secured::Tls(Box::new(stream)))
}

/// The answer to every request without TLS at the port for TLS.
async fn tls_only() -> impl IntoResponse {
    let refusal = Refusal::new(Code::BadRequest, "this port speaks TLS only; ask it with https:// or wss://");
    ([(header::CONNECTION, "close")], refusal)
}

/// Requests and answers, to the end of the connection.
async fn exchange<S>(stream: S, peer: SocketAddr, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(BUFFER_MAX);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving.with_upgrades());
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "http connection failed");
    }
}
