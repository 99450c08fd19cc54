//! CRLs and OCSP responses that others made, with their verdicts.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::outside::corpora;
use crate::pki::certificate::Purpose;
use crate::pki::path::{AnchorScope, TrustAnchor};

fn certificates(file: &Path) -> Vec<Certificate> {
    std::fs::read(file).ok().and_then(|octets| Certificate::from_pem_or_der(&octets).ok()).unwrap_or_default()
}

fn trusting(anchor: Certificate) -> TrustSet {
    let anchors = vec![TrustAnchor { certificate: anchor, scope: AnchorScope::Global }];
    TrustSet { anchors, intermediates: Vec::new(), generation: 1 }
}

/// The inputs of a row of NIST's table (RFC 5280 6.1.1), as JSON.
fn initial_policies(params: &str) -> path::InitialPolicies {
    let params: serde_json::Value = serde_json::from_str(params).unwrap();
    let flag = |name: &str| params[name].as_bool().unwrap_or(false);
    let accepted = params["user_initial_policy_set"].as_array().map(|oids| {
        let oids = oids.iter().map(|oid| oid.as_str().unwrap());
        path::InitialPolicies::one_of(oids).unwrap().accepted.unwrap()
    });
    path::InitialPolicies {
        accepted,
        explicit: flag("initial_explicit_policy"),
        inhibit_mapping: flag("initial_policy_mapping_inhibit"),
        inhibit_any: flag("initial_any_policy_inhibit"),
    }
}

/// NIST's suite with every variant of the initial policies, its CRLs included. DSA (4.1.4, 4.1.5) is not known here.
#[test]
fn pkits_with_its_crls() {
    let Some(folder) = corpora().map(|corpora| corpora.join("pkits")) else { return };
    let trust = trusting(certificates(&folder.join("certs/TrustAnchorRootCertificate.crt")).remove(0));
    let files = std::fs::read_dir(folder.join("crls")).unwrap().map(|entry| entry.unwrap().path());
    let read: Vec<_> = files.map(|file| Crl::from_pem_or_der(&std::fs::read(file).unwrap())).collect();
    // The one with the broken signature, a BIT STRING with unused bits.
    assert_eq!(read.iter().filter(|crl| crl.is_err()).count(), 1);
    let crls = read.into_iter().flatten().flatten().map(Arc::new).collect();
    let evidence = Evidence { crls, ocsp: Vec::new() };
    let table = std::fs::read_to_string(folder.join("expected-policy-variants.tsv")).unwrap();
    let at = "2026-07-25T00:00:00Z".parse().unwrap();
    let (mut agree, mut disagree) = (0, Vec::new());
    for row in table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()) {
        let limits = PathLimits { policies: initial_policies(row[5]), ..PathLimits::default() };
        let all = |names: &str| -> Vec<Certificate> {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.flat_map(|name| certificates(&folder.join("certs").join(name))).collect()
        };
        let others = all(row[3]);
        let result = match all(row[2]).first() {
            Some(leaf) => path::validate(leaf, &others, &trust, Purpose::Signature, None, at, &limits)
                .map_err(|error| error.to_string())
                .and_then(|path| {
                    match check(&path, &evidence, &Evidence::default(), &others, &trust, at, &limits).status {
                        Status::Good { until } if until >= at => Ok(()),
                        status => Err(format!("{status:?}")),
                    }
                }),
            None => Err("the leaf cannot be read".to_owned()),
        };
        if result.is_ok() == (row[6] == "ok") { agree += 1 } else { disagree.push((row[0].to_owned(), result)) }
    }
    println!("{agree} agree");
    for (id, result) in &disagree {
        println!("{id}: {result:?}");
    }
    let ids: Vec<&str> = disagree.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((ids.as_slice(), agree), (&["40104", "40105"][..], table.lines().count() - 3));
}

/// A CA of OpenSSL's with a good and a revoked certificate, and a delegated responder; answers by `openssl ocsp` itself.
struct Responder {
    folder: tempfile::TempDir,
}

