//! The program as people call it: `kek`, `cert`, `trust`, `alias`, with good and wrong input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "server")]

#[path = "support/outside.rs"]
mod outside;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use waxwing::address::Mailbox;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::pkcs12::{Bundle, export, import};
use waxwing::policy::TrustState;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::{CertStore, Edit, NewCertificate, Note, Owner, Provenance, Revision};
use zeroize::Zeroizing;

const ANNA: &str = "anna@example.org";

struct Place {
    folder: TempDir,
}

impl Place {
    /// A folder with a KEK.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let made = place.bare(&["kek", "init", "kek"]);
        assert_eq!(made.code, 0, "{made:?}");
        place
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn bare(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("WAXWING_CONFIG")
            .output()
            .unwrap();
        Ended::from(output)
    }
    fn run(&self, arguments: &[&str]) -> Ended {
        self.bare(&[arguments, &["--store", "store", "--kek", "kek"]].concat())
    }
    fn good(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended
    }
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[arguments, &["--json"]].concat()).out).unwrap()
    }
    fn write(&self, name: &str, octets: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), octets).unwrap();
    }
    fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.path("store"), self.path("kek")).unwrap()
    }
}

#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn issued(address: &str, days: i64) -> Issued {
    issue(&Recipe::mailbox(address, Timestamp::now() + SignedDuration::from_hours(24 * days), NewKey::P256), None)
}

fn p12(parts: &[&Issued], password: &str) -> Vec<u8> {
    let bundle = Bundle {
        keys: parts.iter().map(|issued| Zeroizing::new(issued.pkcs8.to_vec())).collect(),
        certificates: parts.iter().map(|issued| issued.certificate.clone()).collect(),
        ..Bundle::default()
    };
    export(&bundle, password, "test").unwrap()
}

