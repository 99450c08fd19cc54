//! Real mails: of each, MIME's fields, the Subject and the body. Who wrote it to whom is left behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;

use super::{Pool, Template};
use crate::load::mails::parts::parts;
use crate::mime::canonical::canonical_line_ends;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::mbox::{MboxMail, MboxReader};

/// Octets of one mail at most.
const MAIL_MAX: usize = 50 << 20;
/// RFC 5321 section 4.5.3.1.6, without CRLF.
const LINE_MAX: usize = 998;
/// Reasons that are told with a number each.
const REASONS: usize = 8;

/// The mails of a folder, one a file, in the order of their names; as many as there is room for.
pub(super) fn folder(folder: &Path, room: usize) -> Result<Pool, String> {
    let failed = |error: std::io::Error| format!("mails of {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_file() && metadata.len() <= MAIL_MAX as u64 {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut gathered = Gathered::new(room);
    for file in files {
        let octets = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        gathered.add(octets.into());
    }
    gathered.pool(&folder.display().to_string())
}

/// The mails of an mbox.
pub(super) fn mbox(file: &Path, room: usize) -> Result<Pool, String> {
    let failed = |error: std::io::Error| format!("mails of {}: {error}", file.display());
    let mut lines = BufReader::new(File::open(file).map_err(failed)?);
    let (mut reader, mut line) = (MboxReader::new(MAIL_MAX), Vec::new());
    let mut gathered = Gathered::new(room);
    while (&mut lines).take(MAIL_MAX as u64).read_until(b'\n', &mut line).map_err(failed)? > 0 {
        reader.line(&line).into_iter().for_each(|mail| gathered.add_of_mbox(mail));
        line.clear();
    }
    reader.end().into_iter().for_each(|mail| gathered.add_of_mbox(mail));
    gathered.pool(&file.display().to_string())
}

struct Gathered {
    templates: Vec<Template>,
    room: usize,
    /// Mails for which there was no room.
    beyond: u64,
    skipped: Vec<(String, u64)>,
}

impl Gathered {
    fn new(room: usize) -> Self {
        Self { templates: Vec::new(), room, beyond: 0, skipped: Vec::new() }
    }

    fn add_of_mbox(&mut self, mail: MboxMail) {
        match mail.cut {
            true => self.beyond += 1,
            false => self.add(mail.octets.into()),
        }
    }

    fn add(&mut self, mail: Bytes) {
        if mail.len() > self.room {
            self.beyond += 1;
            return;
        }
        match template(&mail) {
            Ok(template) => {
                self.room = self.room.saturating_sub(template.len(0));
                self.templates.push(template);
            }
            Err(why) => {
                let room = self.skipped.len() < REASONS;
                match self.skipped.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, count)) => *count += 1,
                    None if room => self.skipped.push((why, 1)),
                    None => {}
                }
            }
        }
    }

    fn pool(self, name: &str) -> Result<Pool, String> {
        let mut notes: Vec<String> =
            self.skipped.iter().map(|(why, count)| format!("{name}: {count} mails left out: {why}")).collect();
        if self.beyond > 0 {
            notes.push(format!("{name}: {} mails left out: no room for them in memory", self.beyond));
        }
        if self.templates.is_empty() {
            let why = if notes.is_empty() { "there is none".to_owned() } else { notes.join("; ") };
            return Err(format!("{name}: no mail that can be sent: {why}"));
        }
        Ok(Pool { templates: self.templates, notes })
    }
}

/// What is sent of a real mail; `Err` says why it is not. P.
fn template(mail: &Bytes) -> Result<Template, String> {
    let limits = MimeLimits::default();
    let mail = canonical_line_ends(mail);
    let mut lines = mail.split(|octet| *octet == b'\n');
    if lines.any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_MAX) {
        return Err(format!("a line of more than {LINE_MAX} octets"));
    }
    if mail.contains(&0) {
        return Err("a NUL octet".into());
    }
    let entity = Entity::parse(mail, &limits).map_err(|error| error.to_string())?;
    if entity.header.fields.is_empty() {
        return Err("it has no header".into());
    }
    let about = |error: crate::mime::header::MimeError| format!("it can be read two ways: {error}");
    let essence = entity.content_type().map_err(about)?.essence;
    if essence.contains("pkcs7") || essence == "multipart/signed" {
        return Err("it is signed or encrypted already".into());
    }
    let said = parts(&entity, &limits).map_err(about)?;
    if said.iter().any(|part| part.essence.contains("pkcs7")) {
        return Err("it is signed or encrypted already".into());
    }
    let mut head = b"MIME-Version: 1.0\r\n".to_vec();
    for field in &entity.header.fields {
        let name = field.name().to_ascii_lowercase();
        if name.starts_with("content-") || name == "subject" {
            head.extend_from_slice(&field.raw);
            head.extend_from_slice(if field.raw.ends_with(b"\n") { b"" } else { b"\r\n" });
        }
    }
    head.extend_from_slice(b"\r\n");
    if !head.is_ascii() {
        return Err("a header that is not ASCII".into());
    }
    let mut body = Vec::from(entity.body.clone());
    if !body.ends_with(b"\r\n") {
        body.extend_from_slice(b"\r\n");
    }
    Template::new(head.into(), body.into(), false).ok_or_else(|| "it has no header".into())
}

/// Fuzz body: what is sent of a mail says what the mail says.
#[doc(hidden)]
pub fn fuzz_real_mail(data: &[u8]) {
    let limits = MimeLimits::default();
    let mail = Bytes::copy_from_slice(data);
    let Ok(template) = template(&mail) else { return };
    let read = |octets| Entity::parse(octets, &limits).and_then(|entity| parts(&entity, &limits));
    let (sent, mail) = (read(template.entity("")), read(canonical_line_ends(&mail)));
    assert!(sent.is_ok() && sent == mail);
}
