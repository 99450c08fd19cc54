//! Looks at the queue and changes it, for a gateway at work or for a command alone. Every change is logged with who asked.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::protocol::{AT_ONCE, Change, Refused, Request, Which};
use crate::mime::entity::MimeLimits;
use crate::mime::header::Header;
use crate::relay::expiry::Expiry;
use crate::relay::hop::{Health, HopStatus};
use crate::relay::release::{By, ReleaseError, Releaser};
use crate::spool::{
    BY_HAND, Entry, EntryId, EntryState, HopStats, Listed, Origin, RecipientState, Spool, SpoolError, Sum, Treatment,
};
use crate::store::CertStore;
use crate::store::keyring::Kek;

/// Recipients of an entry that a list names.
const NAMED: usize = 20;
/// Header fields that are shown, and characters of each.
const FIELDS: usize = 200;
const FIELD: usize = 2_000;
/// What is shown of a mail that policy has not treated: who, when and which; what it says stays closed.
const UNTREATED: [&str; 5] = ["From", "To", "Cc", "Date", "Message-ID"];
/// Characters of a reason.
const WHY: usize = 300;

/// Reads the configuration again: what stays as it was until the next start, or every error found.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<String>, Vec<String>>> + Send>> + Send + Sync>;

/// What answers. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The spool.
    pub spool: Spool,
    /// What lets held outbound mail go.
    pub releaser: Releaser,
    /// Whose certificates run out; `None`: nobody looks.
    pub expiry: Option<Expiry>,
    /// The next hops' health; `None`: nothing is delivered here.
    pub health: Option<Health>,
    /// Its keys open an adopted spool, where no other key is named.
    pub store: Arc<dyn CertStore>,
    /// `None`: there is no gateway at work.
    pub reload: Option<Reload>,
}

/// An answer, and the octets that follow it.
#[derive(Debug)]
pub struct Answer {
    /// What is said.
    pub said: Value,
    /// Follows `said`, which tells how many.
    pub octets: Bytes,
}

impl From<Value> for Answer {
    fn from(said: Value) -> Self {
        Self { said, octets: Bytes::new() }
    }
}

impl From<SpoolError> for Refused {
    fn from(error: SpoolError) -> Self {
        let hint = match &error {
            SpoolError::NoEntry(_) => "it was delivered or deleted; look with: waxwing queue list",
            SpoolError::Held(_) => "waxwing queue release",
            SpoolError::Disk(_) | SpoolError::Late | SpoolError::Damaged(_) => "look at the disk",
            SpoolError::Keys(_) => "name the other node's key-encryption key with --kek FILE",
            _ => "",
        };
        Refused::new(error.to_string(), hint)
    }
}

impl Desk {
    /// Answers one request of the user with this uid.
    ///
    /// # Errors
    /// What was asked for could not be done; of several entries, each has its own outcome in the answer.
    pub async fn answer(&self, request: Request, uid: u32) -> Result<Answer, Refused> {
        match request {
            Request::List { filter, after, most } => {
                let page = self.spool.list(&filter, after, most.min(AT_ONCE));
                let entries: Vec<Value> = page.entries.iter().map(|listed| described(listed, NAMED)).collect();
                Ok(json!({"entries": entries, "next": page.next.map(|id| id.to_string())}).into())
            }
            Request::Show(id) => self.show(id).await.map(Answer::from),
            Request::Content(id) => self.content(id).await,
            Request::Stats => Ok(self.stats().into()),
            Request::Change { what, which, why } => self.change(what, which, why, uid).await.map(Answer::from),
            Request::Adopt { folder, kek } => self.adopt(folder, kek, uid).await.map(Answer::from),
            Request::Reload => self.reload(uid).await.map(Answer::from),
        }
    }

