//! [`Identity`]: what all peers have in common: certificate, addresses, and the crypto library.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use patchbay_contract::{Code, Refusal};
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::net::TcpType;
use str0m::{Candidate, IceCreds};

/// The library behind DTLS and SRTP.
pub(crate) fn crypto() -> &'static Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(str0m::crypto::from_feature_flags()))
}

/// Makes the certificate of the process (ECDSA P-256).
pub(crate) fn certificate() -> Option<DtlsCert> {
    crypto().dtls_provider.generate_certificate()
}

/// Longer than str0m's own: the fragment is what a stranger would have to guess.
pub(crate) fn credentials() -> IceCreds {
    IceCreds { ufrag: format!("{:016x}", rand::random::<u64>()), pass: format!("{:032x}", rand::random::<u128>()) }
}

/// What every peer is built with.
pub(crate) struct Identity {
    pub(crate) certificate: DtlsCert,
    /// What is announced, and what str0m takes as our addresses.
    pub(crate) candidates: Vec<SocketAddr>,
    /// The same over TCP.
    pub(crate) tcp_candidates: Vec<SocketAddr>,
}

impl Identity {
    /// The candidates of a peer.
    pub(crate) fn local_candidates(&self) -> Result<Vec<Candidate>, Refusal> {
        let udp = self.candidates.iter().map(|&address| Candidate::builder().udp().host(address).build());
        // RFC 6544 §4.1: the peer connects. Its type preference is lower than UDP's (§4.2).
        let tcp = self.tcp_candidates.iter().map(|&address| Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build());
        udp.chain(tcp).collect::<Result<_, _>>().map_err(|e| Refusal::new(Code::Internal, e.to_string()))
    }
}

/// The address str0m shall believe a datagram to `local` was sent to: itself, or behind NAT what was announced.
pub(crate) fn seen_as(candidates: &[SocketAddr], local: IpAddr) -> Option<SocketAddr> {
    let exact = candidates.iter().find(|c| c.ip() == local);
    exact.or_else(|| candidates.iter().find(|c| c.is_ipv4() == local.is_ipv4())).copied()
}
