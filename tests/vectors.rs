//! Foreign test material, made by nobody on this project: every row of the `expected.tsv` of the folders below. Found through
//! WAXWING_CORPORA; a row that disagrees stands in `vectors_listed.tsv` with its reason, a false "ok" never.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "support/outside.rs"]
mod outside;

use outside::corpora;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use waxwing::cms::algorithm::{Digest, Legacy, signature_scheme};
use waxwing::cms::enveloped::EnvelopedData;
use waxwing::cms::signed::{SignedData, digest};
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::canonical::canonical_line_ends;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::certificate::{Certificate, Purpose};
use waxwing::pki::path::{AnchorScope, PathLimits, TrustAnchor, TrustSet, validate};
use waxwing::pki::pkcs12;
use waxwing::pki::revocation::{Crl, Demand, Evidence};
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use waxwing::smime::verdict::{Layer, SmimeResult};

const FOLDERS: [&str; 13] = [
    "rfc4134",
    "rfc9216",
    "thunderbird-smime",
    "bc-cms-literals",
    "covert-content",
    "openssl-cms",
    "mimekit-smime",
    "java-utils-mail-smime",
    "notmuch",
    "autocrypt-protected-headers",
    "rfc9788-header-protection",
    "pkits",
    "pqc-cms",
];

/// A row that agrees once the legacy switch is on; its reason on the list begins with "legacy".
const LEGACY: &str = "agrees with the legacy switch on";

struct Row {
    folder: &'static str,
    file: String,
    key: String,
    operation: String,
    expected: String,
    detail: String,
    sha256: String,
    at: Timestamp,
}

impl Row {
    fn name(&self) -> String {
        format!("{}\t{}\t{}", self.folder, self.file, self.key)
    }
}

#[test]
fn foreign_vectors() {
    let Some(root) = corpora() else { return };
    let listed = listed();
    let mut seen = Vec::new();
    let mut complaints = Vec::new();
    println!("{:<28} {:>5} {:>6} {:>7}", "corpus", "rows", "agree", "listed");
    for folder in FOLDERS {
        let (mut rows, mut agree, mut excused) = (0, 0, 0);
        for row in read_rows(&root, folder) {
            rows += 1;
            let judged = judge(&root.join(folder), &row);
            let reason = listed.get(&row.name());
            match (judged, reason) {
                (Judged::Agrees, None) => agree += 1,
                (Judged::Agrees, Some(_)) => {
                    complaints.push(format!("{}: agrees now: take it off the list", row.name()))
                }
                (Judged::FalseGood(what), _) => complaints.push(format!("{}: FALSE GOOD: {what}", row.name())),
                (Judged::Disagrees(what), Some(reason)) if (what == LEGACY) != reason.starts_with("legacy") => {
                    complaints.push(format!("{}: {what}, listed because of {reason}", row.name()));
                }
                (Judged::Disagrees(_), Some(_)) => excused += 1,
                (Judged::Disagrees(what), None) => {
                    complaints.push(format!("{}: {} {}: {what}", row.name(), row.operation, row.expected));
                }
            }
            seen.push(row.name());
        }
        println!("{folder:<28} {rows:>5} {agree:>6} {excused:>7}");
    }
    for name in listed.keys().filter(|name| !seen.contains(name)) {
        complaints.push(format!("{name}: listed, but there is no such row"));
    }
    assert!(complaints.is_empty(), "{} disagreements:\n{}", complaints.len(), complaints.join("\n"));
}

/// Every mail of the set, in every form: only the one whose root is the CMS object is decrypted (EFAIL, covert content).
#[test]
fn a01_of_the_covert_content_set_only_the_original_is_decrypted() {
    let Some(root) = corpora() else { return };
    let folder = root.join("covert-content");
    let mut keys = Keys::default();
    keys.certificates.extend(certificates(&folder.join("secret-keys/manager@bigcorporation.crt")));
    keys.add(&folder.join("secret-keys/plain.key"), None);
    let mut decrypted = Vec::new();
    let mut shut = 0;
    for file in mails(&folder) {
        let octets = canonical_line_ends(&std::fs::read(&file).unwrap().into());
        let message = Entity::parse(octets.clone(), &MimeLimits::default()).unwrap();
        let opened = open(message, &keys, TrustSet::default(), "2020-10-01T00:00:00Z".parse().unwrap());
        if opened.verdict.decrypted {
            decrypted.push(file);
        } else {
            assert_eq!(opened.message, octets);
            assert_eq!(opened.operations, 0);
            shut += 1;
        }
    }
    assert_eq!(decrypted, [folder.join("01-enc/smime/00-original-mail.eml")]);
    assert!(shut >= 7, "{shut}");
}

