//! The server's side of an SMTP or LMTP session (RFC 5321, RFC 2033): octets in, events out, answers in, octets out.
//!
//! The owner reads octets and offers them to [`Session::step`] until it gives no event; does what an event asks and answers it;
//! writes what [`Session::take_output`] gives before it reads again. The machine knows no socket and no clock.

use std::sync::Arc;

use bytes::BytesMut;
use memchr::memchr;
use zeroize::Zeroizing;

use crate::address::{Domain, Mailbox, ReversePath};
use crate::smtp::command::{Command, Enhanced, ForwardPath, MailParameters, RcptParameters, Recipient, Reply};
use crate::smtp::data::{ContentFault, Framing, LineEnds, Piece};
use crate::smtp::sasl::Exchange;
use crate::smtp::xclient::{self, ClientAttributes};
use crate::smtp::xforward::{self, Forwarded, Said};
use chunk::Chunk;

mod auth;
/// BDAT.
mod chunk;
pub use auth::{AuthOffer, Verdict};

/// Octets of a command line with its CRLF: 512 (RFC 5321 section 4.5.3.1.4) and what the extensions add, with room.
pub const LINE_OCTETS: usize = 4096;
/// Wrong commands until the session is closed.
const ERRORS: u32 = 20;
/// Commands that bring no mail nearer (NOOP, RSET, VRFY …) until the session is closed, counted from the last mail taken.
const IDLE_COMMANDS: u32 = 100;

/// What a session is told by its owner; the same for all sessions of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name in 220, 250 and 221.
    pub hostname: Domain,
    /// Stands for `<postmaster>` without a domain.
    pub postmaster: Mailbox,
    /// LMTP: LHLO, and a reply per recipient after the final dot.
    pub lmtp: bool,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// No mail is taken without TLS.
    pub tls_required: bool,
    /// AUTH.
    pub auth: AuthOffer,
    /// SCRAM-SHA-256 is offered, for which verifiers are kept; else passwords alone.
    pub scram: bool,
    /// Octets of a message, announced in SIZE.
    pub message_size: u64,
    /// Recipients of a message.
    pub recipients: usize,
}

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// EHLO, HELO or LHLO was taken: a transaction that was open is no more.
    Hello {
        /// The name given.
        name: String,
        /// ESMTP or LMTP rather than SMTP.
        extended: bool,
    },
    /// XCLIENT was taken: write the output; what was said of the client holds from now on, and it begins anew.
    Client(Box<ClientAttributes>),
    /// A name and a password (PLAIN, LOGIN); wants [`Session::answer_password`].
    Password(String, Zeroizing<String>),
    /// A user whose verifier is wanted (SCRAM); wants [`Session::answer_verifier`].
    Verifier(String),
    /// This user has proven who he is; 235 is in the output.
    Authenticated(String),
    /// By this name a proof was wrong; 535 is in the output.
    NotAuthenticated(String),
    /// MAIL; wants [`Session::answer`].
    Mail(ReversePath, MailParameters),
    /// RCPT; wants [`Session::answer`]. More of them may be taken first: see [`Session::further_rcpt`].
    Rcpt(Recipient),
    /// DATA or a first BDAT was taken: content begins, with the octets that are announced. Also before the octets of a BDAT that is refused.
    ContentStart(Option<u64>),
    /// Octets of the content.
    Content(&'a [u8]),
    /// The final dot, or the end of the last chunk, of content without fault; wants [`Session::answer_message`].
    Message,
    /// The transaction is no more: RSET, or its content was refused.
    Reset,
    /// Write the output, do the handshake, then call [`Session::tls_established`]. Octets already read must not be there (A17):
    /// offer them to `step`, which closes.
    StartTls,
    /// Write the output and close; a transaction that was open is no more.
    Close,
}

/// What [`Session::step`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a> {
    /// Octets of the input that are dealt with; the rest is to be offered again, with more behind it.
    pub eaten: usize,
    /// `None`: nothing more can be done with this input.
    pub event: Option<Event<'a>>,
}

