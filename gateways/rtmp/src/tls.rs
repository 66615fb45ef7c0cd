//! [`Certificate`]: what the RTMPS port shows, read again when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When both files were written last.
type Written = [Option<SystemTime>; 2];

/// A certificate chain and its key.
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: Mutex<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads both files, in PEM.
    pub(crate) async fn load(chain: PathBuf, key: PathBuf) -> io::Result<Arc<Self>> {
        let settings = settings(chain.clone(), key.clone()).await?;
        Ok(Arc::new(Self { chain, key, current: Mutex::new(settings) }))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ServerConfig>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.lock().clone()
    }

    /// Looks after the files. What cannot be used is logged, and the one before stays in force. Never ends.
    pub(crate) async fn follow(&self) {
        let mut read = self.written().await;
        let mut seen = read;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let before = std::mem::replace(&mut seen, self.written().await);
            // Somebody may still be writing until both look the same twice.
            if seen == read || seen != before {
                continue;
            }
            read = seen;
            match settings(self.chain.clone(), self.key.clone()).await {
                Ok(settings) => {
                    *self.lock() = settings;
                    tracing::info!(file = %self.chain.display(), "certificate read again");
                }
                Err(error) => tracing::error!(%error, "certificate not read again; the one before stays"),
            }
        }
    }

    async fn written(&self) -> Written {
        let of = async |path: &Path| tokio::fs::metadata(path).await.and_then(|m| m.modified()).ok();
        [of(&self.chain).await, of(&self.key).await]
    }
}

async fn settings(chain: PathBuf, key: PathBuf) -> io::Result<Arc<ServerConfig>> {
    tokio::task::spawn_blocking(move || read(&chain, &key)).await.map_err(io::Error::other)?
}

fn read(chain: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let bad = |path: &Path, why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|e| bad(chain, &e))?;
    if certificates.is_empty() {
        return Err(bad(chain, &"there is no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
    Ok(Arc::new(builder.with_single_cert(certificates, secret).map_err(|e| bad(chain, &e))?))
}