/// The post-quantum certificates: Bouncy Castle's and the working group's are read, those that sign themselves verify, and those of the
/// hackathon have a path to their anchor; a bit changed in a signature, and there is none.
#[test]
fn post_quantum_certificates() {
    let Some(root) = corpora() else { return };
    let mut rows = Vec::new();
    for folder in ["mldsa", "mlkem", "slhdsa"] {
        let files = files(&root.join("bc-test-data/pkix/cert").join(folder), &["pem"]);
        assert!(!files.is_empty());
        for file in files {
            let certificate = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
            let kind = certificate.public_key().kind();
            let itself = certificate.is_self_issued() && !kind.name().starts_with("ML-KEM");
            if itself {
                let verify = |signature: &[u8]| {
                    let scheme =
                        signature_scheme(certificate.signature_algorithm(), None).expect("an algorithm known here");
                    certificate.public_key().verify(scheme, certificate.tbs(), signature)
                };
                let mut changed = certificate.signature().to_vec();
                changed[7] ^= 1;
                assert_eq!(
                    (verify(certificate.signature()).is_ok(), verify(&changed).is_ok()),
                    (true, false),
                    "{}",
                    file.display()
                );
            }
            rows.push((file, kind.name(), if itself { "verifies itself" } else { "read" }.to_owned()));
        }
    }
    for file in files(&root.join("pqc-cms/kyber-certificates"), &["crt"]) {
        let certificate = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
        rows.push((file, certificate.public_key().kind().name(), "read".to_owned()));
    }
    for maker in ["bc", "carl-redhound", "cryptonext"] {
        let folder = root.join("pqc-cms").join(maker);
        let anchors = certificates(&folder.join("ta.der")).into_iter().map(global).collect();
        let trust = TrustSet { anchors, ..TrustSet::default() };
        for file in files(&folder, &["der"]).into_iter().filter(|file| file.to_string_lossy().ends_with("_ee.der")) {
            let leaf = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
            let at = leaf.not_before() + SignedDuration::from_hours(24);
            let judge =
                |leaf: &Certificate| validate(leaf, &[], &trust, Purpose::Encryption, None, at, &PathLimits::default());
            let outcome = judge(&leaf).map_or_else(|error| error.to_string(), |_| "path to its anchor".to_owned());
            let mut der = leaf.der().to_vec();
            *der.last_mut().unwrap() ^= 1;
            assert!(judge(&Certificate::from_der(der.into()).unwrap()).is_err(), "{}", file.display());
            rows.push((file, leaf.public_key().kind().name(), outcome));
        }
    }
    for (file, kind, outcome) in &rows {
        println!("{:<70} {kind:<18} {outcome}", file.strip_prefix(&root).unwrap().display());
    }
    // carl-redhound's ta.der is an anchor of the same name with another key: OpenSSL 3.6 finds no issuer in it either (error 20).
    for (file, _, outcome) in rows.iter().filter(|(file, ..)| file.to_string_lossy().ends_with("_ee.der")) {
        let foreign = file.to_string_lossy().contains("carl-redhound");
        assert_eq!(outcome == "path to its anchor", !foreign, "{}: {outcome}", file.display());
    }
    assert_eq!(rows.len(), 19);
}

/// Files of a folder with one of these endings, in order.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|one| endings.iter().any(|ending| one == *ending)))
        .collect();
    found.sort();
    found
}

