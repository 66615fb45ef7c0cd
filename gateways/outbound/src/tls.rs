//! What a TLS client trusts: the machine's roots, or the certificates of a file instead.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The settings of a client that verifies its server by the machine's roots, or by `ca_file` where there is one.
///
/// # Errors
/// When no root can be read.
pub async fn client(ca_file: Option<PathBuf>) -> io::Result<Arc<ClientConfig>> {
    // Files are read where blocking does no harm.
    let config = tokio::task::spawn_blocking(move || match ca_file {
        Some(file) => settings(roots_of(&file)?),
        None => from_machine(),
    });
    config.await.map_err(io::Error::other)?
}

/// Whether `ca_file` can vouch for a server. Reads it.
///
/// # Errors
/// What is wrong with it, with its name.
pub fn check(ca_file: &Path) -> io::Result<()> {
    roots_of(ca_file).map(drop)
}

fn roots_of(file: &Path) -> io::Result<RootCertStore> {
    let read = || {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        if roots.is_empty() { Err(io::Error::other("there is no certificate in it")) } else { Ok(roots) }
    };
    read().map_err(|e| io::Error::other(format!("{}: {e}", file.display())))
}

/// The machine's roots are read once.
fn from_machine() -> io::Result<Arc<ClientConfig>> {
    static KNOWN: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = settings(roots)?;
    Ok(KNOWN.get_or_init(|| config).clone())
}

fn settings(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    if roots.is_empty() {
        return Err(io::Error::other("there is no root certificate to verify a server by"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