#[derive(Debug)]
enum State {
    /// Before 220.
    Fresh,
    Commands,
    /// The rest of a line that is too long.
    LongLine,
    /// MAIL, with what its parameters say.
    WaitMail {
        smtputf8: bool,
        size: Option<u64>,
    },
    /// So many RCPTs have no answer yet.
    WaitRcpt(usize),
    Content(Box<Framing>),
    /// Octets of a BDAT.
    Chunk(Box<Chunk>),
    WaitMessage,
    /// A response of AUTH is to come.
    Auth(Box<Exchange>),
    WaitAuth(Box<Exchange>),
    Handshake,
    Closed,
}

/// Why a RCPT is not asked about.
enum Unfit {
    /// A wrong command.
    Error(Reply),
    /// A recipient too many, or at the wrong time.
    Refused(Reply),
}

#[derive(Debug, Default)]
struct Transaction {
    smtputf8: bool,
    size: Option<u64>,
    accepted: usize,
    /// Why the content is refused, whatever it is.
    refusal: Option<Reply>,
    /// Content comes by BDAT.
    chunks: Option<Box<Framing>>,
    /// A chunk was refused: the owner has dropped what there was.
    failed: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    line_ends: LineEnds,
    state: State,
    tls: bool,
    authenticated: bool,
    /// XCLIENT is offered to this peer.
    xclient: bool,
    /// XFORWARD is offered to this peer.
    xforward: bool,
    /// What it said of the client of the next mail.
    forwarded: Option<Arc<Forwarded>>,
    /// `Some(extended)` after a greeting.
    hello: Option<bool>,
    transaction: Option<Transaction>,
    output: BytesMut,
    /// The client has to wait for the output before it may send more (RFC 2920 section 3.1).
    client_waits: bool,
    errors: u32,
    idle_commands: u32,
    refused: usize,
}

impl Session {
    /// A session before its first octet; `tls`: the connection is TLS already. `line_ends` holds for this peer.
    pub fn new(settings: Arc<Settings>, line_ends: LineEnds, tls: bool) -> Self {
        Session {
            settings,
            line_ends,
            state: State::Fresh,
            tls,
            authenticated: false,
            xclient: false,
            xforward: false,
            forwarded: None,
            hello: None,
            transaction: None,
            output: BytesMut::new(),
            client_waits: false,
            errors: 0,
            idle_commands: 0,
            refused: 0,
        }
    }

    /// This peer may say who its client is (XCLIENT).
    pub fn allow_xclient(&mut self) {
        self.xclient = true;
    }

    /// This peer may say from which client a mail came (XFORWARD).
    pub fn allow_xforward(&mut self) {
        self.xforward = true;
    }

    /// Line ends from now on: the peer is another than it seemed.
    pub fn set_line_ends(&mut self, line_ends: LineEnds) {
        self.line_ends = line_ends;
    }

    /// Puts 220 into the output. Input offered before is refused (A19).
    pub fn greet(&mut self) {
        if matches!(self.state, State::Fresh) {
            self.state = State::Commands;
            self.push_greeting();
        }
    }

    fn push_greeting(&mut self) {
        let protocol = if self.settings.lmtp { "LMTP" } else { "ESMTP" };
        self.push(&Reply::plain(220, format!("{} {protocol}", self.settings.hostname)));
        self.client_waits = true;
    }

    /// What is to be written, in one go; taking it counts as having written it.
    pub fn take_output(&mut self) -> BytesMut {
        self.client_waits = false;
        std::mem::take(&mut self.output)
    }

