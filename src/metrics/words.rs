//! The words of labels.

use super::family::Label;
use crate::authentication::results::{Method, Outcome};
use crate::config::{Direction, Exchanger, HopTls, NextHop};
use crate::discovery::sources::Told;
use crate::keys::KeyOperation;
use crate::relay::refusal::Refusal;
use crate::smime::verdict::SmimeResult;
use crate::smtp::command::Reply;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$one])* $variant),+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant),+];
            fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// A step whose time is taken.
    Stage {
        /// Own work on a mail: policy, signing, sealing, judging; with what it waits for within.
        Treat = "treat",
        /// From there to the answer to the final dot.
        HandOver = "hand_over",
        /// From the final dot to its answer.
        Total = "total",
        /// One operation with a private key.
        Key = "key",
        /// Waiting for CRLs and OCSP responses.
        Fetch = "fetch",
        /// Waiting for directories and the DNS.
        Discover = "discover",
        /// Opening a spooled mail for all who wait for it.
        Open = "open",
        /// Asking the DNS who sent a mail.
        Authenticate = "authenticate",
    }
}

words! {
    /// Which way a mail goes.
    Way {
        Outbound = "outbound",
        Inbound = "inbound",
        /// To some recipients one way, to others the other.
        Both = "both",
    }
}

words! {
    /// What became of a mail whose content came.
    Fate {
        /// The next hop took it while the client waited.
        Relayed = "relayed",
        /// It is in the spool, whole or in part.
        Spooled = "spooled",
        /// 4xx.
        Deferred = "deferred",
        /// 5xx.
        Rejected = "rejected",
        /// The connection was closed in place of an answer.
        Closed = "closed",
    }
}

words! {
    /// What a rule made of a recipient's mail.
    Ruled {
        Signed = "signed",
        Encrypted = "encrypted",
        SignedEncrypted = "signed_encrypted",
        /// A rule says that it may leave as it is.
        Clear = "clear",
        /// It was encrypted for him before it came.
        EncryptedBefore = "encrypted_before",
        Held = "held",
        /// 4xx for him.
        Deferred = "deferred",
        /// 5xx for him.
        Refused = "refused",
        /// Inbound: verified and marked.
        Judged = "judged",
        /// Inbound: a private key of his is tried when it is handed over.
        ToBeOpened = "to_be_opened",
    }
}

words! {
    /// MAIL was answered 4xx or 5xx.
    TurnedAway { Deferred = "deferred", Rejected = "rejected" }
}

words! {
    /// Why a command or a mail was refused: the rows of the one table from an error to a reply.
    Reason {
        RelayDenied = "relay_denied",
        NoTenant = "no_tenant",
        HiddenRoute = "hidden_route",
        Loop = "loop",
        Unauthentic = "unauthentic",
        TooLarge = "too_large",
        Busy = "busy",
        TooFast = "too_fast",
        Spool = "spool",
        Malformed = "malformed",
        /// Policy, certificates or keys.
        Unserved = "unserved",
        Seal = "seal",
        Store = "store",
        Audit = "audit",
        WorkTimeout = "work_timeout",
        HopTimeout = "hop_timeout",
        Internal = "internal",
        NextHop = "next_hop",
    }
}

impl Reason {
    /// Of this refusal.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::RelayDenied(_) => Self::RelayDenied,
            Refusal::NoTenant(_) => Self::NoTenant,
            Refusal::HiddenRoute(_) => Self::HiddenRoute,
            Refusal::TooManyHops { .. } | Refusal::Loop => Self::Loop,
            Refusal::Unauthentic(_) => Self::Unauthentic,
            Refusal::TooLarge { .. } => Self::TooLarge,
            Refusal::Busy => Self::Busy,
            Refusal::TooFast { .. } => Self::TooFast,
            Refusal::Spool | Refusal::SpoolTimeout => Self::Spool,
            Refusal::Malformed(_) => Self::Malformed,
            Refusal::Unserved(_) => Self::Unserved,
            Refusal::Seal(_) => Self::Seal,
            Refusal::Store => Self::Store,
            Refusal::Audit => Self::Audit,
            Refusal::WorkTimeout => Self::WorkTimeout,
            Refusal::HopTimeout => Self::HopTimeout,
            Refusal::Internal => Self::Internal,
            Refusal::NextHop(_) => Self::NextHop,
        }
    }
}

