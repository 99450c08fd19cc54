//! Values by their path, so that an error names the key.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::load::report::show;

/// Characters of a text at most.
const TEXT_MAX: usize = 16 << 10;

/// Why something is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}{}{what}", .key, if .key.is_empty() { "" } else { ": " })]
pub struct ReadError {
    /// The file.
    pub file: String,
    /// Such as `series.points[3].octets`; empty: the whole.
    pub key: String,
    /// What was found, what was expected.
    pub what: String,
}

/// A value and how to get there.
pub(super) struct Node<'v> {
    value: &'v Value,
    file: &'v str,
    path: String,
}

impl<'v> Node<'v> {
    pub(super) fn root(value: &'v Value, file: &'v str) -> Self {
        Self { value, file, path: String::new() }
    }

    /// An error here.
    pub(super) fn expected(&self, what: &str) -> ReadError {
        let found: String = match self.value {
            Value::Array(_) => "a list".into(),
            Value::Object(_) => "an object".into(),
            simple => simple.to_string().chars().take(60).collect(),
        };
        ReadError { file: self.file.into(), key: self.path.clone(), what: format!("expected {what}, found {found}") }
    }

    fn at(&self, value: &'v Value, key: &str) -> Self {
        let dot = if self.path.is_empty() || key.starts_with('[') { "" } else { "." };
        Node { value, file: self.file, path: format!("{}{dot}{key}", self.path) }
    }

    /// The value of a key that has to be there.
    pub(super) fn get(&self, key: &str) -> Result<Self, ReadError> {
        let object = self.value.as_object().ok_or_else(|| self.expected("an object"))?;
        match object.get(key) {
            Some(value) => Ok(self.at(value, key)),
            None => {
                let here = self.at(self.value, key);
                Err(ReadError { file: here.file.into(), key: here.path, what: "is missing".into() })
            }
        }
    }

    pub(super) fn unless_null(self) -> Option<Self> {
        (!self.value.is_null()).then_some(self)
    }

    pub(super) fn text(&self) -> Result<String, ReadError> {
        let text = self.value.as_str().ok_or_else(|| self.expected("a text"))?;
        if text.len() > TEXT_MAX {
            return Err(self.expected(&format!("a text of up to {TEXT_MAX} octets")));
        }
        Ok(text.to_owned())
    }

    pub(super) fn flag(&self) -> Result<bool, ReadError> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(super) fn count(&self) -> Result<u64, ReadError> {
        self.value.as_u64().ok_or_else(|| self.expected("a whole number from 0"))
    }

    /// A number from 0 to `most`, times `scale`, rounded.
    pub(super) fn thousandths(&self, most: f64, scale: f64) -> Result<u64, ReadError> {
        let number = self.value.as_f64().filter(|number| (0.0..=most).contains(number));
        number
            .map(|number| show::thousandths(number * scale / 1e3))
            .ok_or_else(|| self.expected(&format!("a number from 0 to {most}")))
    }

    /// A list of up to `most`.
    pub(super) fn list<T>(
        &self,
        most: usize,
        read: impl Fn(&Node<'v>) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let list = self.value.as_array().filter(|list| list.len() <= most);
        let list = list.ok_or_else(|| self.expected(&format!("a list of up to {most} entries")))?;
        list.iter().enumerate().map(|(number, value)| read(&self.at(value, &format!("[{number}]")))).collect()
    }

    /// Keys of any name, up to `most`.
    pub(super) fn pairs<T>(
        &self,
        most: usize,
        read: impl Fn(&Node<'v>) -> Result<T, ReadError>,
    ) -> Result<BTreeMap<String, T>, ReadError> {
        let object = self.value.as_object().filter(|object| object.len() <= most);
        let object = object.ok_or_else(|| self.expected(&format!("an object of up to {most} keys")))?;
        object.iter().map(|(key, value)| Ok((key.clone(), read(&self.at(value, key))?))).collect()
    }
}
