//! `[harvest]`: what is taken from signed mail.

use super::reader::{Section, boolean, choice, integer};
use crate::address::Mailbox;
use crate::policy::Pattern;

/// What becomes of certificates that signed mail brings (A10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HarvestMode {
    /// None is taken.
    #[default]
    Off,
    /// The first of a mailbox waits for an administrator.
    Candidate,
    /// The first of a mailbox is trusted; another key waits for an administrator, or for the old key's word.
    Trust,
}

/// What is taken from signed mail, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harvest {
    /// For all whom `senders` does not name; default off.
    pub mode: HarvestMode,
    /// By author; the first that names him holds.
    pub senders: Vec<(Vec<Pattern>, HarvestMode)>,
    /// What authors say that they can read is kept with their certificates; default true.
    pub capabilities: bool,
    /// Harvested certificates of one mailbox at most; default 16.
    pub per_mailbox: usize,
    /// Harvested certificates that wait for an administrator, at most; default 10,000.
    pub pending: usize,
    /// Harvested certificates at most; default 100,000.
    pub certificates: usize,
    /// Changes of the store a second at most; default 4.
    pub writes: u32,
}

impl Default for Harvest {
    fn default() -> Self {
        Self {
            mode: HarvestMode::Off,
            senders: Vec::new(),
            capabilities: true,
            per_mailbox: 16,
            pending: 10_000,
            certificates: 100_000,
            writes: 4,
        }
    }
}

impl Harvest {
    /// What holds for this author.
    pub fn mode_for(&self, author: &Mailbox) -> HarvestMode {
        let named = |(patterns, _): &&(Vec<Pattern>, HarvestMode)| patterns.iter().any(|one| one.matches(author));
        self.senders.iter().find(named).map_or(self.mode, |(_, mode)| *mode)
    }
}

const MODES: &[(&str, HarvestMode)] =
    &[("off", HarvestMode::Off), ("candidate", HarvestMode::Candidate), ("trust", HarvestMode::Trust)];

pub(super) fn harvest(section: Section<'_, '_>, read_file: super::ReadFile<'_>) -> Harvest {
    let default = Harvest::default();
    let number = |key, low, high, default| {
        section.get(key, integer(low, high)).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    let senders = section.sections("sender").into_iter().filter_map(|one| {
        let patterns = super::policy::patterns(&one, "match", read_file);
        if patterns.is_empty() && !one.has("match") {
            one.complain("match", "nothing", "expected addresses or patterns, such as [\"@partner.example\"]");
        }
        let mode = one.require("mode", "\"off\", \"candidate\" or \"trust\"", choice(MODES));
        one.finish();
        mode.filter(|_| !patterns.is_empty()).map(|mode| (patterns, mode))
    });
    let senders = senders.collect();
    let harvest = Harvest {
        mode: section.get("mode", choice(MODES)).unwrap_or(default.mode),
        senders,
        capabilities: section.get("capabilities", boolean).unwrap_or(default.capabilities),
        per_mailbox: number("per_mailbox", 2, 1_000, default.per_mailbox),
        pending: number("pending", 2, 1_000_000, default.pending),
        certificates: number("certificates", 2, 10_000_000, default.certificates),
        writes: section
            .get("writes_per_second", integer(1, 100))
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default.writes),
    };
    section.finish();
    harvest
}
