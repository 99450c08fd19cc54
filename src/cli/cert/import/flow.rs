//! Jobs are read and checked on every core, and stored a few thousand at a time.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::super::{CommandResult, Failure, NOT_GOOD, read_file, shown};
use super::report::{Item, Outcome, Report};
use super::{ATTRIBUTES, Found, Job, Ready, Settings, is_ldif, lines};
use crate::pki::ldif::{self, Ldif, MAX_ENTRY};

/// What was read is stored after this time, though it may be little: keys of PKCS#12 files take long, and should not be lost.
const STORED_AFTER: Duration = Duration::from_secs(2);
/// Beyond so many jobs only refusals are told one by one; the report has all.
const TOLD: u64 = 1_000;
/// Of those that many.
const REFUSALS_TOLD: u64 = 100;

/// A job on its way.
struct Given {
    number: u64,
    job: Job,
}

/// A job that was read.
struct Seen {
    number: u64,
    name: String,
    item: Item,
    /// `None`: the report says that it is stored.
    outcome: Option<Result<Ready, String>>,
}

#[derive(Default)]
struct Counts {
    jobs: u64,
    stored: u64,
    unchanged: u64,
    refused: u64,
    left_out: u64,
}

/// Imports everything found; says what was stored or why not.
pub(in super::super) fn run(settings: &Settings<'_>, found: &Found) -> CommandResult {
    let (report, done) = match settings.report {
        Some(file) => Report::open(file, settings.resume).map(|(report, done)| (Some(report), done))?,
        None => (None, HashSet::new()),
    };
    let bar = if found.files.len() > 1 || found.files.iter().any(|file| is_ldif(file)) {
        ProgressBar::new(found.octets())
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {eta} {msg}") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let mut keeper =
        Keeper { settings, report, bar: &bar, counts: Counts::default(), many: found.files.len() as u64 > TOLD };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let (give, take) = sync_channel::<Given>(4 * workers);
    let (put, get) = sync_channel::<Seen>(settings.store.at_once());
    let take = Arc::new(Mutex::new(take));
    let ended = std::thread::scope(|scope| {
        let reader = scope.spawn({
            let bar = bar.clone();
            move || produce(found, &give, &bar)
        });
        for _ in 0..workers {
            let (put, take, done) = (put.clone(), take.clone(), &done);
            scope.spawn(move || work(settings, &take, &put, done));
        }
        drop((put, take));
        let kept = keeper.keep(&get);
        // Whoever still reads or checks ends with what it gives to.
        drop(get);
        kept.and(reader.join().unwrap_or_else(|_| Err(Failure::new("the reader ended early", ""))))
    });
    bar.finish_and_clear();
    ended?;
    Ok(keeper.sum(found, began.elapsed()))
}

/// Reads names, and dumps entry by entry.
fn produce(found: &Found, give: &SyncSender<Given>, bar: &ProgressBar) -> Result<(), Failure> {
    let mut number = 0;
    let mut next = |job: Job| {
        number += 1;
        give.send(Given { number, job }).is_ok()
    };
    for file in &found.files {
        let going = if is_ldif(file) { dump(file, bar, &mut next)? } else { next(Job::File(file.clone())) };
        if !going {
            break;
        }
    }
    Ok(())
}

/// The values of a dump; says whether somebody still takes them.
fn dump(file: &Path, bar: &ProgressBar, next: &mut dyn FnMut(Job) -> bool) -> Result<bool, Failure> {
    let name = file.display().to_string();
    let failed = |error: std::io::Error| Failure::new(format!("{name}: {error}"), "");
    let mut reader = BufReader::with_capacity(1 << 20, std::fs::File::open(file).map_err(failed)?);
    let mut ldif = Ldif::new(&ATTRIBUTES);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = MAX_ENTRY as u64 + 1;
        let length = reader.by_ref().take(most).read_until(b'\n', &mut line).map_err(failed)?;
        if length as u64 == most && !line.ends_with(b"\n") {
            return Err(Failure::new(format!("{name}: a line of more than {MAX_ENTRY} octets"), "is it an LDIF file?"));
        }
        bar.inc(length as u64);
        let ended = length == 0;
        let found = if ended { ldif.end() } else { ldif.line(line.strip_suffix(b"\n").unwrap_or(&line)) };
        let going = match found {
            None => true,
            Some(ldif::Found::Refused { line, why }) => {
                // It goes the same way as the others, and is refused there with these words.
                next(Job::Value { name: format!("{name}:{line}"), attribute: String::new(), octets: why.into_bytes() })
            }
            Some(ldif::Found::Entry(entry)) => {
                let place = format!("{name}:{} {}", entry.line, entry.dn);
                let mut values = entry.values.into_iter();
                values.all(|(attribute, octets)| next(Job::Value { name: place.clone(), attribute, octets }))
            }
        };
        if ended || !going {
            return Ok(going);
        }
    }
}

/// Reads and checks until there are no more jobs, or nobody takes them.
fn work(settings: &Settings<'_>, take: &Mutex<Receiver<Given>>, put: &SyncSender<Seen>, done: &HashSet<Item>) {
    loop {
        let given = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Given { number, job }) = given else { return };
        if put.send(read(settings, number, job, done)).is_err() {
            return;
        }
    }
}

fn read(settings: &Settings<'_>, number: u64, mut job: Job, done: &HashSet<Item>) -> Seen {
    let (name, octets) = match &mut job {
        Job::File(file) => (file.display().to_string(), read_file(file).map_err(|failure| failure.to_string())),
        Job::Value { name, octets, .. } => (name.clone(), Ok(std::mem::take(octets))),
    };
    let octets = match octets {
        Ok(octets) => Zeroizing::new(octets),
        Err(why) => return Seen { number, item: item(settings, name.as_bytes()), name, outcome: Some(Err(why)) },
    };
    let item = item(settings, &octets);
    let outcome = match &job {
        Job::Value { attribute, .. } if attribute.is_empty() => {
            Some(Err(String::from_utf8_lossy(&octets).into_owned()))
        }
        _ if done.contains(&item) => None,
        job => Some(settings.ready(job, &octets)),
    };
    Seen { number, name, item, outcome }
}

