//! The client's side of SMTP (RFC 5321) and LMTP (RFC 2033): commands in, octets out; octets in, events out. P.
//!
//! The owner does the I/O: it writes [`Client::take_output`], appends what arrives to [`Client::input`], and asks
//! [`Client::next_event`]. Where PIPELINING (RFC 2920) is not offered the machine holds commands back by itself. Every error means that the
//! connection is of no use any more.

/// Replies, read strictly.
pub mod reply;
/// Dot-stuffing.
pub mod stuff;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::address::{Domain, ReversePath};
use crate::smtp::command::{Body, Enhanced, MailParameters, Recipient, Reply, Ret};
use crate::smtp::xforward::{Forwarded, Offer};
pub use reply::{ReplyReader, fuzz_reply};
pub use stuff::DotStuffer;

/// What a server did that ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No reply line of RFC 5321 section 4.2.
    #[error("the server sent {found:?}, which is no SMTP reply; is it an SMTP server?")]
    Malformed {
        /// The line's first octets, control characters replaced.
        found: String,
    },
    /// The lines of one reply have different codes.
    #[error("the server mixed the codes {first} and {then} in one reply")]
    CodesDiffer {
        /// The first line's code.
        first: u16,
        /// Another line's code.
        then: u16,
    },
    /// A bare CR or LF in a reply.
    #[error("the server sent a reply with a bare CR or LF; replies end in CRLF (RFC 5321 section 2.3.8)")]
    LineEnd,
    /// A line or a reply beyond all bounds.
    #[error("the server sent a reply longer than {limit} octets a line or lines a reply")]
    TooLong {
        /// Octets of a line, or lines of a reply.
        limit: usize,
    },
    /// A reply that nothing asked for.
    #[error("the server spoke out of turn: {found:?}")]
    Unsolicited {
        /// What it said.
        found: String,
    },
    /// A code that has no meaning at this point.
    #[error("the server answered {to} with {code}, which has no meaning there")]
    WrongCode {
        /// The command.
        to: &'static str,
        /// The code.
        code: u16,
    },
    /// The server refuses the session.
    #[error("the server refused {to}: {} {}", reply.code, reply.lines.join(" "))]
    Refused {
        /// The command, or "the connection".
        to: &'static str,
        /// Its words.
        reply: Reply,
    },
    /// TLS is asked for by configuration, and the server does not offer or do it.
    #[error("the server does not offer STARTTLS, which `tls` of this next hop requires")]
    NoTls,
    /// Octets after the reply to STARTTLS: an injection (RFC 3207 section 6), whoever made it.
    #[error("the server sent {octets} octets in clear after its reply to STARTTLS")]
    InjectedBeforeTls {
        /// How many.
        octets: usize,
    },
}

impl ClientError {
    /// Whether STARTTLS, which has to be, is not offered or not done as it should be.
    pub fn is_about_tls(&self) -> bool {
        match self {
            Self::NoTls | Self::InjectedBeforeTls { .. } => true,
            Self::Refused { to, .. } | Self::WrongCode { to, .. } => *to == Expect::StartTls.name(),
            _ => false,
        }
    }
}

/// What a server said in EHLO that matters to a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// SIZE (RFC 1870): the most octets it takes, if it has a limit.
    pub size: Option<u64>,
    /// SIZE is offered, with or without a limit.
    pub size_declared: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// XFORWARD, and of what.
    pub xforward: Offer,
}

impl Offers {
    fn read(ehlo: &Reply) -> Self {
        let mut offers = Offers::default();
        for line in ehlo.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit_mime = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "DSN" => offers.dsn = true,
                "STARTTLS" => offers.starttls = true,
                "XFORWARD" => offers.xforward = Offer::read(words),
                "SIZE" => {
                    offers.size_declared = true;
                    offers.size = words.next().and_then(|size| size.parse().ok()).filter(|size| *size > 0);
                }
                _ => {}
            }
        }
        offers
    }
}

/// Whether the client asks for TLS with STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTls {
    /// Never.
    Off,
    /// Where offered.
    IfOffered,
    /// Or no mail.
    Required,
}

/// What a reply answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server said 220 to STARTTLS: do the handshake now, then call [`Client::tls_started`].
    StartTls,
    /// EHLO is through; mail may be sent.
    Ready,
    /// The answer to MAIL: 2xx, 4xx or 5xx.
    Mail(Reply),
    /// The answer to the next RCPT in order: 2xx, 4xx or 5xx.
    Rcpt(Reply),
    /// 354: write the stuffed content and the final dot, and call [`Client::content_sent`] when the dot begins to be written.
    GoAhead,
    /// DATA was refused: 4xx or 5xx.
    DataRefused(Reply),
    /// The answer to the final dot (LMTP: for the next accepted recipient in order): 2xx, 4xx or 5xx.
    Final(Reply),
    /// RSET is through.
    Reset,
    /// QUIT is through, or 421 ended the session: nothing more will come.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    XForward,
    Mail,
    Rcpt,
    Data,
    Final,
    Rset,
    Quit,
}

