//! TOML text to a scenario, or every error with its line.

use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{
    Bound, Contents, FOREVER, Faults, Kind, Pace, People, Scenario, Sizes, Step, Tls, TlsMode, Verify, named_people,
};
use crate::address::{Domain, Mailbox};
use crate::config::ConfigError;
use crate::config::reader::{Report, Section, boolean, choice, duration, integer, list, number, parsed, size, text};
use crate::policy::Profile;

/// Mails a second.
const RATE: (f64, f64) = (0.001, 1_000_000.0);
/// Octets of one content.
const OCTETS_MAX: u64 = 1 << 30;
/// Choices within choices of sizes.
const DEPTH: u32 = 4;

/// A scenario out of a TOML text. `file` is its name in errors; paths in it are relative to its folder.
pub fn parse(content: &str, file: &str) -> Result<Scenario, Vec<ConfigError>> {
    let report = Report::new(file, content);
    let scenario = match DeTable::parse(content) {
        Ok(table) => {
            let offset = table.span().start;
            let table = table.into_inner();
            let folder = Path::new(file).parent().unwrap_or(Path::new(""));
            whole(&Section::new(&report, &table, offset, String::new()), folder)
        }
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            report.note(offset, "TOML", error.message().replace('\n', " "), "expected valid TOML");
            None
        }
    };
    let errors = report.into_errors();
    match scenario {
        Some(scenario) if errors.is_empty() => Ok(scenario),
        _ => Err(errors),
    }
}

/// Reads all; the caller throws the result away when anything was noted.
fn whole(top: &Section<'_, '_>, folder: &Path) -> Option<Scenario> {
    let name = top.require("name", "a name for the report", text);
    let about = top.get("about", text).unwrap_or_default();
    let seed = top.get("seed", integer(0, u64::MAX / 2)).unwrap_or(1);
    let profile = top.get("profile", profile).unwrap_or_else(|| "compatible".into());
    let pace = match top.section("pace") {
        Some(section) => pace(&section),
        None => {
            top.complain("pace", "nothing", "expected a table: [pace] with kind = \"closed\", \"open\" or \"knee\"");
            None
        }
    };
    let bound = bound(top, pace.as_ref());
    let connection = top.section("connection").map_or_else(Connection::default, |section| connection(&section, folder));
    let (sizes, recipients, contents) = top.section("mail").map_or_else(mail_default, |section| mail(&section, folder));
    let mix = mix(top);
    let people = top.section("people").map_or_else(named_people, |section| people(&section, folder));
    let sink = top.section("sink").map_or_else(Faults::default, |section| sink(&section));
    let verdict = top.section("expect").is_none_or(|section| expect(&section));
    top.complain_of_unknown();
    Some(Scenario {
        name: name?,
        about,
        pace: pace?,
        bound,
        connections: connection.count,
        mails_per_connection: connection.mails,
        tls: connection.tls,
        hello: connection.hello?,
        patience: connection.patience,
        sizes,
        recipients,
        contents,
        mix,
        people,
        sink,
        verdict,
        profile,
        seed,
    })
}

fn profile(value: &DeValue<'_>) -> Result<String, String> {
    let known = |name: &String| Profile::builtin(name).is_some();
    text(value).ok().filter(known).ok_or_else(|| "expected \"compatible\", \"modern\" or \"edi-energy\"".into())
}

fn expect(section: &Section<'_, '_>) -> bool {
    let verdict = section.get("verdict", boolean).unwrap_or(true);
    section.complain_of_unknown();
    verdict
}

#[derive(Clone, Copy)]
enum PaceKind {
    Closed,
    Open,
    Knee,
}

fn rate(value: &DeValue<'_>) -> Result<f64, String> {
    number(RATE.0, RATE.1)(value).map_err(|expected| format!("{expected}, in mails a second"))
}

fn pace(section: &Section<'_, '_>) -> Option<Pace> {
    let kinds = [("closed", PaceKind::Closed), ("open", PaceKind::Open), ("knee", PaceKind::Knee)];
    let kind = section.require("kind", "\"closed\", \"open\" or \"knee\"", choice(&kinds))?;
    // What another kind of pace knows is unknown to this one.
    let pace = match kind {
        PaceKind::Closed => Some(Pace::Closed),
        PaceKind::Open => open(section),
        PaceKind::Knee => {
            let (poisson, most) = (arrivals(section), section.get("most", rate).unwrap_or(100_000.0));
            let from = section.get("from", rate).unwrap_or(100.0);
            let (low, high) = (Duration::from_micros(100), Duration::from_secs(3_600));
            let p99 = section.get("p99", duration(low, high)).unwrap_or(Duration::from_millis(100));
            let each =
                section.get("each", duration(Duration::from_millis(100), high)).unwrap_or(Duration::from_secs(10));
            if most < from {
                section.complain("most", most.to_string(), format!("expected at least `from`, {from}"));
            }
            Some(Pace::Knee { from, p99, each, most, poisson })
        }
    };
    section.complain_of_unknown();
    pace
}

