//! What the spool asks of a disk, so that tests can put another under it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One folder. Nothing written is durable before [`DiskFile::sync`], no name before [`Disk::sync_folder`].
pub trait Disk: Send + Sync + 'static {
    /// The names in the folder.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A new, empty file; fails if there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// A file's length in octets.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// `len` octets at `offset`; fails with `UnexpectedEof` when there are fewer.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A file that is written to its end.
pub trait DiskFile: Send {
    /// Appends octets, not durable yet.
    fn append(&mut self, octets: &[u8]) -> io::Result<()>;
    /// Makes all that was appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file after a failed append, so that no half record stays.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

/// A folder of the real file system, locked against a second process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens a folder, made if it is not there (readable by its owner alone). Fails with `WouldBlock` when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let new = !path.exists();
        builder.create(path)?;
        // Its own name too: mail is of no use in a folder that power loss takes away.
        if new
            && let Some(parent) = path.canonicalize()?.parent()
            && let Ok(parent) = File::open(parent)
        {
            parent.sync_all()?;
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        lock.try_lock().map_err(|error| {
            io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{}: in use by another process ({error}); stop it first", path.display()),
            )
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

impl Folder {
    /// A folder that is there and holds a spool; nothing is made.
    pub fn existing(path: &Path) -> io::Result<Self> {
        let mut names = fs::read_dir(path)?.filter_map(Result::ok).map(|entry| entry.file_name());
        if !names.any(|name| name.to_string_lossy().ends_with(".log") || name == "adopted") {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: holds no spool", path.display())));
        }
        Self::open(path)
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        if offset.saturating_add(u64::try_from(len).unwrap_or(u64::MAX)) > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut octets = vec![0; len];
        file.read_exact(&mut octets)?;
        Ok(octets)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.write_all(octets)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}