    async fn show(&self, id: EntryId) -> Result<Value, Refused> {
        let listed = self.spool.get(id).ok_or(SpoolError::NoEntry(id))?;
        let mut described = described(&listed, usize::MAX);
        // Damage is told beside what is known, which is what one came for.
        let (fields, trouble) = match self.spool.content(id).await {
            Ok(content) => (header(&listed.entry, &content), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        if let Value::Object(object) = &mut described {
            object.insert("header".into(), json!(fields));
            object.insert("content_error".into(), json!(trouble));
        }
        Ok(described)
    }

    /// The octets, but of mail that policy has not treated: it came in clear, and what policy makes of it may have to be sealed.
    async fn content(&self, id: EntryId) -> Result<Answer, Refused> {
        let listed = self.spool.get(id).ok_or(SpoolError::NoEntry(id))?;
        if listed.entry.treatment == Treatment::AsSubmitted {
            return Err(Refused::new(
                format!("{id} was held before policy treated it: its content is in clear, and stays closed"),
                "release it, or ask its sender",
            ));
        }
        let octets = self.spool.content(id).await?;
        Ok(Answer { said: json!({"octets": octets.len()}), octets })
    }

    fn stats(&self) -> Value {
        let stats = self.spool.stats();
        let hops: Vec<Value> = stats
            .hops
            .iter()
            .map(|((host, port), sums)| {
                let mut object = sums_json(sums);
                set(&mut object, "next_hop", json!(format!("{host}:{port}")));
                object
            })
            .collect();
        let health = self.health.as_ref().map(|health| health.status().iter().map(health_json).collect::<Vec<_>>());
        json!({
            "certificates": self.expiry.as_ref().map(Expiry::told),
            "total": sums_json(&stats.total()), "by_next_hop": hops, "next_hops": health,
            "spool": {"takes_mail": self.spool.ready().is_ok(), "trouble": self.spool.trouble().or_else(|| self.spool.ready().err().map(|error| error.to_string()))},
        })
    }

    async fn change(&self, what: Change, which: Which, why: Option<String>, uid: u32) -> Result<Value, Refused> {
        let (ids, next) = match which {
            Which::Ids(ids) => (ids, None),
            Which::Filter(filter, after) => {
                let page = self.spool.list(&filter, after, AT_ONCE);
                (page.entries.iter().map(|listed| listed.entry.id).collect(), page.next)
            }
        };
        if let (Change::Retry, Some(health)) = (what, &self.health) {
            health.try_now(Timestamp::now());
        }
        // All at once, so that they share syncs.
        let mut changes = JoinSet::new();
        for (at, id) in ids.into_iter().enumerate() {
            let (desk, why) = (self.clone(), why.clone());
            changes.spawn(async move { (at, desk.change_one(what, id, why.as_deref(), uid).await) });
        }
        let mut outcomes = changes.join_all().await;
        outcomes.sort_by_key(|(at, _)| *at);
        let changed: Vec<Value> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        Ok(json!({"changed": changed, "next": next.map(|id| id.to_string())}))
    }

    async fn change_one(&self, what: Change, id: EntryId, why: Option<&str>, uid: u32) -> Value {
        let entry = self.spool.entry(id);
        let done = match what {
            Change::Retry => self.spool.retry(id).await.map(|()| json!({})).map_err(Refused::from),
            Change::Hold => {
                let why: String = why.unwrap_or("no reason given").chars().take(WHY).collect();
                let held = self.spool.hold(id, &format!("{BY_HAND} (uid {uid}): {why}")).await;
                held.map(|()| json!({})).map_err(Refused::from)
            }
            Change::Delete => self.spool.delete(id).await.map(|()| json!({})).map_err(Refused::from),
            Change::Release => self.release(id).await,
        };
        let sender = entry.as_ref().map(|entry| entry.reverse_path.to_string()).unwrap_or_default();
        let recipients = entry.as_ref().map(|entry| names(entry)).unwrap_or_default();
        match done {
            Ok(mut said) => {
                tracing::info!(
                    target: "waxwing::queue", uid, entry = %id, change = what.name(), from = sender, to = recipients,
                    outcome = %said, "queue changed by hand"
                );
                set(&mut said, "id", json!(id.to_string()));
                set(&mut said, "done", json!(true));
                said
            }
            Err(Refused { what: error, hint }) => {
                tracing::info!(target: "waxwing::queue", uid, entry = %id, change = what.name(), error, "not changed");
                json!({"id": id.to_string(), "done": false, "error": error, "hint": hint})
            }
        }
    }

    /// Outbound mail as submitted goes by policy anew; what else is held goes as it is.
    async fn release(&self, id: EntryId) -> Result<Value, Refused> {
        let listed = self.spool.get(id).ok_or(SpoolError::NoEntry(id))?;
        if listed.entry.treatment != Treatment::AsSubmitted {
            if listed.entry.held.is_none() {
                return Err(match listed.state {
                    EntryState::Held => Refused::new(
                        format!("{id} is on its way here from another spool"),
                        "repeat waxwing queue adopt",
                    ),
                    _ => Refused::new(format!("{id} is not held"), "waxwing queue retry makes it due now"),
                });
            }
            self.spool.release(id).await?;
            return Ok(json!({}));
        }
        let fates = self.releaser.release(id, By::Person).await.map_err(|error| match error {
            ReleaseError::Spool(error) => error.into(),
            ReleaseError::Changed => {
                Refused::new(format!("{id} was held anew meanwhile"), "look, and release it again")
            }
            ReleaseError::Policy(reply) => {
                Refused::new(format!("{id} stays held: policy could not treat it now: {reply}"), "try again later")
            }
        })?;
        let leaves = fates.iter().filter(|(_, fate)| fate.is_ok()).count();
        let one = |(recipient, fate): &(crate::address::Mailbox, Result<String, String>)| {
            let (leaves, how) = match fate {
                Ok(how) => (true, how),
                Err(why) => (false, why),
            };
            json!({"recipient": recipient.to_string(), "leaves": leaves, "how": how})
        };
        let recipients: Vec<Value> = fates.iter().map(one).collect();
        if leaves == 0 {
            let why = fates.iter().find_map(|(_, fate)| fate.as_ref().err()).cloned().unwrap_or_default();
            let hint = "import the certificates it waits for: waxwing cert import";
            return Err(Refused::new(format!("{id} stays held: {why}"), hint));
        }
        Ok(json!({"recipients": recipients}))
    }

    async fn adopt(&self, folder: PathBuf, kek: Option<PathBuf>, uid: u32) -> Result<Value, Refused> {
        let mut keks = self.store.spool_keks();
        if let Some(file) = kek {
            // A passphrase takes Argon2id some tenths of a second.
            let read = tokio::task::spawn_blocking(move || Kek::read_unasked(&file)).await;
            let kek = read
                .map_err(|error| Refused::new(error.to_string(), ""))?
                .map_err(|error| Refused::new(error.to_string(), "name the other node's file with --kek FILE"))?;
            keks.open.push(kek);
        }
        let adopted = self.spool.adopt(&folder, Some(keks)).await.map_err(|error| {
            let hint = match &error {
                SpoolError::Keys(_) => "name the other node's key-encryption key with --kek FILE",
                SpoolError::Disk(_) => {
                    "name the folder of a spool whose node is gone for good; what was begun is done by repeating it"
                }
                _ => "",
            };
            Refused::new(format!("{}: {error}", folder.display()), hint)
        })?;
        tracing::info!(
            target: "waxwing::queue", uid, folder = %folder.display(), entries = adopted.entries, octets = adopted.octets,
            left = adopted.left.len(), "spool adopted by hand"
        );
        Ok(json!({"entries": adopted.entries, "octets": adopted.octets, "left": adopted.left}))
    }

    async fn reload(&self, uid: u32) -> Result<Value, Refused> {
        let Some(reload) = &self.reload else {
            return Err(Refused::new("no server is running here", "the configuration is read when it starts"));
        };
        tracing::info!(target: "waxwing::queue", uid, "the configuration is to be read again");
        let kept = reload().await.map_err(|errors| {
            Refused::new(errors.join("\n"), "the configuration in use was kept; correct the file and reload again")
        })?;
        Ok(json!({"kept": kept}))
    }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}

fn names(entry: &Entry) -> String {
    let names = entry.recipients.iter().take(NAMED).map(|one| one.recipient.mailbox.to_string());
    names.collect::<Vec<_>>().join(",")
}

/// An entry, with so many of its recipients.
fn described(listed: &Listed, named: usize) -> Value {
    let entry = &listed.entry;
    let next_attempt = (listed.state == EntryState::Waiting).then(|| entry.next_attempt.to_string());
    let recipients: Vec<Value> = entry
        .recipients
        .iter()
        .take(named)
        .map(|one| {
            json!({"recipient": one.recipient.mailbox.to_string(), "state": state(one.state), "last_reply": one.last})
        })
        .collect();
    json!({
        "id": entry.id.to_string(), "state": listed.state.name(), "held": entry.held, "direction": direction(entry),
        "origin": origin(entry), "content": content_word(entry), "sender": entry.reverse_path.to_string(),
        "recipients": recipients, "recipients_total": entry.recipients.len(),
        "next_hop": format!("{}:{}", entry.next_hop.host, entry.next_hop.port), "size": entry.size,
        "created": entry.created.to_string(), "attempts": entry.attempts, "next_attempt": next_attempt,
        "delay_told": entry.delay_told.map(|at| at.to_string()), "listener": entry.listener, "user": entry.user,
        "log_id": entry.log_id,
    })
}

fn state(state: RecipientState) -> &'static str {
    match state {
        RecipientState::Waiting => "waiting",
        RecipientState::Delivered => "delivered",
        RecipientState::Failed => "failed",
        RecipientState::Stuck => "stuck",
        RecipientState::Quarantined => "quarantined",
        RecipientState::Released => "released",
    }
}

fn direction(entry: &Entry) -> &'static str {
    if entry.direction == crate::config::Direction::Outbound { "outbound" } else { "inbound" }
}

