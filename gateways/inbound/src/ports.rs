//! [`Ports`]: a plain TCP port and perhaps one for TLS, which share whatever bounds their owner sets.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::certificate::Certificate;
use crate::port;

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It cannot be had.
    #[error("{key}: cannot listen on {address}: {source}; is another program using the port?")]
    Port {
        /// Configuration key of the port.
        key: String,
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to show on the port of TLS.
    #[error("{section}.tls_cert_file, {section}.tls_key_file: {source}")]
    Certificate {
        /// Configuration section of the port.
        section: &'static str,
        /// What is wrong with the files.
        source: io::Error,
    },
}

/// What to listen on.
#[derive(Clone, Copy, Debug)]
pub struct Listen<'a> {
    /// Configuration section: its keys are `listen`, `tls_listen`, `tls_cert_file` and `tls_key_file`.
    pub section: &'static str,
    /// Without TLS.
    pub plain: SocketAddr,
    /// With TLS.
    pub tls: Option<Tls<'a>>,
}

/// A port for TLS.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// Where.
    pub address: SocketAddr,
    /// Certificate chain, PEM.
    pub chain: Option<&'a Path>,
    /// Its key, PEM.
    pub key: Option<&'a Path>,
    /// Protocols that may be spoken inside (RFC 7301); none are named when empty.
    pub protocols: &'static [&'static [u8]],
}

/// A connection, who opened it, and what to do TLS with where that is to be done.
pub type Accepted = (TcpStream, SocketAddr, Option<Arc<ServerConfig>>);

/// See the module.
pub struct Ports {
    plain: TcpListener,
    tls: Option<(TcpListener, Arc<Certificate>)>,
}

impl Ports {
    /// Opens them.
    ///
    /// # Errors
    /// When one cannot be had, or there is no certificate.
    pub async fn bind(listen: Listen<'_>) -> Result<Self, BindError> {
        let section = listen.section;
        let tls = match listen.tls {
            None => None,
            Some(tls) => {
                let certificate = certificate(tls).await.map_err(|source| BindError::Certificate { section, source })?;
                Some((open(format!("{section}.tls_listen"), tls.address)?, certificate))
            }
        };
        Ok(Self { plain: open(format!("{section}.listen"), listen.plain)?, tls })
    }

    /// Where the plain port is.
    pub fn address(&self) -> Option<SocketAddr> {
        self.plain.local_addr().ok()
    }

    /// Where the port for TLS is, if there is one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Looks after the certificate's files from now on, in a task.
    pub fn follow(&self, shutdown: CancellationToken) {
        if let Some((_, certificate)) = &self.tls {
            let certificate = certificate.clone();
            tokio::spawn(async move { shutdown.run_until_cancelled(certificate.follow()).await });
        }
    }

    /// The next connection to either. Nothing is lost when this is dropped while it waits.
    pub async fn accept(&self) -> Accepted {
        let secure = async {
            match &self.tls {
                Some((listener, certificate)) => {
                    let (stream, peer) = port::accept(listener).await;
                    (stream, peer, Some(certificate.current()))
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            (stream, peer) = port::accept(&self.plain) => (stream, peer, None),
            secure = secure => secure,
        }
    }
}

async fn certificate(tls: Tls<'_>) -> io::Result<Arc<Certificate>> {
    let (Some(chain), Some(key)) = (tls.chain, tls.key) else { return Err(io::Error::other("both are needed")) };
    Certificate::load(chain.to_owned(), key.to_owned(), tls.protocols).await
}

fn open(key: String, address: SocketAddr) -> Result<TcpListener, BindError> {
    port::open(address, false).and_then(TcpListener::from_std).map_err(|source| BindError::Port { key, address, source })
}
