//! LDIF (RFC 2849) as directories are dumped: entries with the values that are wanted, line by line, within bounds.
//!
//! Read are content records and `changetype: add`; other changes are passed over. A value in another file (`attribute:< url`) is refused: nothing
//! is opened on the word of a file. What is wrong with an entry costs that entry alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most octets of one entry, folded or not; also of one line.
pub const MAX_ENTRY: usize = 32 << 20;
/// The most characters of a name that an error shows.
const SHOWN: usize = 60;

/// An entry, with its wanted values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line it begins at, from 1.
    pub line: u64,
    /// Its distinguished name, as written.
    pub dn: String,
    /// Attribute (lower case, without options such as `;binary`) and value, in the order they stand.
    pub values: Vec<(String, Vec<u8>)>,
}

/// What the lines so far make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Entry(Entry),
    /// An entry that cannot be read: the line at which that was seen, and why.
    Refused {
        line: u64,
        why: String,
    },
}

/// Takes lines, gives entries.
#[derive(Debug)]
pub struct Ldif<'w> {
    wanted: &'w [&'w str],
    /// Lines so far.
    number: u64,
    /// A line with what was folded behind it, and where it began.
    pending: Option<(u64, Vec<u8>)>,
    entry: Option<Entry>,
    octets: usize,
    refused: Option<(u64, String)>,
    /// A change that adds nothing.
    passed_over: bool,
    begun: bool,
}

impl<'w> Ldif<'w> {
    /// Keeps values of these attributes: lower case, without options.
    pub fn new(wanted: &'w [&'w str]) -> Self {
        Self {
            wanted,
            number: 0,
            pending: None,
            entry: None,
            octets: 0,
            refused: None,
            passed_over: false,
            begun: false,
        }
    }

    /// Takes a line, without its line feed; gives the entry that it ends.
    pub fn line(&mut self, line: &[u8]) -> Option<Found> {
        self.number = self.number.saturating_add(1);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.octets = self.octets.saturating_add(line.len());
        if self.octets > MAX_ENTRY {
            self.pending = None;
            self.refuse(self.number, format!("the entry has more than {MAX_ENTRY} octets"));
        }
        if line.is_empty() {
            return self.end();
        }
        match (line.strip_prefix(b" "), &mut self.pending) {
            (Some(more), Some((_, pending))) => pending.extend_from_slice(more),
            (Some(_), None) => self.refuse(self.number, "a line that begins with a space continues nothing".to_owned()),
            (None, _) => {
                self.take();
                if self.refused.is_none() {
                    self.pending = Some((self.number, line.to_vec()));
                }
            }
        }
        None
    }

    /// The entry that the end of the file ends.
    pub fn end(&mut self) -> Option<Found> {
        self.take();
        self.octets = 0;
        let passed_over = std::mem::take(&mut self.passed_over);
        let entry = self.entry.take();
        match self.refused.take() {
            Some((line, why)) => Some(Found::Refused { line, why }),
            None => entry.filter(|_| !passed_over).map(Found::Entry),
        }
    }

    fn refuse(&mut self, line: u64, why: String) {
        self.refused.get_or_insert((line, why));
    }

    /// Reads the line that is complete now.
    fn take(&mut self) {
        let Some((number, line)) = self.pending.take() else { return };
        if self.refused.is_none()
            && let Err(why) = self.attribute(number, &line)
        {
            self.refuse(number, why);
        }
    }

    fn attribute(&mut self, number: u64, line: &[u8]) -> Result<(), String> {
        if line.starts_with(b"#") || self.passed_over {
            return Ok(());
        }
        let (name, value) = split(line)?;
        let base = name.split(';').next().unwrap_or_default();
        let Some(entry) = &mut self.entry else {
            let first = !std::mem::replace(&mut self.begun, true);
            return match base {
                "version" if first => match value.decoded()?.as_slice() {
                    b"1" => Ok(()),
                    _ => Err("the file is of another version of LDIF than 1".to_owned()),
                },
                "dn" => {
                    let dn = String::from_utf8(value.decoded()?).map_err(|_| "the dn is not UTF-8".to_owned())?;
                    self.entry = Some(Entry { line: number, dn, values: Vec::new() });
                    Ok(())
                }
                _ => Err(format!("an entry begins with dn:, found {}:", cut(&name))),
            };
        };
        match base {
            "changetype" => self.passed_over = !value.decoded()?.eq_ignore_ascii_case(b"add"),
            "dn" => return Err("a second dn: in one entry; an empty line ends an entry".to_owned()),
            _ if self.wanted.contains(&base) => entry.values.push((base.to_owned(), value.decoded()?)),
            _ => {}
        }
        Ok(())
    }
}

enum Value<'a> {
    Text(&'a [u8]),
    Base64(&'a [u8]),
    Url,
}

impl Value<'_> {
    fn decoded(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.to_vec()),
            Self::Base64(text) => STANDARD.decode(text).map_err(|error| format!("base64: {error}")),
            Self::Url => Err("the value is in another file (:<), which is not opened; dump values with ::".to_owned()),
        }
    }
}

