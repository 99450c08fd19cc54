use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::ConfigError;

const DOCUMENTED: &str = include_str!("../../../docs/scenario.toml");

fn with(line: &str, other: &str) -> Vec<ConfigError> {
    assert!(DOCUMENTED.contains(line), "{line}");
    parse(&DOCUMENTED.replacen(line, other, 1), "scenario.toml").expect_err(other)
}

#[test]
fn the_documented_file_is_valid_and_means_what_it_says() {
    let scenario = parse(DOCUMENTED, "scenario.toml").unwrap();
    let Pace::Open { steps, poisson: true } = &scenario.pace else { panic!("{:?}", scenario.pace) };
    assert_eq!(steps.len(), 2);
    assert!(steps[0].ramp && !steps[1].ramp);
    assert_eq!((scenario.bound.mails, scenario.bound.time), (Some(10_000), Some(Duration::from_secs(120))));
    assert_eq!(scenario.mix, [(1, Kind::Plain)]);
    let Sizes::Choice(choices) = &scenario.sizes else { panic!("{:?}", scenario.sizes) };
    assert_eq!(choices[1], (1, Sizes::Even(1 << 20, 5 << 20)));
}

/// Commented keys show the default: written out, nothing changes.
#[test]
fn documented_defaults_are_the_defaults() {
    let is_default = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && key != "rate"
    };
    let uncommented: Vec<&str> = DOCUMENTED
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_default(rest)).unwrap_or(line))
        .collect();
    let count = uncommented.iter().zip(DOCUMENTED.lines()).filter(|(a, b)| *a != b).count();
    assert!(count >= 17, "only {count} commented defaults were found");
    let read = |text: &str| parse(text, "scenario.toml").unwrap();
    assert_eq!(read(DOCUMENTED), read(&uncommented.join("\n")));
}

#[test]
fn other_paces_people_and_contents_are_read() {
    let parse = |text: &str| parse(text, "dir/scenario.toml").unwrap();
    let knee = parse(
        "name = 'k'\n[pace]\nkind = 'knee'\nfrom = 50\nmost = 4000\np99 = '20 ms'\neach = '5 s'\narrivals = 'even'\n\
         [people]\nmade = 3\nkeys = ['p256']\n[mail]\ncontents = { folder = 'mails' }\nrecipients = 7\nsize = 100",
    );
    let each = Duration::from_secs(5);
    assert_eq!(
        knee.pace,
        Pace::Knee { from: 50.0, p99: Duration::from_millis(20), each, most: 4000.0, poisson: false }
    );
    assert_eq!(knee.people, People::Made { count: 3, keys: vec!["p256".into()] });
    assert_eq!(knee.contents, Contents::Folder("dir/mails".into()), "paths are relative to the file");
    assert_eq!((knee.recipients, knee.sizes), ((7, 7), Sizes::Fixed(100)));
    let closed = parse(
        "name = 'c'\n[pace]\nkind = 'closed'\n[bound]\nmails = 1\n[people]\nstore = '/etc/w.toml'\n\
         [mail]\ncontents = { mbox = '/m' }\n[connection]\nmails = 1\ntls = 'starttls'\nverify = 'ca.pem'",
    );
    assert_eq!((closed.people, closed.contents), (People::Store("/etc/w.toml".into()), Contents::Mbox("/m".into())));
    let kept = parse(
        "name = 'p'\nprofile = 'edi-energy'\n[pace]\nkind = 'knee'\n[people]\nfolder = 'p'\n[expect]\nverdict = false",
    );
    assert_eq!(
        (kept.people, kept.profile.as_str(), kept.verdict),
        (People::Folder("dir/p".into()), "edi-energy", false)
    );
    assert_eq!(closed.mails_per_connection, Some(1));
    assert_eq!(closed.tls, Tls { mode: TlsMode::StartTls, verify: Verify::File("dir/ca.pem".into()) });
}

