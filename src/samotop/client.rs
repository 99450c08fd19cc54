//! One client of samotop, and what is known of it beside samotop's session: it reaches the parts of a stage by the task that serves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use samotop_core::common::S1Fut;
use samotop_core::smtp::{DriverControl, Interpret, InterpretResult, SmtpContext, SmtpSession};

use super::talk::Talk;
use crate::smtp::command::Reply;

tokio::task_local! {
    static SERVED: Arc<Client>;
}

/// A client that is connected.
#[derive(Default)]
pub(super) struct Client(Mutex<State>);

#[derive(Default)]
struct State {
    tls: bool,
    /// EHLO rather than HELO.
    extended: Option<bool>,
    /// LHLO: after the final dot there is a reply for each recipient (RFC 2033 section 4.2).
    lmtp: bool,
    /// The transaction that MAIL began.
    talk: Option<Talk>,
    /// What the gateway answered to the command that is carried out now.
    answer: Option<Answer>,
}

struct Answer {
    reply: Reply,
    /// Recipients of the mail, where it is the answer to the final dot.
    recipients: usize,
}

impl Client {
    /// The one that this task serves; `None`: samotop was put together without [`Exact`].
    pub(super) fn served() -> Option<Arc<Self>> {
        SERVED.try_with(Clone::clone).ok()
    }

    /// The one of this session.
    pub(super) fn of(state: &mut SmtpContext) -> Arc<Self> {
        state.get_or_insert(Arc::<Self>::default).clone()
    }

    pub(super) fn is_over_tls(&self) -> bool {
        self.state().tls
    }

    pub(super) fn set_tls(&self) {
        self.state().tls = true;
    }

    pub(super) fn extended(&self) -> Option<bool> {
        self.state().extended
    }

    pub(super) fn keep(&self, talk: Talk) {
        self.state().talk = Some(talk);
    }

    pub(super) fn take(&self) -> Option<Talk> {
        self.state().talk.take()
    }

    /// What it is to be told in the place of samotop's own words.
    pub(super) fn answer(&self, reply: Reply) {
        self.state().answer = Some(Answer { reply, recipients: 1 });
    }

    /// The same after the final dot of a mail for so many.
    pub(super) fn answer_mail(&self, reply: Reply, recipients: usize) {
        self.state().answer = Some(Answer { reply, recipients });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a command is carried out.
    fn before(&self, session: &SmtpSession) {
        let mut state = self.state();
        state.answer = None;
        let verb = session.input.get(..4).filter(|_| session.mode.is_none());
        let is = |name: &[u8]| verb.is_some_and(|verb| verb.eq_ignore_ascii_case(name));
        if is(b"HELO") || is(b"EHLO") || is(b"LHLO") {
            (state.extended, state.lmtp) = (Some(!is(b"HELO")), is(b"LHLO"));
        }
    }

    /// After it. Samotop's reply gives way to the gateway's where both say the same: taken, or not.
    fn after(&self, session: &mut SmtpSession, said: usize) {
        let mut state = self.state();
        if session.transaction.mail.is_none() {
            state.talk = None;
        }
        let answer = state.answer.take();
        let mut replies = Vec::new();
        for control in session.output.iter_mut().skip(said) {
            match control {
                DriverControl::Response(octets) => replies.push(octets),
                DriverControl::StartTls => state.tls = true,
                DriverControl::Shutdown => {}
            }
        }
        if let (Some(Answer { reply, recipients }), [octets]) = (answer, replies.as_mut_slice())
            && octets.first().is_some_and(|digit| (*digit == b'2') == reply.is_positive())
        {
            let mut exact = BytesMut::new();
            // Samotop says it once, and a client of LMTP would wait for the others.
            (0..if state.lmtp { recipients } else { 1 }).for_each(|_| reply.write_to(&mut exact));
            **octets = exact.to_vec();
        }
    }
}

/// Has samotop answer with the gateway's own replies; all interpreters that were there before are in it.
pub(super) struct Exact<I>(pub(super) I);

impl<I> std::fmt::Debug for Exact<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exact")
    }
}

impl<I: Interpret + Send + Sync> Interpret for Exact<I> {
    fn interpret<'a, 's, 'f>(&'a self, state: &'s mut SmtpContext) -> S1Fut<'f, InterpretResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(async move {
            let client = Client::of(state);
            client.before(&state.session);
            let said = state.session.output.len();
            let result = SERVED.scope(client.clone(), self.0.interpret(state)).await;
            client.after(&mut state.session, said);
            result
        })
    }
}
