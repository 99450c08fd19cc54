//! Who sent a mail. In: asked of the DNS before anything is changed, while the client is still there; what was found goes with the mail, into
//! the spool too. Out: the domain of the author vouches for each output as it leaves.

use std::sync::Arc;
use std::time::Instant;

use super::{Content, Inner, Message};
use crate::address::Mailbox;
use crate::authentication::check::{Checked, Origin};
use crate::authentication::results::{field, summary};
use crate::authentication::sign::is_signed_for;
use crate::config::{Direction, Inbound};
use crate::metrics::{Stage, Vouched};
use crate::mime::header::Header;
use crate::relay::heavy::HEAVY;
use crate::relay::refusal::Refusal;

const RESULTS: &str = "Authentication-Results";

impl Inner {
    /// Notes in the message who sent it, where it comes from the world to users of ours: what trusted peers and users who authenticated send
    /// is ours. Gives it in short, for the log.
    ///
    /// # Errors
    /// The author's domain wants it refused, and so do we.
    pub(super) async fn authenticate(self: &Arc<Self>, message: &mut Message) -> Result<Option<String>, Refusal> {
        let mode = self.config.mail_authentication.inbound;
        let comes_in = message.recipients.iter().any(|accepted| accepted.direction == Direction::Inbound);
        if mode == Inbound::Off || message.peer.may_relay() || !comes_in {
            return Ok(None);
        }
        // By a content filter's word (XFORWARD) the client is another; one that is not known, a program on the filter's machine, has no SPF.
        let client = message.parameters.client.clone();
        if client.as_ref().is_some_and(|client| client.address.is_none()) {
            return Ok(None);
        }
        let began = Instant::now();
        let heavy = message.entity.raw.len() > HEAVY && message.entity.header.all("DKIM-Signature").next().is_some();
        let (inner, entity) = (self.clone(), message.entity.clone());
        let (peer, reverse_path) = (message.peer.clone(), message.reverse_path.clone());
        let work = Box::pin(async move {
            let signed = inner.checker.read(&entity);
            let told = client.as_deref().and_then(|client| Some((client.address?, client.helo.as_deref()?)));
            let (address, helo) = told.unwrap_or((peer.address.ip(), &peer.helo));
            let origin = Origin {
                address: address.to_canonical(),
                helo,
                reverse_path: &reverse_path,
                us: &inner.config.hostname,
            };
            inner.heavy.aside(inner.checker.judge(origin, &entity.header, &signed)).await
        });
        let Checked { findings, refuse } = self.work(heavy, work).await?;
        self.metrics.stage(Stage::Authenticate, began.elapsed());
        self.metrics.authenticated(&findings);
        let told = summary(&findings);
        if let Some(why) = refuse.filter(|_| mode == Inbound::Enforce) {
            tracing::info!(id = message.id, results = told, "refused");
            return Err(Refusal::Unauthentic(why));
        }
        message.authentication = String::from_utf8_lossy(&field(&self.marks.authserv_id, &findings)).into_owned();
        Ok(Some(told))
    }

    /// The field that tells who sent a spooled mail. It is the first of all, in front of the trace that we put on every mail when it came:
    /// there nobody else can have put one.
    pub(super) fn noted(&self, header: &Header) -> String {
        let ours = |field: &&crate::mime::header::Field| {
            let id = field.value().strip_prefix(self.marks.authserv_id.as_str()).map(|rest| rest.starts_with(';'));
            field.is(RESULTS) && id == Some(true)
        };
        let first = header.fields.first().filter(ours);
        first.map(|field| String::from_utf8_lossy(&field.raw).into_owned()).unwrap_or_default()
    }

    /// An output with the signatures of its author's domain in front.
    ///
    /// # Errors
    /// A defect: it is not sent.
    pub(super) fn vouched(
        &self,
        message: &Message,
        author: Option<&Mailbox>,
        content: Content,
    ) -> Result<Content, Refusal> {
        if self.signers.is_empty() || matches!(content, Content::Held(..)) {
            return Ok(content);
        }
        let fields = match author {
            Some(author) => self.signers.sign(author.domain(), content.rope()).map_err(|error| {
                tracing::error!(error, id = message.id, "a mail could not be signed for its author's domain (DKIM)");
                Refusal::Internal
            })?,
            None => Vec::new(),
        };
        if fields.is_empty() {
            self.metrics.vouched.one(Vouched::Unsigned);
            return Ok(content);
        }
        self.metrics.vouched.one(Vouched::Signed);
        Ok(content.behind(fields))
    }

    /// Sealing changes what somebody signed for the same domain before us: his signature proves nothing any more.
    pub(super) fn notice_signer_before_us(&self, message: &Message, author: Option<&Mailbox>) {
        let Some(author) = author.filter(|author| is_signed_for(&message.entity.header, author.domain())) else {
            return;
        };
        self.metrics.vouched.one(Vouched::Broken);
        tracing::warn!(
            id = message.id,
            domain = %author.domain(),
            "this mail came with a DKIM signature of its author's domain, which sealing breaks: let this gateway sign ([[dkim]]), and the one before it no more"
        );
    }
}
