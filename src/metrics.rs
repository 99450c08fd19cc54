//! Numbers of a gateway at work: counted by atomics on the way of mail, written in the text format of Prometheus when somebody asks.
//!
//! Labels are words of ours, names of rules, listeners, sources and next hops of the configuration: never an address, a domain or anything
//! else that mail brings. The names stand in `docs/operation.md`.

/// What numbers are kept in.
mod family;
/// The listener: `/metrics`, `/healthz`, `/readyz`.
pub mod server;
/// The text exposition format, version 0.0.4.
pub mod text;
/// The words of labels.
mod words;

use std::time::Duration;

use self::family::Histogram;
pub use self::family::{Family, Key, Label, Named, Sums};
use self::text::{Kind, Text};
pub use self::words::{
    Asked, Connected, Decrypted, Done, Ended, Exchange, Fate, FoundBy, KeyUse, LoggedIn, Metered, Opened, Protection,
    Reason, Refused, Ruled, Said, Stage, TurnedAway, Vouched, Way, Whose,
};
use crate::authentication::results::{Finding, Method, Outcome};
use crate::relay::refusal::Refusal;
use crate::smime::verdict::SmimeResult;
use crate::smtp::command::Reply;

/// All families of counters: the field, its name, its labels, and what it is.
macro_rules! families {
    ($($(#[$doc:meta])* $vis:vis $field:ident: $kind:ty = $name:literal $labels:tt $help:literal;)+) => {
        /// All that is counted of mail. One for a gateway, whatever its configuration.
        #[derive(Debug)]
        pub struct Metrics {
            stages: [Histogram; Stage::ALL.len()],
            $($(#[$doc])* $vis $field: $kind),+
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self { stages: Default::default(), $($field: <$kind>::new($name, $help, &$labels)),+ }
            }
        }

        impl Metrics {
            fn write_families(&self, text: &mut Text) {
                $(self.$field.write(text);)+
            }
        }
    };
}

families! {
    mails: Family<(Way, Fate)> = "waxwing_mails_total" ["direction", "outcome"]
        "Mails whose content came, by what was answered.";
    octets: Family<Way> = "waxwing_mail_octets_total" ["direction"]
        "Octets of those mails, as they came.";
    turned_away: Family<TurnedAway> = "waxwing_turned_away_total" ["outcome"]
        "MAIL commands that were answered 4xx (deferred) or 5xx (rejected).";
    /// What a session refuses by itself is not among them.
    pub refusals: Family<Reason> = "waxwing_refusals_total" ["reason"]
        "MAIL, RCPT and mails that were refused, by why; what sessions refuse by themselves is not among them.";
    /// Somebody brought more than he may in this time.
    pub too_fast: Family<(Whose, Metered)> = "waxwing_too_fast_total" ["whose", "what"]
        "MAIL and RCPT answered 4xx since a client or a user brought too many.";
    /// A held mail was treated by policy anew.
    pub released: Family<Once> = "waxwing_released_total" []
        "Times that held mail was treated by policy anew.";
    /// A rule decided for a recipient.
    pub ruled: Named<(Way, Ruled)> = "waxwing_recipients_total" ["rule", "direction", "treatment"]
        "Recipients by the rule that decided, and what it decided.";
    keys: Family<(KeyUse, Done)> = "waxwing_key_operations_total" ["operation", "outcome"]
        "Operations with private keys.";
    /// A signature, or its absence, was judged.
    pub verdicts: Family<SmimeResult> = "waxwing_verdicts_total" ["result"]
        "Signatures of inbound mail by result (RFC 8601).";
    /// A mail was opened for a recipient, or stayed closed.
    pub opened: Family<Decrypted> = "waxwing_opened_total" ["decrypted"]
        "Spooled inbound mail by recipient: decrypted, or handed on closed.";
    authenticated: Family<(Method, Outcome)> = "waxwing_authentication_total" ["method", "result"]
        "What was found out of who sent inbound mail (RFC 8601).";
    /// Our domain vouched for a mail, or not.
    pub vouched: Family<Vouched> = "waxwing_dkim_total" ["outcome"]
        "Outbound mail signed by its author's domain, and not.";
    fetches: Family<Asked> = "waxwing_fetches_total" ["result"]
        "Waits of mails for CRLs and OCSP responses.";
    /// A mailbox was looked up.
    pub look_ups: Family<Asked> = "waxwing_look_ups_total" ["result"]
        "Mailboxes looked up in directories and the DNS.";
    /// A source of certificates was asked.
    pub sources: Named<Said> = "waxwing_source_answers_total" ["source", "result"]
        "Answers of each source of certificates; what is remembered of them is not asked again.";
    /// A connection to a next hop was made, or not: with what protects it, or was to.
    pub hop_connections: Family<(FoundBy, (Protection, Opened))> =
        "waxwing_hop_connections_total" ["found_by", "protection", "outcome"]
        "Connections made to next hops, by how those were found and what protects them.";
    /// It was asked where the mail of a domain goes.
    pub exchanges: Family<Exchange> = "waxwing_mx_look_ups_total" ["result"]
        "Where the mail of a domain goes by its MX, each time that it was asked.";
    /// A mail to a host in the MX of a domain ended.
    pub mx_mails: Family<Ended> = "waxwing_mx_mails_total" ["outcome"]
        "Mails that hosts in the MX of domains answered, and that they were lost with or could not be reached for.";
    /// A policy of MTA-STS was fetched, or not.
    pub policies: Family<Done> = "waxwing_mta_sts_fetches_total" ["outcome"]
        "Policies of MTA-STS that were fetched, and that could not be.";
}

/// For a family without labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once;

impl Label for Once {
    const ALL: &'static [Self] = &[Once];
    fn word(self) -> &'static str {
        ""
    }
}

impl Metrics {
    /// So long did it take.
    pub fn stage(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.stages.get(stage.at()) {
            histogram.took(took);
        }
    }

    /// A mail was answered.
    pub fn mail(&self, way: Way, fate: Fate, octets: usize) {
        self.mails.one((way, fate));
        self.octets.add(way, octets as u64);
    }

    /// No mail was begun: the client was answered 4xx, or 5xx.
    pub fn turned_away(&self, transient: bool) {
        self.turned_away.one(if transient { TurnedAway::Deferred } else { TurnedAway::Rejected });
    }

    /// Counts a refusal: the reply to it.
    pub fn refused(&self, refusal: &Refusal) -> Reply {
        self.refusals.one(Reason::of(refusal));
        refusal.reply()
    }

    /// A private key was used, or could not be.
    pub fn key(&self, operation: KeyUse, done: bool, took: Duration) {
        self.stage(Stage::Key, took);
        self.keys.one((operation, if done { Done::Done } else { Done::Failed }));
    }

    /// What a mail needs to know of revocation was asked for.
    pub fn fetched(&self, new: bool, took: Duration) {
        self.stage(Stage::Fetch, took);
        self.fetches.one(if new { Asked::New } else { Asked::Nothing });
    }

    /// It was found out who sent a mail, or not.
    pub fn authenticated(&self, findings: &[Finding]) {
        findings.iter().for_each(|Finding { method, outcome, .. }| self.authenticated.one((*method, *outcome)));
    }

    /// All of it in the text format.
    pub fn write(&self, text: &mut Text) {
        self.write_families(text);
        let name = "waxwing_stage_seconds";
        text.family(name, Kind::Histogram, "How long the steps of a mail take.");
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            histogram.write(text, name, ("stage", stage.word()));
        }
    }
}

#[cfg(test)]
mod tests;
