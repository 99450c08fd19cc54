//! Keys, certificates, anchors and contexts that the rows name.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use waxwing::cms::algorithm::Legacy;
use waxwing::keys::{Cek, KeyAnswer, KeyError, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::Entity;
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use waxwing::pki::pkcs12;
use waxwing::pki::revocation::{Crl, Demand, Evidence};
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};

use crate::rows::Row;

pub fn certificates(file: &Path) -> Vec<Certificate> {
    std::fs::read(file).ok().and_then(|octets| Certificate::from_pem_or_der(&octets).ok()).unwrap_or_default()
}

pub fn global(certificate: Certificate) -> TrustAnchor {
    TrustAnchor { certificate, scope: AnchorScope::Global }
}

#[derive(Default)]
pub struct Keys {
    pub holder: SoftwareKeys,
    pub ids: Vec<KeyId>,
    pub certificates: Vec<Certificate>,
}

impl Keys {
    pub fn add(&mut self, file: &Path, password: Option<&str>) {
        let Ok(mut octets) = std::fs::read(file) else { return };
        // One key file claims that its public key has two unused bits, which nobody's parser need take.
        if let Some(at) = octets.windows(6).position(|one| one == [0xa1, 0x64, 0x03, 0x62, 0x02, 0x04]) {
            octets[at + 4] = 0;
        }
        let Ok(bundle) = pkcs12::read_any(&octets, password) else { return };
        self.certificates.extend(bundle.certificates);
        for key in bundle.keys {
            if let Ok(key) = SoftwareKey::from_pkcs8(&key) {
                self.ids.push(self.holder.insert(key));
            }
        }
    }
    pub fn own(&self) -> Vec<OwnKey> {
        let pairs = self.certificates.iter().map(|one| (one, KeyId::of_spki(one.public_key().spki())));
        pairs
            .filter(|(_, id)| self.ids.contains(id))
            .map(|(one, key)| OwnKey { certificate: one.clone(), key })
            .collect()
    }
    pub fn perform(&self, operation: KeyOperation) -> Result<KeyAnswer, KeyError> {
        match self.holder.submit(operation) {
            Submission::Ready(answer) => answer,
            Submission::Later(_) => unreachable!("keys in memory answer at once"),
        }
    }
}

/// The keys that a row names, with their certificates; and its anchors.
pub fn material(folder: &Path, row: &Row) -> (Keys, TrustSet) {
    let mut keys = Keys::default();
    let mut anchors: Vec<&str> = Vec::new();
    let mut add = |file: &str, certificate: &str, password: Option<&str>| {
        keys.certificates.extend(certificates(&folder.join(certificate)));
        keys.add(&folder.join(file), password);
    };
    match row.folder {
        "rfc4134" => {
            add("files/BobPrivRSAEncrypt.pri", "files/allcerts.pem", None);
            anchors.push("files/roots.pem");
        }
        "thunderbird-smime" => {
            let names: &[&str] = if row.key.contains("Eve") { &["Eve"] } else { &["Bob", "Fran", "Fran-ec"] };
            for name in names {
                add(&format!("keys/{name}.key"), &format!("keys/{name}.crt"), None);
            }
            anchors.push("data/TestCA.pem");
        }
        "covert-content" => add("secret-keys/plain.key", "secret-keys/manager@bigcorporation.crt", None),
        "pkits" => anchors.push("certs/TrustAnchorRootCertificate.crt"),
        "mimekit-smime" => anchors.push("smime/StartComCertificationAuthority.crt"),
        "notmuch" => {
            add("../autocrypt-protected-headers/bob.key", "../autocrypt-protected-headers/bob.crt", None);
            anchors.push("smime/ca.crt");
        }
        "autocrypt-protected-headers" => {
            add("bob.key", "bob.crt", None);
            anchors.push("sample-ca.pem");
        }
        "rfc9788-header-protection" => {
            add("../rfc9216/files/bob.decrypt.key", "../rfc9216/files/bob.encrypt.crt", None);
            anchors.push("../rfc9216/files/ca.rsa.crt");
        }
        "pqc-cms" => add("", &format!("../{}", row.key), None),
        _ => {
            for file in row.key.split_whitespace().filter(|one| one.contains('.')) {
                add(file, file, None);
            }
        }
    }
    let anchors = anchors.iter().flat_map(|file| certificates(&folder.join(file))).map(global).collect();
    (keys, TrustSet { anchors, ..TrustSet::default() })
}

pub const WEAK: Legacy = Legacy { weak_ciphers: true, sha1_signatures: true, weak_keys: true, short_tags: true };

pub fn open(message: Entity, keys: &Keys, trust: TrustSet, at: Timestamp) -> Opened {
    open_with(message, keys, OpenContext::new(keys.own(), Arc::new(trust), at))
}

pub fn context(folder: &Path, row: &Row, keys: &Keys, trust: TrustSet, legacy: bool) -> OpenContext {
    let mut context = OpenContext::new(keys.own(), Arc::new(trust), row.at);
    if legacy {
        context.legacy = WEAK;
        context.path.legacy = true;
    }
    if row.folder == "pkits" {
        context.revocation = Demand::Require;
        context.evidence = pkits_crls(folder);
    }
    context
}

/// Read once: their signatures are checked once too, as in a gateway that keeps them.
pub fn pkits_crls(folder: &Path) -> Arc<Evidence> {
    static CRLS: OnceLock<Arc<Evidence>> = OnceLock::new();
    let read = || {
        let files = std::fs::read_dir(folder.join("crls")).unwrap().map(|entry| entry.unwrap().path());
        let crls: Vec<_> =
            files.filter_map(|file| Crl::from_pem_or_der(&std::fs::read(file).unwrap()).ok()).flatten().collect();
        assert!(crls.len() > 170, "{}", crls.len());
        Arc::new(Evidence { crls: crls.into_iter().map(Arc::new).collect(), ocsp: Vec::new() })
    };
    CRLS.get_or_init(read).clone()
}

pub fn open_with(message: Entity, keys: &Keys, context: OpenContext) -> Opened {
    let mut opener = Opener::new(message, context, || Cek::new(vec![0x5a; 32]));
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(keys.perform(operation)),
            Step::Done(opened) => return *opened,
        }
    }
}
