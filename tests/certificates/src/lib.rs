//! Certificates for tests: each vouches for itself and is good for this machine.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// A certificate and its key, both PEM.
pub struct Made {
    /// The certificate.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes one that is good from 2020 to the begin of the year `until`, as `NAME-cert.pem` and `NAME-key.pem` in `folder`.
///
/// # Panics
/// When it cannot be written.
pub fn make(folder: &Path, name: &str, until: i32) -> Made {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let write = |what: &str, label: &str, der: &[u8]| {
        let path = folder.join(format!("{name}-{what}.pem"));
        let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
        std::fs::write(&path, text).expect("written");
        path
    };
    Made { chain: write("cert", "CERTIFICATE", certificate.der()), key: write("key", "PRIVATE KEY", &key.serialize_der()) }
}