/// Every `.eml` below a folder.
fn mails(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|one| one == "eml") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Rows that may disagree: folder, file, key, reason.
fn listed() -> BTreeMap<String, String> {
    let text = include_str!("vectors_listed.tsv");
    let mut listed = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.rsplit_once('\t').expect("folder, file, key, reason");
        assert!(reason.len() > 10, "a reason for {name}");
        listed.insert(name.to_owned(), reason.to_owned());
    }
    listed
}

fn read_rows(root: &Path, folder: &'static str) -> Vec<Row> {
    let text = std::fs::read_to_string(root.join(folder).join("expected.tsv")).expect("expected.tsv");
    let rows = text.lines().skip(1).filter(|line| !line.is_empty()).map(|line| {
        let mut cells = line.split('\t').map(str::to_owned);
        let mut next = || cells.next().unwrap_or_default();
        let (file, key, operation, expected, detail, sha256) = (next(), next(), next(), next(), next(), next());
        let at = next().parse().unwrap_or_else(|_| "2026-07-25T17:20:00Z".parse().expect("a time"));
        Row { folder, file, key, operation, expected, detail, sha256, at }
    });
    rows.collect()
}

enum Judged {
    Agrees,
    Disagrees(String),
    /// Something was called good or opened that must not be.
    FalseGood(String),
}

fn agree(condition: bool, why: impl FnOnce() -> String) -> Judged {
    if condition { Judged::Agrees } else { Judged::Disagrees(why()) }
}

fn judge(folder: &Path, row: &Row) -> Judged {
    let octets = match std::fs::read(folder.join(&row.file)) {
        Ok(octets) => octets,
        Err(error) => return Judged::Disagrees(error.to_string()),
    };
    match row.operation.as_str() {
        "path-validate" => path_row(folder, row),
        "import" | "import p12" => import_row(row, &octets),
        _ if is_message(&row.file, &octets) => message_row(folder, row, &octets),
        _ => object_row(folder, row, &octets),
    }
}

fn is_message(file: &str, octets: &[u8]) -> bool {
    file.ends_with(".eml")
        || octets.starts_with(b"MIME-Version:")
        || (file.ends_with(".txt") && !octets.starts_with(b"-----BEGIN"))
}

// --- certificates and keys -------------------------------------------------------------------------------------------

fn path_row(folder: &Path, row: &Row) -> Judged {
    let files = folder.join("files");
    let leaf = certificates(&folder.join(&row.file)).remove(0);
    let (rsa, ed) =
        (certificates(&files.join("ca.rsa.crt")).remove(0), certificates(&files.join("ca.25519.crt")).remove(0));
    let (own, other) = if leaf.issuer() == rsa.subject() { (rsa, ed) } else { (ed, rsa) };
    let cross = row.key.contains("OTHER CA");
    let anchor = if cross { other } else { own };
    let extra: Vec<Certificate> =
        ["ca.rsa.cross.crt", "ca.25519.cross.crt"].iter().flat_map(|one| certificates(&files.join(one))).collect();
    let trust = TrustSet { anchors: vec![global(anchor)], ..TrustSet::default() };
    let purpose = if row.file.contains("encrypt") { Purpose::Encryption } else { Purpose::Signature };
    let extra = if cross { &extra[..] } else { &[] };
    let result = validate(&leaf, extra, &trust, purpose, None, row.at, &PathLimits::default());
    agree(result.is_ok() == (row.expected == "ok"), || format!("{:?}", result.err()))
}

fn import_row(row: &Row, octets: &[u8]) -> Judged {
    let password = row.key.split_whitespace().last().unwrap_or_default();
    let bundle = match pkcs12::import(octets, password) {
        Ok(bundle) => bundle,
        Err(error) => return agree(row.expected == "fail", || error.to_string()),
    };
    let count = |what: &str| -> Option<usize> {
        let words: Vec<&str> = row.detail.split(|one: char| one.is_whitespace() || one == ';').collect();
        words.windows(2).find(|pair| pair[1].starts_with(what)).and_then(|pair| pair[0].parse().ok())
    };
    let fits = count("key").is_none_or(|count| count == bundle.keys.len())
        && count("cert").is_none_or(|count| count == bundle.certificates.len());
    agree(fits && row.expected == "ok", || {
        format!("{} keys, {} certificates", bundle.keys.len(), bundle.certificates.len())
    })
}

