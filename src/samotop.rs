//! The gateway as a stage of a samotop server (samotop-core 0.13): what samotop takes, goes the way of a mail that came to a listener.
//!
//! A [`Stage`] brings each transaction to a session of the gateway on a stream in memory, as an SMTP client would. So policy, limits, spool
//! and replies are those of a listener, and samotop answers 250 only when the gateway has: the mail is durable then, or the next hop has
//! it. `docs/samotop.md` has the lines.
//!
//! What samotop cannot express fails closed: it is one reply for all recipients, in SMTP and in LMTP; parameters of RCPT (DSN) do not get
//! past it; TLS, AUTH and what proxies say are not ours to do, and a listener that wants them is refused at start.

mod client;
mod lines;
mod sink;
mod talk;

use std::fmt;
use std::sync::Arc;

use samotop_core::common::{S1Fut, S2Fut};
use samotop_core::io::tls::MayBeTls;
use samotop_core::mail::{
    AcceptsDispatch, AcceptsGuard, AcceptsInterpretter, AcceptsSessionService, AddRecipientFailure, AddRecipientResult,
    DispatchError, DispatchResult, MailDispatch, MailGuard, MailSetup, Recipient, StartMailFailure, StartMailResult,
};
use samotop_core::smtp::{SessionService, SmtpContext, SmtpSession};

use self::client::{Client, Exact};
use self::sink::Sink;
use self::talk::Talk;
use crate::config::{ListenTls, Listener};
use crate::relay::gateway::{Entrance, Gateway};
use crate::smtp::command::{Enhanced, Reply};

/// Why a stage cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StageError {
    /// The listener says something that samotop has to do, or cannot.
    #[error("listener {listener}: {key} does not hold behind samotop: leave it out, and see docs/samotop.md")]
    Unfit {
        /// Its name.
        listener: String,
        /// The key of `[[listener]]`.
        key: &'static str,
    },
}

/// A stage of a samotop server: its last dispatch. Cheap to clone.
///
/// `Builder + Esmtp.with(parser) + stage` has it check MAIL and RCPT too, and answer in the gateway's own words. As a [`MailDispatch`] alone, or
/// before the parts that read commands, it says all at DATA and at the final dot, in samotop's words: 550 or 450 at DATA, and 450 at the
/// final dot whether it is worth another try or not. In both ways nothing is taken that the gateway has not taken.
///
/// A stage does not keep its gateway at work. Without it, mail is answered 4xx.
#[derive(Clone)]
pub struct Stage(Arc<Inner>);

struct Inner {
    entrance: Entrance,
    listener: Arc<Listener>,
    /// The same without trust, for clients that have no address.
    nobodys: Arc<Listener>,
}

impl Stage {
    /// A stage of this gateway. What the listener says holds for mail that comes through it: `name`, `direction`, `trusted_networks`, `senders`,
    /// `tenant_header`; its address is not taken.
    ///
    /// # Errors
    /// The listener has what samotop does in our place, or what cannot be had through it: [`StageError::Unfit`].
    pub fn new(gateway: &Gateway, listener: Listener) -> Result<Self, StageError> {
        if let Some(key) = unfit(&listener) {
            return Err(StageError::Unfit { listener: listener.name, key });
        }
        let nobodys = Listener { trusted_networks: Vec::new(), ..listener.clone() };
        let entrance = gateway.entrance();
        Ok(Self(Arc::new(Inner { entrance, listener: Arc::new(listener), nobodys: Arc::new(nobodys) })))
    }

    /// A transaction that has begun, for the client and the sender of this session.
    async fn begin(&self, session: &SmtpSession) -> Result<Talk, Reply> {
        let mail = session.transaction.mail.clone();
        let mail = mail.ok_or_else(|| Reply::new(503, Enhanced(5, 5, 1), "say MAIL first"))?;
        let served = Client::served();
        let (tls, extended) = served.map_or((false, None), |client| (client.is_over_tls(), client.extended()));
        let extended = extended.unwrap_or_else(|| !parameters(&mail).is_empty());
        let hello = lines::hello(session.peer_name.as_deref(), extended)?;
        let stream = match lines::client(&session.connection) {
            Some(address) => self.0.entrance.connect(self.0.listener.clone(), address, tls),
            None => self.0.entrance.connect(self.0.nobodys.clone(), lines::NOWHERE, tls),
        };
        Talk::begin(stream.ok_or_else(talk::gone)?, &hello, mail).await
    }

    /// The transaction of MAIL and RCPT, where this stage saw them all; else one that hears of them now.
    async fn whole(&self, session: &SmtpSession) -> Result<Talk, Reply> {
        let recipients = || session.transaction.rcpts.iter().map(|recipient| &recipient.address);
        let seen = Client::served().and_then(|client| client.take());
        if let (Some(talk), Some(mail)) = (seen, &session.transaction.mail)
            && talk.is_for(mail, recipients())
        {
            return Ok(talk);
        }
        let mut talk = self.begin(session).await?;
        for path in recipients() {
            talk.rcpt(path).await?;
        }
        Ok(talk)
    }