    /// Whether there is something to be written.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether a mail is under way: MAIL was taken and its fate is open.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some() || matches!(self.state, State::WaitMail { .. })
    }

    /// Whether content is being read, or more chunks of it are to come.
    pub fn in_content(&self) -> bool {
        matches!(self.state, State::Content(_) | State::Chunk(_))
            || self.transaction.as_ref().is_some_and(|transaction| transaction.chunks.is_some())
    }

    /// Eats from `input`. While an answer is due it eats nothing.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let mut eaten = 0;
        loop {
            let rest = input.get(eaten..).unwrap_or_default();
            if matches!(&self.state, State::Chunk(chunk) if chunk.left == 0) {
                match self.chunk_end() {
                    None => continue,
                    event => return Step { eaten, event },
                }
            }
            if rest.is_empty() {
                return Step { eaten, event: None };
            }
            if let Some(event) = self.out_of_turn() {
                return Step { eaten: input.len(), event: Some(event) };
            }
            let (octets, event) = match &mut self.state {
                State::Commands | State::Auth(_) => self.line(rest),
                State::LongLine => self.long_line(rest),
                State::Content(framing) => match framing.step(rest) {
                    (octets, Piece::Content(content)) => (octets, Some(Event::Content(content))),
                    (octets, Piece::More) => (octets, None),
                    (octets, Piece::End(end)) => (octets, Some(self.content_end(end))),
                },
                State::Chunk(_) => self.chunk(rest),
                State::Closed => (rest.len(), None),
                State::Fresh
                | State::WaitMail { .. }
                | State::WaitRcpt(_)
                | State::WaitMessage
                | State::WaitAuth(_)
                | State::Handshake => (0, None),
            };
            eaten += octets;
            if event.is_some() || octets == 0 {
                return Step { eaten, event };
            }
        }
    }

    /// Octets that came where the client had to wait: they are never looked at.
    fn out_of_turn(&mut self) -> Option<Event<'static>> {
        match self.state {
            // A17, RFC 3207 section 4.2: no reply, since the injected octets may stem from someone in the middle.
            State::Handshake => {
                self.output.clear();
                self.end()
            }
            State::Fresh => self.close_with(&Reply::new(554, Enhanced(5, 5, 1), "you talked before the greeting")),
            State::Commands | State::Auth(_) | State::LongLine | State::Content(_) if self.client_waits => self
                .close_with(&Reply::new(
                    554,
                    Enhanced(5, 5, 1),
                    "you talked out of turn; wait for the reply (RFC 2920)",
                )),
            _ => None,
        }
    }

    fn line<'a>(&mut self, rest: &[u8]) -> (usize, Option<Event<'a>>) {
        let Some(end) = memchr(b'\n', rest) else {
            if rest.len() < LINE_OCTETS {
                return (0, None);
            }
            self.state = State::LongLine;
            return (rest.len(), None);
        };
        let eaten = end + 1;
        if eaten > LINE_OCTETS {
            self.state = State::Commands;
            return (eaten, self.line_too_long());
        }
        let line = rest.get(..end).unwrap_or_default();
        let event = match (line.strip_suffix(b"\r"), std::mem::replace(&mut self.state, State::Commands)) {
            (None, _) => self.error(Reply::new(500, Enhanced(5, 5, 2), "a bare LF: end each line with CRLF")),
            (Some(line), State::Auth(exchange)) => self.auth_line(exchange, line),
            (Some(line), _) => match Command::parse(line) {
                Err(reply) => self.error(reply),
                Ok(command) => self.command(command, line.is_ascii()),
            },
        };
        (eaten, event)
    }

    fn long_line<'a>(&mut self, rest: &[u8]) -> (usize, Option<Event<'a>>) {
        match memchr(b'\n', rest) {
            None => (rest.len(), None),
            Some(end) => {
                self.state = State::Commands;
                (end + 1, self.line_too_long())
            }
        }
    }

    fn line_too_long<'a>(&mut self) -> Option<Event<'a>> {
        self.error(Reply::new(500, Enhanced(5, 5, 2), format!("line too long: at most {LINE_OCTETS} octets")))
    }

    fn command<'a>(&mut self, command: Command, ascii: bool) -> Option<Event<'a>> {
        match command {
            Command::Ehlo(name) => self.hello(name, true, false),
            Command::Helo(name) => self.hello(name, false, false),
            Command::Lhlo(name) => self.hello(name, true, true),
            Command::Mail(reverse_path, parameters) => self.mail(reverse_path, parameters, ascii),
            Command::Rcpt(forward_path, parameters) => self.rcpt(forward_path, parameters, ascii),
            Command::Data => self.data(),
            Command::StartTls => self.starttls(),
            Command::Auth(mechanism, initial) => {
                self.auth(&mechanism, initial.as_ref().map(|initial| initial.as_str()))
            }
            Command::XClient(attributes) => self.client(attributes),
            Command::XForward(said) => self.forward(said),
            Command::Rset => {
                self.forwarded = None;
                let event = self.transaction.take().map(|_| Event::Reset);
                self.idle(Reply::new(250, Enhanced(2, 0, 0), "reset")).or(event)
            }
            Command::Noop => self.idle(Reply::new(250, Enhanced(2, 0, 0), "ok")),
            Command::Help => self.idle(Reply::new(214, Enhanced(2, 0, 0), "see RFC 5321")),
            Command::Vrfy => self.idle(Reply::new(252, Enhanced(2, 5, 0), "not verified; send the mail and see")),
            Command::Expn => self.error(Reply::new(502, Enhanced(5, 5, 1), "EXPN is not offered")),
            Command::Quit => {
                self.close_with(&Reply::new(221, Enhanced(2, 0, 0), format!("{} bye", self.settings.hostname)))
            }
            Command::Bdat(Some((octets, last))) => self.bdat(octets, last),
            // What follows would be content and must not be read as commands.
            Command::Bdat(None) => self.close_with(&Reply::new(501, Enhanced(5, 5, 4), "write BDAT octets [LAST]")),
            Command::Http => self.close_with(&Reply::new(554, Enhanced(5, 5, 1), "this is SMTP, not HTTP")),
        }
    }

    fn hello<'a>(&mut self, name: String, extended: bool, lmtp: bool) -> Option<Event<'a>> {
        if lmtp != self.settings.lmtp {
            let verb = if self.settings.lmtp { "LHLO: this is LMTP" } else { "EHLO: this is SMTP" };
            return self.error(Reply::new(500, Enhanced(5, 5, 1), format!("say {verb}")));
        }
        self.hello = Some(extended);
        (self.transaction, self.forwarded) = (None, None);
        let mut lines = vec![self.settings.hostname.to_string()];
        if extended {
            lines.extend(
                ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"].map(String::from),
            );
            lines.push(format!("SIZE {}", self.settings.message_size));
            if self.settings.starttls && !self.tls {
                lines.push("STARTTLS".into());
            }
            if self.offers_auth() {
                let scram = if self.settings.scram { "SCRAM-SHA-256 " } else { "" };
                lines.push(format!("AUTH {scram}PLAIN LOGIN"));
            }
            if self.xclient {
                lines.push(xclient::OFFER.into());
            }
            if self.xforward {
                lines.push(xforward::OFFER.into());
            }
        }
        self.push(&Reply { code: 250, enhanced: None, lines });
        // RFC 2920 section 3.1: EHLO is the last of its group.
        self.client_waits = true;
        Some(Event::Hello { name, extended })
    }

    fn mail<'a>(
        &mut self,
        reverse_path: ReversePath,
        mut parameters: MailParameters,
        ascii: bool,
    ) -> Option<Event<'a>> {
        let Some(extended) = self.hello else {
            let verb = if self.settings.lmtp { "LHLO" } else { "EHLO" };
            return self.error(Reply::new(503, Enhanced(5, 5, 1), format!("say {verb} first")));
        };
        if self.settings.tls_required && !self.tls {
            return self.error(Reply::new(530, Enhanced(5, 7, 0), "say STARTTLS first"));
        }
        if self.transaction.is_some() {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "a transaction is open; say RSET first"));
        }
        if !extended && parameters != MailParameters::default() {
            return self.error(Reply::new(555, Enhanced(5, 5, 4), "parameters want EHLO"));
        }
        if !ascii && !parameters.smtputf8 {
            return self.error(Reply::new(553, Enhanced(5, 6, 7), "an address in UTF-8 wants the parameter SMTPUTF8"));
        }
        if parameters.size.is_some_and(|size| size > self.settings.message_size) {
            return self.idle(too_big(self.settings.message_size));
        }
        self.state = State::WaitMail { smtputf8: parameters.smtputf8, size: parameters.size };
        parameters.client.clone_from(&self.forwarded);
        Some(Event::Mail(reverse_path, parameters))
    }

    fn rcpt<'a>(&mut self, forward_path: ForwardPath, parameters: RcptParameters, ascii: bool) -> Option<Event<'a>> {
        match self.recipient(forward_path, parameters, ascii, 0) {
            Ok(recipient) => {
                self.state = State::WaitRcpt(1);
                Some(Event::Rcpt(recipient))
            }
            Err(Unfit::Error(reply)) => self.error(reply),
            Err(Unfit::Refused(reply)) => self.refuse(reply),
        }
    }

    /// Whom a RCPT names, where nothing but the owner's word is wanted; `waiting`: RCPTs before it that have no answer yet.
    fn recipient(
        &self,
        forward_path: ForwardPath,
        parameters: RcptParameters,
        ascii: bool,
        waiting: usize,
    ) -> Result<Recipient, Unfit> {
        let Some(transaction) = &self.transaction else {
            return Err(Unfit::Refused(Reply::new(503, Enhanced(5, 5, 1), "say MAIL first")));
        };
        if transaction.chunks.is_some() {
            return Err(Unfit::Error(Reply::new(503, Enhanced(5, 5, 1), "content has begun; say RSET first")));
        }
        if !ascii && !transaction.smtputf8 {
            return Err(Unfit::Error(Reply::new(
                553,
                Enhanced(5, 6, 7),
                "an address in UTF-8 wants the parameter SMTPUTF8 of MAIL",
            )));
        }
        if self.hello != Some(true) && parameters != RcptParameters::default() {
            return Err(Unfit::Error(Reply::new(555, Enhanced(5, 5, 4), "parameters want EHLO")));
        }
        if transaction.accepted.saturating_add(waiting) >= self.settings.recipients {
            return Err(Unfit::Refused(Reply::new(
                452,
                Enhanced(4, 5, 3),
                "too many recipients; send the mail to the others in another transaction",
            )));
        }
        let mailbox = match forward_path {
            ForwardPath::Postmaster => self.settings.postmaster.clone(),
            ForwardPath::Mailbox(mailbox) => mailbox,
        };
        Ok(Recipient { mailbox, parameters })
    }

    /// While a RCPT waits for its answer: the recipient of another one right behind it in the input, and the octets that are dealt with.
    /// Pipelined RCPTs (RFC 2920) can so be asked about together; each wants an [`Session::answer`], in their order. `None`: there is none, it
    /// is not whole yet, or it is refused here. It is left in the input then, for [`Session::step`] once all are answered.
    pub fn further_rcpt(&mut self, input: &[u8]) -> Option<(usize, Recipient)> {
        let State::WaitRcpt(waiting) = self.state else { return None };
        // Without EHLO the client has to wait.
        if self.hello != Some(true) || !input.get(..4)?.eq_ignore_ascii_case(b"RCPT") {
            return None;
        }
        let end = memchr(b'\n', input).filter(|end| *end < LINE_OCTETS)?;
        let line = input.get(..end)?.strip_suffix(b"\r")?;
        let Ok(Command::Rcpt(forward_path, parameters)) = Command::parse(line) else { return None };
        let recipient = self.recipient(forward_path, parameters, line.is_ascii(), waiting).ok()?;
        self.state = State::WaitRcpt(waiting + 1);
        Some((end + 1, recipient))
    }

    fn data<'a>(&mut self) -> Option<Event<'a>> {
        let Some(transaction) = &self.transaction else {
            return self.refuse(Reply::new(503, Enhanced(5, 5, 1), "say MAIL first"));
        };
        if transaction.accepted == 0 {
            // RFC 2033 section 4.2 names 503, RFC 5321 section 3.3 either.
            return self.refuse(Reply::new(503, Enhanced(5, 5, 1), "no recipient was accepted"));
        }
        if transaction.chunks.is_some() {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "content has begun by BDAT; go on so, or say RSET"));
        }
        let size = transaction.size;
        self.state = State::Content(Box::new(Framing::new(self.line_ends, self.settings.message_size)));
        self.push(&Reply::plain(354, "end with CRLF.CRLF"));
        self.client_waits = true;
        Some(Event::ContentStart(size))
    }

    fn client<'a>(&mut self, attributes: ClientAttributes) -> Option<Event<'a>> {
        if !self.xclient {
            return self.error(Reply::new(550, Enhanced(5, 7, 0), "you may not say who your client is"));
        }
        if self.transaction.is_some() {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "a transaction is open; say RSET first"));
        }
        (self.hello, self.forwarded) = (None, None);
        self.push_greeting();
        Some(Event::Client(Box::new(attributes)))
    }

    /// It holds for the next mail that is taken, or until RSET.
    fn forward<'a>(&mut self, said: Said) -> Option<Event<'a>> {
        if !self.xforward {
            return self.error(Reply::new(550, Enhanced(5, 7, 0), "you may not say who your client is"));
        }
        if self.hello.is_none() || self.transaction.is_some() {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "XFORWARD comes after EHLO and before MAIL"));
        }
        Arc::make_mut(self.forwarded.get_or_insert_default()).merge(said);
        self.idle(Reply::new(250, Enhanced(2, 0, 0), "ok"))
    }

    fn starttls<'a>(&mut self) -> Option<Event<'a>> {
        if !self.settings.starttls || self.tls {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "STARTTLS is not offered here"));
        }
        self.push(&Reply::new(220, Enhanced(2, 0, 0), "go ahead"));
        self.transaction = None;
        self.state = State::Handshake;
        Some(Event::StartTls)
    }

    /// After the handshake: nothing said before counts (RFC 3207 section 4.2).
    pub fn tls_established(&mut self) {
        if matches!(self.state, State::Handshake) {
            self.state = State::Commands;
            self.tls = true;
            self.authenticated = false;
            self.hello = None;
            (self.transaction, self.forwarded) = (None, None);
            self.output.clear();
            self.client_waits = false;
        }
    }

    /// Answers [`Event::Mail`] or [`Event::Rcpt`]; 2xx takes the sender or the recipient. The event is `Close` when the client
    /// was refused too often.
    pub fn answer(&mut self, reply: &Reply) -> Option<Event<'static>> {
        let reply = passable(reply);
        let taken = reply.is_positive();
        match std::mem::replace(&mut self.state, State::Commands) {
            State::WaitMail { smtputf8, size } => {
                if !taken {
                    return self.idle(reply);
                }
                self.transaction = Some(Transaction { smtputf8, size, ..Transaction::default() });
                self.command_reply(&reply);
                None
            }
            State::WaitRcpt(waiting) => {
                if waiting > 1 {
                    self.state = State::WaitRcpt(waiting - 1);
                }
                if !taken {
                    return self.refuse(reply);
                }
                if let Some(transaction) = &mut self.transaction {
                    transaction.accepted += 1;
                }
                self.command_reply(&reply);
                None
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Refuses the content that is being read: it is eaten up to its end, then `reply` is given.
    pub fn refuse_content(&mut self, reply: &Reply) {
        let Some(transaction) = &mut self.transaction else { return };
        match &mut self.state {
            State::Content(framing) => framing.discard(),
            State::Chunk(_) => {}
            _ => return,
        }
        transaction.refusal.get_or_insert(passable(reply));
    }

    fn content_end(&mut self, end: Result<u64, ContentFault>) -> Event<'static> {
        let refusal = self.transaction.as_mut().and_then(|transaction| transaction.refusal.take());
        let refusal = refusal.or_else(|| end.err().map(|fault| content_refusal(&fault)));
        self.state = State::WaitMessage;
        match refusal {
            None => Event::Message,
            Some(reply) => {
                self.answer_message(&[reply]);
                Event::Reset
            }
        }
    }

    /// Answers [`Event::Message`]: one reply for all, or (LMTP) one per accepted recipient in order.
    ///
    /// Replies that do not fit the recipients are made to fit so that no mail is lost: over SMTP the first that is no 2xx goes out, over LMTP
    /// a recipient without a reply of his own gets 451.
    pub fn answer_message(&mut self, replies: &[Reply]) {
        if !matches!(self.state, State::WaitMessage) {
            return;
        }
        self.state = State::Commands;
        let recipients = self.transaction.take().map_or(1, |transaction| transaction.accepted);
        self.forwarded = None;
        let missing = Reply::new(451, Enhanced(4, 3, 0), "no answer; try again");
        if replies.iter().any(Reply::is_positive) {
            (self.errors, self.idle_commands, self.refused) = (0, 0, 0);
        }
        if !self.settings.lmtp {
            let reply = replies.iter().find(|reply| !reply.is_positive()).or(replies.first()).unwrap_or(&missing);
            self.push(&passable(reply));
            return;
        }
        for recipient in 0..recipients {
            let reply = match replies {
                [one] => one,
                many => many.get(recipient).unwrap_or(&missing),
            };
            self.push(&passable(reply));
        }
    }

    /// The client took too long: 421, then close.
    pub fn time_out(&mut self) {
        let _ =
            self.close_with(&Reply::new(421, Enhanced(4, 4, 2), format!("{} waited too long", self.settings.hostname)));
    }

    /// The server stops: 421, then close.
    pub fn shut_down(&mut self) {
        let _ = self.close_with(&Reply::new(
            421,
            Enhanced(4, 3, 2),
            format!("{} is shutting down", self.settings.hostname),
        ));
    }

    fn push(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Without EHLO there is no PIPELINING: the client waits for each reply.
    fn command_reply(&mut self, reply: &Reply) {
        self.push(reply);
        self.client_waits |= self.hello != Some(true);
    }

    fn error<'a>(&mut self, reply: Reply) -> Option<Event<'a>> {
        self.errors += 1;
        self.counted(reply, self.errors >= ERRORS)
    }

    fn idle<'a>(&mut self, reply: Reply) -> Option<Event<'a>> {
        self.idle_commands += 1;
        self.counted(reply, self.idle_commands >= IDLE_COMMANDS)
    }

    /// Many recipients may be refused at once in good faith (pipelined), so they have a bound of their own.
    fn refuse<'a>(&mut self, reply: Reply) -> Option<Event<'a>> {
        self.refused += 1;
        self.counted(reply, self.refused > self.settings.recipients.max(IDLE_COMMANDS as usize))
    }

    fn counted<'a>(&mut self, reply: Reply, too_many: bool) -> Option<Event<'a>> {
        self.command_reply(&reply);
        if !too_many {
            return None;
        }
        self.close_with(&Reply::new(421, Enhanced(4, 7, 0), format!("{} too many errors", self.settings.hostname)))
    }

    fn close_with<'a>(&mut self, reply: &Reply) -> Option<Event<'a>> {
        if !matches!(self.state, State::Closed) {
            self.push(reply);
        }
        self.end()
    }

    fn end<'a>(&mut self) -> Option<Event<'a>> {
        self.state = State::Closed;
        self.transaction = None;
        Some(Event::Close)
    }
}

fn too_big(limit: u64) -> Reply {
    Reply::new(552, Enhanced(5, 3, 4), format!("the message is over the limit of {limit} octets"))
}

fn content_refusal(fault: &ContentFault) -> Reply {
    match fault {
        ContentFault::TooBig(limit) => too_big(*limit),
        other => Reply::new(550, Enhanced(5, 6, 0), other.to_string()),
    }
}

/// A reply that may answer a command or a message. 421 would announce a close that does not follow, 3xx would ask for more.
pub(crate) fn passable(reply: &Reply) -> Reply {
    let mut reply = reply.clone();
    if reply.code == 421 || !(reply.is_positive() || reply.is_transient() || reply.is_permanent()) {
        reply.code = 451;
        reply.enhanced = Some(reply.enhanced.filter(|enhanced| enhanced.0 == 4).unwrap_or(Enhanced(4, 3, 0)));
    }
    reply
}

/// The fuzz body of this module: whatever the chunks, events and output are the same, and the output is made of reply lines.
///
/// The first octet is the size of the chunks; 0xFF ends a turn, after which the client waits for the output.
#[doc(hidden)]
pub fn fuzz_session(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let turns: Vec<&[u8]> = wire.split(|octet| *octet == 0xff).collect();
    for lmtp in [false, true] {
        let whole = record::run(lmtp, &turns, usize::MAX);
        assert_eq!(whole, record::run(lmtp, &turns, usize::from(first).max(1)));
        assert!(whole.output.is_empty() || whole.output.ends_with("\r\n"));
        for line in whole.output.split_terminator("\r\n") {
            assert!(line.len() <= 510 && line.is_ascii() && !line.contains(char::is_control), "{line:?}");
            assert!(line.get(..3).is_some_and(|code| code.bytes().all(|octet| octet.is_ascii_digit())), "{line:?}");
        }
    }
}

/// A session played through: for the fuzz body and the tests.
#[doc(hidden)]
mod record;

#[cfg(test)]
mod tests;
