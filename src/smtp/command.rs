//! Commands, parameters and replies (RFC 5321, RFC 2034, RFC 3461, RFC 1870, RFC 6152, RFC 6531).

use crate::address::{Mailbox, ReversePath};

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

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
        let _ = text.into();
        let _ = (code, enhanced);
        todo!()
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