impl Expect {
    fn name(self) -> &'static str {
        match self {
            Expect::Greeting => "the connection",
            Expect::Ehlo => "EHLO",
            Expect::Helo => "HELO",
            Expect::StartTls => "STARTTLS",
            Expect::XForward => "XFORWARD",
            Expect::Mail => "MAIL",
            Expect::Rcpt => "RCPT",
            Expect::Data => "DATA",
            Expect::Final => "the final dot",
            Expect::Rset => "RSET",
            Expect::Quit => "QUIT",
        }
    }
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Client {
    hostname: Domain,
    lmtp: bool,
    tls: StartTls,
    within_tls: bool,
    offers: Offers,
    reader: ReplyReader,
    input: BytesMut,
    output: BytesMut,
    /// Commands on the wire whose replies are to come, in order.
    expected: VecDeque<Expect>,
    /// How many of `expected` the owner has taken to be written: a reply to one that it has not cannot be honest.
    on_wire: usize,
    /// Commands held back until the replies before are here.
    held: VecDeque<(Expect, Vec<u8>)>,
    /// SMTPUTF8 was said in the MAIL of this transaction.
    smtputf8: bool,
    /// 421 was said: no reply comes after it.
    closing: Option<Reply>,
    /// The server spoke before the final dot: what it said cannot mean that it took the content.
    spoke_early: bool,
}

