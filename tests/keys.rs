//! What `docs/keys.md` says, done: its very commands; and `kek` and `store` as people call them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![cfg(feature = "server")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use waxwing::address::Mailbox;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::policy::TrustState;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

const ANNA: &str = "anna@example.org";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn run(&self, arguments: &[&str]) -> Output {
        self.with(&[], arguments)
    }
    fn with(&self, environment: &[(&str, &Path)], arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.args(arguments).current_dir(self.0.path()).env_remove("WAXWING_CONFIG");
        command.envs(environment.iter().copied()).stdin(std::process::Stdio::null()).output().unwrap()
    }
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(arguments)).unwrap()
    }
    fn store(&self, kek: &str) -> EmbeddedStore {
        EmbeddedStore::open(&self.path("store"), self.path(kek)).unwrap()
    }
}

fn fill(store: &EmbeddedStore) -> Issued {
    let issued = issue(&Recipe::mailbox(ANNA, Timestamp::now(), NewKey::P256), None);
    let new = NewCertificate {
        certificate: issued.certificate.clone(),
        provenance: Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() },
        trust: TrustState::Trusted,
        key: Some(issued.pkcs8.clone()),
    };
    store.add_certificates(&Owner::parse(ANNA).unwrap(), vec![new]).unwrap();
    issued
}

fn has(store: &EmbeddedStore, issued: &Issued) {
    let identity = store.identity(&Mailbox::parse(ANNA).unwrap()).unwrap();
    assert_eq!(*store.export_key(identity.certificates[0].key.unwrap()).unwrap(), *issued.pkcs8);
}