#[test]
fn a10_pending_certificates_are_listed_approved_and_rejected() {
    let place = Place::new();
    let (bert, carl) = ("bert@example.com", "carl@example.com");
    let (old, new) = (issued(bert, -2), issued(bert, -1));
    let others = [issued(carl, -2), issued(carl, -1)];
    place.write("old.cer", old.certificate.der());
    place.good(&["cert", "import", "old.cer", "--address", bert]);
    let digits = |issued: &Issued| -> String {
        issued.certificate.fingerprint().iter().map(|octet| format!("{octet:02x}")).collect()
    };
    let wait = |owner: &str, issued: &Issued, instead_of: Option<[u8; 32]>| {
        let provenance =
            Provenance { source: "harvest".into(), detail: "<7@mail.example>".into(), at: Timestamp::now() };
        let (certificate, trust) = (issued.certificate.clone(), TrustState::Pending);
        let note = Some(Note { why: "another key".into(), instead_of });
        let fingerprint = certificate.fingerprint();
        place
            .open()
            .revise(&Owner::parse(owner).unwrap(), &mut |_| Revision {
                add: vec![NewCertificate {
                    certificate: certificate.clone(),
                    provenance: provenance.clone(),
                    trust,
                    key: None,
                }],
                edit: vec![Edit { fingerprint, note: note.clone(), ..Edit::default() }],
                ..Revision::default()
            })
            .unwrap();
    };
    assert!(place.json(&["cert", "pending", "list"]).as_array().unwrap().is_empty());
    wait(bert, &new, Some(old.certificate.fingerprint()));
    others.iter().for_each(|one| wait(carl, one, None));
    let listed = place.json(&["cert", "pending", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let one = listed.as_array().unwrap().iter().find(|one| one["owner"] == bert).unwrap();
    assert_eq!(
        (&one["new"]["fingerprint"], &one["trusted_now"]["fingerprint"]),
        (&digits(&new).into(), &digits(&old).into())
    );
    assert_eq!((one["from_mail"].as_str(), one["why"].as_str()), (Some("<7@mail.example>"), Some("another key")));
    let table = place.good(&["cert", "pending", "list"]).out;
    assert!(
        table.lines().count() == 4 && table.contains(&digits(&new)[..16]) && table.contains(&digits(&old)[..16]),
        "{table}"
    );
    let details = place.good(&["cert", "pending", "list", bert]).out;
    assert!(
        details.contains(&digits(&new)) && details.contains(&digits(&old)) && details.contains("<7@mail.example>"),
        "{details}"
    );
    // Which of several it is has to be said.
    let ended = place.run(&["cert", "pending", "approve", carl]);
    assert!(ended.code == 2 && ended.err.contains("--fingerprint"), "{ended:?}");
    let said = place.json(&["cert", "pending", "reject", carl, "--fingerprint", &digits(&others[0])[..16]]);
    assert_eq!((said["trust"].as_str(), &said["fingerprints"][0]), (Some("blocked"), &digits(&others[0]).into()));
    assert!(place.good(&["cert", "pending", "approve", carl]).out.contains("trusted"));
    place.good(&["cert", "pending", "approve", bert]);
    assert_eq!(place.run(&["cert", "pending", "approve", bert]).code, 2, "nothing is pending any more");
    let shown = place.json(&["cert", "show", bert]);
    let of = |issued: &Issued| {
        let all = shown["certificates"].as_array().unwrap().iter();
        all.clone().find(|one| one["fingerprint"] == digits(issued)).unwrap().clone()
    };
    assert_eq!((of(&new)["trust"].as_str(), of(&new)["preferred"].as_bool()), (Some("trusted"), Some(true)));
    assert_eq!(of(&new)["instead_of"], digits(&old));
    let text = place.good(&["cert", "list", carl]).out;
    assert!(text.contains("blocked") && text.contains("trusted") && !text.contains("pending"), "{text}");
}

#[test]
fn capabilities_are_set_by_hand_shown_and_forgotten() {
    let place = Place::new();
    let bert = "bert@example.com";
    place.write("bert.cer", issued(bert, -1).certificate.der());
    place.good(&["cert", "import", "bert.cer"]);
    assert!(place.good(&["cert", "capabilities", bert]).out.contains("not known"));
    let set = place.json(&["cert", "capabilities", bert, "--set", "AES-256-CBC,aes-128-cbc,pkcs1"]);
    let one = &set["certificates"][0];
    assert_eq!(one["reads"], serde_json::json!(["AES-256-CBC", "AES-128-CBC", "RSA PKCS#1 v1.5"]));
    assert_eq!(one["said_by"]["source"], "hand");
    assert!(
        place
            .good(&["cert", "show", bert])
            .out
            .contains("reads        AES-256-CBC, AES-128-CBC, RSA PKCS#1 v1.5 (by hand")
    );
    for (wrong, said) in [("AES-512-CBC", "AES-256-GCM"), ("pkcs1", "cipher")] {
        let ended = place.run(&["cert", "capabilities", bert, "--set", wrong]);
        assert!(ended.code == 2 && ended.err.contains(said), "{ended:?}");
    }
    assert!(place.good(&["cert", "capabilities", bert, "--clear"]).out.contains("not known"));
}

#[test]
fn a_user_comes_rotates_and_leaves() {
    let place = Place::new();
    let (old, young) = (issued(ANNA, 0), issued(ANNA, 1));
    place.write("old.p12", &p12(&[&old], "secret"));
    place.write("young.p12", &p12(&[&young], "secret"));
    place.write("pw", b"secret\n");
    let first = place.good(&["cert", "import", "old.p12", "--password-file", "pw"]);
    assert!(
        first.out.contains("old.p12: anna@example.org") && first.out.contains("certificate and private key"),
        "{first:?}"
    );
    assert!(first.err.contains("made a new store"), "{first:?}");
    let again = place.good(&["cert", "import", "old.p12", "--password-file", "pw"]);
    assert!(again.out.contains("no change"), "{again:?}");
    place.good(&["cert", "import", "young.p12", "--password", "secret"]);

    let listed = place.json(&["cert", "list", ANNA]);
    let certificates = listed[0]["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2);
    assert!(certificates.iter().all(|one| one["private_key"] == true && one["trust"] == "trusted"));
    let newest = certificates[1]["fingerprint"].as_str().unwrap();
    let table = place.good(&["cert", "list"]).out;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(place.good(&["cert", "show", newest.get(..10).unwrap()]).out.contains(newest));

    assert_eq!(place.run(&["cert", "purge", ANNA]).code, 2, "neither export nor --force");
    place.write("short.p12", &p12(&[&old], "secret"));
    let refused = place.run(&["cert", "purge", ANNA, "--exported", "short.p12", "--password-file", "pw"]);
    assert!(refused.code == 2 && refused.err.contains("nothing was removed"), "{refused:?}");
    place.good(&["cert", "export", ANNA, "--output", "all.p12", "--password-file", "pw"]);
    assert_eq!(fs::metadata(place.path("all.p12")).unwrap().permissions().mode() & 0o777, 0o600);
    let bundle = import(&fs::read(place.path("all.p12")).unwrap(), "secret").unwrap();
    assert_eq!((bundle.keys.len(), bundle.certificates.len()), (2, 2));
    assert_eq!(
        place.run(&["cert", "export", ANNA, "--output", "all.p12", "--password-file", "pw"]).code,
        2,
        "not overwritten"
    );

    assert!(place.good(&["cert", "disable", ANNA]).out.contains("Nothing was revoked"));
    assert_eq!(place.json(&["cert", "list", ANNA])[0]["disabled"], true);
    place.good(&["cert", "enable", ANNA]);
    place.good(&["cert", "purge", ANNA, "--exported", "all.p12", "--password-file", "pw"]);
    assert_eq!(place.run(&["cert", "show", ANNA]).code, 2);
    assert_eq!(place.json(&["cert", "list"]), serde_json::json!([]));
}

#[test]
fn a_folder_is_imported_file_by_file_whole_or_not() {
    let place = Place::new();
    let (anna, bert, carl) = (issued(ANNA, 0), issued("bert@example.org", 0), issued("carl@example.org", 0));
    place.write("in/a.p12", &p12(&[&anna], "secret"));
    // Two certificates, of which the second comes with a key that is neither's.
    let mixed = Bundle {
        keys: vec![Zeroizing::new(bert.pkcs8.to_vec()), Zeroizing::new(anna.pkcs8.to_vec())],
        certificates: vec![bert.certificate.clone()],
        ..Bundle::default()
    };
    place.write("in/b.pfx", &export(&mixed, "secret", "mixed").unwrap());
    place.write("in/deeper/c.der", carl.certificate.der());
    place.write("in/d.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    place.write("in/e.p12", &p12(&[&carl], "other"));
    place.write("in/readme.txt", b"hello");
    let ended = place.run(&["cert", "import", "in", "--password", "secret"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.out.contains("5 files: 2 stored, 0 there already, 3 refused; 1 of other kinds left out"),
        "{ended:?}"
    );
    for (file, why) in [("b.pfx", "belongs to none"), ("d.pem", ""), ("e.p12", "password")] {
        let line = ended.err.lines().find(|line| line.starts_with("waxwing: ") && line.contains(file));
        assert!(line.is_some_and(|line| line.contains(why)), "{file}: {ended:?}");
    }
    let store = place.open();
    let names: Vec<String> = store.owners().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, [ANNA, "carl@example.org"]);
    let carl = store.identity(&Mailbox::parse("carl@example.org").unwrap()).unwrap();
    assert!(carl.certificates[0].key.is_none());
}

#[test]
fn a_certificate_belongs_to_whom_it_names_or_to_whom_is_named() {
    let place = Place::new();
    let mut recipe = Recipe::mailbox(ANNA, Timestamp::now(), NewKey::P256);
    recipe.mailboxes.push("anna.a@example.org".to_owned());
    let both = issue(&recipe, None);
    recipe.mailboxes.clear();
    let nobody = issue(&recipe, None);
    place.write("both.der", both.certificate.der());
    place.write("nobody.der", nobody.certificate.der());
    place.good(&["cert", "import", "both.der"]);
    let refused = place.run(&["cert", "import", "nobody.der"]);
    assert!(refused.code == 1 && refused.err.contains("--address"), "{refused:?}");
    let told = place.good(&["cert", "import", "nobody.der", "--address", "@example.org"]);
    assert!(told.out.contains("warning: the certificate names no address"), "{told:?}");
    let names: Vec<String> = place.open().owners().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["anna.a@example.org", ANNA, "@example.org"]);

    place.good(&["alias", "add", "info@example.org", ANNA]);
    let told = place.good(&["cert", "import", "both.der", "--address", "info@example.org"]);
    assert!(told.out.contains("anna@example.org") && told.out.contains("no change"), "{told:?}");
    assert_eq!(place.json(&["alias", "list"])[0]["mailbox"], ANNA);
    let looped = place.run(&["alias", "add", ANNA, "info@example.org"]);
    assert!(looped.code == 2 && looped.err.starts_with("waxwing: "), "{looped:?}");
    place.good(&["alias", "remove", "info@example.org"]);
    assert_eq!(place.run(&["alias", "remove", "info@example.org"]).code, 2);
}

#[test]
fn pending_is_approved_and_blocked_stays_blocked() {
    let place = Place::new();
    let anna = issued(ANNA, 0);
    place.write("a.der", anna.certificate.der());
    place.good(&["cert", "import", "a.der", "--trust", "pending"]);
    let trust = || place.json(&["cert", "show", ANNA])["certificates"][0]["trust"].as_str().unwrap().to_owned();
    assert_eq!(trust(), "pending");
    place.good(&["cert", "approve", ANNA]);
    assert_eq!(trust(), "trusted");
    place.good(&["cert", "block", ANNA]);
    place.good(&["cert", "approve", ANNA]);
    place.good(&["cert", "import", "a.der", "--trust", "pinned"]);
    assert_eq!(trust(), "blocked");
    let listed = place.json(&["cert", "list"]);
    place.good(&[
        "cert",
        "approve",
        ANNA,
        "--fingerprint",
        listed[0]["certificates"][0]["fingerprint"].as_str().unwrap().get(..12).unwrap(),
    ]);
    assert_eq!(trust(), "trusted");
}

#[test]
fn anchors_and_intermediates_come_and_go() {
    let place = Place::new();
    let now = Timestamp::now();
    let root = issue(&Recipe::authority("Root", now, NewKey::P256), None);
    let between = issue(&Recipe::authority("Between", now, NewKey::P256), Some(&root));
    let anna = issue(&Recipe::mailbox(ANNA, now, NewKey::P256), Some(&between));
    place.write("root.der", root.certificate.der());
    place.good(&["trust", "add", "root.der", "--domain", "example.org", "--domain", "example.net"]);
    // The chain in a PKCS#12: the intermediate is kept, the root is not trusted for it.
    let other = issue(&Recipe::authority("Other", now, NewKey::P256), None);
    let bundle = Bundle {
        keys: vec![Zeroizing::new(anna.pkcs8.to_vec())],
        certificates: vec![anna.certificate.clone(), between.certificate.clone(), other.certificate.clone()],
        ..Bundle::default()
    };
    place.write("a.p12", &export(&bundle, "x", "a").unwrap());
    place.good(&["cert", "import", "a.p12", "--password", "x"]);
    let listed = place.json(&["trust", "list"]);
    let kinds: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["anchor", "intermediate"]);
    assert_eq!(listed[0]["domains"], serde_json::json!(["example.org", "example.net"]));
    let shown = place.good(&["cert", "show", ANNA]).out;
    assert!(shown.contains("signing      path valid now") && shown.contains("encryption   path valid now"), "{shown}");
    let fingerprint = listed[0]["fingerprint"].as_str().unwrap();
    place.good(&["trust", "remove", fingerprint]);
    assert!(!place.good(&["cert", "show", ANNA]).out.contains("path valid"));
    assert_eq!(place.run(&["trust", "remove", fingerprint]).code, 2);
    place.write("anna.der", anna.certificate.der());
    let refused = place.run(&["trust", "add", "anna.der"]);
    assert!(refused.code == 2 && refused.err.contains("no CA certificate"), "{refused:?}");
}

#[test]
fn the_kek_is_private_its_own_and_never_overwritten() {
    let place = Place::new();
    place.write("a.der", issued(ANNA, 0).certificate.der());
    place.good(&["cert", "import", "a.der"]);
    let before = fs::read(place.path("kek")).unwrap();
    assert_eq!(place.bare(&["kek", "init", "kek"]).code, 2);
    assert_eq!(fs::read(place.path("kek")).unwrap(), before);
    assert_eq!(place.bare(&["kek", "init", "other", "--store", "store2"]).code, 0);
    let wrong = place.bare(&["cert", "list", "--store", "store", "--kek", "other"]);
    assert!(wrong.code == 2 && wrong.err.contains("not this store's"), "{wrong:?}");
    fs::set_permissions(place.path("kek"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = place.run(&["cert", "list"]);
    assert!(open.code == 2 && open.err.contains("chmod 600"), "{open:?}");
}

#[test]
fn wrong_input_says_what_and_what_to_do() {
    let place = Place::new();
    for (arguments, says) in [
        (&["cert", "list"][..], "there is no store"),
        (&["cert", "import", "absent.p12"], "absent.p12"),
        (&["cert", "import"], "PATH"),
        (&["cert", "show", "xyz"], "no store"),
        (&["cert", "disable", "not an address"], ""),
        (&["trust", "add", "kek"], "PEM or DER"),
        (&["alias", "add", "a@example.org", "a@example.org"], "itself"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let ended = place.run(arguments);
        assert!(ended.code == 2 && ended.err.contains(says), "{arguments:?}: {ended:?}");
    }
    // Without flags the configuration is asked, and its absence is told.
    let ended = place.bare(&["--config", "none.toml", "cert", "list"]);
    assert!(ended.code == 2 && ended.err.contains("none.toml") && ended.err.contains("--store"), "{ended:?}");
}

#[test]
fn every_help_has_an_example() {
    let place = Place::new();
    let mut todo: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = todo.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = place.bare(&arguments);
        assert_eq!(help.code, 0, "{help:?}");
        let (_, example) = help.out.rsplit_once("\n\nExample").unwrap_or_else(|| panic!("{path:?}: {}", help.out));
        assert!(
            example.lines().nth(1).is_some_and(|line| line.trim_start().starts_with("waxwing")),
            "{path:?}: {example}"
        );
        let commands =
            help.out.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        for line in commands.lines() {
            let Some(name) = line
                .strip_prefix("  ")
                .filter(|line| !line.starts_with(' '))
                .and_then(|line| line.split_whitespace().next())
            else {
                continue;
            };
            if name != "help" {
                todo.push([path.clone(), vec![name.to_owned()]].concat());
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_command_works_beside_a_process_that_holds_the_store() {
    let place = Place::new();
    let anna = issued(ANNA, 0);
    place.write("a.p12", &p12(&[&anna], "x"));
    place.good(&["alias", "add", "x@example.org", "y@example.org"]);
    let gateway = place.open();
    let mailbox = Mailbox::parse(ANNA).unwrap();
    assert!(gateway.identity(&mailbox).unwrap().certificates.is_empty());
    place.good(&["cert", "import", "a.p12", "--password", "x"]);
    gateway.refresh().unwrap();
    assert_eq!(gateway.identity(&mailbox).unwrap().certificates[0].certificate, anna.certificate);
    place.good(&["cert", "purge", ANNA, "--force"]);
    gateway.refresh().unwrap();
    assert!(gateway.identity(&mailbox).unwrap().certificates.is_empty());
    assert_eq!(gateway.alerts(), 0);
}

#[test]
fn a_weak_rsa_key_is_refused_with_its_size() {
    if !outside::peers(&["openssl"]) {
        return;
    }
    let place = Place::new();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak", "-days", "30"])
        .args(["-addext", "subjectAltName=email:anna@example.org", "-addext", "basicConstraints=CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(place.folder.path())
        .output();
    assert!(made.is_ok_and(|output| output.status.success()), "openssl makes a weak key");
    let both = [fs::read(place.path("key.pem")).unwrap(), fs::read(place.path("cert.pem")).unwrap()].concat();
    place.write("both.pem", &both);
    for file in ["both.pem", "cert.pem"] {
        let refused = place.run(&["cert", "import", file]);
        assert!(
            refused.code == 1 && refused.err.contains("1024") && refused.err.contains("2048"),
            "{file}: {refused:?}"
        );
    }
    assert!(place.open().owners().unwrap().is_empty());
}

/// The documented file is valid; what in it this version does not do yet is warned of, and nothing else but the missing KEK.
#[test]
fn config_check_warns_of_what_this_version_does_not_do() {
    let place = Place::new();
    let documented = include_str!("../docs/waxwing.toml");
    place.write("waxwing.toml", documented.as_bytes());
    let ended = place.bare(&["config", "check", "waxwing.toml", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let warnings: Vec<&str> = said["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let of_rules: Vec<&&str> = warnings.iter().filter(|warning| warning.starts_with("rule ")).collect();
    assert!(of_rules.len() == 1 && of_rules[0].contains("no robots"), "{warnings:?}");
    // A cloud that many share is trusted (A31): with nothing that tells its customers apart, and with that but for any author.
    for (more, words) in
        [("", "Microsoft 365"), ("tenant_header = \"X-Tenant: correct-horse-battery\"\n", "set senders")]
    {
        let cloud = format!("{more}trusted_networks = [\"40.107.0.0/16\"]");
        place.write(
            "waxwing.toml",
            documented.replacen("trusted_networks = [\"127.0.0.0/8\", \"::1/128\"]", &cloud, 1).as_bytes(),
        );
        let ended = place.bare(&["config", "check", "waxwing.toml"]);
        assert!(ended.code == 0 && ended.out.contains(words), "{ended:?}");
    }
}

/// A mailbox with three keys: classical, ML-DSA to sign, ML-KEM to be written to; and a key whose seed and expanded form are two keys.
#[test]
fn post_quantum_keys_are_imported_shown_and_exported() {
    use waxwing::cms::algorithm::{MlDsa, MlKem};
    let place = Place::new();
    let now = Timestamp::now();
    let ca = issue(&Recipe::authority("PQ CA", now, NewKey::MlDsa(MlDsa::MlDsa87)), None);
    let of = |key| issue(&Recipe::mailbox(ANNA, now, key), Some(&ca));
    let (classical, signs) = (of(NewKey::P256), of(NewKey::MlDsa(MlDsa::MlDsa65)));
    let opens = of(NewKey::MlKem(MlKem::MlKem768));
    place.write("anna.p12", &p12(&[&classical, &signs, &opens], "secret"));
    let done = place.good(&["cert", "import", "anna.p12", "--password", "secret"]);
    assert_eq!(done.out.matches("certificate and private key").count(), 3, "{done:?}");
    let shown = place.good(&["cert", "show", ANNA]).out;
    for name in ["P-256", "ML-DSA-65", "ML-KEM-768"] {
        assert!(shown.contains(name), "{name}: {shown}");
    }
    place.good(&["cert", "export", ANNA, "--output", "out.p12", "--password", "other"]);
    let exported = import(&fs::read(place.path("out.p12")).unwrap(), "other").unwrap();
    assert_eq!((exported.keys.len(), exported.certificates.len()), (3, 3));
    for issued in [&classical, &signs, &opens] {
        assert!(exported.keys.iter().any(|key| **key == *issued.pkcs8));
    }
}

/// A dump of a directory: one entry a certificate.
fn ldif(certificates: &[(&str, &[u8])]) -> String {
    use base64::Engine;
    let mut text = "version: 1\n\n".to_owned();
    for (name, der) in certificates {
        let value = base64::engine::general_purpose::STANDARD.encode(der);
        let folded: Vec<String> =
            value.as_bytes().chunks(70).map(|part| String::from_utf8_lossy(part).into()).collect();
        text.push_str(&format!("dn: cn={name},dc=example\nuserCertificate;binary:: {}\n\n", folded.join("\n ")));
    }
    text
}

fn rows(report: &str) -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_reader(report.as_bytes());
    reader.records().map(|row| row.unwrap()).map(|row| (row[1].to_owned(), row[2].to_owned())).collect()
}

#[test]
fn a_directory_is_imported_and_the_report_says_what_was_refused_and_lets_it_go_on() {
    let place = Place::new();
    let names: Vec<String> = (0..40).map(|number| format!("p{number}@partner.example")).collect();
    let made: Vec<Issued> = names.iter().map(|name| issued(name, 0)).collect();
    let mut entries: Vec<(&str, &[u8])> =
        names.iter().zip(&made).map(|(name, issued)| (name.as_str(), issued.certificate.der().as_ref())).collect();
    // A second generation of the first one, in the same transaction.
    let renewed = issued(&names[0], 1);
    entries.push(("again", renewed.certificate.der()));
    entries.push(("broken", b"0\x03\x02\x01\x01"));
    place.write("all.ldif", ldif(&entries).as_bytes());
    // An alias may hold no certificates: it costs itself alone.
    place.write("one.der", made[1].certificate.der());
    place.good(&["cert", "import", "one.der"]);
    place.good(&["cert", "purge", &names[1], "--force"]);
    place.good(&["alias", "add", &names[39], &names[38]]);
    let ended = place.run(&["cert", "import", "all.ldif", "--report", "report.csv"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.out.contains("42 files and values: 41 stored, 0 there already, 1 refused"), "{ended:?}");
    let report = fs::read_to_string(place.path("report.csv")).unwrap();
    let told = rows(&report);
    assert_eq!(told.len(), 42);
    let refused: Vec<&(String, String)> = told.iter().filter(|(_, outcome)| outcome == "refused").collect();
    assert!(
        refused.len() == 1 && refused[0].0.contains("all.ldif:") && refused[0].0.contains("cn=broken"),
        "{refused:?}"
    );
    {
        let store = place.open();
        assert_eq!(store.owners().unwrap().len(), 39, "p39 is another name of p38");
        let first = store.identity(&Mailbox::parse(&names[0]).unwrap()).unwrap();
        assert_eq!(first.certificates.len(), 2);
        assert!(store.verify().unwrap().is_empty(), "everything written is named");
    }
    // A report that is there is not overwritten; with --resume only what was refused is tried again.
    assert_eq!(place.run(&["cert", "import", "all.ldif", "--report", "report.csv"]).code, 2);
    fs::write(
        place.path("report.csv"),
        report.trim_end_matches('\n').rsplit_once('\n').unwrap().0.to_owned() + "\nabc",
    )
    .unwrap();
    let ended = place.run(&["cert", "import", "all.ldif", "--report", "report.csv", "--resume", "--json"]);
    let sums: Value = serde_json::from_str(&ended.out).unwrap();
    let count = |key: &str| sums[key].as_u64().unwrap();
    assert_eq!(count("tried") + count("done_before"), 42, "{ended:?}");
    assert!(count("done_before") >= 40 && count("stored") == 0 && count("refused") == 1, "{ended:?}");
    // Without a report it is seen that everything is there.
    let again = place.run(&["cert", "import", "all.ldif"]);
    assert!(again.out.contains("0 stored, 41 there already, 1 refused"), "{again:?}");
    let json = place.run(&["cert", "import", "all.ldif", "--report", "report.jsonl"]);
    assert_eq!(json.code, 1);
    let lines = fs::read_to_string(place.path("report.jsonl")).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && lines.lines().count() == 42);
}

#[test]
fn every_generation_is_exported_and_openssl_reads_it() {
    let place = Place::new();
    let (old, young) = (issued(ANNA, -20), issued(ANNA, 0));
    place.write("old.p12", &p12(&[&old], "x"));
    place.write("young.p12", &p12(&[&young], "x"));
    place.good(&["cert", "import", "old.p12", "young.p12", "--password", "x"]);
    place.good(&["cert", "export", ANNA, "--output", "all.p12", "--password", "secret"]);
    let read = Command::new("openssl")
        .args(["pkcs12", "-in", "all.p12", "-passin", "pass:secret", "-nodes"])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!((text.matches("BEGIN PRIVATE KEY").count(), text.matches("BEGIN CERTIFICATE").count()), (2, 2));
}

#[test]
fn a_profile_for_apples_devices_names_the_newest_identities_and_brings_the_older_ones() {
    let place = Place::new();
    let (old, young) = (issued(ANNA, -20), issued(ANNA, 0));
    let mut recipe = Recipe::mailbox(ANNA, Timestamp::now() + SignedDuration::from_secs(60), NewKey::P256);
    recipe.key_usage = vec!["digitalSignature"];
    let signer = issue(&recipe, None);
    place.write("anna.p12", &p12(&[&old, &young, &signer], "x"));
    place.good(&["cert", "import", "anna.p12", "--password", "x"]);
    let arguments =
        ["cert", "export", ANNA, "--password", "secret", "--mail-server", "imap.example.org", "--mobileconfig"];
    place.good(&[&arguments[..], &["a.mobileconfig"]].concat());
    assert_eq!(fs::metadata(place.path("a.mobileconfig")).unwrap().permissions().mode() & 0o777, 0o600);
    let profile = plist::Value::from_file(place.path("a.mobileconfig")).unwrap();
    let profile = profile.as_dictionary().unwrap();
    assert_eq!(profile["PayloadType"].as_string(), Some("Configuration"));
    let content: Vec<&plist::Dictionary> =
        profile["PayloadContent"].as_array().unwrap().iter().map(|payload| payload.as_dictionary().unwrap()).collect();
    let of = |kind: &str| {
        content.iter().filter(|payload| payload["PayloadType"].as_string() == Some(kind)).copied().collect::<Vec<_>>()
    };
    let (identities, mail) = (of("com.apple.security.pkcs12"), of("com.apple.mail.managed")[0]);
    assert_eq!(identities.len(), 3);
    let named = |key: &str| {
        let uuid = mail[key].as_string().unwrap();
        let payload = identities.iter().find(|payload| payload["PayloadUUID"].as_string() == Some(uuid)).unwrap();
        let bundle = import(payload["PayloadContent"].as_data().unwrap(), "secret").unwrap();
        assert_eq!((bundle.keys.len(), bundle.certificates.len()), (1, 1), "one identity a payload");
        bundle.certificates[0].clone()
    };
    assert_eq!(named("SMIMESigningCertificateUUID"), signer.certificate);
    assert_eq!(named("SMIMEEncryptionCertificateUUID"), young.certificate);
    assert_eq!(mail["SMIMESigningEnabled"].as_boolean(), Some(true));
    assert_eq!(mail["SMIMEEnableEncryptionPerMessageSwitch"].as_boolean(), Some(true));
    assert_eq!(mail["IncomingMailServerHostName"].as_string(), Some("imap.example.org"));
    assert!(identities.iter().all(|payload| payload.get("Password").is_none()), "the password is not in it unasked");
    // The same identities again: a device replaces what it has.
    place.good(&[&arguments[..], &["b.mobileconfig", "--current-only", "--with-password"]].concat());
    let again = plist::Value::from_file(place.path("b.mobileconfig")).unwrap();
    let again = again.as_dictionary().unwrap();
    assert_eq!(again["PayloadUUID"], profile["PayloadUUID"]);
    let content = again["PayloadContent"].as_array().unwrap();
    assert_eq!(content.len(), 3, "two identities and the account");
    assert_eq!(content[0].as_dictionary().unwrap()["Password"].as_string(), Some("secret"));
}

#[test]
fn everybodys_keys_are_written_for_device_management_and_the_folder_is_added_to() {
    let place = Place::new();
    let bert = "bert@example.org";
    let (old, young, other) = (issued(ANNA, -20), issued(ANNA, 0), issued(bert, 0));
    place.write("in.p12", &p12(&[&old, &young, &other], "x"));
    place.write("carl.der", issued("carl@example.org", 0).certificate.der());
    place.good(&["cert", "import", "in.p12", "carl.der", "--password", "x"]);
    place.good(&["cert", "export", "--all-users", "devices"]);
    let list = || {
        let mut reader = csv::Reader::from_path(place.path("devices/import.csv")).unwrap();
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let check = |rows: &[Vec<String>]| {
        for row in rows {
            let file = place.path("devices").join(&row[1]);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let bundle = import(&fs::read(&file).unwrap(), &row[2]).unwrap();
            assert_eq!((bundle.keys.len(), bundle.certificates.len()), (1, 1));
            assert!(bundle.certificates[0].is_for(&Mailbox::parse(&row[0]).unwrap().key()));
            let thumbprint = Command::new("sh")
                .args(["-c", "openssl pkcs12 -in \"$0\" -passin \"pass:$1\" -nokeys 2>/dev/null | openssl x509 -noout -fingerprint -sha1"])
                .args([file.as_os_str(), row[2].as_ref()])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&thumbprint.stdout).replace(':', "");
            assert!(said.contains(&row[3]) && row[3].len() == 40, "{said} {row:?}");
            assert!(row[2].len() >= 24 && row[4] == "smimeEncryption");
        }
    };
    let rows = list();
    assert_eq!(fs::metadata(place.path("devices/import.csv")).unwrap().permissions().mode() & 0o777, 0o600);
    let users: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(users.iter().filter(|user| **user == ANNA).count(), 2, "{users:?}");
    assert_eq!(users.iter().filter(|user| **user == bert).count(), 1, "{users:?}");
    assert_eq!(rows.len(), 3, "carl has no key here");
    check(&rows);
    assert_ne!(rows[0][2], rows[1][2], "a password of its own for each");
    // A file that went is made again, and what is new is added; the rest stays.
    fs::remove_file(place.path("devices").join(&rows[0][1])).unwrap();
    place.write("dora.p12", &p12(&[&issued("dora@example.org", 0)], "x"));
    place.good(&["cert", "import", "dora.p12", "--password", "x"]);
    let told = place.good(&["cert", "export", "--all-users", "devices", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&told["made"], &told["there"], &told["users_refused"]), (&2.into(), &2.into(), &0.into()), "{told}");
    let after = list();
    assert_eq!(after.len(), 4);
    assert!(rows[1..].iter().all(|row| after.contains(row)));
    check(&after);
}

#[test]
fn a_purge_exports_first_and_says_what_is_gone() {
    let place = Place::new();
    let (old, young) = (issued(ANNA, -20), issued(ANNA, 0));
    place.write("in.p12", &p12(&[&old, &young], "x"));
    place.good(&["cert", "import", "in.p12", "--password", "x"]);
    place.write("taken.p12", b"something else");
    let refused = place.run(&["cert", "purge", ANNA, "--export", "taken.p12", "--password", "secret"]);
    assert!(refused.code == 2 && place.open().owners().unwrap().len() == 1, "{refused:?}");
    let seen = place.open().identity(&Mailbox::parse(ANNA).unwrap()).unwrap();
    // What came after the export is not lost: the purge says so.
    place.open().set_disabled(&seen.owner, true).unwrap();
    let refused = place.open().purge_as_seen(&seen.owner, seen.generation).unwrap_err().to_string();
    assert!(refused.contains("export again"), "{refused}");
    let told = place.good(&["cert", "purge", ANNA, "--export", "last.p12", "--password", "secret", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&told["purged"], &told["export"]), (&ANNA.into(), &"last.p12".into()), "{told}");
    assert!(place.open().owners().unwrap().is_empty());
    let bundle = import(&fs::read(place.path("last.p12")).unwrap(), "secret").unwrap();
    assert_eq!((bundle.keys.len(), bundle.certificates.len()), (2, 2));
}

#[test]
fn what_expires_is_listed_by_its_last_certificate() {
    let place = Place::new();
    let until = |address: &str, days: i64| {
        let now = Timestamp::now();
        let mut recipe = Recipe::mailbox(address, now, NewKey::P256);
        recipe.not_after = now + SignedDuration::from_hours(24 * days + 1);
        issue(&recipe, None)
    };
    place.write("in.p12", &p12(&[&until(ANNA, 5), &until("bert@example.org", 5), &until("bert@example.org", 90)], "x"));
    place.write("p.der", until("carl@partner.example", 5).certificate.der());
    place.good(&["cert", "import", "in.p12", "p.der", "--password", "x"]);
    let found = |arguments: &[&str]| -> (i32, Vec<(String, i64)>) {
        let ended = place.run(&[&["cert", "expiring", "--json"], arguments].concat());
        let told: Value = serde_json::from_str(&ended.out).unwrap();
        let one = |one: &Value| (one["owner"].as_str().unwrap().to_owned(), one["days_left"].as_i64().unwrap());
        (ended.code, told["expiring"].as_array().unwrap().iter().map(one).collect())
    };
    assert_eq!(found(&["--within", "30d"]), (1, vec![(ANNA.to_owned(), 5)]));
    assert_eq!(found(&["--within", "4d"]), (0, vec![]));
    let (_, partners) = found(&["--within", "2w", "--partners"]);
    assert_eq!(partners.len(), 2, "{partners:?}");
    let table = place.run(&["cert", "expiring"]);
    assert!(table.out.contains("signing, encryption") && table.code == 1, "{table:?}");
    assert!(place.run(&["cert", "expiring", "--within", "soon"]).code == 2);
}
