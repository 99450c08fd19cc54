//! Who has the store open: a file for each process, in the folder `processes` beside the store, locked as long as it lives. It says which
//! key-encryption keys the process has, so that none is retired that somebody needs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::store::keyring::{Fingerprint, hex, parse_fingerprint};

const FOLDER: &str = "processes";
/// What a process says of itself, in octets at most.
const SAID_MAX: u64 = 16 << 10;

/// A process that has the store open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The key-encryption keys it has.
    pub keks: Vec<Fingerprint>,
    /// The revision of the header that it goes by.
    pub revision: u64,
}

/// Our own file; dropped with the store.
pub(super) struct Presence {
    file: File,
    path: PathBuf,
    said: Option<Process>,
}

impl Presence {
    /// Begins to be present; others see it complete or not at all.
    pub fn begin(store: &Path, process: Process) -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = store.join(FOLDER);
        if let Err(error) = std::fs::DirBuilder::new().create(&folder)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let owner = std::fs::metadata(store)?;
        if std::fs::metadata(&folder)?.uid() != owner.uid() {
            // Made by root for a gateway that runs as another: it must be able to say that it is there.
            chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
        }
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let draft = folder.join(format!(".{name}"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.lock()?;
        let mut presence = Self { file, path: folder.join(name), said: None };
        presence.say(process)?;
        std::fs::rename(&draft, &presence.path)?;
        Ok(presence)
    }

    /// Says something else, where it is something else.
    pub fn say(&mut self, process: Process) -> std::io::Result<()> {
        if self.said.as_ref() == Some(&process) {
            return Ok(());
        }
        let keks: Vec<String> = process.keks.iter().map(|kek| hex(kek).to_string()).collect();
        let text = json!({"pid": process.pid, "keks": keks, "revision": process.revision}).to_string();
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())?;
        self.said = Some(process);
        Ok(())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // One that stays is not locked, and so is nobody's.
        drop(std::fs::remove_file(&self.path));
    }
}

/// The other processes; `None` in place of one that has not finished saying what it has. What the dead left is removed.
pub(super) fn others(store: &Path, own: Option<&Presence>) -> std::io::Result<Vec<Option<Process>>> {
    let folder = match std::fs::read_dir(store.join(FOLDER)) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut others = Vec::new();
    for entry in folder {
        let path = entry?.path();
        let draft = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if draft || own.is_some_and(|own| own.path == path) {
            continue;
        }
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if file.try_lock_shared().is_ok() {
            drop(std::fs::remove_file(&path));
            continue;
        }
        let mut text = String::new();
        let read = Read::by_ref(&mut file).take(SAID_MAX).read_to_string(&mut text);
        others.push(read.ok().and_then(|_| parse(&text)));
    }
    Ok(others)
}

fn parse(text: &str) -> Option<Process> {
    let said: Value = serde_json::from_str(text).ok()?;
    let keks =
        said.get("keks")?.as_array()?.iter().map(|kek| parse_fingerprint(kek.as_str()?)).collect::<Option<_>>()?;
    Some(Process {
        pid: u32::try_from(said.get("pid")?.as_u64()?).ok()?,
        keks,
        revision: said.get("revision")?.as_u64()?,
    })
}