words! {
    /// Whose mail is limited in a time.
    Whose { Client = "client", User = "user" }
}

words! {
    /// What of it is limited.
    Metered { Mails = "mails", Recipients = "recipients" }
}

words! {
    /// What became of a connection to a listener.
    Connected {
        Accepted = "accepted",
        /// Too many at once. Those of one client among them were accepted first.
        TurnedAway = "turned_away",
        /// It talked before the greeting.
        Early = "early",
        /// It came from a proxy, which did not say for whom.
        Unproxied = "unproxied",
        /// The TLS handshake failed.
        TlsFailed = "tls_failed",
    }
}

words! {
    /// What became of AUTH, where a user was named.
    LoggedIn {
        Done = "done",
        /// A wrong password or proof, or nobody of that name.
        Wrong = "wrong",
        /// It was not looked at, after too many that were wrong.
        Barred = "barred",
        /// Nobody could say: the directory gives no answer.
        Unjudged = "unjudged",
    }
}

words! {
    /// Codes of replies that take nothing.
    Refused {
        C421 = "421", C450 = "450", C451 = "451", C452 = "452", C454 = "454", C455 = "455",
        C500 = "500", C501 = "501", C502 = "502", C503 = "503", C504 = "504", C521 = "521", C530 = "530", C535 = "535",
        C538 = "538", C550 = "550", C551 = "551", C552 = "552", C553 = "553", C554 = "554", C555 = "555", C556 = "556",
        Other = "other",
    }
}

impl Refused {
    /// The code at the start of a reply line that is the last of its reply; `None`: it is another line, or takes something.
    pub fn of(line: &[u8]) -> Option<Self> {
        let (code, rest) = line.split_at_checked(3)?;
        let refuses = matches!(code.first(), Some(b'4' | b'5')) && rest.first() == Some(&b' ');
        let known = || Self::ALL.iter().copied().find(|one| one.word().as_bytes() == code).unwrap_or(Self::Other);
        refuses.then(known)
    }
}

words! {
    /// What became of our domain's word (DKIM) for an outbound mail.
    Vouched {
        /// One output was signed.
        Signed = "signed",
        /// No key is configured for the domain of its author.
        Unsigned = "unsigned",
        /// Somebody of the author's domain signed before us, and sealing changed what he signed.
        Broken = "broken",
    }
}

words! {
    /// An operation with a private key.
    KeyUse { Sign = "sign", Unwrap = "unwrap", Agree = "agree", Decapsulate = "decapsulate" }
}

impl KeyUse {
    /// Which one this is.
    pub fn of(operation: &KeyOperation) -> Self {
        match operation {
            KeyOperation::Sign { .. } => Self::Sign,
            KeyOperation::Unwrap { .. } => Self::Unwrap,
            KeyOperation::Agree { .. } => Self::Agree,
            KeyOperation::Decapsulate { .. } => Self::Decapsulate,
        }
    }
}

words! {
    /// Whether it could be done.
    Done { Done = "done", Failed = "failed" }
}

words! {
    /// Whether there was a key that opened it.
    Decrypted { Yes = "yes", No = "no" }
}

words! {
    /// What was asked of the world.
    Asked {
        /// Something new came.
        New = "new",
        /// Nothing new came, or not in time.
        Nothing = "nothing",
        /// It is not known: somebody did not answer.
        Unanswered = "unanswered",
        /// Certificates came that may not be used.
        Unusable = "unusable",
    }
}