    async fn open(&self, session: &mut SmtpSession) -> Result<(), Reply> {
        if session.transaction.sink.is_some() {
            tracing::error!(
                "another dispatch of samotop stands before Waxwing: its mail would leave as it came; it is refused"
            );
            return Err(Reply::new(451, Enhanced(4, 3, 5), "the server is put together wrongly; try again later"));
        }
        let mut talk = self.whole(session).await?;
        talk.data().await?;
        let sink = Sink::new(talk, &session.transaction.extra_headers, Client::served());
        session.transaction.sink = Some(Box::pin(sink));
        Ok(())
    }
}

/// The key that does not hold behind samotop.
fn unfit(listener: &Listener) -> Option<&'static str> {
    let tenants_certificate = listener.tenant.as_ref().is_some_and(|tenant| tenant.certificate.is_some());
    let wanted = [
        (listener.tls != ListenTls::Off, "tls"),
        (listener.has_users(), "users"),
        (tenants_certificate, "tenant_certificate"),
        (!listener.proxies.is_empty(), "proxies"),
        (!listener.xclient.is_empty(), "xclient"),
        (!listener.xforward.is_empty(), "xforward"),
        (!listener.greeting_delay.is_zero(), "greeting_delay"),
        (listener.repair_line_ends, "repair_line_ends"),
        (listener.lmtp, "lmtp"),
    ];
    wanted.into_iter().find_map(|(wanted, key)| wanted.then_some(key))
}

fn parameters(mail: &samotop_core::smtp::command::SmtpMail) -> &[String] {
    use samotop_core::smtp::command::SmtpMail::{Mail, Saml, Send, Soml};
    match mail {
        Mail(_, parameters) | Send(_, parameters) | Saml(_, parameters) | Soml(_, parameters) => parameters,
    }
}

/// The client is told the reply itself, where that can be had.
fn told(reply: Reply) -> Reply {
    if let Some(client) = Client::served() {
        client.answer(reply.clone());
    }
    reply
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stage").field(&self.0.listener.name).finish()
    }
}

impl<T> MailSetup<T> for Stage
where
    T: AcceptsDispatch + AcceptsGuard + AcceptsInterpretter + AcceptsSessionService,
{
    fn setup(self, config: &mut T) {
        config.wrap_interpretter(Exact);
        config.add_first_session_service(self.clone());
        config.add_last_guard(self.clone());
        config.add_last_dispatch(self);
    }
}

impl SessionService for Stage {
    /// EHLO announces how large a mail may be.
    fn prepare_session<'a, 'i, 's, 'f>(
        &'a self,
        io: &'i mut Box<dyn MayBeTls>,
        state: &'s mut SmtpContext,
    ) -> S1Fut<'f, ()>
    where
        'a: 'f,
        'i: 'f,
        's: 'f,
    {
        if io.is_encrypted() {
            Client::of(state).set_tls();
        }
        if let Some(size) = self.0.entrance.message_size() {
            state.session.extensions.enable_string("SIZE", &format!("SIZE {size}"));
        }
        Box::pin(std::future::ready(()))
    }
}

impl MailGuard for Stage {
    fn start_mail<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S2Fut<'f, StartMailResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(async move {
            let Some(client) = Client::served() else { return StartMailResult::Accepted };
            drop(client.take());
            match self.begin(session).await {
                Ok(talk) => {
                    client.keep(talk);
                    StartMailResult::Accepted
                }
                Err(reply) => {
                    let permanent = reply.is_permanent();
                    let text = told(reply).to_string();
                    let failure =
                        if permanent { StartMailFailure::Rejected } else { StartMailFailure::FailedTemporarily };
                    StartMailResult::Failed(failure, text)
                }
            }
        })
    }

    fn add_recipient<'a, 's, 'f>(
        &'a self,
        _session: &'s mut SmtpSession,
        recipient: Recipient,
    ) -> S2Fut<'f, AddRecipientResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(async move {
            let Some(client) = Client::served() else { return AddRecipientResult::Inconclusive(recipient) };
            let answer = match client.take() {
                Some(mut talk) => {
                    let answer = talk.rcpt(&recipient.address).await;
                    client.keep(talk);
                    answer
                }
                None => Err(Reply::new(503, Enhanced(5, 5, 1), "say MAIL first")),
            };
            match answer {
                Ok(reply) => {
                    client.answer(reply);
                    AddRecipientResult::Inconclusive(recipient)
                }
                Err(reply) => {
                    let permanent = reply.is_permanent();
                    let text = told(reply).to_string();
                    let failure = match permanent {
                        true => AddRecipientFailure::RejectedPermanently,
                        false => AddRecipientFailure::FailedTemporarily,
                    };
                    AddRecipientResult::Failed(failure, text)
                }
            }
        })
    }
}

impl MailDispatch for Stage {
    fn open_mail_body<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S1Fut<'f, DispatchResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(async move {
            self.open(session).await.map_err(|reply| match told(reply).is_permanent() {
                true => DispatchError::Permanent,
                false => DispatchError::Temporary,
            })
        })
    }
}
