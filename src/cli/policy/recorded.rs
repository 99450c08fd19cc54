//! Recorded mail: files and mboxes, each mail with the envelope that it came in.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::address::{Mailbox, ReversePath};
use crate::cli::Failure;
use crate::mime::canonical::canonical_line_ends;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::Header;
use crate::mime::mbox::MboxReader;

/// The largest recorded mail that is read, in octets.
const MAIL_MAX: usize = 1 << 30;
/// The ending of a file with the envelope of the mail beside it.
const SIDECAR: &str = "envelope";

/// A mail with its envelope.
pub(super) struct Recorded {
    /// The file; in an mbox with the mail's number.
    pub name: String,
    pub reverse_path: ReversePath,
    pub recipients: Vec<Mailbox>,
    pub listener: Option<String>,
    pub peer: Option<IpAddr>,
    pub entity: Entity,
}

/// The files below a folder, or the file itself, in order; files of envelopes are not among them.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |path: &Path, error| Failure::new(format!("{} cannot be read: {error}", path.display()), "");
    let about = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    if !about.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let (kind, path) = (entry.file_type().map_err(|error| failed(&folder, error))?, entry.path());
            match (kind.is_dir(), path.extension().is_some_and(|ending| ending == SIDECAR)) {
                _ if hidden => {}
                (true, _) => folders.push(path),
                (false, false) => found.push(path),
                (false, true) => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Gives each mail of a file to `take`, or why it cannot be read.
pub(super) fn read(file: &Path, mut take: impl FnMut(String, Result<Recorded, String>)) {
    let name = file.display().to_string();
    if let Err(error) = read_file(file, &name, &mut take) {
        take(name, Err(error.to_string()));
    }
}

fn read_file(file: &Path, name: &str, take: &mut impl FnMut(String, Result<Recorded, String>)) -> std::io::Result<()> {
    let mut lines = BufReader::new(File::open(file)?);
    if !lines.fill_buf()?.starts_with(b"From ") {
        let mut octets = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(lines, MAIL_MAX as u64 + 1), &mut octets)?;
        let cut = octets.len() > MAIL_MAX;
        let recorded = sidecar(file).and_then(|beside| recorded(name, octets, cut, "", beside.as_ref()));
        take(name.to_owned(), recorded);
        return Ok(());
    }
    let (mut reader, mut line, mut count) = (MboxReader::new(MAIL_MAX), Vec::new(), 0_usize);
    let mut each = |mail: crate::mime::mbox::MboxMail| {
        count += 1;
        let name = format!("{name}:{count}");
        let recorded = recorded(&name, mail.octets, mail.cut, &mail.sender, None);
        take(name, recorded);
    };
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some(mail) = reader.line(&line) {
            each(mail);
        }
        line.clear();
    }
    if let Some(mail) = reader.end() {
        each(mail);
    }
    Ok(())
}

/// The fields of the file `NAME.envelope` beside the mail `NAME`.
fn sidecar(file: &Path) -> Result<Option<Header>, String> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{SIDECAR}"));
    let text = match std::fs::read(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("its envelope cannot be read: {error}")),
    };
    let octets = canonical_line_ends(&Bytes::from([text.as_slice(), b"\n\n"].concat()));
    let entity = Entity::parse(octets, &MimeLimits::default()).map_err(|error| format!("its envelope: {error}"))?;
    Ok(Some(entity.header))
}

fn recorded(
    name: &str,
    octets: Vec<u8>,
    cut: bool,
    mbox_sender: &str,
    beside: Option<&Header>,
) -> Result<Recorded, String> {
    if cut {
        return Err(format!("over {MAIL_MAX} octets"));
    }
    let octets = canonical_line_ends(&Bytes::from(octets));
    let entity = Entity::parse(octets, &MimeLimits::default()).map_err(|error| format!("no message: {error}"))?;
    let headers = || beside.into_iter().chain([&entity.header]);
    let first = |name: &str| headers().find_map(|header| header.all(name).next().map(|field| field.value()));
    let reverse_path = reverse_path(&first, mbox_sender, &entity.header)?;
    let recipients = recipients(&headers, &entity.header)?;
    let peer = first("X-Envelope-Peer").map(|text| text.trim().parse()).transpose();
    let peer = peer.map_err(|error| format!("X-Envelope-Peer: {error}"))?;
    let listener = first("X-Envelope-Listener").map(|text| text.trim().to_owned());
    Ok(Recorded { name: name.to_owned(), reverse_path, recipients, listener, peer, entity })
}

/// X-Envelope-From, Return-Path, the "From " line of an mbox, From: the first that is there.
fn reverse_path(
    first: &dyn Fn(&str) -> Option<String>,
    mbox_sender: &str,
    header: &Header,
) -> Result<ReversePath, String> {
    let said = first("X-Envelope-From").or_else(|| first("Return-Path"));
    let said = said.or_else(|| Some(mbox_sender.to_owned()).filter(|sender| sender.contains('@')));
    match said {
        Some(said) => match bare(&said) {
            "" => Ok(ReversePath::Null),
            address => Mailbox::parse(address).map(ReversePath::Mailbox).map_err(|error| format!("sender: {error}")),
        },
        None => header.single_from().map(ReversePath::Mailbox).map_err(|error| format!("no sender: {error}")),
    }
}

/// X-Envelope-To, Delivered-To or X-Original-To (each as often as it stands), To with Cc and Bcc: the first that is there.
fn recipients<'h, H: Iterator<Item = &'h Header>>(
    headers: &dyn Fn() -> H,
    header: &Header,
) -> Result<Vec<Mailbox>, String> {
    let mut found: Vec<Mailbox> = Vec::new();
    for name in ["X-Envelope-To", "Delivered-To", "X-Original-To"] {
        for from in headers() {
            let values = from.all(name).map(|field| field.value()).collect::<Vec<_>>();
            for text in values.iter().flat_map(|value| value.split(',')) {
                found.push(Mailbox::parse(bare(text)).map_err(|error| format!("{name}: {error}"))?);
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    found = header.to_and_cc();
    found.extend(header.all("Bcc").flat_map(|field| field.mailboxes()));
    let mut seen = std::collections::HashSet::new();
    found.retain(|mailbox| seen.insert(mailbox.key()));
    if found.is_empty() { Err("it names no recipient".to_owned()) } else { Ok(found) }
}

/// Without angle brackets.
fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text).trim()
}