fn arrivals(section: &Section<'_, '_>) -> bool {
    section.get("arrivals", choice(&[("poisson", true), ("even", false)])).unwrap_or(true)
}

fn open(section: &Section<'_, '_>) -> Option<Pace> {
    let poisson = arrivals(section);
    let mut steps: Vec<Step> = Vec::new();
    for step in section.sections("step") {
        let rate = step.require("rate", "mails a second", rate);
        let lasts = duration(Duration::from_millis(100), FOREVER);
        let lasts = step.require("lasts", "a time, such as \"30 s\"", lasts);
        let ramp = step.get("ramp", boolean).unwrap_or(false);
        step.finish();
        if let (Some(rate), Some(lasts)) = (rate, lasts) {
            steps.push(Step { rate, lasts, ramp });
        }
    }
    match (section.has("rate"), section.has("step")) {
        (true, true) => section.complain("rate", "rate and steps", "expected one of the two"),
        (false, false) => section.complain("rate", "nothing", "expected a rate in mails a second, or [[pace.step]]"),
        (true, false) => {
            let rate = section.get("rate", rate)?;
            steps.push(Step { rate, lasts: FOREVER, ramp: false });
        }
        (false, true) => {}
    }
    Some(Pace::Open { steps, poisson })
}

fn bound(top: &Section<'_, '_>, pace: Option<&Pace>) -> Bound {
    let mut bound = Bound { mails: None, time: None, drain: Duration::from_secs(30) };
    if let Some(section) = top.section("bound") {
        bound.mails = section.get("mails", integer(1, u64::MAX / 4));
        bound.time = section.get("time", duration(Duration::from_millis(100), FOREVER));
        bound.drain = section.get("drain", duration(Duration::ZERO, FOREVER)).unwrap_or(bound.drain);
        section.finish();
    }
    if bound.mails.is_none() && bound.time.is_none() && pace.is_some_and(|pace| !pace.ends_by_itself()) {
        top.complain("bound", "no end", "expected [bound] with mails = …, time = \"…\", or both");
    }
    bound
}

struct Connection {
    count: usize,
    mails: Option<u32>,
    tls: Tls,
    hello: Option<Domain>,
    patience: Duration,
}

impl Default for Connection {
    fn default() -> Self {
        let tls = Tls { mode: TlsMode::Off, verify: Verify::No };
        let hello = Domain::parse("load.example").ok();
        Self { count: 20, mails: None, tls, hello, patience: Duration::from_secs(30) }
    }
}

fn connection(section: &Section<'_, '_>, folder: &Path) -> Connection {
    let default = Connection::default();
    let modes = [("off", TlsMode::Off), ("starttls", TlsMode::StartTls), ("implicit", TlsMode::Implicit)];
    let count = section.get("count", integer(1, 20_000)).and_then(|count| usize::try_from(count).ok());
    let mails = section.get("mails", integer(0, u64::from(u32::MAX))).and_then(|mails| u32::try_from(mails).ok());
    let mode = section.get("tls", choice(&modes)).unwrap_or(TlsMode::Off);
    let verify = section.get("verify", |value| verify(value, folder)).unwrap_or(Verify::No);
    if mode == TlsMode::Off && verify != Verify::No {
        section.complain(
            "verify",
            "a way to judge certificates, without TLS",
            "expected tls = \"starttls\" or \"implicit\" beside it",
        );
    }
    let hello = section.get("hello", parsed(Domain::parse)).or(default.hello);
    let patience = section.get("patience", duration(Duration::from_millis(100), Duration::from_secs(3_600)));
    section.complain_of_unknown();
    Connection {
        count: count.unwrap_or(default.count),
        mails: mails.filter(|mails| *mails > 0),
        tls: Tls { mode, verify },
        hello,
        patience: patience.unwrap_or(default.patience),
    }
}

fn verify(value: &DeValue<'_>, folder: &Path) -> Result<Verify, String> {
    match (value.as_bool(), text(value)) {
        (Some(true), _) => Ok(Verify::System),
        (Some(false), _) => Ok(Verify::No),
        (None, Ok(file)) => Ok(Verify::File(folder.join(file))),
        (None, Err(_)) => Err("expected false, true, or the name of a PEM file of CAs".into()),
    }
}

type MailPart = (Sizes, (u32, u32), Contents);

