//! A samotop server that signs and encrypts each mail with samotop-smime (which runs `openssl smime` twice) and hands it on by LMTP.
//!
//! `samotop-bench PORT NEXT_HOP_PORT SIGNER.key SIGNER.pem RECIPIENT.pem`

use std::future::{ready, Future};
use std::pin::Pin;

use samotop::io::client::tls::NoTls;
use samotop::io::client::TcpConnector;
use samotop::mail::smime::SMimeMail;
use samotop::mail::{
    AcceptsGuard, AddRecipientResult, Builder, Certificate, LmtpDispatch, MailGuard, MailSetup, Recipient,
    StartMailResult,
};
use samotop::server::TcpServer;
use samotop::smtp::{Esmtp, SmtpParser, SmtpSession};

/// What a guard gives.
type Answer<'f, T> = Pin<Box<dyn Future<Output = T> + Sync + Send + 'f>>;

/// Everybody has the same certificate.
#[derive(Debug, Clone)]
struct One(String);

impl<T: AcceptsGuard> MailSetup<T> for One {
    fn setup(self, config: &mut T) {
        config.add_last_guard(self)
    }
}

impl MailGuard for One {
    fn add_recipient<'a, 's, 'f>(
        &'a self,
        _: &'s mut SmtpSession,
        mut recipient: Recipient,
    ) -> Answer<'f, AddRecipientResult>
    where
        'a: 'f,
        's: 'f,
    {
        recipient.certificate = Some(Certificate::File(self.0.clone()));
        Box::pin(ready(AddRecipientResult::Inconclusive(recipient)))
    }

    fn start_mail<'a, 's, 'f>(&'a self, _: &'s mut SmtpSession) -> Answer<'f, StartMailResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(ready(StartMailResult::Accepted))
    }
}

#[async_std::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let [port, hop, key, certificate, recipient]: [String; 5] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "PORT NEXT_HOP_PORT KEY CERTIFICATE RECIPIENT")?;
    let connector: TcpConnector<NoTls> = TcpConnector::default();
    let service = Builder
        + One(recipient)
        + LmtpDispatch::new(format!("127.0.0.1:{hop}"), connector)?
        + SMimeMail::new(key.into(), certificate.into())
        + Esmtp.with(SmtpParser);
    TcpServer::on(format!("127.0.0.1:{port}")).serve(service.build()).await
}
