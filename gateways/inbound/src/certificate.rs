//! [`Certificate`]: what a port for TLS shows, read again when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode as _;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When both files were written last.
type Written = [Option<SystemTime>; 2];

/// A certificate chain and its key.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    protocols: &'static [&'static [u8]],
    current: Mutex<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads both files, in PEM. `protocols` may be spoken inside (RFC 7301). A certificate that is out of date is taken, and
    /// logged.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub async fn load(chain: PathBuf, key: PathBuf, protocols: &'static [&'static [u8]]) -> io::Result<Arc<Self>> {
        let settings = settings(chain.clone(), key.clone(), protocols).await.map_err(io::Error::other)?;
        Ok(Arc::new(Self { chain, key, protocols, current: Mutex::new(settings) }))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ServerConfig>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.lock().clone()
    }

    /// Looks after the files. What cannot be used is logged, and the one before stays in force. Never ends.
    pub async fn follow(&self) {
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
            match settings(self.chain.clone(), self.key.clone(), self.protocols).await {
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

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct BadFile {
    /// Which.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

impl BadFile {
    fn new(file: &Path, why: impl ToString) -> Self {
        Self { file: file.to_owned(), why: why.to_string() }
    }
}

/// Whether both files belong together and are good today. Blocks.
///
/// # Errors
/// What is wrong, of the file at which it shows.
pub fn check(chain: &Path, key: &Path) -> Result<(), BadFile> {
    let certificates = certificates(chain)?;
    server(certificates.clone(), chain, key)?;
    in_force(&certificates, chain, SystemTime::now())
}

async fn settings(chain: PathBuf, key: PathBuf, protocols: &'static [&'static [u8]]) -> Result<Arc<ServerConfig>, BadFile> {
    let file = chain.clone();
    let read = tokio::task::spawn_blocking(move || {
        let certificates = certificates(&chain)?;
        let mut settings = server(certificates.clone(), &chain, &key)?;
        settings.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        if let Err(bad) = in_force(&certificates, &chain, SystemTime::now()) {
            tracing::error!(%bad, "clients will refuse the certificate");
        }
        Ok(Arc::new(settings))
    });
    read.await.map_err(|e| BadFile::new(&file, e))?
}

fn certificates(chain: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let read = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|e| BadFile::new(chain, e))? {
        none if none.is_empty() => Err(BadFile::new(chain, "there is no certificate in it")),
        some => Ok(some),
    }
}

fn server(certificates: Vec<CertificateDer<'static>>, chain: &Path, key: &Path) -> Result<ServerConfig, BadFile> {
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| BadFile::new(key, e))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| BadFile::new(chain, e))?.with_no_client_auth();
    builder.with_single_cert(certificates, secret).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => BadFile::new(key, format!("is not the key of {}", chain.display())),
        e => BadFile::new(chain, e),
    })
}

/// Whether `now` lies in the time that the certificates are good for.
fn in_force(certificates: &[CertificateDer<'_>], chain: &Path, now: SystemTime) -> Result<(), BadFile> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    for certificate in certificates {
        let certificate = x509_cert::Certificate::from_der(certificate).map_err(|e| BadFile::new(chain, e))?;
        let (validity, subject) = (certificate.tbs_certificate().validity(), certificate.tbs_certificate().subject());
        if validity.not_after.to_unix_duration() < now {
            return Err(BadFile::new(chain, format!("the certificate of {subject} has expired at {}", validity.not_after)));
        }
        if validity.not_before.to_unix_duration() > now {
            return Err(BadFile::new(chain, format!("the certificate of {subject} is not good before {}", validity.not_before)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use patchbay_certificates::make;

    use super::check;

    #[test]
    fn files_that_cannot_be_used_are_named_with_a_reason() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/certificates");
        let (good, other, old) = (make(&folder, "good", 2090), make(&folder, "other", 2090), make(&folder, "old", 2021));
        check(&good.chain, &good.key).unwrap();
        let garbage = folder.join("garbage.pem");
        std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let (none, missing) = (folder.join("none.pem"), folder.join("missing.pem"));
        std::fs::write(&none, "nothing").unwrap();
        for (chain, key, file, why) in [
            (&old.chain, &old.key, &old.chain, "has expired"),
            (&good.chain, &other.key, &other.key, "is not the key of"),
            (&garbage, &good.key, &garbage, ""),
            (&none, &good.key, &none, "no certificate in it"),
            (&missing, &good.key, &missing, ""),
            (&good.chain, &none, &none, ""),
            (&good.chain, &missing, &missing, ""),
        ] {
            let bad = check(chain, key).unwrap_err();
            assert!(bad.file == *file && bad.why.contains(why), "{bad}");
        }
    }
}
