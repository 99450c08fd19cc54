//! TLS towards next hops.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::HopTls;

/// Where Linux distributions keep the certificates of the CAs they trust, in one file.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The CAs that a next hop with `tls = "verified"` is judged by. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// No CA: no certificate is valid.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// The system's CAs; none where the system has no such file.
    pub fn system() -> Self {
        SYSTEM_FILES.iter().find_map(|file| Self::file(Path::new(file)).ok()).unwrap_or_else(Self::none)
    }

    /// The certificates of a PEM file. Fails when it cannot be read or has no usable certificate.
    pub fn file(path: &Path) -> io::Result<Self> {
        let none =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{}: no CA certificate in PEM form", path.display()));
        Self::pem(&std::fs::read(path)?).ok_or_else(none)
    }

    /// The certificates of a PEM text, those that cannot be read left out; `None` when there is none.
    pub fn pem(text: &[u8]) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(text).filter_map(Result::ok));
        (!store.is_empty()).then(|| Self(Arc::new(store)))
    }
}

/// The two ways in which TLS is done.
pub(super) struct Tls {
    any: Result<Arc<ClientConfig>, rustls::Error>,
    verified: Result<Arc<ClientConfig>, rustls::Error>,
}

impl Tls {
    pub(super) fn new(roots: Roots) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
        Self {
            any: builder()
                .map(|b| Arc::new(b.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())),
            verified: builder().map(|b| Arc::new(b.with_root_certificates(roots.0).with_no_client_auth())),
        }
    }

    pub(super) fn config(&self, tls: HopTls) -> Result<Arc<ClientConfig>, String> {
        let config = if tls == HopTls::Verified { &self.verified } else { &self.any };
        config.clone().map_err(|error| error.to_string())
    }
}

/// Takes any certificate: who may bring any certificate gains nothing by a forged signature, so those are not checked either
/// (old servers have certificates that webpki cannot read).
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