fn certificates(file: &Path) -> Vec<Certificate> {
    std::fs::read(file).ok().and_then(|octets| Certificate::from_pem_or_der(&octets).ok()).unwrap_or_default()
}

fn global(certificate: Certificate) -> TrustAnchor {
    TrustAnchor { certificate, scope: AnchorScope::Global }
}

#[derive(Default)]
struct Keys {
    holder: SoftwareKeys,
    ids: Vec<KeyId>,
    certificates: Vec<Certificate>,
}

impl Keys {
    fn add(&mut self, file: &Path, password: Option<&str>) {
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
    fn own(&self) -> Vec<OwnKey> {
        let pairs = self.certificates.iter().map(|one| (one, KeyId::of_spki(one.public_key().spki())));
        pairs
            .filter(|(_, id)| self.ids.contains(id))
            .map(|(one, key)| OwnKey { certificate: one.clone(), key })
            .collect()
    }
    fn perform(&self, operation: KeyOperation) -> Result<KeyAnswer, waxwing::keys::KeyError> {
        match self.holder.submit(operation) {
            Submission::Ready(answer) => answer,
            Submission::Later(_) => unreachable!("keys in memory answer at once"),
        }
    }
}

/// The keys that a row names, with their certificates; and its anchors.
fn material(folder: &Path, row: &Row) -> (Keys, TrustSet) {
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

// --- messages --------------------------------------------------------------------------------------------------------

const WEAK: Legacy = Legacy { weak_ciphers: true, sha1_signatures: true, weak_keys: true, short_tags: true };

fn open(message: Entity, keys: &Keys, trust: TrustSet, at: Timestamp) -> Opened {
    open_with(message, keys, OpenContext::new(keys.own(), Arc::new(trust), at))
}

fn context(folder: &Path, row: &Row, keys: &Keys, trust: TrustSet, legacy: bool) -> OpenContext {
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
fn pkits_crls(folder: &Path) -> Arc<Evidence> {
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

fn open_with(message: Entity, keys: &Keys, context: OpenContext) -> Opened {
    let mut opener = Opener::new(message, context, || Cek::new(vec![0x5a; 32]));
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(keys.perform(operation)),
            Step::Done(opened) => return *opened,
        }
    }
}

fn message_row(folder: &Path, row: &Row, octets: &[u8]) -> Judged {
    let octets = canonical_line_ends(&Bytes::copy_from_slice(octets));
    let message = match Entity::parse(octets.clone(), &MimeLimits::default()) {
        Ok(message) => message,
        Err(error) => return agree(row.expected == "fail", || error.to_string()),
    };
    let (keys, trust) = material(folder, row);
    let weak = open_with(message.clone(), &keys, context(folder, row, &keys, trust.clone(), true));
    if row.folder != "covert-content"
        && row.expected == "policy"
        && weak.verdict.decrypted
        && !row.sha256.is_empty()
        && sha256_lf(&weak.content) != row.sha256
    {
        return Judged::Disagrees("content differs with the legacy switch on".into());
    }
    let opened = open_with(message, &keys, context(folder, row, &keys, trust, false));
    // The certificates of PKITS name no mailbox: there, what is to fail is the signature or the path.
    let pass = opened.verdict.result == SmimeResult::Pass
        || opened.verdict.signer.is_some()
        || (row.folder == "pkits" && matches!(ok_message(row, &opened), Judged::Agrees));
    match row.expected.as_str() {
        "ok" => match (ok_message(row, &opened), ok_message(row, &weak)) {
            (Judged::Disagrees(_), Judged::Agrees) => Judged::Disagrees(LEGACY.into()),
            (judged, _) => judged,
        },
        "fail" if pass => Judged::FalseGood(opened.verdict.reason),
        "fail" if row.operation == "decrypt" && opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "sig-good-untrusted" | "policy" if pass => Judged::FalseGood(opened.verdict.reason),
        "policy" if row.folder == "covert-content" && opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "no-key" if opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "policy" | "fail" | "no-key" | "sig-good-untrusted" => {
            agree(opened.verdict.decrypted || opened.message == octets, || "octets changed".into())
        }
        other => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

/// `ok`: every layer opened, every signature good with a valid path, the content as told.
fn ok_message(row: &Row, opened: &Opened) -> Judged {
    let mut why = String::new();
    for layer in &opened.verdict.layers {
        match layer {
            Layer::Encrypted { outcome: Err(reason), .. } | Layer::Compressed { outcome: Err(reason) } => {
                let _ = write!(why, "not opened: {reason}; ");
            }
            Layer::Signed { signers, .. } => {
                for signer in signers {
                    if let Err(reason) = &signer.signature {
                        let _ = write!(why, "signature: {reason}; ");
                    } else if let Err(reason) = &signer.path {
                        let _ = write!(why, "path: {reason}; ");
                    }
                }
            }
            _ => {}
        }
    }
    let expected = row.detail.matches("env[").count() + row.detail.matches("sig[").count();
    if row.detail.contains('[') && !row.detail.contains("crypto-openable") && opened.verdict.layers.len() != expected {
        let _ = write!(why, "{} layers, {expected} expected: {}; ", opened.verdict.layers.len(), opened.verdict.reason);
    }
    if opened.verdict.result == SmimeResult::PermError {
        let _ = write!(why, "{}; ", opened.verdict.reason);
    }
    if !row.sha256.is_empty() && sha256_lf(&opened.content) != row.sha256 {
        let _ = write!(why, "content differs; ");
    }
    agree(why.is_empty(), || why)
}

fn sha256_lf(octets: &[u8]) -> String {
    let mut out = Vec::with_capacity(octets.len());
    for (index, octet) in octets.iter().enumerate() {
        if *octet != b'\r' || octets.get(index + 1) != Some(&b'\n') {
            out.push(*octet);
        }
    }
    digest(Digest::Sha256, &out).iter().map(|octet| format!("{octet:02x}")).collect()
}

// --- CMS objects without a message around them -----------------------------------------------------------------------

/// DER or BER, also out of PEM.
fn der(octets: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(octets);
    let Some(begin) =
        ["-----BEGIN CMS-----", "-----BEGIN PKCS7-----"].iter().find_map(|one| text.find(one).map(|at| at + one.len()))
    else {
        return Bytes::copy_from_slice(octets);
    };
    let body: String = text[begin..].split("-----END").next().unwrap_or_default().split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).map(Bytes::from).unwrap_or_default()
}

fn object_row(folder: &Path, row: &Row, octets: &[u8]) -> Judged {
    let object = der(octets);
    let (keys, trust) = material(folder, row);
    match row.operation.as_str() {
        "parse" => {
            // A kind that S/MIME does not use, or one that it does: no crash, nothing good.
            let opened = open(wrapped(&object), &keys, trust, row.at);
            agree(opened.verdict.signer.is_none() && !opened.verdict.decrypted, || opened.verdict.reason)
        }
        // A key in several forms: each alone opens it.
        operation if row.folder == "pqc-cms" && operation.starts_with("decrypt") => {
            let alone = row.key.split('|').map(|file| {
                let mut keys = Keys::default();
                keys.add(&folder.join(file), None);
                match keys.ids.len() {
                    1 => decrypt_object(row, &object, &keys),
                    other => Judged::Disagrees(format!("{file}: {other} keys")),
                }
            });
            alone.fold(Judged::Agrees, |so_far, judged| if matches!(so_far, Judged::Agrees) { judged } else { so_far })
        }
        "decrypt" => decrypt_object(row, &object, &keys),
        "verify" | "verify-math" => verify_object(folder, row, &object, &keys, trust),
        other => Judged::Disagrees(format!("operation {other:?} is not known")),
    }
}

fn wrapped(object: &[u8]) -> Entity {
    let text = base64::engine::general_purpose::STANDARD.encode(object);
    let lines: String =
        text.as_bytes().chunks(76).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect();
    let message = format!(
        "From: x@example.org\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}"
    );
    Entity::parse(message.into(), &MimeLimits::default()).expect("a message")
}

/// The content is no MIME entity, so CMS alone is asked; through a message it must stay shut.
fn decrypt_object(row: &Row, object: &Bytes, keys: &Keys) -> Judged {
    if open(wrapped(object), keys, TrustSet::default(), row.at).verdict.decrypted && row.expected == "fail" {
        return Judged::FalseGood("decrypted".into());
    }
    let strict = decrypt(object, keys, Legacy::default());
    let result = match (row.expected.as_str(), &strict) {
        ("policy", Err(_)) => decrypt(object, keys, WEAK),
        _ => strict.clone(),
    };
    match (row.expected.as_str(), result) {
        ("ok", Ok(content)) => agree(sha256_lf(&content) == row.sha256, || "content differs".into()),
        ("ok", Err(why)) => Judged::Disagrees(why),
        ("fail", Ok(_)) => Judged::FalseGood("decrypted".into()),
        ("fail" | "policy", Err(_)) => Judged::Agrees,
        ("policy", Ok(content)) => {
            agree(row.sha256.is_empty() || sha256_lf(&content) == row.sha256, || "content differs".into())
        }
        (other, _) => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

fn decrypt(object: &Bytes, keys: &Keys, legacy: Legacy) -> Result<Bytes, String> {
    let data = EnvelopedData::parse(object, legacy).map_err(|error| error.to_string())?;
    let mut why = "no key".to_owned();
    for info in &data.recipients {
        for key in &keys.ids {
            let mut substitute = Cek::new(vec![0x5a; 32]);
            substitute.truncate(data.content.key_len());
            match info.operation(*key, data.content, substitute).map_err(|error| error.to_string()) {
                Ok(operation) => match keys.perform(operation) {
                    Ok(KeyAnswer::Cek(cek)) => match data.open(&cek) {
                        Ok(content) => return Ok(content),
                        Err(error) => why = error.to_string(),
                    },
                    Ok(_) => why = "not a CEK".into(),
                    Err(error) => why = error.to_string(),
                },
                Err(error) => why = error,
            }
        }
    }
    Err(why)
}

fn verify_object(folder: &Path, row: &Row, object: &Bytes, keys: &Keys, trust: TrustSet) -> Judged {
    let opened = open(wrapped(object), keys, trust, row.at);
    if opened.verdict.signer.is_some() {
        return Judged::FalseGood(opened.verdict.reason);
    }
    let outcome = verify(folder, row, object, keys, Legacy::default());
    let lenient = verify(folder, row, object, keys, WEAK);
    match row.expected.as_str() {
        "ok" => agree(lenient.is_ok(), || lenient.unwrap_err()),
        "fail" if lenient.is_ok() => Judged::FalseGood("verified".into()),
        "policy" if outcome.is_ok() && row.detail.contains("SHA-1") => Judged::FalseGood("SHA-1 verified".into()),
        "fail" | "policy" => Judged::Agrees,
        other => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

/// The arithmetic of every signer, the content as told.
fn verify(folder: &Path, row: &Row, object: &Bytes, keys: &Keys, legacy: Legacy) -> Result<(), String> {
    let data = SignedData::parse(object).map_err(|error| error.to_string())?;
    if row.detail.starts_with("certificate management") {
        // Its certificates are DSA and RSA-1024: left out, and said so.
        let told = !data.certificates.is_empty() || !data.odd.is_empty();
        return if data.signers.is_empty() && data.econtent.is_none() && told {
            Ok(())
        } else {
            Err("not certificates only".into())
        };
    }
    let detached = || std::fs::read(folder.join("files/ExContent.bin")).map(Bytes::from).unwrap_or_default();
    let content = data.econtent.clone().unwrap_or_else(detached);
    if data.signers.is_empty() {
        return Err("no signer".into());
    }
    for signer in &data.signers {
        let mut known = data.certificates.iter().chain(&keys.certificates);
        let certificate = known.find(|one| signer.id.names(one)).ok_or("no certificate of the signer")?;
        signer
            .verify(&data, &content, certificate, certificate.public_key(), legacy)
            .map_err(|error| error.to_string())?;
    }
    let fits = row.sha256.is_empty() || sha256_lf(&content) == row.sha256;
    if fits { Ok(()) } else { Err("content differs".into()) }
}
