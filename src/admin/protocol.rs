//! The words on the control socket: one JSON object a line each way, bounded; version 1.
//!
//! `{"v":1,"do":"show","id":"0005f…"}` is answered by `{"v":1,"ok":{…}}` or `{"v":1,"error":{"what":"…","hint":"…"}}`. The answer to
//! `content` says how many octets follow it. What is not known is refused, not passed over: a condition that is overlooked would
//! mean more entries than were asked for.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::spool::{EntryId, EntryState, Filter};

/// The version of these words.
pub const VERSION: u64 = 1;
/// Octets of a request's line.
pub const REQUEST_MAX: usize = 64 << 10;
/// Octets of an answer's line.
pub const ANSWER_MAX: usize = 32 << 20;
/// Entries in one answer, and ids in one request.
pub const AT_ONCE: usize = 500;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A page of entries, oldest first.
    List {
        /// Which.
        filter: Filter,
        /// Those after this one.
        after: Option<EntryId>,
        /// At most so many: 1 to [`AT_ONCE`].
        most: usize,
    },
    /// One entry in full.
    Show(EntryId),
    /// One entry's octets.
    Content(EntryId),
    /// Sums, and the next hops' health.
    Stats,
    /// Changes entries.
    Change {
        /// What is done.
        what: Change,
        /// To which.
        which: Which,
        /// What `held` is to say.
        why: Option<String>,
    },
    /// Takes over another node's spool.
    Adopt {
        /// Its folder, absolute.
        folder: PathBuf,
        /// The file of its key-encryption key, absolute; `None`: the same as ours.
        kek: Option<PathBuf>,
    },
    /// Reads the configuration again.
    Reload,
}

/// What is done to entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Waiting ones are due now.
    Retry,
    /// Kept until released.
    Hold,
    /// Held ones may go: by policy anew where it has not treated them.
    Release,
    /// Removed; nobody is told.
    Delete,
}

impl Change {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Change::Retry => "retry",
            Change::Hold => "hold",
            Change::Release => "release",
            Change::Delete => "delete",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Change::Retry, Change::Hold, Change::Release, Change::Delete].into_iter().find(|change| change.name() == name)
    }
}

/// Which entries are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These: [`AT_ONCE`] at most.
    Ids(Vec<EntryId>),
    /// A page of those for which this holds, after the one named.
    Filter(Filter, Option<EntryId>),
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// What happened.
    pub what: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Refused {
    /// What happened, and what to do about it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// No JSON, another version, a word, key or value that is not known.
    pub fn parse(line: &[u8]) -> Result<Self, Refused> {
        if line.len() > REQUEST_MAX {
            return Err(garbled(format!("over {REQUEST_MAX} octets")));
        }
        let value: Value = serde_json::from_slice(line).map_err(|error| garbled(error.to_string()))?;
        let Value::Object(object) = value else { return Err(garbled("no JSON object".into())) };
        let mut fields = Fields(object);
        match fields.0.remove("v").and_then(|version| version.as_u64()) {
            Some(VERSION) => {}
            other => {
                let asked = other.map_or("none".to_owned(), |version| version.to_string());
                return Err(Refused::new(
                    format!("the control socket speaks version {VERSION}, the request is of version {asked}"),
                    "use the waxwing that the server runs",
                ));
            }
        }
        let request = match fields.text("do")?.as_deref() {
            Some("list") => Request::List {
                filter: fields.filter()?,
                after: fields.id("after")?,
                most: fields.number("most")?.unwrap_or(AT_ONCE).clamp(1, AT_ONCE),
            },
            Some("show") => Request::Show(fields.required_id()?),
            Some("content") => Request::Content(fields.required_id()?),
            Some("stats") => Request::Stats,
            Some("adopt") => Request::Adopt {
                folder: fields.path("folder")?.ok_or_else(|| garbled("adopt without folder".into()))?,
                kek: fields.path("kek")?,
            },
            Some("reload") => Request::Reload,
            Some(word) => {
                let what = Change::of(word).ok_or_else(|| garbled(format!("\"do\": {word:?}")))?;
                Request::Change { what, which: fields.which()?, why: fields.text("why")? }
            }
            None => return Err(garbled("nothing to do".into())),
        };
        match fields.0.keys().next() {
            None => Ok(request),
            Some(key) => Err(garbled(format!("unknown key {key:?}"))),
        }
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        let mut object = match self {
            Request::List { filter, after, most } => {
                json!({"do": "list", "filter": filter_json(filter), "after": after.map(|id| id.to_string()), "most": most})
            }
            Request::Show(id) => json!({"do": "show", "id": id.to_string()}),
            Request::Content(id) => json!({"do": "content", "id": id.to_string()}),
            Request::Stats => json!({"do": "stats"}),
            Request::Change { what, which, why } => {
                let mut object = match which {
                    Which::Ids(ids) => json!({"ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>()}),
                    Which::Filter(filter, after) => {
                        json!({"filter": filter_json(filter), "after": after.map(|id| id.to_string())})
                    }
                };
                set(&mut object, "do", json!(what.name()));
                set(&mut object, "why", json!(why));
                object
            }
            Request::Adopt { folder, kek } => {
                json!({"do": "adopt", "folder": folder.to_string_lossy(), "kek": kek.as_ref().map(|kek| kek.to_string_lossy())})
            }
            Request::Reload => json!({"do": "reload"}),
        };
        set(&mut object, "v", json!(VERSION));
        line_of(&object)
    }
}

/// An answer's line.
pub fn answer_line(answer: &Result<Value, Refused>) -> Vec<u8> {
    line_of(&match answer {
        Ok(value) => json!({"v": VERSION, "ok": value}),
        Err(Refused { what, hint }) => json!({"v": VERSION, "error": {"what": what, "hint": hint}}),
    })
}

/// Reads an answer's line.
///
/// # Errors
/// What the server refused with, or why its answer is none.
pub fn parse_answer(line: &[u8]) -> Result<Value, Refused> {
    let odd =
        |why: String| Refused::new(format!("the server's answer is not understood: {why}"), "compare the versions");
    let mut value: Value = serde_json::from_slice(line).map_err(|error| odd(error.to_string()))?;
    if value.get("v").and_then(Value::as_u64) != Some(VERSION) {
        return Err(odd("another version".into()));
    }
    if let Some(error) = value.get("error") {
        let text = |key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(Refused { what: text("what"), hint: text("hint") });
    }
    value.get_mut("ok").map(Value::take).ok_or_else(|| odd("neither done nor refused".into()))
}

fn line_of(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}

fn filter_json(filter: &Filter) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "state": filter.state.map(EntryState::name), "next_hop": filter.next_hop, "sender": filter.sender,
        "recipient": filter.recipient, "created_until": time(filter.created_until), "created_from": time(filter.created_from),
    })
}