fn mail_default() -> MailPart {
    (Sizes::Fixed(4096), (1, 1), Contents::Made)
}

fn mail(section: &Section<'_, '_>, folder: &Path) -> MailPart {
    let (mut sizes, mut recipients, mut contents) = mail_default();
    if section.has("size") {
        sizes = self::sizes(section, "size", DEPTH).unwrap_or(sizes);
    }
    if section.has("recipients") {
        recipients = section.get("recipients", recipient_range).unwrap_or(recipients);
    }
    match section.value("contents").map(|value| value.get_ref()) {
        Some(DeValue::Table(_)) => {
            if let Some(inner) = section.section("contents") {
                contents = real_contents(&inner, folder).unwrap_or(contents);
            }
        }
        Some(_) => drop(section.get("contents", choice(&[("made", ())]))),
        None => {}
    }
    section.complain_of_unknown();
    (sizes, recipients, contents)
}

fn real_contents(section: &Section<'_, '_>, folder: &Path) -> Option<Contents> {
    let (dir, mbox) = (section.get("folder", text), section.get("mbox", text));
    section.complain_of_unknown();
    match (dir, mbox) {
        (Some(dir), None) => Some(Contents::Folder(folder.join(dir))),
        (None, Some(file)) => Some(Contents::Mbox(folder.join(file))),
        _ => {
            section.complain("folder", "none or both", "expected one of { folder = \"DIR\" } and { mbox = \"FILE\" }");
            None
        }
    }
}

fn recipient_range(value: &DeValue<'_>) -> Result<(u32, u32), String> {
    let expected = || "expected a number from 1 to 1000, or two of them: [from, to]".to_owned();
    let one = |value: &DeValue<'_>| {
        integer(1, 1_000)(value).ok().and_then(|number| u32::try_from(number).ok()).ok_or_else(expected)
    };
    match value.as_array() {
        None => one(value).map(|number| (number, number)),
        Some(array) => match array.iter().map(|item| one(item.get_ref())).collect::<Result<Vec<_>, _>>()?.as_slice() {
            [from, to] if from <= to => Ok((*from, *to)),
            _ => Err(expected()),
        },
    }
}

fn octets(value: &DeValue<'_>) -> Result<usize, String> {
    let octets = size(1)(value)?;
    if octets > OCTETS_MAX {
        return Err("expected at most \"1 GiB\"".into());
    }
    usize::try_from(octets).map_err(|error| error.to_string())
}

fn sizes(section: &Section<'_, '_>, key: &'static str, depth: u32) -> Option<Sizes> {
    let Some(depth) = depth.checked_sub(1) else {
        section.complain(key, "choices within choices", format!("expected at most {DEPTH} of them, one in the other"));
        return None;
    };
    match section.value(key)?.get_ref() {
        DeValue::Table(_) => spread(&section.section(key)?),
        DeValue::Array(_) => {
            let mut choices = Vec::new();
            for one in section.sections(key) {
                let weight = weight(&one);
                if !one.has("size") {
                    one.complain("size", "nothing", "expected a size");
                }
                let size = sizes(&one, "size", depth);
                one.complain_of_unknown();
                choices.extend(size.map(|size| (weight, size)));
            }
            if choices.is_empty() {
                section.complain(key, "no choice", "expected at least one { weight = …, size = … }");
            }
            Some(Sizes::Choice(choices))
        }
        _ => section.get(key, octets).map(Sizes::Fixed),
    }
}

fn spread(section: &Section<'_, '_>) -> Option<Sizes> {
    let log_normal = section.has("median") || section.has("p99") || section.has("most");
    let names = if log_normal { ["median", "p99", "most"] } else { ["from", "from", "to"] };
    let [low, middle, high] = names.map(|name| section.require(name, "a size, such as \"4 KiB\"", octets));
    section.complain_of_unknown();
    let (low, middle, high) = (low?, middle?, high?);
    if low > middle || middle > high {
        section.complain(
            names[2],
            "sizes that fall",
            format!("expected {}", if log_normal { "median <= p99 <= most" } else { "from <= to" }),
        );
        return None;
    }
    Some(if log_normal { Sizes::LogNormal(low, middle, high) } else { Sizes::Even(low, high) })
}

fn weight(section: &Section<'_, '_>) -> u32 {
    section.get("weight", integer(1, 1_000_000)).and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1)
}

/// Words of `kind` in a mix.
pub(super) const KINDS: [(&str, Kind); 8] = [
    ("plain", Kind::Plain),
    ("to-seal", Kind::ToSeal),
    ("sealed", Kind::Sealed),
    ("signed", Kind::Signed),
    ("unknown", Kind::UnknownRecipient { refused: true }),
    ("unknown-clear", Kind::UnknownRecipient { refused: false }),
    ("tampered", Kind::Tampered),
    ("wrong-key", Kind::WrongKey),
];

