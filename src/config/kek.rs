//! Where the key-encryption key is.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where key-encryption keys are: files, or `credential:NAME` (a systemd credential). During a rotation the present one and the next; what
/// is opened is opened with whichever fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekSources(Vec<PathBuf>);

impl KekSources {
    /// These, in this order.
    pub fn new(places: Vec<PathBuf>) -> Self {
        Self(places)
    }

    /// Each place.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// The credential that a place names.
    pub fn credential(place: &Path) -> Option<&str> {
        place.to_str()?.strip_prefix("credential:")
    }
}

impl fmt::Display for KekSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{}", place.display())?;
        }
        Ok(())
    }
}

impl From<PathBuf> for KekSources {
    fn from(place: PathBuf) -> Self {
        Self(vec![place])
    }
}

impl From<&Path> for KekSources {
    fn from(place: &Path) -> Self {
        place.to_owned().into()
    }
}

impl From<&PathBuf> for KekSources {
    fn from(place: &PathBuf) -> Self {
        place.clone().into()
    }
}

impl From<&KekSources> for KekSources {
    fn from(sources: &KekSources) -> Self {
        sources.clone()
    }
}
