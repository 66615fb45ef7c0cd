//! WHIP in, WHEP out, and nothing between: the gateway alone, for trying browsers on it.
//!
//! `RUST_LOG=info cargo run --release -p patchbay-webrtc --example whep_echo -- 127.0.0.1:8080 127.0.0.1:8000`

#[path = "../tests/webrtc/support/hub.rs"]
mod hub;

use patchbay_contract::Gateway as _;
use patchbay_webrtc::{Config, Gateway};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let http = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let media = arguments.next().unwrap_or_else(|| "127.0.0.1:8000".into()).parse()?;
    let gateway = Gateway::bind(Config { listen: media, ..Config::default() }, hub::PassHub::new())?;
    let listener = tokio::net::TcpListener::bind(&http).await?;
    println!("POST http://{http}/whip/NAME and http://{http}/whep/NAME; media on UDP {}", gateway.local_addr());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(gateway.clone().run(shutdown.clone()));
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // Without a signal handler the process simply runs on.
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let routes = gateway.routes().into_make_service_with_connect_info::<std::net::SocketAddr>();
    axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await }).await?;
    running.await??;
    Ok(())
}
