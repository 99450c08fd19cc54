//! The report of an import: a row a file or value, in CSV, or in JSON a line where the file ends in .json or .jsonl. Rows are written when what
//! they tell of is durable, so a later run can go on behind them.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::super::super::Failure;
use crate::store::keyring::{hex, unhex};

const HEADING: [&str; 5] = ["item", "source", "outcome", "owners", "detail"];

/// Names what is imported, and how: SHA-256 over both.
pub(super) type Item = [u8; 32];

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored,
    Unchanged,
    Refused,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// A report that is being written.
pub(super) struct Report {
    out: BufWriter<File>,
    json: bool,
    name: String,
}

impl Report {
    /// Begins a report, or goes on with one: gives the items that it says are in the store.
    pub(super) fn open(file: &Path, resume: bool) -> Result<(Self, HashSet<Item>), Failure> {
        let name = file.display().to_string();
        let failed = |error: std::io::Error| {
            let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
                "--resume goes on with it; or name another"
            } else {
                "name a file that can be written with --report FILE"
            };
            Failure::new(format!("{name}: {error}"), hint)
        };
        let json = file.extension().is_some_and(|ending| ending == "json" || ending == "jsonl");
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        if resume {
            options.create(true)
        } else {
            options.create_new(true)
        };
        let mut handle = options.open(file).map_err(failed)?;
        let done = if json { done_json(&handle) } else { done_csv(&handle) };
        let whole = ends_whole(&mut handle).map_err(failed)?;
        let length = handle.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut report = Self { out: BufWriter::new(handle), json, name };
        if !whole {
            // The row that a crash cut off is no row.
            report.put(b"\n")?;
        }
        if length == 0 && !json {
            report.csv(HEADING)?;
        }
        Ok((report, done))
    }

    /// Adds a row.
    pub(super) fn row(
        &mut self,
        item: &Item,
        source: &str,
        outcome: Outcome,
        owners: &str,
        detail: &str,
    ) -> Result<(), Failure> {
        if self.json {
            let row = json!({"item": *hex(item), "source": source, "outcome": outcome.word(), "owners": owners, "detail": detail});
            self.put(format!("{row}\n").as_bytes())
        } else {
            self.csv([hex(item).as_str(), source, outcome.word(), owners, detail])
        }
    }

    fn csv(&mut self, cells: [&str; 5]) -> Result<(), Failure> {
        let mut row = csv::Writer::from_writer(Vec::new());
        let octets = row
            .write_record(cells)
            .map_err(|error| error.to_string())
            .and_then(|()| row.into_inner().map_err(|error| error.to_string()));
        match octets {
            Ok(octets) => self.put(&octets),
            Err(why) => Err(Failure::new(format!("{}: {why}", self.name), "")),
        }
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), Failure> {
        self.out.write_all(octets).map_err(|error| self.failed(&error))
    }

    /// Writes what is buffered.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("{}: {error}", self.name), "what was stored stays stored; --resume goes on")
    }
}

fn ends_whole(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0; 1];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Rows that cannot be read are none: what they told of is tried again.
fn done_csv(file: &File) -> HashSet<Item> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let rows = reader.records().filter_map(Result::ok);
    rows.filter_map(|row| row.get(0).zip(row.get(2)).and_then(|(item, outcome)| done(item, outcome))).collect()
}

fn done_json(file: &File) -> HashSet<Item> {
    let rows = BufReader::new(file).lines().map_while(Result::ok);
    let rows = rows.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    rows.filter_map(|row| {
        row.get("item")
            .and_then(Value::as_str)
            .zip(row.get("outcome").and_then(Value::as_str))
            .and_then(|(item, outcome)| done(item, outcome))
    })
    .collect()
}

fn done(item: &str, outcome: &str) -> Option<Item> {
    let stored = [Outcome::Stored, Outcome::Unchanged].iter().any(|known| known.word() == outcome);
    unhex(item).filter(|_| stored).map(|item| *item)
}
