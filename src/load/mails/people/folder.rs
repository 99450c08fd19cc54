//! A population in a folder: PKCS#12 and PEM, which every gateway imports. Test keys: they protect nothing.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{People, Person, in_parallel};
use crate::address::Domain;
use crate::load::mails::Progress;
use crate::pki::certificate::Certificate;
use crate::pki::pem::armor;
use crate::pki::pkcs12::{Bundle, export, import};

/// Of all PKCS#12 files.
const PASSWORD: &str = "load";
const CA: &str = "ca.pem";
const SIDES: [&str; 2] = ["ours", "theirs"];
const FILE_MAX: u64 = 1 << 20;

/// Writes everybody into a new folder.
pub(super) fn write(people: &People, folder: &Path, progress: &Progress<'_>) -> Result<(), String> {
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700);
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    private.create(folder).map_err(|error| failed(folder, error))?;
    let mut wanted: Vec<(PathBuf, &Person)> = Vec::new();
    for (side, persons) in SIDES.iter().zip([&people.ours, &people.theirs]) {
        let side = folder.join(side);
        private.create(&side).map_err(|error| failed(&side, error))?;
        wanted.extend(persons.iter().map(|person| (side.join(person.mailbox.to_string()), person)));
    }
    in_parallel(&wanted, "writing keys", progress, |(file, person)| one(file, person))?;
    let anchors: String = people.anchors().map(|anchor| armor("CERTIFICATE", anchor.der())).collect();
    file(&folder.join(CA), anchors.as_bytes())?;
    file(&folder.join("README.md"), readme(people).as_bytes())
}

/// `ADDRESS.pem` and, with the key, `ADDRESS.p12`.
fn one(path: &Path, person: &Person) -> Result<(), String> {
    let (Some(certificate), Some(pkcs8)) = (&person.certificate, person.pkcs8()) else {
        return Err(format!("{} has no key that could be written", person.mailbox));
    };
    let with = |ending: &str| PathBuf::from(format!("{}.{ending}", path.display()));
    let mut bundle = Bundle::default();
    bundle.certificates.push(certificate.clone());
    bundle.keys.push(pkcs8.clone());
    let octets = export(&bundle, PASSWORD, &person.mailbox.to_string()).map(Zeroizing::new);
    file(&with("p12"), &octets.map_err(|error| format!("{}: {error}", person.mailbox))?)?;
    file(&with("pem"), armor("CERTIFICATE", certificate.der()).as_bytes())
}

fn file(path: &Path, octets: &[u8]) -> Result<(), String> {
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(octets)).map_err(|error| format!("{}: {error}", path.display()))
}

fn readme(people: &People) -> String {
    let side =
        |persons: &[Person]| persons.first().map(|person| person.mailbox.domain().to_string()).unwrap_or_default();
    format!(
        "# People of a load test\n\nTest keys: they protect nothing.\n\n\
         | | |\n|---|---|\n\
         | `ca.pem` | the CA: the gateway under test has to believe it |\n\
         | `ours/*.p12` | people of `{}`, behind the gateway: it gets their private keys. Password: `{PASSWORD}` |\n\
         | `theirs/*.pem` | people of `{}`, the world: the gateway gets their certificates |\n\
         | `theirs/*.p12` | their private keys: for `waxwing load` alone, which seals and opens in their names |\n\n\
         A Waxwing takes them so:\n\n    waxwing trust add ca.pem\n    waxwing cert import --password {PASSWORD} ours/ theirs/*.pem\n\n\
         Then, in place of `people` in a scenario: `waxwing load --people THIS_FOLDER --target HOST:PORT --sink PORT`\n",
        side(&people.ours),
        side(&people.theirs)
    )
}

/// Reads what [`write`] wrote.
pub(super) fn read(folder: &Path, progress: &Progress<'_>) -> Result<People, String> {
    let anchors = Certificate::from_pem_or_der(&octets(&folder.join(CA))?)
        .map_err(|error| format!("{}: {error}", folder.join(CA).display()))?;
    let mut sides = Vec::new();
    for side in SIDES {
        let side = folder.join(side);
        let failed = |error: std::io::Error| format!("{}: {error}; `waxwing load people DIR` makes it", side.display());
        let entries = std::fs::read_dir(&side).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "p12"));
        files.sort();
        if files.is_empty() {
            return Err(format!("{}: there is no .p12 file in it", side.display()));
        }
        sides.push(in_parallel(&files, "reading keys", progress, |file| person(file))?);
    }
    let theirs = sides.pop().unwrap_or_default();
    let ours = sides.pop().unwrap_or_default();
    let clear = theirs.first().and_then(|person| Domain::parse(&format!("clear.{}", person.mailbox.domain())).ok());
    People::of(ours, theirs, anchors, clear)
}

fn person(file: &Path) -> Result<Person, String> {
    let failed = |why: String| format!("{}: {why}", file.display());
    let bundle = import(&octets(file)?, PASSWORD).map_err(|error| failed(error.to_string()))?;
    let key = bundle.keys.first().ok_or_else(|| failed("it has no private key".into()))?;
    let own = bundle.certificates_of(0);
    let certificate = own.first().and_then(|at| bundle.certificates.get(*at));
    let certificate = certificate.ok_or_else(|| failed("it has no certificate of its key".into()))?;
    let mailbox = certificate.mailboxes().first().ok_or_else(|| failed("its certificate names no address".into()))?;
    Person::new(mailbox.clone(), certificate.clone(), Some(key.clone()))
}

fn octets(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    if std::fs::metadata(file).map_err(failed)?.len() > FILE_MAX {
        return Err(format!("{}: over {FILE_MAX} octets", file.display()));
    }
    std::fs::read(file).map_err(failed)
}
