//! AUTH (RFC 4954) within a session.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Event, Session, State};
use crate::smtp::command::{Enhanced, Reply};
use crate::smtp::sasl::{Exchange, Mechanism, Step, Verifier};

/// Whether a listener offers AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthOffer {
    /// Nobody can authenticate.
    #[default]
    Off,
    /// Within TLS alone.
    WithinTls,
    /// In clear too: passwords can be read on the way.
    Always,
}

/// What became of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Nothing is known: this reply, 4xx.
    Later(Reply),
}

impl Session {
    pub(super) fn offers_auth(&self) -> bool {
        match self.settings.auth {
            AuthOffer::Off => false,
            AuthOffer::WithinTls => self.tls,
            AuthOffer::Always => true,
        }
    }

    pub(super) fn auth<'a>(&mut self, mechanism: &str, initial: Option<&str>) -> Option<Event<'a>> {
        if !self.offers_auth() {
            let first = self.settings.auth == AuthOffer::WithinTls && self.settings.starttls;
            let text = if first { "say STARTTLS first" } else { "AUTH is not offered here" };
            let reply = if first { (538, Enhanced(5, 7, 11)) } else { (503, Enhanced(5, 5, 1)) };
            return self.error(Reply::new(reply.0, reply.1, text));
        }
        if self.hello != Some(true) || self.transaction.is_some() || self.authenticated {
            return self.error(Reply::new(503, Enhanced(5, 5, 1), "AUTH comes once, after EHLO and before MAIL"));
        }
        let scram = self.settings.scram;
        let offered = |mechanism: &Mechanism| scram || *mechanism != Mechanism::ScramSha256;
        let Some(mechanism) = Mechanism::parse(mechanism).filter(offered) else {
            return self.error(Reply::new(504, Enhanced(5, 5, 4), "EHLO tells the mechanisms that are offered"));
        };
        let initial = match initial {
            None => None,
            // RFC 4954 section 4: `=` is an empty initial response.
            Some("=") => Some(Zeroizing::new(Vec::new())),
            Some(text) => match STANDARD.decode(text) {
                Ok(octets) => Some(Zeroizing::new(octets)),
                Err(_) => return self.error(not_base64()),
            },
        };
        let (exchange, step) = Exchange::begin(mechanism, initial.as_ref().map(|octets| octets.as_slice()));
        self.auth_step(Box::new(exchange), step)
    }

    /// A response, without its line end.
    pub(super) fn auth_line<'a>(&mut self, mut exchange: Box<Exchange>, line: &[u8]) -> Option<Event<'a>> {
        if line == b"*" {
            return self.error(Reply::new(501, Enhanced(5, 7, 0), "AUTH was given up"));
        }
        let Ok(response) = STANDARD.decode(line).map(Zeroizing::new) else { return self.error(not_base64()) };
        let step = exchange.response(&response);
        self.auth_step(exchange, step)
    }

    fn auth_step<'a>(&mut self, exchange: Box<Exchange>, step: Step) -> Option<Event<'a>> {
        match step {
            Step::Challenge(challenge) => {
                self.push(&Reply::plain(334, STANDARD.encode(challenge)));
                self.client_waits = true;
                self.state = State::Auth(exchange);
                None
            }
            Step::Password(user, password) => {
                self.state = State::WaitAuth(exchange);
                Some(Event::Password(user, password))
            }
            Step::Verifier(user) => {
                self.state = State::WaitAuth(exchange);
                Some(Event::Verifier(user))
            }
            Step::Proven(user) => {
                self.succeeded();
                Some(Event::Authenticated(user))
            }
            Step::Wrong(user) => {
                self.failed();
                Some(Event::NotAuthenticated(user))
            }
            Step::Malformed(why) => self.error(Reply::new(501, Enhanced(5, 5, 2), why)),
        }
    }

    fn succeeded(&mut self) {
        self.authenticated = true;
        self.command_reply(&Reply::new(235, Enhanced(2, 7, 0), "authenticated"));
    }

    fn failed(&mut self) {
        self.errors += 1;
        self.command_reply(&Reply::new(535, Enhanced(5, 7, 8), "wrong name or password"));
    }

    /// Answers [`Event::Password`].
    pub fn answer_password(&mut self, verdict: &Verdict) {
        if !matches!(self.state, State::WaitAuth(_)) {
            return;
        }
        self.state = State::Commands;
        match verdict {
            Verdict::Right => self.succeeded(),
            Verdict::Wrong => self.failed(),
            Verdict::Later(reply) => self.command_reply(&super::passable(reply)),
        }
    }

    /// Answers [`Event::Verifier`]: what is kept for the user, and a nonce of printable ASCII that nobody can guess; or 4xx.
    pub fn answer_verifier(&mut self, verifier: Result<(Verifier, String), Reply>) {
        match (std::mem::replace(&mut self.state, State::Commands), verifier) {
            (State::WaitAuth(mut exchange), Ok((verifier, nonce))) => {
                let step = exchange.verifier(verifier, &nonce);
                let _ = self.auth_step(exchange, step);
            }
            (State::WaitAuth(_), Err(reply)) => self.command_reply(&super::passable(&reply)),
            (other, _) => self.state = other,
        }
    }

    /// Whether the client counts as authenticated, by a proxy's word.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }
}

fn not_base64() -> Reply {
    Reply::new(501, Enhanced(5, 5, 2), "a response is base64")
}
