//! Who a server is, by the TLSA records of its host (RFC 7672): nobody else's word counts.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::Exchanger;
use crate::discovery::smimea::{Association, Matching, Selector, Usage};

/// Certificates of a server that are looked at.
const CHAIN: usize = 10;

/// Takes a certificate that one of these records is about: DANE-EE (3) whatever it says itself, DANE-TA (2) where it has a path to the
/// CA that is meant, is valid now and bears one of the names.
#[derive(Debug)]
pub(super) struct ByTlsa {
    provider: Arc<CryptoProvider>,
    exchanger: Arc<Exchanger>,
}

impl ByTlsa {
    pub(super) fn new(provider: Arc<CryptoProvider>, exchanger: Arc<Exchanger>) -> Self {
        Self { provider, exchanger }
    }

    fn records(&self, usage: Usage) -> impl Iterator<Item = &Association> {
        self.exchanger.tlsa.iter().filter(move |one| one.usage == usage)
    }

    /// Whether the server's certificate has a path to this CA, and a name that is meant.
    fn leads_to(
        &self,
        ca: &CertificateDer<'_>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let mut roots = RootCertStore::empty();
        if roots.add(ca.clone().into_owned()).is_err() {
            return false;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let Ok(verifier) = verifier else { return false };
        let mut names = self.exchanger.names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
        names.any(|name| verifier.verify_server_cert(end_entity, intermediates, &name, &[], now).is_ok())
    }
}

/// Whether a record is about a certificate; one that cannot be read is about none.
fn is_about(record: &Association, certificate: &CertificateDer<'_>) -> bool {
    match record.selector {
        Selector::Certificate => record.matches_der(certificate, &[]),
        Selector::PublicKey => ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| record.matches_der(certificate, &parsed.subject_public_key_info())),
    }
}

impl ServerCertVerifier for ByTlsa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // RFC 7672 section 3.1.1: neither names nor dates count here.
        if self.records(Usage::DaneEe).any(|record| is_about(record, end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        let intermediates = intermediates.get(..CHAIN).unwrap_or(intermediates);
        for record in self.records(Usage::DaneTa) {
            // RFC 7672 section 3.1.2: servers send the CA's certificate too. A whole one in the record does as well.
            let whole = (record.selector, record.matching) == (Selector::Certificate, Matching::Exact);
            let own = whole.then(|| CertificateDer::from(record.data.as_ref()));
            let sent = intermediates.iter().filter(|one| is_about(record, one)).cloned();
            let mut cas = own.into_iter().chain(sent);
            if cas.any(|ca| self.leads_to(&ca, end_entity, intermediates, now)) {
                return Ok(ServerCertVerified::assertion());
            }
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::pki::authority::{Issued, NewKey, Recipe, issue};

    const MX: &str = "mx.partner.example";

    fn server(host: &str, ca: Option<&Issued>, age: i64) -> Issued {
        let now = Timestamp::now() - SignedDuration::from_hours(24 * age);
        let recipe = Recipe::authority("server", now, NewKey::P256);
        let recipe = Recipe {
            ca: None,
            hosts: vec![host.to_owned()],
            key_usage: vec!["digitalSignature"],
            email_protection: Some(false),
            not_after: now + SignedDuration::from_hours(24 * 30),
            ..recipe
        };
        issue(&recipe, ca)
    }

    fn der(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from(issued.certificate.der().to_vec())
    }

    fn taken(records: Vec<Association>, chain: &[&Issued]) -> bool {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let names = vec![MX.to_owned(), "partner.example".to_owned()];
        let verifier = ByTlsa::new(provider, Arc::new(Exchanger { tlsa: records, names }));
        let chain: Vec<_> = chain.iter().map(|one| der(one)).collect();
        let (first, rest) = chain.split_first().unwrap();
        // The name that TLS was begun with is not asked: the names that the DNS gave are.
        let name = ServerName::try_from("elsewhere.example").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(Timestamp::now().as_second().unsigned_abs()));
        verifier.verify_server_cert(first, rest, &name, &[], now).is_ok()
    }

    fn every(of: &Issued, usage: Usage) -> Vec<Association> {
        let of = &of.certificate;
        let selectors = [Selector::Certificate, Selector::PublicKey];
        let matchings = [Matching::Exact, Matching::Sha256, Matching::Sha512];
        let all = selectors.into_iter().flat_map(|selector| matchings.map(|matching| (selector, matching)));
        all.map(|(selector, matching)| Association::of(of, usage, selector, matching)).collect()
    }

    #[test]
    fn dane_ee_is_one_certificate_whatever_it_says_of_itself() {
        let (own, other) = (server("wrong.example", None, 300), server(MX, None, 0));
        for record in every(&own, Usage::DaneEe) {
            assert!(taken(vec![record.clone()], &[&own]), "{record}");
            assert!(!taken(vec![record.clone()], &[&other]), "{record}");
            assert!(!taken(vec![record.clone()], &[&other, &own]), "{record}: of the server, not of its chain");
            let both =
                vec![Association::of(&other.certificate, Usage::DaneEe, record.selector, record.matching), record];
            assert!(taken(both, &[&own]));
        }
    }

    #[test]
    fn dane_ta_is_a_ca_with_name_and_dates() {
        let ca = issue(&Recipe::authority("CA", Timestamp::now(), NewKey::P256), None);
        let stranger = issue(&Recipe::authority("Stranger", Timestamp::now(), NewKey::P256), None);
        let (good, below) = (server(MX, Some(&ca), 0), server("partner.example", Some(&ca), 0));
        let (misnamed, expired) = (server("other.example", Some(&ca), 0), server(MX, Some(&ca), 300));
        let foreign = server(MX, Some(&stranger), 0);
        for record in every(&ca, Usage::DaneTa) {
            assert!(taken(vec![record.clone()], &[&good, &ca]), "{record}");
            assert!(taken(vec![record.clone()], &[&below, &ca]), "{record}: the domain's name");
            for (what, wrong) in [("name", &misnamed), ("expired", &expired), ("another CA", &foreign)] {
                assert!(!taken(vec![record.clone()], &[wrong, &ca]), "{record}: {what}");
            }
            assert!(!taken(vec![record.clone()], &[&foreign, &stranger]), "{record}");
            let whole = (record.selector, record.matching) == (Selector::Certificate, Matching::Exact);
            assert_eq!(taken(vec![record.clone()], &[&good]), whole, "{record}: the CA is not sent");
        }
        assert!(!taken(every(&good, Usage::DaneTa), &[&good, &ca]), "a server is no CA");
        assert!(!taken(every(&ca, Usage::DaneEe), &[&good, &ca]));
        assert!(!taken(every(&good, Usage::PkixEe), &[&good, &ca]));
        assert!(!taken(Vec::new(), &[&good, &ca]));
    }
}
