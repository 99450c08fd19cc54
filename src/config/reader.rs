//! Walks a TOML table key by key: what is not asked for is unknown, and every complaint has its line.

use std::cell::RefCell;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Collects what is wrong in one file.
pub(crate) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, errors: RefCell::default() }
    }
    /// Notes an error at an octet offset of the text.
    pub(crate) fn note(&self, offset: usize, key: &str, found: impl Into<String>, expected: impl Into<String>) {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|&&octet| octet == b'\n').count() + 1;
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            found: found.into(),
            expected: expected.into(),
        });
    }
    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors
    }
}

/// One table of the file.
pub(crate) struct Section<'a, 't> {
    report: &'a Report<'a>,
    table: &'a DeTable<'t>,
    /// Octet offset of the table, for what is missing in it.
    offset: usize,
    path: String,
    known: RefCell<Vec<&'static str>>,
}

/// Why a value is not taken: what was expected.
pub(crate) type Expected = String;

impl<'a, 't> Section<'a, 't> {
    pub(crate) fn new(report: &'a Report<'a>, table: &'a DeTable<'t>, offset: usize, path: String) -> Self {
        Self { report, table, offset, path, known: RefCell::default() }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value and where it stands; marks the key as known.
    pub(crate) fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.known.borrow_mut().push(key);
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    /// Whether the key stands there; marks it as known.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A value, or `None` where it is absent or (reported) wrong.
    pub(crate) fn get<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Expected>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(expected) => {
                self.report.note(value.span().start, &self.name(key), show(value.get_ref()), expected);
                None
            }
        }
    }

    /// A value that must be there.
    pub(crate) fn require<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Expected>,
    ) -> Option<T> {
        if !self.has(key) {
            self.report.note(self.offset, &self.name(key), "nothing", format!("expected {expected}; add it"));
            return None;
        }
        self.get(key, read)
    }

    /// Notes an error at a key's value (or at the table, where the key is absent).
    pub(crate) fn complain(&self, key: &'static str, found: impl Into<String>, expected: impl Into<String>) {
        let offset = self.value(key).map_or(self.offset, |value| value.span().start);
        self.report.note(offset, &self.name(key), found, expected);
    }

    /// A table inside.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a, 't>> {
        let value = self.value(key)?;
        self.as_section(value, self.name(key))
    }

    fn as_section(&self, value: &'a Spanned<DeValue<'t>>, path: String) -> Option<Section<'a, 't>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self.report, table, value.span().start, path)),
            None => {
                self.report.note(value.span().start, &path, show(value.get_ref()), "expected a table");
                None
            }
        }
    }

    /// An array of tables: `[[key]]`.
    pub(crate) fn sections(&self, key: &'static str) -> Vec<Section<'a, 't>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let expected = format!("expected tables: [[{key}]]");
            self.report.note(value.span().start, &self.name(key), show(value.get_ref()), expected);
            return Vec::new();
        };
        let names = (1..).map(|number| format!("{}[{number}]", self.name(key)));
        array.iter().zip(names).filter_map(|(value, name)| self.as_section(value, name)).collect()
    }

    /// The tables of a table, by name: `[key.NAME]`.
    pub(crate) fn named(&self, key: &'static str) -> Vec<(String, Section<'a, 't>)> {
        let Some(outer) = self.section(key) else { return Vec::new() };
        let inner = outer.table.iter().filter_map(|(name, value)| {
            let name = name.get_ref().to_string();
            let path = format!("{}.{name}", outer.path);
            outer.as_section(value, path).map(|section| (name, section))
        });
        inner.collect()
    }

    /// Complains of every key that nobody asked for.
    pub(crate) fn finish(self) {
        self.complain_of_unknown();
    }

    /// As `finish`, where the section is still borrowed.
    pub(crate) fn complain_of_unknown(&self) {
        let mut known = self.known.borrow().clone();
        known.sort_unstable();
        known.dedup();
        for (key, _) in self.table.iter() {
            if !known.contains(&key.get_ref().as_ref()) {
                let expected = format!("allowed here: {}", known.join(", "));
                self.report.note(key.span().start, &self.name(key.get_ref()), "an unknown key", expected);
            }
        }
    }
}

