//! Plain mails, their account, and a sink for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};

use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Direction, Limits, ListenTls, Listener};
use crate::load::generator::{Sending, Source, Witness};
use crate::load::ledger::{Account, Answered, Fault, FaultKind};
use crate::load::mails::{Fingerprint, Mail, MailId};
use crate::load::measure::{Recorder, Stage};
use crate::load::scenario::{Kind, People, Scenario, Sizes};
use crate::relay::listen::{self, Answer, Handle, ListenError, Peer, Relay};
use crate::smtp::command::{Enhanced, Envelope, MailParameters, RcptParameters, Recipient, Reply};

/// Makes plain mails of one size.
pub(super) struct Plain {
    run: u64,
    from: Mailbox,
    to: Mailbox,
    filler: Bytes,
}

impl Plain {
    pub(super) fn new(scenario: &Scenario, run: u64) -> Result<Self, String> {
        let octets = if let Sizes::Fixed(octets) = scenario.sizes { octets } else { 4096 };
        let (from, to) = match &scenario.people {
            People::Named { from, to } => (from.first().cloned(), to.first().cloned()),
            _ => (None, None),
        };
        let mailbox =
            |text: Option<String>| Mailbox::parse(&text.unwrap_or_default()).map_err(|error| error.to_string());
        let line = [[b'x'; 76].as_slice(), b"\r\n"].concat();
        Ok(Self { run, from: mailbox(from)?, to: mailbox(to)?, filler: line.repeat(octets / 78).into() })
    }
}

fn fingerprint(body: &[u8]) -> Fingerprint {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, body).as_ref()) {
        *to = *from;
    }
    out
}

impl Source for Plain {
    fn mail(&self, number: u64) -> Mail {
        let id = MailId { run: self.run, number };
        let mut content = BytesMut::with_capacity(self.filler.len().saturating_add(512));
        let header = format!("From: <{}>\r\nTo: <{}>\r\nSubject: load\r\nX-Load-Id: {id}\r\n\r\n", self.from, self.to);
        content.extend_from_slice(header.as_bytes());
        let body = content.len();
        content.extend_from_slice(format!("{id}\r\n").as_bytes());
        content.extend_from_slice(&self.filler);
        let content = content.freeze();
        let recipient = Recipient { mailbox: self.to.clone(), parameters: RcptParameters::default() };
        Mail {
            id,
            kind: Kind::Plain,
            envelope: Envelope {
                reverse_path: ReversePath::Mailbox(self.from.clone()),
                parameters: MailParameters::default(),
                recipients: vec![recipient],
            },
            fingerprint: fingerprint(content.get(body..).unwrap_or_default()),
            content,
        }
    }
}

struct Entry {
    fingerprint: Fingerprint,
    due: Instant,
    taken: bool,
    arrived: u32,
}

/// What was sent and what arrived.
pub(super) struct Book {
    entries: Mutex<HashMap<MailId, Entry>>,
    account: Mutex<Account>,
    recorder: Arc<Recorder>,
}

impl Witness for Book {
    fn begun(&self, mail: &Mail, due: Instant) {
        let entry = Entry { fingerprint: mail.fingerprint, due, taken: false, arrived: 0 };
        lock(&self.entries).insert(mail.id, entry);
    }

    fn ended(&self, mail: &Mail, sending: &Sending) {
        let answer = sending.answers.first();
        if let Some(entry) = lock(&self.entries).get_mut(&mail.id) {
            entry.taken = answer == Some(&Answered::Taken);
        }
        let mut account = lock(&self.account);
        account.sent += 1;
        let counter = match answer {
            Some(Answered::Taken) => &mut account.taken,
            Some(Answered::Deferred(_)) => &mut account.deferred,
            Some(Answered::Refused(_)) => &mut account.refused,
            Some(Answered::Unknown(_)) => &mut account.unknown,
            Some(Answered::NotSent(_)) | None => &mut account.not_sent,
        };
        *counter += 1;
    }

