//! What flags change in a scenario.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::Failure;
use crate::load::scenario::{Contents, FOREVER, Kind, Pace, People, Scenario, Sizes, Step, Tls, TlsMode, Verify};

/// Words of a key type.
pub(super) const KEY_TYPES: [&str; 4] = ["rsa2048", "rsa3072", "rsa4096", "p256"];

/// Flags over a scenario; each takes the place of a key.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "In place of what the scenario says")]
pub struct Change {
    /// Mails a second, whatever is answered (an open loop); 0: as fast as the connections get them through (a closed loop).
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
    /// Even gaps between mails of an open loop, in place of Poisson ones.
    #[arg(long)]
    even: bool,
    /// Connections at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    /// Mails on one connection before it is closed; 0: it is kept.
    #[arg(long, value_name = "N")]
    mails_per_connection: Option<u32>,
    /// Time of sending, such as "30 s" or "5 min".
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Number of mails.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    mails: Option<u64>,
    /// How long arrivals are waited for after the last mail.
    #[arg(long, value_name = "TIME", value_parser = time)]
    drain: Option<Duration>,
    /// The same seed sends the same mails at the same times.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Octets of a content, such as 4096 or "1 MiB".
    #[arg(long, value_name = "SIZE", value_parser = octets)]
    size: Option<usize>,
    /// Recipients of one mail.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    recipients: Option<u32>,
    /// Sender's address; may be given again.
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "to")]
    from: Vec<String>,
    /// Recipient's address; may be given again.
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "from")]
    to: Vec<String>,
    /// Make so many people of each side for the run, with certificates and keys.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with_all = ["from", "people"])]
    made: Option<u32>,
    /// Their key types in turn.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',', requires = "made", value_parser = KEY_TYPES)]
    keys: Vec<String>,
    /// The people in a folder of `waxwing load people`, or in the store that a configuration file names.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "from")]
    people: Option<PathBuf>,
    /// Real mails: a folder of files, or an mbox.
    #[arg(long, value_name = "DIR|MBOX")]
    contents: Option<PathBuf>,
    /// Kinds of mail with weights, such as to-seal=3,sealed=1 (docs/scenario.toml lists them).
    #[arg(long, value_name = "KIND=WEIGHT,…", value_delimiter = ',', value_parser = kind)]
    mix: Vec<(u32, Kind)>,
    /// TLS to the target.
    #[arg(long, value_name = "WHEN", value_parser = ["off", "starttls", "implicit"])]
    tls: Option<String>,
    /// Judge the target's certificate: by the system's CAs, or by those of a PEM file.
    #[arg(long, value_name = "CAS", num_args = 0..=1, default_missing_value = "")]
    verify: Option<PathBuf>,
    /// Name in EHLO.
    #[arg(long, value_name = "NAME", value_parser = domain)]
    hello: Option<crate::address::Domain>,
    /// Longest wait for an answer, and for a target that is away.
    #[arg(long, value_name = "TIME", value_parser = time)]
    patience: Option<Duration>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "expected mails a second, up to 1000000".into())
}

fn time(text: &str) -> Result<Duration, String> {
    let found = crate::config::reader::parse_duration(text).filter(|time| *time <= FOREVER);
    found.ok_or_else(|| "expected a time, such as \"30 s\" or \"5 min\"".into())
}

fn octets(text: &str) -> Result<usize, String> {
    let found = crate::config::reader::parse_size(text).filter(|octets| (1..=1 << 30).contains(octets));
    found
        .and_then(|octets| usize::try_from(octets).ok())
        .ok_or_else(|| "expected octets, or \"64 KiB\", \"1 MiB\"; at most 1 GiB".into())
}

fn address(text: &str) -> Result<String, String> {
    crate::address::Mailbox::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn domain(text: &str) -> Result<crate::address::Domain, String> {
    crate::address::Domain::parse(text).map_err(|error| error.to_string())
}

fn kind(text: &str) -> Result<(u32, Kind), String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight = weight.parse().ok().filter(|weight| (1..=1_000_000).contains(weight));
    match (Kind::parse(name), weight) {
        (Some(kind), Some(weight)) => Ok((weight, kind)),
        _ => Err("expected KIND=WEIGHT, such as to-seal=3; docs/scenario.toml lists the kinds".into()),
    }
}

impl Change {
    /// The scenario with what the flags say.
    pub fn apply(&self, mut scenario: Scenario) -> Result<Scenario, Failure> {
        if let Some(rate) = self.rate {
            let steps = vec![Step { rate, lasts: FOREVER, ramp: false }];
            scenario.pace = if rate > 0.0 { Pace::Open { steps, poisson: true } } else { Pace::Closed };
        }
        if self.even {
            match &mut scenario.pace {
                Pace::Open { poisson, .. } | Pace::Knee { poisson, .. } => *poisson = false,
                Pace::Closed => {
                    return Err(Failure::new("--even has no meaning in a closed loop", "give a rate: --rate 100"));
                }
            }
        }
        // A bound on the command line is the bound: one of the file that is reached first would be a surprise.
        if self.time.is_some() || self.mails.is_some() {
            (scenario.bound.time, scenario.bound.mails) = (self.time, self.mails);
        }
        set(&mut scenario.bound.drain, self.drain);
        set(&mut scenario.connections, self.connections.map(usize::from));
        set(&mut scenario.mails_per_connection, self.mails_per_connection.map(|mails| (mails > 0).then_some(mails)));
        set(&mut scenario.seed, self.seed);
        set(&mut scenario.sizes, self.size.map(Sizes::Fixed));
        set(&mut scenario.recipients, self.recipients.map(|count| (count, count)));
        set(&mut scenario.hello, self.hello.clone());
        set(&mut scenario.patience, self.patience);
        if !self.from.is_empty() && !self.to.is_empty() {
            scenario.people = People::Named { from: self.from.clone(), to: self.to.clone() };
        }
        if let Some(count) = self.made {
            let default = || ["rsa2048", "p256"].map(str::to_owned).to_vec();
            let keys = if self.keys.is_empty() { default() } else { self.keys.clone() };
            scenario.people = People::Made { count, keys };
        }
        if let Some(path) = self.people.clone() {
            scenario.people = if path.is_dir() { People::Folder(path) } else { People::Store(path) };
        }
        if !self.mix.is_empty() {
            scenario.mix.clone_from(&self.mix);
        }
        if let Some(path) = self.contents.clone() {
            scenario.contents = if path.is_dir() { Contents::Folder(path) } else { Contents::Mbox(path) };
        }
        self.tls(&mut scenario.tls)?;
        if scenario.bound.mails.is_none() && scenario.bound.time.is_none() && !scenario.pace.ends_by_itself() {
            return Err(Failure::new("the run has no end", "give it one: --time \"1 min\" or --mails 1000"));
        }
        Ok(scenario)
    }

    fn tls(&self, tls: &mut Tls) -> Result<(), Failure> {
        match self.tls.as_deref() {
            Some("starttls") => tls.mode = TlsMode::StartTls,
            Some("implicit") => tls.mode = TlsMode::Implicit,
            Some(_) => *tls = Tls { mode: TlsMode::Off, verify: Verify::No },
            None => {}
        }
        if let Some(file) = &self.verify {
            tls.verify = if file.as_os_str().is_empty() { Verify::System } else { Verify::File(file.clone()) };
        }
        if tls.mode == TlsMode::Off && tls.verify != Verify::No {
            return Err(Failure::new(
                "--verify has no meaning without TLS",
                "say when TLS begins: --tls starttls or --tls implicit",
            ));
        }
        Ok(())
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