impl Client {
    /// A client on a fresh connection. `hostname` is our name in EHLO; `within_tls`: TLS already runs (implicit TLS).
    pub fn new(hostname: Domain, lmtp: bool, tls: StartTls, within_tls: bool) -> Self {
        Self {
            hostname,
            lmtp,
            tls,
            within_tls,
            offers: Offers::default(),
            reader: ReplyReader::default(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            expected: VecDeque::from([Expect::Greeting]),
            on_wire: 1,
            held: VecDeque::new(),
            smtputf8: false,
            closing: None,
            spoke_early: false,
        }
    }

    /// What the server offers, once [`Event::Ready`] came.
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// Where the owner appends what arrives.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// The octets to write now.
    pub fn take_output(&mut self) -> Bytes {
        self.on_wire = self.expected.len();
        self.output.split().freeze()
    }

    /// Whether replies are outstanding, or octets have come that nothing asked for.
    pub fn is_idle(&self) -> bool {
        self.expected.is_empty()
            && self.held.is_empty()
            && self.input.is_empty()
            && !self.reader.is_within()
            && self.closing.is_none()
    }

    /// TLS runs now: what was learned in clear is forgotten (RFC 3207 section 4.2), and EHLO is said again.
    pub fn tls_started(&mut self) {
        self.within_tls = true;
        self.offers = Offers::default();
        self.reader = ReplyReader::default();
        self.hello(Expect::Ehlo);
    }

    /// Tells the server of the client that the next mail came from, if it wants to know; `None`: it was written here. What it answers
    /// changes nothing for the mail.
    pub fn forward(&mut self, client: Option<&Forwarded>) {
        if self.offers.xforward.is_any() {
            for line in Forwarded::commands(client, self.offers.xforward) {
                self.queue(Expect::XForward, format!("{line}\r\n").into_bytes());
            }
        }
    }

    /// MAIL. `Err` is a refusal of our own, without asking the server: 5.6.7 where SMTPUTF8 is needed and not offered, 5.3.4 where the size is
    /// over the server's limit. Parameters that the server does not offer are left out.
    pub fn mail(&mut self, reverse_path: &ReversePath, parameters: &MailParameters) -> Result<(), Reply> {
        let path_needs = matches!(reverse_path, ReversePath::Mailbox(mailbox) if mailbox.needs_smtputf8());
        let smtputf8 = parameters.smtputf8 || path_needs;
        if smtputf8 && !self.offers.smtputf8 {
            return Err(no_smtputf8());
        }
        let mut line = format!("MAIL FROM:<{reverse_path}>");
        if let (true, Some(size)) = (self.offers.size_declared, parameters.size) {
            if self.offers.size.is_some_and(|limit| size > limit) {
                return Err(Reply::new(552, Enhanced(5, 3, 4), "the next hop does not take messages of this size"));
            }
            line.push_str(&format!(" SIZE={size}"));
        }
        if self.offers.eight_bit_mime && parameters.body == Body::EightBitMime {
            line.push_str(" BODY=8BITMIME");
        }
        if smtputf8 {
            line.push_str(" SMTPUTF8");
        }
        if self.offers.dsn {
            match parameters.ret {
                Some(Ret::Full) => line.push_str(" RET=FULL"),
                Some(Ret::Headers) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &parameters.envid {
                line.push_str(&format!(" ENVID={}", xtext(envid)));
            }
        }
        self.smtputf8 = smtputf8;
        self.command(Expect::Mail, line)
    }

    /// RCPT. `Err` is a refusal of our own: 5.6.7 where the mailbox needs SMTPUTF8 and MAIL went without it.
    pub fn rcpt(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        if recipient.mailbox.needs_smtputf8() && !self.smtputf8 {
            return Err(no_smtputf8());
        }
        let mut line = format!("RCPT TO:<{}>", recipient.mailbox);
        if self.offers.dsn {
            if let Some(notify) = recipient.parameters.notify {
                let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
                let asked: Vec<_> = words.iter().filter(|(asked, _)| *asked).map(|(_, word)| *word).collect();
                line.push_str(" NOTIFY=");
                line.push_str(if asked.is_empty() { "NEVER" } else { "" });
                line.push_str(&asked.join(","));
            }
            let sane = |orcpt: &&String| orcpt.len() <= 500 && orcpt.bytes().all(|octet| octet.is_ascii_graphic());
            if let Some(orcpt) = recipient.parameters.orcpt.as_ref().filter(sane) {
                line.push_str(&format!(" ORCPT={orcpt}"));
            }
        }
        self.command(Expect::Rcpt, line)
    }

    /// DATA.
    pub fn data(&mut self) {
        self.queue(Expect::Data, b"DATA\r\n".to_vec());
    }

    /// The final dot begins to be written: `replies` answers are to come (LMTP: one for each recipient accepted; SMTP: 1).
    pub fn content_sent(&mut self, replies: usize) {
        self.spoke_early = !self.input.is_empty() || self.reader.is_within();
        self.expected.extend(std::iter::repeat_n(Expect::Final, replies));
        self.on_wire = self.expected.len();
    }

    /// RSET.
    pub fn rset(&mut self) {
        self.queue(Expect::Rset, b"RSET\r\n".to_vec());
    }

    /// QUIT.
    pub fn quit(&mut self) {
        self.queue(Expect::Quit, b"QUIT\r\n".to_vec());
    }

    /// The next thing the server said, out of what has arrived; `None`: read more (after writing what there is to write).
    pub fn next_event(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(reply) = &self.closing {
                let reply = reply.clone();
                return Ok(Some(self.closed(reply)));
            }
            let Some(reply) = self.reader.read(&mut self.input)? else { return Ok(None) };
            if reply.code == 421 {
                self.closing = Some(reply);
                continue;
            }
            let unsolicited = || ClientError::Unsolicited { found: reply.to_string() };
            self.on_wire = self.on_wire.checked_sub(1).ok_or_else(unsolicited)?;
            let expected = self.expected.pop_front().ok_or_else(unsolicited)?;
            let event = self.answered(expected, reply)?;
            self.release();
            if let Some(event) = event {
                return Ok(Some(event));
            }
        }
    }

    /// After 421 every command that is open is answered by it.
    fn closed(&mut self, reply: Reply) -> Event {
        let mut next = || self.expected.pop_front().or_else(|| self.held.pop_front().map(|(expect, _)| expect));
        let mut command = next();
        while command == Some(Expect::XForward) {
            command = next();
        }
        match command {
            Some(Expect::Mail) => Event::Mail(reply),
            Some(Expect::Rcpt) => Event::Rcpt(reply),
            Some(Expect::Data) => Event::DataRefused(reply),
            Some(Expect::Final) => Event::Final(reply),
            _ => Event::Closed,
        }
    }

    /// Why the session is ended by the server, if it said 421.
    pub fn closing(&self) -> Option<&Reply> {
        self.closing.as_ref()
    }

    fn answered(&mut self, expected: Expect, reply: Reply) -> Result<Option<Event>, ClientError> {
        let wrong = || Err(ClientError::WrongCode { to: expected.name(), code: reply.code });
        let (fine, judged) = (reply.is_positive(), reply.is_positive() || reply.is_transient() || reply.is_permanent());
        match expected {
            Expect::Data if reply.code == 354 => return Ok(Some(Event::GoAhead)),
            _ if !judged => return wrong(),
            Expect::Data if fine => return wrong(),
            Expect::Data => return Ok(Some(Event::DataRefused(reply))),
            Expect::XForward => {}
            Expect::Mail => return Ok(Some(Event::Mail(reply))),
            Expect::Rcpt => return Ok(Some(Event::Rcpt(reply))),
            Expect::Final if fine && self.spoke_early => {
                return Err(ClientError::Unsolicited { found: reply.to_string() });
            }
            Expect::Final => return Ok(Some(Event::Final(reply))),
            Expect::Quit => return Ok(Some(Event::Closed)),
            Expect::StartTls => return self.starttls_answered(&reply),
            // The server knows no ESMTP (RFC 5321 section 3.2).
            Expect::Ehlo if reply.is_permanent() && !self.lmtp => {
                if self.tls == StartTls::Required && !self.within_tls {
                    return Err(ClientError::NoTls);
                }
                self.hello(Expect::Helo);
                return Ok(None);
            }
            Expect::Greeting | Expect::Ehlo | Expect::Helo | Expect::Rset if !fine => {
                return Err(ClientError::Refused { to: expected.name(), reply });
            }
            Expect::Greeting if reply.code != 220 => return wrong(),
            Expect::Greeting => self.hello(Expect::Ehlo),
            Expect::Rset => return Ok(Some(Event::Reset)),
            Expect::Helo => return Ok(Some(Event::Ready)),
            Expect::Ehlo => return self.ehlo_answered(&reply),
        }
        Ok(None)
    }

    fn ehlo_answered(&mut self, reply: &Reply) -> Result<Option<Event>, ClientError> {
        self.offers = Offers::read(reply);
        match (self.within_tls, self.tls, self.offers.starttls) {
            (true, ..) | (_, StartTls::Off, _) | (_, StartTls::IfOffered, false) => Ok(Some(Event::Ready)),
            (_, StartTls::Required, false) => Err(ClientError::NoTls),
            (_, _, true) => {
                self.queue(Expect::StartTls, b"STARTTLS\r\n".to_vec());
                Ok(None)
            }
        }
    }

    fn starttls_answered(&mut self, reply: &Reply) -> Result<Option<Event>, ClientError> {
        if reply.code == 220 {
            // What lies in the buffer was sent in clear, yet would be read as if it came through TLS (A17).
            let octets = self.input.len();
            return if octets == 0 {
                Ok(Some(Event::StartTls))
            } else {
                Err(ClientError::InjectedBeforeTls { octets })
            };
        }
        if reply.is_positive() {
            return Err(ClientError::WrongCode { to: "STARTTLS", code: reply.code });
        }
        if self.tls == StartTls::Required {
            return Err(ClientError::Refused { to: "STARTTLS", reply: reply.clone() });
        }
        Ok(Some(Event::Ready))
    }

    fn hello(&mut self, verb: Expect) {
        let word = match (verb, self.lmtp) {
            (Expect::Helo, _) => "HELO",
            (_, true) => "LHLO",
            (_, false) => "EHLO",
        };
        let line = format!("{word} {}\r\n", self.hostname);
        self.queue(verb, line.into_bytes());
    }

    fn command(&mut self, expect: Expect, mut line: String) -> Result<(), Reply> {
        // Addresses have no control characters by construction; this is the last place where one could split a command (A15).
        if line.chars().any(char::is_control) {
            return Err(Reply::new(553, Enhanced(5, 1, 3), "a control character in an address or a parameter"));
        }
        line.push_str("\r\n");
        self.queue(expect, line.into_bytes());
        Ok(())
    }

    fn queue(&mut self, expect: Expect, line: Vec<u8>) {
        self.held.push_back((expect, line));
        self.release();
    }

    /// Sends what may be sent: with PIPELINING all up to and including DATA, else one command at a time.
    fn release(&mut self) {
        while let Some((expect, _)) = self.held.front() {
            use Expect::{Data, Mail, Quit, Rcpt, Rset, XForward};
            let grouped = matches!(expect, XForward | Mail | Rcpt | Data | Rset | Quit);
            let within_group = self.expected.iter().all(|before| matches!(before, XForward | Mail | Rcpt | Rset));
            let pipelined = self.offers.pipelining && grouped && within_group;
            if !self.expected.is_empty() && !pipelined {
                return;
            }
            if let Some((expect, line)) = self.held.pop_front() {
                self.output.extend_from_slice(&line);
                self.expected.push_back(expect);
            }
        }
    }
}

/// The refusal of our own where SMTPUTF8 is needed and not offered.
pub fn no_smtputf8() -> Reply {
    Reply::new(550, Enhanced(5, 6, 7), "the next hop does not offer SMTPUTF8, which this mail needs")
}

/// xtext (RFC 3461 section 4).
pub(super) fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => out.push_str(&format!("+{octet:02X}")),
            b'!'..=b'~' => out.push(char::from(octet)),
            _ => out.push_str(&format!("+{octet:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