fn garbled(why: String) -> Refused {
    Refused::new(format!("the request is not understood: {why}"), "compare the versions")
}

/// What is left of an object; `null` counts as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, Refused> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(garbled(format!("{key:?} is no text"))),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<usize>, Refused> {
        self.take(key)
            .map(|value| value.as_u64().and_then(|number| usize::try_from(number).ok()))
            .map(|number| number.ok_or_else(|| garbled(format!("{key:?} is no number"))))
            .transpose()
    }

    fn path(&mut self, key: &str) -> Result<Option<PathBuf>, Refused> {
        let path = self.text(key)?.map(PathBuf::from);
        match path {
            Some(path) if !path.is_absolute() => Err(garbled(format!("{key:?} is no absolute path"))),
            path => Ok(path),
        }
    }

    fn id(&mut self, key: &str) -> Result<Option<EntryId>, Refused> {
        self.text(key)?.map(|text| entry_id(&text)).transpose()
    }

    fn required_id(&mut self) -> Result<EntryId, Refused> {
        self.id("id")?.ok_or_else(|| garbled("no id".into()))
    }

    fn which(&mut self) -> Result<Which, Refused> {
        let Some(ids) = self.take("ids") else {
            if !self.0.contains_key("filter") {
                return Err(garbled("neither ids nor filter".into()));
            }
            return Ok(Which::Filter(self.filter()?, self.id("after")?));
        };
        let Value::Array(ids) = ids else { return Err(garbled("\"ids\" is no list".into())) };
        if ids.len() > AT_ONCE {
            return Err(garbled(format!("{} ids, at most {AT_ONCE}", ids.len())));
        }
        let ids = ids.iter().map(|id| entry_id(id.as_str().unwrap_or_default())).collect::<Result<_, _>>()?;
        Ok(Which::Ids(ids))
    }

    fn filter(&mut self) -> Result<Filter, Refused> {
        let object = match self.take("filter") {
            None => Map::new(),
            Some(Value::Object(object)) => object,
            Some(_) => return Err(garbled("\"filter\" is no object".into())),
        };
        let mut fields = Fields(object);
        let mut time = |key: &str| -> Result<Option<Timestamp>, Refused> {
            let parse = |text: String| text.parse().map_err(|_| garbled(format!("{key:?} is no time")));
            fields.text(key)?.map(parse).transpose()
        };
        let (created_until, created_from) = (time("created_until")?, time("created_from")?);
        let state = fields.text("state")?.map(|text| text.parse().map_err(garbled)).transpose()?;
        let filter = Filter {
            state,
            next_hop: fields.text("next_hop")?,
            sender: fields.text("sender")?,
            recipient: fields.text("recipient")?,
            created_until,
            created_from,
        };
        match fields.0.keys().next() {
            None => Ok(filter),
            Some(key) => Err(garbled(format!("unknown condition {key:?}"))),
        }
    }
}