fn origin(entry: &Entry) -> &'static str {
    match entry.origin {
        Origin::Outbound => "outbound",
        Origin::Inbound => "inbound",
        Origin::Dsn => "report",
    }
}

/// What the content is: `encrypted`, `clear` (so it may leave), `received` (opened and judged when it is handed over), `submitted`
/// (policy has not treated it).
fn content_word(entry: &Entry) -> &'static str {
    match (entry.treatment, entry.encrypted) {
        (Treatment::AsSubmitted, _) => "submitted",
        (Treatment::AsReceived, _) => "received",
        (Treatment::Finished, true) => "encrypted",
        (Treatment::Finished, false) => "clear",
    }
}

fn header(entry: &Entry, content: &Bytes) -> Vec<Value> {
    let limits = MimeLimits::default();
    let Ok((header, _)) = Header::parse(content, &limits) else { return Vec::new() };
    let shown = |name: &str| {
        entry.treatment != Treatment::AsSubmitted || UNTREATED.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let fields = header.fields.iter().filter(|field| shown(field.name())).take(FIELDS);
    fields.map(|field| json!([field.name(), field.decoded().chars().take(FIELD).collect::<String>()])).collect()
}

fn sum(sum: Sum) -> Value {
    json!({"entries": sum.entries, "octets": sum.octets})
}

fn sums_json(sums: &HopStats) -> Value {
    json!({
        "waiting": sum(sums.waiting), "deferred": sum(sums.deferred), "delivering": sum(sums.claimed), "held": sum(sums.held),
        "oldest": sums.oldest.map(|at| at.to_string()),
    })
}

fn health_json(status: &HopStatus) -> Value {
    let aside = status.aside_until.filter(|until| *until > Timestamp::now());
    json!({
        "next_hop": format!("{}:{}", status.hop.host, status.hop.port), "aside": status.aside_until.is_some(),
        "aside_until": aside.map(|at| at.to_string()), "failures": status.failures, "under_way": status.under_way,
        "answered": status.answered, "failed": status.failed, "last_error": status.last_error,
    })
}
