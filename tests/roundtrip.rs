//! Real mails: sign, encrypt, decrypt, verify; the decoded tree of parts is what it was, for all of them. One that is refused or
//! comes back otherwise stands in `roundtrip_listed.tsv` with its reason; one that is signed already is encrypted alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "support/outside.rs"]
mod outside;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{Timestamp, ToSpan};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::path::TrustSet;
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan, Form, SealError, Sealed, SignPlan};
use waxwing::smime::verdict::Layer;

struct World {
    now: Timestamp,
    identity: Issued,
    keys: SoftwareKeys,
    own: OwnKey,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::now();
        let identity = issue(
            &Recipe {
                common_name: "anna".into(),
                mailboxes: vec!["anna@example.org".into()],
                subject_email: None,
                hosts: Vec::new(),
                not_before: now - 1.hour(),
                not_after: now + 24.hours(),
                ca: None,
                key_usage: Vec::new(),
                email_protection: None,
                permitted_mail: Vec::new(),
                crl: None,
                key: NewKey::P256,
            },
            None,
        );
        let mut keys = SoftwareKeys::default();
        let key = keys.insert(SoftwareKey::from_pkcs8(&identity.pkcs8).unwrap());
        let own = OwnKey { certificate: identity.certificate.clone(), key };
        Self { now, identity, keys, own }
    }

    fn perform(&self, operation: KeyOperation) -> KeyAnswer {
        match self.keys.submit(operation) {
            Submission::Ready(answer) => answer.unwrap(),
            Submission::Later(_) => panic!("software keys answer at once"),
        }
    }

    fn seal(&self, message: &Bytes, form: Form) -> Result<Sealed, SealError> {
        let entity = Entity::parse(message.clone(), &MimeLimits::default())?;
        let draft = Draft::new(&entity)?;
        let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
        let recipients = vec![(self.identity.certificate.clone(), scheme)];
        let encryption = EncryptPlan { recipients, content: ContentEncryption::Aes256Gcm, derive_cek: false };
        if draft.is_signed() {
            return draft.encrypt(&encryption, true);
        }
        let plan = SignPlan {
            key: self.own.key,
            certificate: self.identity.certificate.clone(),
            chain: Vec::new(),
            encryption_certificate: None,
            scheme: SignatureScheme::Ecdsa(Digest::Sha256),
            digest: Digest::Sha256,
            form,
            signing_time: self.now,
            capabilities: Vec::new(),
            second: None,
        };
        let signing = draft.sign(plan)?;
        let answer = self.perform(signing.operation());
        signing.finish(answer, true)?.encrypt(&encryption, true)
    }

    fn open(&self, message: &Bytes) -> Opened {
        let context = OpenContext::new(vec![self.own.clone()], Arc::new(TrustSet::default()), self.now);
        let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
        let mut opener = Opener::new(entity, context, || Cek::new(vec![7; 32]));
        let mut answer = None;
        loop {
            match opener.step(answer.take()) {
                Step::Key(operation) => answer = Some(Ok(self.perform(operation))),
                Step::Done(opened) => return *opened,
            }
        }
    }
}

/// What another parser sees: the fields outside MIME, and every leaf with its type and its decoded content.
fn tree(message: &[u8]) -> Vec<String> {
    let parsed = MessageParser::default().parse(message).expect("a message");
    let mut seen: Vec<String> = Vec::new();
    for part in &parsed.parts {
        let kind = part.content_type().map(|one| {
            let name = |value: &str| value.to_ascii_lowercase();
            format!("{}/{}", name(one.ctype()), name(one.subtype().unwrap_or_default()))
        });
        let kind = kind.unwrap_or_else(|| "text/plain".into());
        let content = match &part.body {
            PartType::Text(text) | PartType::Html(text) => text.trim_end().to_owned(),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => format!("{octets:?}"),
            PartType::Message(_) => "message".into(),
            PartType::Multipart(children) => format!("{} children", children.len()),
        };
        seen.push(format!("{kind}: {content}"));
    }
    seen
}

/// The fields that are not MIME's, as they stand.
fn outer_fields(message: &Bytes) -> Vec<Vec<u8>> {
    let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
    let fields = entity.header.fields.iter().filter(|field| {
        let name = field.name().to_ascii_lowercase();
        !name.starts_with("content-") && name != "mime-version"
    });
    fields.map(|field| field.raw.to_vec()).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The corpus' mails with CRLF and without the mbox line.
fn mails(corpora: &Path) -> Vec<(String, Bytes)> {
    let folder = tempfile::tempdir().unwrap();
    let archive = corpora.join("real-mail-spamassassin/spamassassin-corpus.tar.xz");
    let status = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(status.success(), "tar with xz unpacks the corpus");
    let mut paths = Vec::new();
    files(folder.path(), &mut paths);
    paths.sort();
    paths.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), mail(path))).collect()
}

/// A mail with CRLF and without the mbox line.
fn mail(path: &Path) -> Bytes {
    let octets = std::fs::read(path).unwrap();
    let start =
        if octets.starts_with(b"From ") { octets.iter().position(|&octet| octet == b'\n').unwrap() + 1 } else { 0 };
    let mut message = Vec::with_capacity(octets.len() + octets.len() / 20);
    for line in octets[start..].split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        message.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        message.extend_from_slice(b"\r\n");
    }
    Bytes::from(message)
}