impl Asked {
    /// What the sources of a mailbox came to.
    pub fn of(told: &Told) -> Self {
        match told {
            Told { unanswered: Some(_), .. } => Self::Unanswered,
            Told { unusable, .. } if !unusable.is_empty() => Self::Unusable,
            Told { brought: true, .. } => Self::New,
            Told { .. } => Self::Nothing,
        }
    }
}

words! {
    /// What one source of certificates said, when it was asked.
    Said {
        /// There is something: what becomes of it is another matter.
        Found = "found",
        Nothing = "nothing",
        /// Not reached, too late, refused, bogus, or not to be read.
        Unanswered = "unanswered",
    }
}

words! {
    /// How a next hop was found.
    FoundBy { Configuration = "configuration", Mx = "mx" }
}

impl FoundBy {
    /// How this one was.
    pub fn of(hop: &NextHop) -> Self {
        if hop.exchanger.is_some() { Self::Mx } else { Self::Configuration }
    }
}

words! {
    /// What protects a connection to a next hop.
    Protection {
        Clear = "clear",
        /// TLS, with whoever it is.
        Tls = "tls",
        /// TLS, and a certificate by a CA.
        Verified = "verified",
        /// TLS, and a certificate that fits a TLSA record.
        Dane = "dane",
    }
}

impl Protection {
    /// What TLS with this next hop gives; `within`: TLS is in use.
    pub fn of(hop: &NextHop, within: bool) -> Self {
        let records = |exchanger: &Exchanger| !exchanger.tlsa.is_empty();
        match hop.tls {
            _ if !within => Self::Clear,
            _ if hop.exchanger.as_deref().is_some_and(records) => Self::Dane,
            HopTls::Verified => Self::Verified,
            _ => Self::Tls,
        }
    }
}

words! {
    /// What came of connecting to a next hop.
    Opened {
        Opened = "opened",
        /// No address, no connection, or it ended before EHLO was answered.
        Unreachable = "unreachable",
        /// TLS that was asked for is not offered, or its handshake failed.
        NoTls = "no_tls",
    }
}

words! {
    /// What the DNS said of where a domain's mail goes.
    Exchange {
        Found = "found",
        /// Nowhere: 5xx.
        Nowhere = "nowhere",
        /// It is not known now.
        Unknown = "unknown",
        /// No host is as safe as the domain asks for (DANE, MTA-STS).
        Unprotected = "unprotected",
    }
}

impl Exchange {
    /// Of the reply that stands for no host.
    pub fn of(reply: &Reply) -> Self {
        match reply.enhanced.map(|enhanced| enhanced.1) {
            _ if reply.is_permanent() => Self::Nowhere,
            // RFC 3463 section 3.8: security.
            Some(7) => Self::Unprotected,
            _ => Self::Unknown,
        }
    }
}

words! {
    /// How a mail to a host in somebody's MX ended.
    Ended { Answered = "answered", Failed = "failed" }
}

impl Label for Method {
    const ALL: &'static [Self] = &Method::ALL;
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Outcome {
    const ALL: &'static [Self] = &Outcome::ALL;
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Label for SmimeResult {
    const ALL: &'static [Self] = &[
        SmimeResult::None,
        SmimeResult::Pass,
        SmimeResult::Fail,
        SmimeResult::Policy,
        SmimeResult::Neutral,
        SmimeResult::TempError,
        SmimeResult::PermError,
    ];
    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl Way {
    /// Of one recipient.
    pub fn of(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound => Self::Inbound,
            Direction::ByRecipient => Self::Both,
        }
    }

    /// Of a mail with recipients of these directions.
    pub fn of_all(directions: impl Iterator<Item = Direction>) -> Self {
        directions.map(Self::of).reduce(|one, other| if one == other { one } else { Self::Both }).unwrap_or(Self::Both)
    }
}