/// A value as people wrote it.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.as_ref()),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(crate) fn text(value: &DeValue<'_>) -> Result<String, Expected> {
    match value.as_str() {
        Some(text) if text.chars().any(char::is_control) => Err("expected text without control characters".into()),
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("expected text in quotes".into()),
    }
}

pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, Expected> {
    value.as_bool().ok_or_else(|| "expected true or false".into())
}

/// An integer between bounds.
pub(crate) fn integer(low: u64, high: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, Expected> {
    move |value| {
        let expected = || format!("expected a whole number from {low} to {high}");
        let number = value.as_integer().filter(|number| number.radix() == 10).ok_or_else(expected)?;
        let number = number.as_str().replace('_', "").parse::<u64>().map_err(|_| expected())?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(expected()) }
    }
}

/// A number, whole or not, between bounds.
#[cfg(feature = "server")]
pub(crate) fn number(low: f64, high: f64) -> impl Fn(&DeValue<'_>) -> Result<f64, Expected> {
    move |value| {
        let expected = || format!("expected a number from {low} to {high}");
        let text = match value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => return Err(expected()),
        };
        let number = text.replace('_', "").parse::<f64>().map_err(|_| expected())?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(expected()) }
    }
}

/// Octets: a whole number, or text with a unit ("50 MiB").
pub(crate) fn size(low: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, Expected> {
    move |value| {
        let expected = || {
            format!(
                "expected a size of at least {low} octets: a number of octets, or \"64 KiB\", \"50 MiB\", \"2 GiB\""
            )
        };
        let octets = match value.as_str() {
            Some(text) => parse_size(text).ok_or_else(expected)?,
            None => integer(0, u64::MAX / 4)(value).map_err(|_| expected())?,
        };
        if octets >= low && octets <= u64::MAX / 4 { Ok(octets) } else { Err(expected()) }
    }
}

pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration with units ("5 min", "1 h", "5 days").
pub(crate) fn duration(low: Duration, high: Duration) -> impl Fn(&DeValue<'_>) -> Result<Duration, Expected> {
    move |value| {
        let expected = || {
            format!(
                "expected a time from {} to {}, such as \"30 s\", \"5 min\", \"1 h\", \"5 days\"",
                spell(low),
                spell(high)
            )
        };
        let found = value.as_str().and_then(parse_duration).ok_or_else(expected)?;
        if (low..=high).contains(&found) { Ok(found) } else { Err(expected()) }
    }
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

fn spell(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 86_400 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 3_600 => format!("{} h", seconds / 3_600),
        seconds if seconds >= 60 => format!("{} min", seconds / 60),
        0 => format!("{} ms", duration.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

/// One of several words.
pub(crate) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Expected> {
    move |value| {
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("expected one of {}", words.join(", "))
        })
    }
}

/// A list of texts, or one text.
pub(crate) fn list<T>(read: impl Fn(&str) -> Result<T, Expected>) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, Expected> {
    move |value| {
        if let Some(one) = value.as_str() {
            return Ok(vec![read(one)?]);
        }
        let array = value.as_array().ok_or("expected a list of texts: [\"…\", \"…\"]")?;
        let items = array.iter().map(|item| {
            let item = item.get_ref().as_str().ok_or("expected a list of texts: [\"…\", \"…\"]")?;
            read(item).map_err(|expected| format!("{expected} (at {item:?})"))
        });
        items.collect()
    }
}

/// What a parser of texts says, as an expectation.
pub(crate) fn parsed<T, E: std::fmt::Display>(
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&DeValue<'_>) -> Result<T, Expected> {
    move |value| {
        let text = text(value)?;
        parse(&text).map_err(|error| error.to_string())
    }
}
