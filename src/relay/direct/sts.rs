//! MTA-STS (RFC 8461): the record that says that there is a policy, and the policy. P.

use std::time::Duration;

use crate::address::Domain;

/// The longest time that a policy holds (RFC 8461 section 3.2): a year.
const LONGEST: u64 = 31_557_600;
/// Patterns of one policy that are looked at.
const PATTERNS: usize = 100;

/// What a sender does by a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes by the policy, or not at all.
    Enforce,
    /// It goes whatever comes; failures are told.
    Testing,
    /// There is none, or no longer.
    None,
}

/// A domain's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// How long it holds from when it was fetched; at most a year.
    pub max_age: Duration,
    /// Host names, or `*.` and a name, in lower case.
    mx: Vec<String>,
}

impl Policy {
    /// Reads a policy (RFC 8461 section 3.2). Keys that are not known are passed over; of those that stand twice the first counts.
    ///
    /// # Errors
    /// A key is missing or has no such value: it is no policy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (key, value) =
                line.split_once(':').ok_or_else(|| format!("a line without a colon: {:?}", cut(line)))?;
            let value = value.trim_matches([' ', '\t']);
            match key.trim_end_matches([' ', '\t']) {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() < PATTERNS => mx.push(pattern(value)?),
                "mx" => return Err(format!("more than {PATTERNS} mx lines")),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err("no line version: STSv1".into());
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            other => return Err(format!("mode {:?}, not enforce, testing or none", cut(other.unwrap_or_default()))),
        };
        let max_age = max_age.filter(|text| text.len() <= 10 && text.bytes().all(|octet| octet.is_ascii_digit()));
        let max_age: u64 = max_age.and_then(|text| text.parse().ok()).ok_or("no max_age in seconds")?;
        if mx.is_empty() && mode != Mode::None {
            return Err("no mx line".into());
        }
        Ok(Self { mode, max_age: Duration::from_secs(max_age.min(LONGEST)), mx })
    }

    /// Whether a host may take mail of the domain (RFC 8461 section 4.1): `*.` stands for one label.
    pub fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(rest) => host.split_once('.').is_some_and(|(label, above)| !label.is_empty() && above == rest),
            None => *pattern == host,
        })
    }
}

/// As a policy is written.
impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        write!(f, "version: STSv1\r\nmode: {mode}\r\nmax_age: {}\r\n", self.max_age.as_secs())?;
        self.mx.iter().try_for_each(|pattern| write!(f, "mx: {pattern}\r\n"))
    }
}

/// As much as a log line needs.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn pattern(text: &str) -> Result<String, String> {
    let (star, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    match Domain::parse(name) {
        Ok(domain) if !domain.is_literal() => Ok(format!("{star}{domain}")),
        _ => Err(format!("mx {:?}, which is no host name", cut(text))),
    }
}

/// The id in the TXT records at `_mta-sts` (RFC 8461 section 3.1); `None`: they announce no policy, or more than one.
pub fn id<'r>(records: impl IntoIterator<Item = &'r str>) -> Option<String> {
    let mut announced = records.into_iter().filter(|text| text.starts_with("v=STSv1"));
    let (text, more) = (announced.next()?, announced.next());
    let mut fields = text.split(';').map(|field| field.trim_matches([' ', '\t']));
    if more.is_some() || fields.next() != Some("v=STSv1") {
        return None;
    }
    let id = fields.find_map(|field| field.strip_prefix("id="))?;
    let fits = (1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric());
    fits.then(|| id.to_owned())
}

/// Fuzz body: a text is a policy that allows the hosts it names, or none; and a record has a short id, or none.
#[doc(hidden)]
pub fn fuzz_sts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(id) = id([text.as_ref()]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric()));
    }
    let Ok(policy) = Policy::parse(&text) else { return };
    assert!(policy.max_age <= Duration::from_secs(LONGEST));
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert_eq!(Policy::parse(&policy.to_string()).as_ref(), Ok(&policy));
    for pattern in &policy.mx {
        let host = pattern.replacen('*', "any", 1);
        assert!(policy.allows(&host) && policy.allows(&host.to_ascii_uppercase()));
        assert!(Domain::parse(&host).is_ok() || host.len() > 250);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";

    #[test]
    fn the_policy_of_rfc_8461() {
        let policy = Policy::parse(POLICY).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, Duration::from_secs(604_800)));
        for host in ["mail.example.com", "MAIL.example.com", "a.example.net", "backupmx.example.com"] {
            assert!(policy.allows(host), "{host}");
        }
        for host in
            ["example.com", "example.net", "a.b.example.net", ".example.net", "x.mail.example.com", "xexample.net"]
        {
            assert!(!policy.allows(host), "{host}");
        }
        fuzz_sts(POLICY.as_bytes());
        assert_eq!(Policy::parse(&POLICY.replace("\r\n", "\n")), Ok(policy));
    }

    #[test]
    fn what_is_no_policy_is_refused_whole() {
        let with = |from: &str, to: &str| Policy::parse(&POLICY.replace(from, to));
        for (from, to) in [
            ("version: STSv1", "version: STSv2"),
            ("version: STSv1\r\n", ""),
            ("mode: enforce", "mode: Enforce"),
            ("mode: enforce\r\n", ""),
            ("max_age: 604800", "max_age: -1"),
            ("max_age: 604800", "max_age: 99999999999"),
            ("max_age: 604800\r\n", ""),
            ("mail.example.com", "mail example.com"),
            ("*.example.net", "*"),
            ("*.example.net", "a.*.net"),
            ("mode: enforce", "enforce"),
        ] {
            assert!(with(from, to).is_err(), "{from:?} -> {to:?}");
        }
        assert!(Policy::parse("").is_err() && Policy::parse("version: STSv1\nmode: enforce\nmax_age: 1\n").is_err());
        assert_eq!(Policy::parse("version: STSv1\nmode: none\nmax_age: 1\n").unwrap().mode, Mode::None);
        let twice = with("mode: enforce", "mode: enforce\r\nmode: none\r\nfuture: x").unwrap();
        assert_eq!(twice.mode, Mode::Enforce);
        assert_eq!(with("604800", "9999999999").unwrap().max_age, Duration::from_secs(LONGEST));
    }

    #[test]
    fn one_record_announces_a_policy() {
        assert_eq!(id(["v=STSv1; id=20160831085700Z;"]), Some("20160831085700Z".into()));
        assert_eq!(id(["other", "v=STSv1;id=a1"]), Some("a1".into()));
        let long = format!("v=STSv1; id={};", "a".repeat(33));
        for none in [&["v=STSv1; id=1;", "v=STSv1; id=2;"][..], &[], &["v=STSv10; id=1;"], &["v=STSv1; id=;"], &[&long]]
        {
            assert_eq!(id(none.iter().copied()), None, "{none:?}");
        }
        assert_eq!(id(["v=STSv1; id=a-b;"]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_a_policy_or_none(octets in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            fuzz_sts(&octets);
            fuzz_sts(&[POLICY.as_bytes(), &octets].concat());
            fuzz_sts(format!("v=STSv1; id={text}").as_bytes());
        }
    }
}