fn mix(top: &Section<'_, '_>) -> Vec<(u32, Kind)> {
    if !top.has("mix") {
        return vec![(1, Kind::Plain)];
    }
    let mut mix = Vec::new();
    for one in top.sections("mix") {
        let kind = one.require("kind", "a kind of mail", choice(&KINDS));
        let weight = weight(&one);
        one.finish();
        mix.extend(kind.map(|kind| (weight, kind)));
    }
    if mix.is_empty() {
        top.complain("mix", "no kind", "expected at least one [[mix]] with kind and weight");
    }
    mix
}

fn people(section: &Section<'_, '_>, folder: &Path) -> People {
    let address = |text: &str| Mailbox::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string());
    let (from, to) = (section.get("from", list(address)), section.get("to", list(address)));
    let made = section.get("made", integer(1, 100_000)).and_then(|count| u32::try_from(count).ok());
    let keys = section.get("keys", list(key_type));
    let (kept, store) = (section.get("folder", text), section.get("store", text));
    section.complain_of_unknown();
    for (key, found) in [("from", &from), ("to", &to), ("keys", &keys)] {
        if found.as_ref().is_some_and(Vec::is_empty) {
            section.complain(key, "an empty list", "expected at least one");
        }
    }
    if keys.is_some() && made.is_none() {
        section.complain("keys", "key types", "expected made = … beside them");
    }
    match (from, to, made, kept.or(store.clone())) {
        (Some(from), Some(to), None, None) => People::Named { from, to },
        (None, None, Some(count), None) => {
            People::Made { count, keys: keys.unwrap_or_else(|| vec!["rsa2048".into(), "p256".into()]) }
        }
        (None, None, None, Some(path)) if store.is_none() => People::Folder(folder.join(path)),
        (None, None, None, Some(path)) if store.as_ref() == Some(&path) => People::Store(folder.join(path)),
        _ => {
            section.complain("from", "none, too few or too many", "expected from and to, or made, or folder, or store");
            named_people()
        }
    }
}

fn key_type(text: &str) -> Result<String, String> {
    match text {
        "rsa2048" | "rsa3072" | "rsa4096" | "p256" => Ok(text.to_owned()),
        _ => Err("expected \"rsa2048\", \"rsa3072\", \"rsa4096\" or \"p256\"".into()),
    }
}

fn sink(section: &Section<'_, '_>) -> Faults {
    let default = Faults { stall_for: Duration::from_secs(2), ..Faults::default() };
    let hour = Duration::from_secs(3_600);
    let share = |key| section.get(key, number(0.0, 1.0)).unwrap_or(0.0);
    let faults = Faults {
        slow: section.get("slow", duration(Duration::ZERO, hour)).unwrap_or(default.slow),
        defer: share("defer"),
        refuse: share("refuse"),
        close: share("close"),
        stall: share("stall"),
        stall_for: section.get("stall_for", duration(Duration::ZERO, hour)).unwrap_or(default.stall_for),
    };
    let all = faults.defer + faults.refuse + faults.close;
    if all > 1.0 {
        section.complain("defer", format!("shares of {all} in all"), "expected defer + refuse + close <= 1");
    }
    section.complain_of_unknown();
    faults
}

/// Fuzz body: any text gives a scenario whose ranges are in order, or errors with a place; nothing else.
#[doc(hidden)]
pub fn fuzz_scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text, "fuzz.toml") {
        Ok(scenario) => {
            assert!(scenario.recipients.0 >= 1 && scenario.recipients.0 <= scenario.recipients.1);
            assert!(scenario.connections >= 1 && !scenario.mix.is_empty());
            assert!(scenario.mix.iter().all(|(weight, _)| *weight > 0));
            let ends = scenario.bound.mails.is_some() || scenario.bound.time.is_some();
            assert!(ends || scenario.pace.ends_by_itself());
            check_sizes(&scenario.sizes);
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.bytes().filter(|&octet| octet == b'\n').count() + 1;
            assert!(errors.iter().all(|error| error.line <= lines && !error.expected.is_empty()));
        }
    }
}

fn check_sizes(sizes: &Sizes) {
    match sizes {
        Sizes::Fixed(octets) => assert!(*octets >= 1),
        Sizes::Even(from, to) => assert!(from <= to),
        Sizes::LogNormal(median, p99, most) => assert!(median <= p99 && p99 <= most),
        Sizes::Choice(choices) => {
            assert!(!choices.is_empty());
            choices.iter().for_each(|(_, size)| check_sizes(size));
        }
    }
}