#[test]
fn the_commands_of_the_document_are_the_way_back() {
    let place = Place::new();
    let bin = Path::new(env!("CARGO_BIN_EXE_waxwing")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keys.md")).unwrap();
    let blocks: Vec<&str> = document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    for folder in ["etc/waxwing", "var/lib/waxwing", "media/safe", "var/backups"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    let here = |text: &str| {
        let root = place.0.path().display();
        ["/etc/waxwing", "/var/lib/waxwing", "/media/safe", "/var/backups"]
            .iter()
            .fold(text.to_owned(), |text, folder| text.replace(&format!(" {folder}"), &format!(" {root}{folder}")))
    };
    let run = |block: &str| {
        let done = Command::new("sh").args(["-e", "-c", &here(block)]).env("PATH", &path).output().unwrap();
        assert!(done.status.success(), "{block}: {done:?}");
    };
    let store = |kek: &str| {
        EmbeddedStore::open(&place.path("var/lib/waxwing/store"), place.path(&format!("etc/waxwing/{kek}"))).unwrap()
    };
    // The backup is to hold something, so the store gets it before that line.
    let (begin, rest) = blocks[0].split_once("waxwing store export").unwrap();
    run(begin);
    let issued = fill(&store("kek"));
    run(&format!("waxwing store export{rest}"));
    for (block, kek) in [(blocks[1], "kek2"), (blocks[2], "kek2"), (blocks[3], "kek3")] {
        run(block);
        has(&store(kek), &issued);
    }
}

#[test]
fn a_rotation_says_what_it_waits_for_and_goes_on_when_run_again() {
    let place = Place::new();
    let at = ["--store", "store", "--kek", "kek"];
    let rotate = |more: &[&str]| place.run(&[&["kek", "rotate", "kek2", "--wait", "0"], more, &at].concat());
    place.good(&["kek", "init", "kek", "--store", "store"]);
    let open = place.store("kek");
    let issued = fill(&open);
    let stopped = rotate(&[]);
    let said = String::from_utf8(stopped.stdout).unwrap();
    assert_eq!(stopped.status.code(), Some(1), "{said}");
    assert!(said.contains("has not read KEK") && said.contains("nothing is lost"), "{said}");
    let states = |kek: &str| {
        let status = place.json(&["kek", "status", "--json", "--store", "store", "--kek", kek]);
        let keks = status["keks"].as_array().unwrap().iter();
        keks.map(|kek| kek["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states("kek"), ["active", "introduced"]);
    let status = place.json(&["kek", "status", "--json", "--store", "store", "--kek", "kek"]);
    assert_eq!(status["processes"][0]["pid"], std::process::id());
    has(&open, &issued);
    drop(open);
    assert!(rotate(&["--step", "activate"]).status.success());
    assert_eq!(states("kek2"), ["retiring", "active"]);
    let done = rotate(&[]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(states("kek2"), ["active"]);
    let foreign = place.run(&["cert", "list", "--store", "store", "--kek", "kek"]);
    assert!(String::from_utf8_lossy(&foreign.stderr).contains("the store wants KEK"), "{foreign:?}");
    // Again, with the old key named still: nothing to do.
    assert!(rotate(&[]).status.success());
    let resealed = place.json(&["kek", "reseal", "--full-speed", "--json", "--store", "store", "--kek", "kek2"]);
    assert_eq!((resealed["written"].as_u64(), resealed["not_authentic"].as_array().map(Vec::len)), (Some(1), Some(0)));
    has(&place.store("kek2"), &issued);
}

#[test]
fn a_configuration_that_does_not_name_the_new_key_keeps_the_old_one_working() {
    let place = Place::new();
    place.good(&["kek", "init", "kek", "--store", "store"]);
    let demo = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/waxwing.toml")).unwrap();
    let config = |keks: &str| {
        let line = |line: &str| match line {
            _ if line.starts_with("store =") => "store = \"store\"".to_owned(),
            _ if line.starts_with("kek =") => format!("kek = {keks}"),
            other => other.to_owned(),
        };
        fs::write(place.path("waxwing.toml"), demo.lines().map(|one| line(one) + "\n").collect::<String>()).unwrap();
    };
    let rotate = || place.run(&["--config", "waxwing.toml", "kek", "rotate", "kek2", "--wait", "0"]);
    config("\"kek\"");
    let stopped = rotate();
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    assert!(String::from_utf8_lossy(&stopped.stdout).contains("does not name kek2"), "{stopped:?}");
    drop(place.store("kek"));
    config("[\"kek\", \"kek2\"]");
    let done = rotate();
    assert!(done.status.success(), "{done:?}");
    assert!(EmbeddedStore::open(&place.path("store"), place.path("kek")).is_err());
}

#[test]
fn a_passphrase_and_a_credential_open_the_store() {
    let place = Place::new();
    fs::write(place.path("phrase"), "correct horse battery staple\n").unwrap();
    fs::write(place.path("wrong"), "correct horse\n").unwrap();
    let init = ["kek", "init", "kek", "--passphrase-file", "phrase", "--store", "store"];
    assert!(place.run(&init).status.success());
    assert!(!fs::read_to_string(place.path("kek")).unwrap().contains("horse"));
    let list = ["cert", "list", "--store", "store", "--kek", "kek"];
    let asked = |file: &str| place.with(&[("WAXWING_KEK_PASSPHRASE_FILE", &place.path(file))], &list);
    assert!(asked("phrase").status.success());
    let wrong = asked("wrong");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("passphrase is wrong"), "{wrong:?}");
    let missing = place.run(&list);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("wants its passphrase"), "{missing:?}");
    // The file as a credential, and its passphrase as another, whatever mode they have there.
    fs::create_dir(place.path("credentials")).unwrap();
    fs::copy(place.path("kek"), place.path("credentials/store-kek")).unwrap();
    fs::copy(place.path("phrase"), place.path("credentials/waxwing-kek-passphrase")).unwrap();
    fs::set_permissions(place.path("credentials/store-kek"), fs::Permissions::from_mode(0o440)).unwrap();
    let by = |name: &str| {
        let folder = place.path("credentials");
        place.with(&[("CREDENTIALS_DIRECTORY", &folder)], &["cert", "list", "--store", "store", "--kek", name])
    };
    let good = by("credential:store-kek");
    assert!(good.status.success(), "{good:?}");
    assert!(!by("credential:other").status.success() && !by("credential:../kek").status.success());
    assert!(!place.run(&["cert", "list", "--store", "store", "--kek", "credential:store-kek"]).status.success());
}

#[test]
fn a_backup_is_checked_whole_before_anything_is_changed() {
    let place = Place::new();
    place.good(&["kek", "init", "kek", "--store", "store"]);
    let issued = fill(&place.store("kek"));
    let at = ["--store", "store", "--kek", "kek"];
    let made = place.json(&[&["store", "export", "backup", "--json"], at.as_slice()].concat());
    assert_eq!(made["not_authentic"].as_array().map(Vec::len), Some(0));
    assert_eq!(fs::metadata(place.path("backup")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = place.run(&[&["store", "export", "backup"], at.as_slice()].concat());
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists"), "{again:?}");
    let octets = fs::read(place.path("backup")).unwrap();
    let elsewhere = ["--store", "elsewhere", "--kek", "kek2", "--backup-kek", "kek"];
    place.good(&["kek", "init", "kek2"]);
    for (name, bad) in [
        ("cut", octets[..octets.len() - 1].to_vec()),
        ("altered", {
            let mut bad = octets.clone();
            let at = bad.len() - 30;
            bad[at] ^= 1;
            bad
        }),
    ] {
        fs::write(place.path(name), bad).unwrap();
        let refused = place.run(&[&["store", "import", name], elsewhere.as_slice()].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing was changed"), "{refused:?}");
        assert!(!place.path("elsewhere").exists(), "not even a store was made");
    }
    let checked = place.json(&[&["store", "import", "backup", "--check", "--json"], elsewhere.as_slice()].concat());
    assert_eq!(checked, serde_json::json!({"records": made["records"], "sha256": made["sha256"]}));
    assert!(!place.path("elsewhere").exists());
    let restored = place.json(&[&["store", "import", "backup", "--json"], elsewhere.as_slice()].concat());
    assert_eq!((restored["new"].as_u64(), &restored["sha256"]), (Some(1), &made["sha256"]));
    let store = EmbeddedStore::open(&place.path("elsewhere"), place.path("kek2")).unwrap();
    has(&store, &issued);
    let again = place.json(&[&["store", "import", "backup", "--json"], elsewhere.as_slice()].concat());
    assert_eq!((again["new"].as_u64(), again["unchanged"].as_u64()), (Some(0), Some(1)));
}
