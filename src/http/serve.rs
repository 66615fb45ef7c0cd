//! Serving: accepts connections and bounds how long each may take to say what it wants.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 16_384;
/// Bytes of a connection that may wait in the kernel before they are sent.
const UNSENT_MAX: u32 = 128 << 10;
/// Bytes of a connection that may wait in the server: for the same reason, and the largest head of a request.
const BUFFER_MAX: usize = 64 << 10;
/// How long the head of a request may take, from the accept or from the end of the request before it.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long open requests may take once the process stops.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait for their accept; the kernel caps it at its own limit. A peer beyond has to try again a second
/// later, and the 128 or so of a plain bind are there within milliseconds when many come at once.
const BACKLOG: i32 = 4_096;

/// Serves until `shutdown`; open requests are given a moment, then dropped.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    // Linux takes a second listen() as a change of the length.
    SockRef::from(&listener).listen(BACKLOG)?;
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Closed without a word when there are too many: answering would cost what the limit saves.
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let serving = connection(stream, peer, router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Of one connection, or out of descriptors: neither is a reason to stop listening.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.close();
    // Media responses (HTTP-FLV) end with their sessions; whoever else lingers is cut.
    _ = tokio::time::timeout(GOODBYE_MAX, connections.wait()).await;
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: CancellationToken) {
    // Media goes out in small pieces; waiting for fuller packets would delay it, and what waits in the kernel can no longer
    // be skipped for a viewer that lags.
    _ = stream.set_nodelay(true);
    _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
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
