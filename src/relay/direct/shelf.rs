//! Policies of MTA-STS on disk, so that a restart forgets none: a line each, the last of a domain counts. What cannot be read or written is
//! told in the log and does no more harm than a policy that was never fetched.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::policies::Kept;
use super::sts::Policy;
use crate::address::Domain;

/// The file.
pub(super) struct Shelf(PathBuf);

impl Shelf {
    /// In this folder.
    pub(super) fn in_folder(folder: &std::path::Path) -> Self {
        Self(folder.join("mta-sts"))
    }

    /// All that still hold; the file is written anew with them alone.
    pub(super) fn read(&self, now: Timestamp) -> HashMap<Domain, Kept> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return HashMap::new(),
            Err(error) => {
                self.complain(&error);
                return HashMap::new();
            }
        };
        let mut kept: HashMap<Domain, Kept> = text.lines().filter_map(entry).collect();
        kept.retain(|_, kept| now < kept.until);
        if kept.len() < text.lines().count() {
            let lines: String = kept.iter().map(|(domain, kept)| line(domain, kept)).collect();
            let beside = self.0.with_extension("new");
            let written = fs::write(&beside, lines).and_then(|()| fs::rename(&beside, &self.0));
            written.unwrap_or_else(|error| self.complain(&error));
        }
        kept
    }

    /// One more. Waits for the disk.
    pub(super) fn add(&self, domain: &Domain, kept: &Kept) {
        let opened = OpenOptions::new().create(true).append(true).open(&self.0);
        let written = opened.and_then(|mut file| file.write_all(line(domain, kept).as_bytes()));
        written.unwrap_or_else(|error| self.complain(&error));
    }

    fn complain(&self, error: &io::Error) {
        tracing::warn!(file = %self.0.display(), %error, "policies of MTA-STS are not kept past a restart");
    }
}

fn line(domain: &Domain, kept: &Kept) -> String {
    let until = kept.until.as_second();
    let object = json!({ "domain": domain.as_str(), "id": kept.id, "until": until, "policy": kept.policy.to_string() });
    format!("{object}\n")
}

fn entry(line: &str) -> Option<(Domain, Kept)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let domain = Domain::parse(text("domain")?).ok()?;
    let policy = Arc::new(Policy::parse(text("policy")?).ok()?);
    let until = Timestamp::from_second(value.get("until")?.as_i64()?).ok()?;
    Some((domain, Kept { policy, id: text("id")?.to_owned(), until }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_put_on_the_shelf_is_there_until_it_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::in_folder(folder.path());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert!(shelf.read(now).is_empty());
        let policy = |mode: &str| {
            let text = format!("version: STSv1\nmode: {mode}\nmx: *.example\nmx: mx.example\nmax_age: 86400\n");
            Arc::new(Policy::parse(&text).unwrap())
        };
        let after = |seconds| now + Duration::from_secs(seconds);
        let (one, other) = (Domain::parse("one.example").unwrap(), Domain::parse("other.example").unwrap());
        let kept = |mode: &str, id: &str, seconds| Kept { policy: policy(mode), id: id.into(), until: after(seconds) };
        shelf.add(&one, &kept("testing", "1", 50));
        shelf.add(&other, &kept("enforce", "1", 50));
        shelf.add(&one, &kept("enforce", "2", 100));
        fs::write(&shelf.0, fs::read_to_string(&shelf.0).unwrap() + "{\"domain\": \"torn").unwrap();
        let read = shelf.read(after(10));
        assert_eq!((read.len(), read[&one].id.as_str(), &read[&one].policy), (2, "2", &policy("enforce")));
        assert_eq!(fs::read_to_string(&shelf.0).unwrap().lines().count(), 2);
        assert_eq!(shelf.read(after(60)).into_keys().collect::<Vec<_>>(), [one]);
        assert!(shelf.read(after(200)).is_empty());
    }
}
