//! The file of an audit log: several processes append to it, one at a time, and each goes on where the last one ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::chain;
use crate::config;

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    seq: u64,
    hash: String,
    /// Octets of half a line behind it.
    torn: u64,
}

/// An open file, and where its chain ends as far as this process wrote or read it.
#[derive(Debug)]
struct Held {
    file: File,
    length: u64,
}

/// The file that is written.
#[derive(Debug)]
pub(super) struct ChainFile {
    path: PathBuf,
    rotate: u64,
    held: Option<Held>,
    end: End,
}

impl ChainFile {
    pub(super) fn open(settings: &config::Audit) -> io::Result<Self> {
        let end = End { seq: 0, hash: chain::NOTHING.to_owned(), torn: 0 };
        let mut file = Self { path: settings.file.clone(), rotate: settings.rotate, held: None, end };
        let opened = file.locked()?;
        opened.unlock()?;
        Ok(file)
    }

    /// The number and the hash of the last line.
    pub(super) fn head(&self) -> (u64, String) {
        (self.end.seq, self.end.hash.clone())
    }

    /// Appends lines, all or none of them, and gives the head after them. A file that is full is moved aside then.
    pub(super) fn append(&mut self, bodies: &[Value]) -> io::Result<(u64, String)> {
        let file = self.locked()?;
        let written = self.append_locked(&file, bodies);
        if written.is_err() {
            // What of it got there is taken back. Where that fails too, it stays as half a line and is told of.
            if let Some(held) = &self.held {
                let _ = file.set_len(held.length);
            }
        }
        file.unlock()?;
        written.map(|()| self.head())
    }

    fn append_locked(&mut self, file: &File, bodies: &[Value]) -> io::Result<()> {
        let mut end = self.end.clone();
        let mut octets = Vec::new();
        if end.torn > 0 {
            octets.push(b'\n');
            let body = json!({"time": jiff::Timestamp::now().to_string(), "op": "torn", "subject": end.torn.to_string(), "outcome": "half a line that a crash left"});
            push(&mut octets, &mut end, &body);
        }
        bodies.iter().for_each(|body| push(&mut octets, &mut end, body));
        let mut writer = file;
        writer.write_all(&octets)?;
        end.torn = 0;
        self.end = end;
        let full = self.held.as_mut().is_some_and(|held| {
            held.length = held.length.saturating_add(octets.len() as u64);
            held.length >= self.rotate
        });
        if full {
            // The next line makes the new file. The lines are written; where this fails it is tried again with the next batch.
            if let Err(error) = self.move_aside(file) {
                tracing::error!(file = %self.path.display(), %error, "the audit log is full and cannot be moved aside");
            }
        }
        Ok(())
    }

    fn move_aside(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{:012}", self.end.seq));
        // Never over one that is there.
        std::fs::hard_link(&self.path, &aside)?;
        std::fs::remove_file(&self.path)?;
        self.held = None;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.held.as_ref().map_or(Ok(()), |held| held.file.sync_data())
    }

    /// The file under its name, locked, with the end of its chain known: another process may have written, or moved it aside.
    fn locked(&mut self) -> io::Result<File> {
        loop {
            let file = match &self.held {
                Some(held) => held.file.try_clone()?,
                None => open(&self.path)?,
            };
            file.lock()?;
            let (here, named) = (file.metadata()?, std::fs::metadata(&self.path));
            let same = named.is_ok_and(|named| (named.dev(), named.ino()) == (here.dev(), here.ino()));
            if !same {
                file.unlock()?;
                self.held = None;
                continue;
            }
            if self.held.take_if(|held| held.length != here.len()).is_some() || self.held.is_none() {
                // Where this fails nothing is held, and so neither is the lock.
                self.end = match end_of(&file, here.len())? {
                    Some(end) => end,
                    None => self.end_before()?,
                };
                self.held = Some(Held { file: file.try_clone()?, length: here.len() });
            }
            return Ok(file);
        }
    }

    /// The end of the chain in the newest file that was moved aside; the beginning where there is none.
    fn end_before(&self) -> io::Result<End> {
        let mut newest: Option<(u64, PathBuf)> = None;
        for (number, path) in aside(&self.path)? {
            if newest.as_ref().is_none_or(|(best, _)| number > *best) {
                newest = Some((number, path));
            }
        }
        let beginning = End { seq: 0, hash: chain::NOTHING.to_owned(), torn: 0 };
        let Some((_, path)) = newest else { return Ok(beginning) };
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        Ok(end_of(&file, length)?.map_or(beginning, |end| End { torn: 0, ..end }))
    }
}

fn push(octets: &mut Vec<u8>, end: &mut End, body: &Value) {
    end.seq = end.seq.saturating_add(1);
    let line = chain::line(end.seq, &end.hash, body);
    end.hash = chain::hash(line.as_bytes());
    octets.extend_from_slice(line.as_bytes());
    octets.push(b'\n');
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let file = options.create(true).mode(0o600).open(path)?;
    let folder = std::fs::metadata(folder_of(path))?;
    // Made by root for a gateway that is somebody else: it is the folder's owner who writes there. Who is not root owns it already, or may not.
    let _ = std::os::unix::fs::fchown(&file, Some(folder.uid()), Some(folder.gid()));
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Files that were moved aside, with their numbers.
pub(super) fn aside(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let number =
            entry.file_name().to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found)
}

/// Where the chain ends in a file of this length; `None`: there is nothing in it.
fn end_of(file: &File, length: u64) -> io::Result<Option<End>> {
    if length == 0 {
        return Ok(None);
    }
    let most = 2 * chain::LINE as u64;
    let from = length.saturating_sub(most);
    let mut reader = file;
    reader.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    reader.take(most).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
    let (lines, half) = tail.split_at_checked(whole).unwrap_or((&tail, &[]));
    let last = lines.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|octet| *octet == b'\n').next());
    let foreign = || {
        let why = "it is there and is no audit log: name another file, or move this one aside";
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let end = match last {
        Some(line) => chain::place(line).map(|(seq, _)| (seq, chain::hash(line))).ok_or_else(foreign)?,
        None if from > 0 || !half.starts_with(b"{\"seq\":1,") => return Err(foreign()),
        // A crash at the very first line.
        None => (0, chain::NOTHING.to_owned()),
    };
    let (seq, hash) = end;
    if half.is_empty() {
        return Ok(Some(End { seq, hash, torn: 0 }));
    }
    // Only its line end may be missing.
    let seq = chain::place(half).map_or(seq, |(own, _)| own);
    // The line that tells of it holds the hash of the half line.
    Ok(Some(End { seq, hash: chain::hash(half), torn: half.len() as u64 }))
}
