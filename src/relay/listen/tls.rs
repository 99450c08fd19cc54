//! TLS of a listener, from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio_rustls::TlsAcceptor;

use super::ListenError;
use crate::config::{ListenTls, Listener, TenantCertificate};
use crate::relay::hop::Roots;

/// The acceptor of a listener that offers TLS.
pub(super) fn acceptor(listener: &Listener) -> Result<Option<TlsAcceptor>, ListenError> {
    let (certificate, key) = match &listener.tls {
        ListenTls::Off => return Ok(None),
        ListenTls::StartTls { certificate, key, .. } | ListenTls::Implicit { certificate, key } => (certificate, key),
    };
    let error = |file: &Path, why: String| ListenError::Tls { name: listener.name.clone(), file: file.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|why| error(certificate, explain(&why, "certificate")))?;
    if chain.is_empty() {
        return Err(error(
            certificate,
            "no CERTIFICATE in it; the listener's certificate and its intermediates belong here, as PEM".into(),
        ));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| error(key, explain(&why, "private key")))?;
    let signing = aws_lc_rs::sign::any_supported_type(&private).map_err(|why| {
        error(
            key,
            format!("the private key cannot be used ({why}); RSA from 2048 bits, P-256, P-384, P-521 and Ed25519 can"),
        )
    })?;
    let certified = rustls::sign::CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // Unknown: the key cannot say what its public half is.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(error(
                key,
                format!("this private key is not that of the first certificate in {}", certificate.display()),
            ));
        }
        Err(why) => return Err(error(certificate, format!("the first certificate cannot be used ({why})"))),
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|why| error(certificate, why.to_string()))?;
    let wanted = listener.tenant.as_ref().and_then(|tenant| tenant.certificate.as_ref());
    let builder = match wanted {
        None => builder.with_no_client_auth(),
        // Without one TLS is done too, so that it is SMTP that says what is missing.
        Some(TenantCertificate { ca, .. }) => {
            let roots = Roots::file(ca).map_err(|why| error(ca, why.to_string()))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.store(), provider);
            let verifier = verifier.allow_unauthenticated().build().map_err(|why| error(ca, why.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// Whether a client's certificate, which its CAs were checked for in the handshake, bears a name of the listener's tenant.
pub(super) fn is_tenants(listener: &Listener, chain: Option<&[CertificateDer<'_>]>) -> bool {
    let wanted = listener.tenant.as_ref().and_then(|tenant| tenant.certificate.as_ref());
    let (Some(wanted), Some(first)) = (wanted, chain.and_then(<[_]>::first)) else { return false };
    let Ok(certificate) = ParsedCertificate::try_from(first) else { return false };
    wanted.names.iter().any(|name| {
        ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    })
}

fn explain(error: &PemError, wanted: &str) -> String {
    match error {
        PemError::Io(why) => format!("cannot be read: {why}"),
        PemError::NoItemsFound => format!("no {wanted} in it; it has to be PEM, not encrypted"),
        other => format!("is no PEM file with a {wanted}: {other}"),
    }
}