const MAKE: &str = r#"
set -eu
cat > ca.cnf <<EOF
[ca]
default_ca=own
[own]
database=index.txt
serial=serial
new_certs_dir=.
certificate=ca.pem
private_key=ca.key
default_md=sha256
default_days=30
default_crl_days=7
policy=any
[any]
commonName=supplied
[root]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
[mail]
keyUsage=digitalSignature
extendedKeyUsage=emailProtection
subjectAltName=email:someone@example.org
authorityInfoAccess=OCSP;URI:http://ocsp.example.org/
crlDistributionPoints=URI:http://crl.example.org/a.crl
[responder]
keyUsage=digitalSignature
extendedKeyUsage=OCSPSigning
noCheck=ignored
[responder_checked]
keyUsage=digitalSignature
extendedKeyUsage=OCSPSigning
[not_responder]
keyUsage=digitalSignature
extendedKeyUsage=emailProtection
[req]
distinguished_name=dn
[dn]
EOF
: > index.txt; echo 10 > serial
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
key ca; openssl req -new -x509 -config ca.cnf -extensions root -key ca.key -subj /CN=Root -days 60 -out ca.pem
for name in good:mail bad:mail responder:responder checked:responder_checked liar:not_responder; do
  n=${name%%:*}; key $n
  openssl req -new -config ca.cnf -key $n.key -subj /CN=$n -out $n.csr
  openssl ca -batch -notext -config ca.cnf -extensions ${name##*:} -in $n.csr -out $n.pem
done
openssl ca -config ca.cnf -revoke bad.pem -crl_reason keyCompromise
openssl ca -config ca.cnf -gencrl -out crl.pem
key stranger; openssl req -new -x509 -config ca.cnf -extensions responder -key stranger.key -subj /CN=responder -out stranger.pem
"#;

impl Responder {
    fn new() -> Option<Self> {
        if !crate::outside::peers(&["openssl", "sh"]) {
            return None;
        }
        let responder = Self { folder: tempfile::tempdir().unwrap() };
        responder.shell(MAKE);
        Some(responder)
    }

    fn shell(&self, script: &str) {
        let out = std::process::Command::new("sh").arg("-c").arg(script).current_dir(self.folder.path()).output();
        let out = out.unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    fn certificate(&self, name: &str) -> Certificate {
        certificates(&self.folder.path().join(name)).remove(0)
    }

    /// The answer to our own request, signed by `signer`.
    fn answer(&self, about: &str, signer: &str, nonce: Option<&[u8]>) -> OcspResponse {
        let request = ocsp::request(&self.certificate(&format!("{about}.pem")), &self.certificate("ca.pem"), nonce);
        std::fs::write(self.folder.path().join("req.der"), request).unwrap();
        self.shell(&format!(
            "openssl ocsp -index index.txt -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -ndays 1 -reqin req.der -respout resp.der"
        ));
        OcspResponse::from_der(std::fs::read(self.folder.path().join("resp.der")).unwrap().into()).unwrap()
    }

    fn judge(&self, about: &str, evidence: &Evidence, later: i64) -> Judgement {
        let trust = trusting(self.certificate("ca.pem"));
        let at = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let limits = PathLimits::default();
        let leaf = self.certificate(&format!("{about}.pem"));
        let path = path::validate(&leaf, &[], &trust, Purpose::Signature, None, at, &limits).unwrap();
        check(&path, evidence, &Evidence::default(), &[], &trust, at + jiff::SignedDuration::from_hours(later), &limits)
    }
}

#[test]
fn ocsp_answers_of_openssl() {
    let Some(responder) = Responder::new() else { return };
    let judge = |about: &str, response: OcspResponse, later: i64| {
        responder.judge(about, &Evidence { crls: Vec::new(), ocsp: vec![Arc::new(response)] }, later).status
    };
    for signer in ["ca", "responder"] {
        assert!(matches!(judge("good", responder.answer("good", signer, None), 0), Status::Good { .. }), "{signer}");
        let revoked = judge("bad", responder.answer("bad", signer, None), 0);
        assert!(matches!(revoked, Status::Revoked { reason: Reason::KeyCompromise, .. }), "{signer}: {revoked:?}");
    }
    // About another certificate; stale; by one who may not; by one nobody knows under a name that may; without proof that the
    // responder's own certificate is good.
    assert!(matches!(judge("bad", responder.answer("good", "ca", None), 0), Status::Unknown { .. }));
    assert!(matches!(judge("good", responder.answer("good", "ca", None), 25), Status::Unknown { .. }));
    for signer in ["liar", "stranger", "checked"] {
        let status = judge("good", responder.answer("good", signer, None), 0);
        assert!(matches!(status, Status::Unknown { .. }), "{signer}: {status:?}");
    }
    let crl = Crl::from_pem_or_der(&std::fs::read(responder.folder.path().join("crl.pem")).unwrap()).unwrap().remove(0);
    let checked = vec![Arc::new(responder.answer("good", "checked", None))];
    let status = responder.judge("good", &Evidence { crls: vec![Arc::new(crl)], ocsp: checked }, 0).status;
    assert!(matches!(status, Status::Good { .. }), "{status:?}");
}

/// A good certificate, its issuer, and answers without and with somebody else's nonce.
pub(crate) fn answers() -> (Certificate, Certificate, Vec<u8>, Vec<u8>) {
    let responder = Responder::new().unwrap();
    let answer = |nonce: Option<&[u8]>| {
        responder.answer("good", "ca", nonce);
        std::fs::read(responder.folder.path().join("resp.der")).unwrap()
    };
    let (plain, with_nonce) = (answer(None), answer(Some(&[7; 32])));
    (responder.certificate("good.pem"), responder.certificate("ca.pem"), plain, with_nonce)
}

#[test]
fn an_ocsp_answer_is_bound_to_its_request_by_the_nonce() {
    let Some(responder) = Responder::new() else { return };
    let response = responder.answer("good", "ca", Some(&[7; 32]));
    assert_eq!(response.answers(&[7; 32]), Some(true));
    assert_eq!(response.answers(&[8; 32]), Some(false));
    assert_eq!(responder.answer("good", "ca", None).answers(&[7; 32]), None);
}

/// Where `[0] certs` begins, which is the last part.
fn certificates_at(response: &[u8]) -> usize {
    (0..response.len()).rev().find(|at| response[*at] == 0xa0 && response[at + 1] == 0x82).unwrap()
}

#[test]
fn a_tampered_answer_or_crl_is_not_believed() {
    let Some(responder) = Responder::new() else { return };
    responder.answer("good", "ca", None);
    let octets = std::fs::read(responder.folder.path().join("resp.der")).unwrap();
    let crl = std::fs::read(responder.folder.path().join("crl.pem")).unwrap();
    let crl = Crl::from_pem_or_der(&crl).unwrap().remove(0).der().to_vec();
    for at in 0..octets.len().max(crl.len()) {
        let flipped = |octets: &[u8]| {
            let mut octets = octets.to_vec();
            if let Some(octet) = octets.get_mut(at) {
                *octet ^= 1;
            }
            octets
        };
        let tampered: Vec<Arc<OcspResponse>> =
            OcspResponse::from_der(flipped(&octets).into()).ok().map(Arc::new).into_iter().collect();
        let crls: Vec<Arc<Crl>> = Crl::from_der(flipped(&crl).into()).ok().map(Arc::new).into_iter().collect();
        if at < octets.len() {
            // The certificates beside the answer are not signed: the issuer's signature needs none of them.
            let status = responder.judge("good", &Evidence { crls: Vec::new(), ocsp: tampered.clone() }, 0).status;
            let beside = at >= certificates_at(&octets);
            assert!(beside || matches!(status, Status::Unknown { .. }), "octet {at}: {status:?}");
        }
        if at < crl.len() {
            let status = responder.judge("good", &Evidence { crls: crls.clone(), ocsp: Vec::new() }, 0).status;
            assert!(matches!(status, Status::Unknown { .. }), "octet {at}: {status:?}");
        }
    }
}

#[test]
fn what_would_tell_more_is_named() {
    let Some(responder) = Responder::new() else { return };
    let judgement = responder.judge("good", &Evidence::default(), 0);
    let Need::Ocsp { uri, .. } = &judgement.needs[0] else { panic!("{judgement:?}") };
    assert_eq!(uri, "http://ocsp.example.org/");
    assert_eq!(judgement.needs[1], Need::Crl { uri: "http://crl.example.org/a.crl".into() });
}

#[test]
fn hostile_octets_are_refused() {
    for seed in [&[][..], &[0x30, 0x80], &[0x30, 3, 0x0a, 1, 6]] {
        ocsp::fuzz_ocsp(seed);
        crl::fuzz_crl(seed);
    }
    assert_eq!(
        OcspResponse::from_der(bytes::Bytes::from_static(&[0x30, 3, 0x0a, 1, 6])).unwrap_err(),
        EvidenceError::NoAnswer("unauthorized")
    );
    let Some(folder) = corpora() else { return };
    let answer = std::fs::read(folder.join("pyca-vectors/x509/ocsp/ocsp-army.deps.mil-resp.der")).unwrap();
    assert!(OcspResponse::from_der(answer.into()).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_octets(data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        ocsp::fuzz_ocsp(&data);
        crl::fuzz_crl(&data);
    }
}