#[test]
fn a_wrong_value_says_line_key_and_what_is_expected() {
    let errors = with("kind = \"open\"", "kind = \"opne\"");
    assert_eq!((errors[0].line, errors[0].key.as_str(), errors[0].found.as_str()), (17, "pace.kind", "\"opne\""));
    assert!(errors[0].expected.contains("\"knee\""), "{}", errors[0]);
    for (line, other) in [
        ("name = \"example\"", "nmae = \"example\""),
        ("name = \"example\"", ""),
        ("# rate = 100", "rate = 100"),
        ("# rate = 100", "from = 100"),
        ("rate = 200", "rate = 0"),
        ("rate = 200", "rate = nan"),
        ("lasts = \"30 s\"", ""),
        ("ramp = true", "ramp = 1"),
        ("mails = 10000", "mails = 0"),
        ("# drain = \"30 s\"", "drain = 30"),
        ("# count = 20", "count = 0"),
        ("# verify = false", "verify = true"),
        ("# verify = false", "verify = 7"),
        ("# hello = \"load.example\"", "hello = \"-\""),
        ("# recipients = [1, 1]", "recipients = [3, 1]"),
        ("# recipients = [1, 1]", "recipients = [1, 2, 3]"),
        ("# contents = \"made\"", "contents = \"real\""),
        ("# contents = \"made\"", "contents = { folder = \"a\", mbox = \"b\" }"),
        ("{ from = \"1 MiB\", to = \"5 MiB\" } },", "{ from = \"5 MiB\", to = \"1 MiB\" } },"),
        ("kind = \"plain\"", "kind = \"plian\""),
        ("weight = 1\n\n# Who", "weight = 0\n\n# Who"),
        ("to = [\"bert@partner.example\", ", "to = [\"bert\", "),
        ("[people]", "[people]\nmade = 3"),
        ("[people]", "[people]\nfolder = \"a\"\nstore = \"b\""),
        ("# profile = \"compatible\"", "profile = \"odd\""),
        ("# verdict = true", "verdict = 1"),
        ("[people]", "[people]\nkeys = [\"p256\"]"),
        ("# defer = 0.0", "defer = 1.1"),
        ("# defer = 0.0", "defer = 0.6\nrefuse = 0.6"),
    ] {
        let errors = with(line, other);
        assert!(errors.iter().all(|error| !error.expected.is_empty() && error.line > 0), "{other}: {errors:?}");
    }
}

#[test]
fn a_run_has_an_end() {
    let endless = "name = 'x'\n[pace]\nkind = 'closed'\n";
    assert_eq!(parse(endless, "x").unwrap_err()[0].key, "bound");
    assert!(parse(&format!("{endless}[bound]\ntime = '1 s'"), "x").is_ok());
    assert_eq!(parse("name = 'x'\n[pace]\nkind = 'open'\nrate = 5", "x").unwrap_err()[0].key, "bound");
}

#[test]
fn what_is_shipped_is_valid_and_bears_its_name() {
    let names: Vec<&str> = shipped().iter().map(|one| one.name).collect();
    for name in ["office", "newsletter", "invoices", "edi", "burst", "soak", "quick"] {
        assert!(names.contains(&name), "{name}");
    }
    for one in shipped() {
        let scenario = parse(one.text, one.name).unwrap_or_else(|errors| panic!("{}: {errors:?}", one.name));
        assert_eq!(scenario.name, one.name);
        assert!(!scenario.about.is_empty(), "{}", one.name);
    }
}

#[test]
fn kinds_have_names() {
    for (name, kind) in read::KINDS {
        assert_eq!((kind.name(), Kind::parse(name)), (name, Some(kind)));
    }
    assert_eq!(Kind::parse("odd"), None);
}

#[test]
fn fuzz_body_holds_on_what_was_seen() {
    fuzz_scenario(DOCUMENTED.as_bytes());
    for end in (0..DOCUMENTED.len()).step_by(61).filter(|end| DOCUMENTED.is_char_boundary(*end)) {
        fuzz_scenario(&DOCUMENTED.as_bytes()[..end]);
    }
    for one in shipped() {
        fuzz_scenario(one.text.as_bytes());
    }
    let nested = (0..50).fold("4".to_owned(), |inner, _| format!("[{{ size = {inner} }}]"));
    fuzz_scenario(format!("name = 'n'\n[pace]\nkind = 'knee'\n[mail]\nsize = {nested}").as_bytes());
}

proptest! {
    #[test]
    fn fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_scenario(&data);
    }

    #[test]
    fn fuzz_body_holds_with_a_line_changed(at in 0usize..200, value in "[ -~]{0,30}") {
        let lines: Vec<String> = DOCUMENTED.lines().enumerate().map(|(number, line)| match line.split_once(" = ") {
            Some((key, _)) if number == at => format!("{} = {value}", key.trim_start_matches("# ")),
            _ => line.to_owned(),
        }).collect();
        fuzz_scenario(lines.join("\n").as_bytes());
    }
}
