//! `[metrics]`, `[audit]` and `[run]`: how the gateway is watched, what it writes down, and as whom it runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::reader::{Section, boolean, choice, list, parsed, size, text};

/// Where the numbers of the gateway are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// HTTP without TLS and without a password: `/metrics`, `/healthz`, `/readyz`.
    pub listen: SocketAddr,
}

/// Where it is written down what private keys were used for, and what was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The file that is written; what is full stands beside it, under its name and a number.
    pub file: PathBuf,
    /// Octets after which another file is begun; default 64 MiB.
    pub rotate: u64,
}

/// Whether the kernel bars all files but those that the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Landlock {
    /// Where the kernel can.
    #[default]
    WherePossible,
    /// It starts only where the kernel can.
    Require,
    Off,
}

/// As whom the gateway runs, and what of the machine it gives up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The user it becomes after it took its addresses; it has to be started by root then.
    pub user: Option<String>,
    /// The group; default: that user's.
    pub group: Option<String>,
    pub landlock: Landlock,
    /// Further folders that are read and written: spools that are to be taken over.
    pub folders: Vec<PathBuf>,
    /// The kernel may write memory with keys in it to disk when the gateway crashes; default no.
    pub core_dumps: bool,
}

pub(super) fn metrics(section: Section<'_, '_>) -> Option<Metrics> {
    let address = parsed(|text| {
        text.parse::<SocketAddr>().map_err(|_| "expected an IP address and a port, such as \"127.0.0.1:9465\"")
    });
    let listen = section.require("listen", "an address to listen on, such as \"127.0.0.1:9465\"", address);
    section.finish();
    listen.map(|listen| Metrics { listen })
}

pub(super) fn audit(section: Section<'_, '_>) -> Option<Audit> {
    let file = section.require("file", "a file, such as \"/var/log/waxwing/audit.log\"", |value| {
        let name = text(value)?;
        let named = std::path::Path::new(&name).file_name().is_some();
        named.then(|| PathBuf::from(&name)).ok_or_else(|| "expected the name of a file".to_owned())
    });
    let rotate = section.get("rotate", size(64 << 10)).unwrap_or(64 << 20);
    section.finish();
    file.map(|file| Audit { file, rotate })
}

pub(super) fn run(section: Section<'_, '_>) -> Run {
    let words = [("where-possible", Landlock::WherePossible), ("require", Landlock::Require), ("off", Landlock::Off)];
    let run = Run {
        user: section.get("user", text),
        group: section.get("group", text),
        landlock: section.get("landlock", choice(&words)).unwrap_or_default(),
        folders: section.get("folders", list(|text| Ok(PathBuf::from(text)))).unwrap_or_default(),
        core_dumps: section.get("core_dumps", boolean).unwrap_or(false),
    };
    if run.group.is_some() && run.user.is_none() {
        section.complain("user", "nothing", "expected a user beside the group");
    }
    section.finish();
    run
}