/// Reads an entry's id: 16 hexadecimal digits, leading zeros apart.
pub fn entry_id(text: &str) -> Result<EntryId, Refused> {
    let plain = !text.is_empty() && text.len() <= 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    let id = if plain { text.parse().ok() } else { None };
    id.ok_or_else(|| Refused::new(format!("{text:?} is no id"), "ids are 16 hexadecimal digits: waxwing queue list"))
}

/// Fuzz body: what reads as a request is written to a line that reads the same; answers are read without harm.
#[doc(hidden)]
pub fn fuzz_control(data: &[u8]) {
    let _ = parse_answer(data);
    let Ok(request) = Request::parse(data) else { return };
    let line = request.line();
    if line.len() <= REQUEST_MAX {
        assert_eq!(Request::parse(&line), Ok(request));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> Vec<Request> {
        let id = entry_id("0005f00dcafe0001").unwrap();
        let filter = Filter {
            state: Some(EntryState::Held),
            next_hop: Some("mx.example:25".into()),
            sender: Some("<>".into()),
            recipient: Some("@partner.example".into()),
            created_until: Some("2026-06-01T08:09:10.000001Z".parse().unwrap()),
            created_from: None,
        };
        let change = |what, which, why: Option<&str>| Request::Change { what, which, why: why.map(str::to_owned) };
        vec![
            Request::List { filter: filter.clone(), after: Some(id), most: 20 },
            Request::Show(id),
            Request::Content(id),
            Request::Stats,
            Request::Reload,
            Request::Adopt { folder: "/var/spool/other".into(), kek: Some("/etc/kek".into()) },
            change(Change::Retry, Which::Filter(Filter::default(), None), None),
            change(Change::Hold, Which::Ids(vec![id, id]), Some("looks\nodd")),
            change(Change::Release, Which::Filter(filter, Some(id)), None),
            change(Change::Delete, Which::Ids(vec![]), None),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for request in requests() {
            let line = request.line();
            assert_eq!(line.iter().filter(|octet| **octet == b'\n').count(), 1, "one line");
            assert_eq!(Request::parse(&line), Ok(request));
        }
        let refused = Refused::new("no", "so");
        assert_eq!(parse_answer(&answer_line(&Err(refused.clone()))), Err(refused));
        assert_eq!(parse_answer(&answer_line(&Ok(json!({"a": 1})))), Ok(json!({"a": 1})));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = [
            r#"{"v":2,"do":"stats"}"#,
            r#"{"do":"stats"}"#,
            r#"{"v":1}"#,
            r#"{"v":1,"do":"explode","ids":[]}"#,
            r#"{"v":1,"do":"stats","more":1}"#,
            r#"{"v":1,"do":"delete"}"#,
            r#"{"v":1,"do":"delete","filter":{"subject":"x"}}"#,
            r#"{"v":1,"do":"delete","filter":{"state":"lost"}}"#,
            r#"{"v":1,"do":"delete","filter":"all"}"#,
            r#"{"v":1,"do":"delete","ids":["0005f00dcafe0001","+5"]}"#,
            r#"{"v":1,"do":"adopt","folder":"relative"}"#,
            r#"{"v":1,"do":"list","filter":{"created_until":"yesterday"}}"#,
            "[]",
            "",
        ];
        for line in refused {
            let error = Request::parse(line.as_bytes()).expect_err(line);
            assert!(!error.what.is_empty() && !error.hint.is_empty(), "{line}: {error:?}");
        }
        let many = vec!["1"; AT_ONCE + 1];
        let line = json!({"v": 1, "do": "delete", "ids": many}).to_string();
        assert!(Request::parse(line.as_bytes()).is_err());
        assert!(Request::parse(&vec![b' '; REQUEST_MAX + 1]).unwrap_err().what.contains("over 65536 octets"));
        // So many ids as are allowed fit into a line.
        let most = Request::Change {
            what: Change::Delete,
            which: Which::Ids(vec![entry_id("ffffffffffffffff").unwrap(); AT_ONCE]),
            why: None,
        };
        assert_eq!(Request::parse(&most.line()), Ok(most));
    }

    #[test]
    fn fuzz_body_holds_over_seeds() {
        requests().iter().for_each(|request| fuzz_control(&request.line()));
        fuzz_control(b"");
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
            let all = requests();
            let mut line = which.get(&all).line();
            let at = at.index(line.len());
            line[at] = octet;
            fuzz_control(&line);
        }
    }
}
