//! TLS towards next hops.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::DashMap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};

use super::dane::ByTlsa;
use crate::config::{Exchanger, HopTls, NextHop};

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
        let none = || io::Error::new(io::ErrorKind::InvalidData, "no CA certificate in PEM form");
        Self::pem(&std::fs::read(path)?).ok_or_else(none)
    }

    /// The certificates of a PEM text, those that cannot be read left out; `None` when there is none.
    pub fn pem(text: &[u8]) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(text).filter_map(Result::ok));
        (!store.is_empty()).then(|| Self(Arc::new(store)))
    }

    /// For whoever judges clients by them.
    pub(crate) fn store(self) -> Arc<RootCertStore> {
        self.0
    }

    /// TLS whose peer has to have a certificate by these CAs; fails where there is none.
    pub(crate) fn verifying(self) -> Result<Arc<ClientConfig>, String> {
        if self.0.is_empty() {
            return Err("this system has no file of CAs; name one".into());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        builder(&provider).map(|builder| verifying(builder, self)).map_err(|error| error.to_string())
    }

    /// The same, to be changed, and with our own certificate where one is given.
    pub(crate) fn verifying_as(
        self,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<ClientConfig, String> {
        if self.0.is_empty() {
            return Err("this system has no file of CAs; name one".into());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = builder(&provider).map_err(|error| error.to_string())?.with_root_certificates(self.0);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string()),
        }
    }

    /// TLS with whoever it is.
    pub(crate) fn any_certificate() -> Result<Arc<ClientConfig>, String> {
        Tls::new(Self::none()).any.map_err(|error| error.to_string())
    }
}

/// The ways in which TLS is done.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    any: Result<Arc<ClientConfig>, rustls::Error>,
    /// By the CAs of next hops that name none.
    verified: Result<Arc<ClientConfig>, rustls::Error>,
    /// Whether those are none.
    none: bool,
    /// By the CAs of a file, each read once.
    files: DashMap<PathBuf, Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(roots: Roots) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
        let any = builder(&provider)
            .map(|b| Arc::new(b.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()));
        let none = roots.0.is_empty();
        let verified = builder(&provider).map(|b| verifying(b, roots));
        Self { provider, any, verified, none, files: DashMap::new() }
    }

    /// How TLS is done with a next hop; fails where the CAs that are to judge it cannot be had.
    pub(super) fn config(&self, hop: &NextHop) -> Result<Arc<ClientConfig>, String> {
        let words = |error: rustls::Error| error.to_string();
        if let Some(exchanger) = hop.exchanger.as_ref().filter(|one| !one.tlsa.is_empty()) {
            return self.by_tlsa(exchanger).map_err(words);
        }
        match (hop.tls, &hop.ca) {
            (HopTls::Verified, Some(file)) => {
                if let Some(config) = self.files.get(file) {
                    return Ok(config.clone());
                }
                let roots = Roots::file(file).map_err(|error| format!("ca {}: {error}", file.display()))?;
                let config = verifying(builder(&self.provider).map_err(words)?, roots);
                self.files.insert(file.clone(), config.clone());
                Ok(config)
            }
            (HopTls::Verified, None) if self.none => {
                Err("this system has no file of CAs; name one with ca = \"FILE\" beside tls = \"verified\"".into())
            }
            (HopTls::Verified, None) => self.verified.clone().map_err(words),
            _ => self.any.clone().map_err(words),
        }
    }

    /// By records that hold for one host: no session of another is taken up again.
    fn by_tlsa(&self, exchanger: &Arc<Exchanger>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = Arc::new(ByTlsa::new(Arc::clone(&self.provider), Arc::clone(exchanger)));
        let builder = builder(&self.provider)?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Arc::new(builder.with_no_client_auth()))
    }
}

fn builder(provider: &Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()
}

fn verifying(builder: ConfigBuilder<ClientConfig, WantsVerifier>, roots: Roots) -> Arc<ClientConfig> {
    Arc::new(builder.with_root_certificates(roots.0).with_no_client_auth())
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