    fn overdue(&self, _due: Instant, _end: Instant) {}
}

impl Book {
    pub(super) fn new(recorder: Arc<Recorder>) -> Self {
        Self { entries: Mutex::default(), account: Mutex::default(), recorder }
    }

    /// Mails taken that have not arrived.
    pub(super) fn open(&self) -> usize {
        lock(&self.entries).values().filter(|entry| entry.taken && entry.arrived == 0).count()
    }

    fn arrived(&self, content: &[u8]) {
        let body = content.windows(4).position(|window| window == b"\r\n\r\n").and_then(|at| content.get(at + 4..));
        let found = body.unwrap_or_default();
        let id = found
            .split(|octet| *octet == b'\r')
            .next()
            .and_then(|line| std::str::from_utf8(line).ok())
            .and_then(parse_id);
        let mut account = lock(&self.account);
        let fault = |id, what, why: &str| Fault { id, recipient: String::new(), what, why: why.into() };
        let mut entries = lock(&self.entries);
        let Some((id, entry)) = id.and_then(|id| entries.get_mut(&id).map(|entry| (id, entry))) else { return };
        entry.arrived += 1;
        if entry.arrived == 1 {
            let now = Instant::now();
            self.recorder.record(Stage::Delivery, now, now.saturating_duration_since(entry.due));
            account.delivered += 1;
        } else {
            account.faults.push(fault(Some(id), FaultKind::Doubled, "came again"));
        }
        if fingerprint(found) != entry.fingerprint {
            account.faults.push(fault(Some(id), FaultKind::Altered, "another content"));
        }
    }

    /// The account at the end.
    pub(super) fn account(&self, sink: bool) -> Account {
        let mut account = lock(&self.account).clone();
        for (id, _) in lock(&self.entries).iter().filter(|(_, entry)| sink && entry.taken && entry.arrived == 0) {
            let why = "taken, and did not arrive".to_owned();
            account.faults.push(Fault { id: Some(*id), recipient: String::new(), what: FaultKind::Lost, why });
        }
        account
    }
}

fn parse_id(text: &str) -> Option<MailId> {
    let (run, number) = text.split_once('-')?;
    Some(MailId { run: u64::from_str_radix(run, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
}

struct Keep(Arc<Book>);

impl Relay for Keep {
    type Transaction = ();

    async fn mail(&self, _: &Arc<Peer>, _: ReversePath, _: MailParameters) -> Result<(), Reply> {
        Ok(())
    }
    async fn rcpt(&self, _: &mut (), _: Recipient) -> Reply {
        Reply::new(250, Enhanced(2, 1, 5), "ok")
    }
    fn growing(&self, _: &mut (), _: u64) -> Result<(), Reply> {
        Ok(())
    }
    async fn message(&self, (): (), content: Bytes) -> Answer {
        self.0.arrived(&content);
        Answer::All(Reply::new(250, Enhanced(2, 0, 0), "taken"))
    }
}

/// Starts a sink.
pub(super) async fn sink(address: SocketAddr, book: &Arc<Book>, name: Domain) -> Result<Handle, ListenError> {
    let listener = Listener {
        name: "sink".into(),
        address,
        direction: Direction::Inbound,
        tls: ListenTls::Off,
        trusted_networks: Vec::new(),
        lmtp: false,
        repair_line_ends: false,
    };
    let limits = Limits { connections: 20_000, connections_per_client: 20_000, ..Limits::default() };
    let postmaster = Mailbox::new("postmaster", name.clone());
    let Ok(postmaster) = postmaster else {
        return Err(ListenError::Bind { name: "sink".into(), address, why: std::io::ErrorKind::InvalidInput.into() });
    };
    Ok(listen::bind(Arc::new(listener), name, postmaster, &limits).await?.serve(Arc::new(Keep(Arc::clone(book)))))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