/// Attribute description, lower case, and value.
fn split(line: &[u8]) -> Result<(String, Value<'_>), String> {
    let shown = || cut(&String::from_utf8_lossy(line));
    let Some(colon) = memchr::memchr(b':', line) else { return Err(format!("no colon in {:?}", shown())) };
    let (name, rest) = line.split_at_checked(colon).unwrap_or((line, b""));
    let fits = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b';' | b'.');
    if name.is_empty() || !name.iter().all(fits) {
        return Err(format!("no attribute's name before the colon in {:?}", shown()));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let value = match (rest.strip_prefix(b":"), rest.strip_prefix(b"<")) {
        (Some(base64), _) => Value::Base64(base64.trim_ascii()),
        (None, Some(_)) => Value::Url,
        (None, None) => Value::Text(rest.trim_ascii_start()),
    };
    Ok((name, value))
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Fuzz body: entries hold no more than was written, and lines are counted.
#[doc(hidden)]
pub fn fuzz_ldif(data: &[u8]) {
    let mut ldif = Ldif::new(&["usercertificate", "mail"]);
    let mut lines = 0;
    let mut kept = 0;
    let mut check = |found: Option<Found>, lines: u64| match found {
        Some(Found::Entry(entry)) => {
            assert!(entry.line >= 1 && entry.line <= lines);
            kept += entry.dn.len() + entry.values.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        }
        Some(Found::Refused { line, why }) => assert!(line >= 1 && line <= lines && !why.is_empty()),
        None => {}
    };
    for line in data.split(|octet| *octet == b'\n') {
        lines += 1;
        check(ldif.line(line), lines);
    }
    check(ldif.end(), lines);
    assert!(kept <= data.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<Found> {
        let mut ldif = Ldif::new(&["usercertificate", "mail"]);
        let mut found: Vec<Found> = text.split('\n').filter_map(|line| ldif.line(line.as_bytes())).collect();
        found.extend(ldif.end());
        found
    }

    fn entry(line: u64, dn: &str, values: &[(&str, &[u8])]) -> Found {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Found::Entry(Entry { line, dn: dn.to_owned(), values })
    }

    #[test]
    fn folded_lines_options_comments_and_base64_are_read() {
        let text = "version: 1\r\n# a comment\r\n  folded\r\ndn: cn=Anna,dc=exam\r\n ple\r\nuserCertificate;binary:: AAEC\r\n \
            AwQ=\r\nmail: anna@example.org\r\njpegPhoto:: %%%\r\n\r\n\r\ndn:: Y249QmVydA==\nchangetype: add\nMAIL:bert@example.org\n";
        let expected = [
            entry(4, "cn=Anna,dc=example", &[("usercertificate", &[0, 1, 2, 3, 4]), ("mail", b"anna@example.org")]),
            entry(12, "cn=Bert", &[("mail", b"bert@example.org")]),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_is_wrong_with_an_entry_costs_that_entry_alone() {
        for (bad, part) in [
            ("dn: cn=a\nuserCertificate:: AA=A", "base64"),
            ("dn: cn=a\nuserCertificate:< file:///etc/passwd", "not opened"),
            ("dn: cn=a\nno colon", "no colon"),
            ("dn: cn=a\n: x", "no attribute"),
            ("cn: a\ndn: cn=a", "begins with dn"),
            ("dn: cn=a\ndn: cn=b", "second dn"),
            ("dn:: /w==", "not UTF-8"),
            (" dn: cn=a", "continues nothing"),
        ] {
            let found = read(&format!("version: 1\n\n{bad}\n\ndn: cn=good\nmail: g@example.org\n"));
            let [Found::Refused { why, .. }, good] = found.as_slice() else { panic!("{bad}: {found:?}") };
            assert!(why.contains(part), "{bad}: {why}");
            assert!(matches!(good, Found::Entry(entry) if entry.dn == "cn=good"), "{bad}");
        }
        assert!(matches!(read("version: 2\n").as_slice(), [Found::Refused { line: 1, .. }]));
    }

    #[test]
    fn changes_that_add_nothing_are_passed_over() {
        let text = "dn: cn=a\nchangetype: modify\nreplace: mail\nmail: x@example.org\n-\n\ndn: cn=b\nchangetype: delete\n\ndn: cn=c\n";
        assert_eq!(read(text), [entry(10, "cn=c", &[])]);
    }

    #[test]
    fn an_entry_is_bounded() {
        let mut ldif = Ldif::new(&["usercertificate"]);
        assert_eq!(ldif.line(b"dn: cn=a"), None);
        assert_eq!(ldif.line(b"userCertificate:: "), None);
        let line = [b" ".as_slice(), &vec![b'A'; 1 << 20]].concat();
        for _ in 0..40 {
            assert_eq!(ldif.line(&line), None);
            assert!(ldif.pending.as_ref().is_none_or(|(_, pending)| pending.len() <= MAX_ENTRY));
        }
        assert!(matches!(ldif.end(), Some(Found::Refused { why, .. }) if why.contains("more than")));
        ldif.line(b"dn: cn=b");
        assert!(matches!(ldif.end(), Some(Found::Entry(entry)) if entry.dn == "cn=b"));
    }

    proptest! {
        #[test]
        fn any_octets_are_taken(data in "(dn:|version: 1|userCertificate;binary::|mail:|changetype: add| |AAEC|\n|\r|#|<|-|[a-z]){0,40}", noise in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_ldif(data.as_bytes());
            fuzz_ldif(&noise);
        }
    }
}