/// What became of one mail.
enum Fate {
    /// It came back as it went; the form of the signature, `None`: it was signed before.
    Same(Option<Form>),
    Refused(String),
    Wrong(String),
}

fn fate(world: &World, message: &Bytes, form: Form) -> Fate {
    let sealed = match world.seal(message, form) {
        Ok(sealed) => sealed,
        Err(error) => return Fate::Refused(error.to_string()),
    };
    let opened = world.open(&sealed.rope().to_bytes());
    let Some(form) = sealed.form() else {
        // Somebody's signature stays around its octets.
        return match opened.message == *message || tree(message) == tree(&opened.message) {
            true => Fate::Same(None),
            false => Fate::Wrong("what came signed is another mail".into()),
        };
    };
    let verified = opened.verdict.layers.iter().any(|layer| match layer {
        Layer::Signed { signers, .. } => signers.len() == 1 && signers[0].signature.is_ok(),
        _ => false,
    });
    // The entity that was signed, under the fields that stayed outside.
    let mut delivered = outer_fields(&opened.message).concat();
    delivered.extend_from_slice(&opened.content);
    if !verified {
        Fate::Wrong(opened.verdict.reason)
    } else if tree(message) != tree(&delivered) {
        Fate::Wrong("the tree of parts differs".into())
    } else if outer_fields(message) != outer_fields(&opened.message) {
        Fate::Wrong("the outer fields differ".into())
    } else {
        Fate::Same(Some(form))
    }
}

/// Mails that may be refused or come back otherwise: name, reason.
fn listed() -> BTreeMap<&'static str, &'static str> {
    let rows = include_str!("roundtrip_listed.tsv").lines().filter(|row| !row.starts_with('#') && !row.is_empty());
    rows.map(|row| row.split_once('\t').expect("name, tab, reason")).collect()
}

#[test]
fn real_mails_come_back_as_they_went() {
    let Some(corpora) = outside::corpora() else { return };
    if !outside::peers(&["tar", "xz"]) {
        return;
    }
    let world = World::new();
    let listed = listed();
    let (mut same, mut opaque, mut before, mut excused) = (0, 0, 0, BTreeSet::new());
    let mut complaints = Vec::new();
    for (number, (name, message)) in mails(&corpora).into_iter().enumerate() {
        let form = if number % 2 == 0 { Form::Clear } else { Form::Opaque };
        let what = match fate(&world, &message, form) {
            Fate::Same(got) => {
                same += 1;
                before += usize::from(got.is_none());
                opaque += usize::from(form == Form::Clear && got == Some(Form::Opaque));
                if let Some(reason) = listed.get(name.as_str()) {
                    complaints.push(format!("{name}: comes back as it went, listed because of {reason}"));
                }
                continue;
            }
            Fate::Refused(why) => format!("refused: {why}"),
            Fate::Wrong(why) => format!("wrong: {why}"),
        };
        if listed.contains_key(name.as_str()) {
            excused.insert(name);
        } else {
            complaints.push(format!("{name}: {what}"));
        }
    }
    println!(
        "{same} mails the same ({opaque} opaque, not clear as asked for; {before} signed before), {} listed",
        excused.len()
    );
    for name in listed.keys().filter(|name| !excused.contains(**name)) {
        complaints.push(format!("{name}: listed, and neither refused nor wrong"));
    }
    assert!(complaints.is_empty(), "{} complaints: {:#?}", complaints.len(), &complaints[..complaints.len().min(40)]);
    assert!(same > 4_000, "{same}");
}

/// Mail that is hard to parse is sealed and comes back as it went, or is refused: never another mail.
#[test]
fn nasty_mails_come_back_as_they_went_or_are_refused() {
    let Some(corpora) = outside::corpora() else { return };
    let world = World::new();
    let mut paths = Vec::new();
    files(&corpora.join("mime-nasty"), &mut paths);
    paths.sort();
    let is_mail = |path: &&PathBuf| {
        let name = path.to_string_lossy();
        ![".json", ".html", ".sql", ".msf", ".tsv", ".md", ".out", "COPYING"].iter().any(|end| name.ends_with(end))
    };
    let (mut same, mut refused, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for path in paths.iter().filter(is_mail) {
        // What no reader takes for a message is none.
        // The reader asserts something of its own in debug builds.
        let octets = mail(path);
        let read = std::panic::catch_unwind(|| MessageParser::default().parse(&octets[..]).is_some());
        if !read.unwrap_or_default() {
            continue;
        }
        for form in [Form::Clear, Form::Opaque] {
            match fate(&world, &mail(path), form) {
                Fate::Same(_) => same += 1,
                Fate::Refused(why) => *refused.entry(why).or_default() += 1,
                Fate::Wrong(why) => wrong.push(format!("{} {form:?}: {why}", path.display())),
            }
        }
    }
    println!("{same} the same, {} refused: {refused:#?}", refused.values().sum::<usize>());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(same > 300, "{same}");
}
