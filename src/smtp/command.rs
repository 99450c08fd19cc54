//! Commands, parameters and replies (RFC 5321, RFC 2034, RFC 3461, RFC 1870, RFC 6152, RFC 6531).

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::Zeroizing;

use crate::address::{Mailbox, ReversePath};
use crate::smtp::xclient::ClientAttributes;
use crate::smtp::xforward::{Forwarded, Said};

pub(super) mod parse;

/// A forward-path (RFC 5321 section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case (section 4.5.1).
    Postmaster,
    /// A mailbox; a source route before it was dropped (appendix F.2).
    Mailbox(Mailbox),
}

/// A command of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO with the client's name, at most 255 printable ASCII characters, otherwise not judged.
    Ehlo(String),
    /// HELO, the name as in EHLO.
    Helo(String),
    /// LHLO (RFC 2033), the name as in EHLO.
    Lhlo(String),
    /// MAIL FROM.
    Mail(ReversePath, MailParameters),
    /// RCPT TO.
    Rcpt(ForwardPath, RcptParameters),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, its argument dropped.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, its argument dropped: it is never answered with what it asks for.
    Vrfy,
    /// EXPN, likewise.
    Expn,
    /// HELP, its argument dropped.
    Help,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// BDAT (RFC 3030): the octets that follow, and whether they are the last; `None`: it does not say so that it can be read, and what
    /// follows would be content.
    Bdat(Option<(u64, bool)>),
    /// AUTH (RFC 4954): the mechanism's name, and the initial response as sent.
    Auth(String, Option<Zeroizing<String>>),
    /// XCLIENT (Postfix, XCLIENT_README).
    XClient(ClientAttributes),
    /// XFORWARD (Postfix, XFORWARD_README).
    XForward(Said),
    /// The first line of an HTTP request: a browser or a forged request talks to us.
    Http,
}

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply, of a server or to be sent: code, enhanced code, lines without CR or LF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced status code, where there is one.
    pub enhanced: Option<Enhanced>,
    /// At least one line; no control characters.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line; control characters in `text` are replaced.
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<String>) -> Self {
        Reply { code, enhanced: Some(enhanced), lines: vec![printable(text.into())] }
    }
    /// A reply of one line without an enhanced status code (220, 221 of old, 250 to EHLO, 354: RFC 2034 section 4).
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Reply { code, enhanced: None, lines: vec![printable(text.into())] }
    }
    /// The reply on the wire, each line with its code and enhanced code and ended by CRLF (RFC 5321 section 4.2).
    ///
    /// Holds whatever is in `lines`: what is not printable ASCII is written as `?`, and a line is cut at 512 octets with its CRLF.
    pub fn write_to(&self, out: &mut BytesMut) {
        let code = self.code.clamp(200, 599);
        let enhanced = self.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        let room = REPLY_LINE_OCTETS.saturating_sub(code_octets(&enhanced));
        let last = self.lines.len().saturating_sub(1);
        let mut write = |text: &str, separator: char| {
            out.extend_from_slice(format!("{code}{separator}{enhanced}").as_bytes());
            // Nearly always.
            match text.bytes().all(|octet| matches!(octet, b' '..=b'~')) && text.len() <= room {
                true => out.extend_from_slice(text.as_bytes()),
                false => out.extend(text.chars().map(wire_octet).take(room)),
            }
            out.extend_from_slice(b"\r\n");
        };
        for (at, line) in self.lines.iter().enumerate() {
            write(line, if at == last { ' ' } else { '-' });
        }
        if self.lines.is_empty() {
            write("", ' ');
        }
    }
    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }
    /// 4xx.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }
    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

/// The longest reply line, CRLF included (RFC 5321 section 4.5.3.1.5).
const REPLY_LINE_OCTETS: usize = 512;

/// Octets of a reply line that are not text: code, separator, enhanced code, CRLF.
fn code_octets(enhanced: &str) -> usize {
    4 + enhanced.len() + 2
}

fn printable(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text
    }
}

fn wire_octet(character: char) -> u8 {
    u8::try_from(character).ok().filter(|octet| matches!(octet, b' '..=b'~')).unwrap_or(b'?')
}

/// For people and logs: as on the wire, lines separated by ` / `, no CRLF.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for (at, line) in self.lines.iter().enumerate() {
            write!(f, "{} {line}", if at == 0 { "" } else { " /" })?;
        }
        Ok(())
    }
}

/// BODY= of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// 7BIT, the default.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
}

/// RET= of MAIL (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message is asked back (we return headers only: A33).
    Full,
    /// Headers only.
    Headers,
}

/// Parameters of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE= in octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY=.
    pub body: Body,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET=.
    pub ret: Option<Ret>,
    /// ENVID=, xtext decoded.
    pub envid: Option<String>,
    /// What XFORWARD says of the client that the mail came from: no parameter on the wire, and with it all the way.
    pub client: Option<Arc<Forwarded>>,
}

/// NOTIFY= of RCPT (RFC 3461 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    /// SUCCESS asked for.
    pub success: bool,
    /// FAILURE asked for.
    pub failure: bool,
    /// DELAY asked for.
    pub delay: bool,
}

/// Parameters of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptParameters {
    /// NOTIFY=; all three false is NEVER.
    pub notify: Option<Notify>,
    /// ORCPT= as sent (`type;xtext`).
    pub orcpt: Option<String>,
}

/// A recipient of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path's mailbox.
    pub mailbox: Mailbox,
    /// What RCPT said with it.
    pub parameters: RcptParameters,
}

/// An envelope: who hears of failures, and who gets the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// What MAIL said with it.
    pub parameters: MailParameters,
    /// The recipients accepted so far, in order.
    pub recipients: Vec<Recipient>,
}