/// The same octets for another owner, or with other trust, are another item.
fn item(settings: &Settings<'_>, octets: &[u8]) -> Item {
    let mut context = digest::Context::new(&digest::SHA256);
    let owner = settings.owner.as_ref().map(ToString::to_string).unwrap_or_default();
    context.update(format!("{owner}\0{}\0", settings.trust.word()).as_bytes());
    context.update(octets);
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Stores, tells and counts.
struct Keeper<'a> {
    settings: &'a Settings<'a>,
    report: Option<Report>,
    bar: &'a ProgressBar,
    counts: Counts,
    many: bool,
}

impl Keeper<'_> {
    fn keep(&mut self, get: &Receiver<Seen>) -> Result<(), Failure> {
        let (mut batch, mut since) = (Vec::new(), Instant::now());
        loop {
            let ended = match get.recv_timeout(STORED_AFTER.saturating_sub(since.elapsed())) {
                Ok(read) => {
                    batch.push(read);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if ended || batch.len() >= self.settings.store.at_once() || since.elapsed() >= STORED_AFTER {
                self.store(std::mem::take(&mut batch))?;
                since = Instant::now();
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn store(&mut self, mut batch: Vec<Seen>) -> Result<(), Failure> {
        batch.sort_by_key(|read| read.number);
        let mut parcels = Vec::new();
        let mut told = Vec::with_capacity(batch.len());
        for Seen { name, item, outcome, .. } in batch {
            match outcome {
                None => {
                    self.counts.left_out += 1;
                    self.went_on(&name);
                }
                Some(Err(why)) => told.push((name, item, Err(why))),
                Some(Ok(Ready { parcel, notes, named })) => {
                    parcels.push(parcel);
                    told.push((name, item, Ok((notes, named))));
                }
            }
        }
        let mut outcomes = self.settings.store.import_parcels(&parcels).into_iter();
        for (name, item, ready) in told {
            self.counts.jobs += 1;
            let outcome = ready.and_then(|(notes, named)| {
                let missing = || Err(crate::store::StoreError::Io("gave no answer".to_owned()));
                let outcome = outcomes.next().unwrap_or_else(missing).map_err(|error| error.to_string())?;
                let owners: Vec<String> = named.iter().map(|(owner, _)| owner.to_string()).collect();
                Ok((owners.join(" "), lines(notes, &named, &outcome)))
            });
            self.tell(&name, &item, outcome)?;
        }
        let counts = &self.counts;
        self.bar.set_message(format!(
            "{} stored, {} there already, {} refused",
            counts.stored, counts.unchanged, counts.refused
        ));
        self.report.as_mut().map_or(Ok(()), Report::flush)
    }

    /// A dump's octets are counted where it is read.
    fn went_on(&self, name: &str) {
        if !name.contains(".ldif:") {
            self.bar.inc(std::fs::metadata(name).map_or(0, |metadata| metadata.len()));
        }
    }

    fn tell(
        &mut self,
        name: &str,
        item: &Item,
        outcome: Result<(String, (Vec<String>, bool)), String>,
    ) -> Result<(), Failure> {
        self.went_on(name);
        self.many |= self.counts.jobs > TOLD;
        let printed = shown(name);
        let (word, owners, detail) = match outcome {
            Ok((owners, (lines, changed))) => {
                if !self.many && !self.settings.json {
                    self.bar.suspend(|| lines.iter().for_each(|line| println!("{printed}: {line}")));
                }
                let word = if changed { Outcome::Stored } else { Outcome::Unchanged };
                (word, owners, lines.join("; "))
            }
            Err(why) => {
                if !self.many || self.counts.refused < REFUSALS_TOLD {
                    self.bar.suspend(|| eprintln!("waxwing: {printed}: {}", shown(&why)));
                }
                (Outcome::Refused, String::new(), why)
            }
        };
        match word {
            Outcome::Stored => self.counts.stored += 1,
            Outcome::Unchanged => self.counts.unchanged += 1,
            Outcome::Refused => self.counts.refused += 1,
        }
        self.report.as_mut().map_or(Ok(()), |report| report.row(item, name, word, &owners, &detail))
    }

    fn sum(&self, found: &Found, took: Duration) -> ExitCode {
        let Counts { jobs, stored, unchanged, refused, left_out } = self.counts;
        let seconds = took.as_secs_f64();
        if self.settings.json {
            println!(
                "{:#}",
                json!({"tried": jobs, "stored": stored, "unchanged": unchanged, "refused": refused, "done_before": left_out,
                    "of_other_kinds": found.left_out, "seconds": seconds, "report": self.settings.report})
            );
        } else if jobs + left_out > 1 || found.left_out > 0 {
            let noun = if found.files.iter().any(|file| is_ldif(file)) { "files and values" } else { "files" };
            println!(
                "{jobs} {noun}: {stored} stored, {unchanged} there already, {refused} refused; {} of other kinds left out",
                found.left_out
            );
            if left_out > 0 {
                println!("{left_out} more were done before, as the report says");
            }
            if self.many {
                println!("{:.0} a second", (jobs + left_out) as f64 / seconds.max(0.001));
                if let (true, None) = (refused > REFUSALS_TOLD, self.settings.report) {
                    println!("not every refusal was told: --report FILE has them all");
                }
            }
        }
        if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) }
    }
}
