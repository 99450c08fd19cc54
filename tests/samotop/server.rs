//! samotop-core's service on a socket: what the samotop crate has for async-std, for tokio or no runtime at all.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::Thread;

use samotop_core::common::{S1Fut, S3Fut, io};
use samotop_core::io::tls::{Io, MayBeTls, TlsCapable, TlsProvider, TlsUpgrade};
use samotop_core::io::{ConnectionInfo, IoService};
use samotop_core::mail::Service;
use samotop_core::smtp::{Drive, DriverControl, DriverError, Interpret, ParseError, SessionService, SmtpContext};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, copy_bidirectional, duplex};
use tokio::net::TcpListener;

/// As samotop's own driver does: a line, a command, its reply.
#[derive(Debug)]
pub struct Driver;

impl Drive for Driver {
    fn drive<'a, 'i, 'x, 's, 'f>(
        &'a self,
        io: &'i mut Box<dyn MayBeTls>,
        interpreter: &'x (dyn Interpret + Send + Sync),
        state: &'s mut SmtpContext,
    ) -> S1Fut<'f, Result<(), DriverError>>
    where
        'a: 'f,
        'i: 'f,
        'x: 'f,
        's: 'f,
    {
        Box::pin(async move {
            state.service().prepare_session(io, state).await;
            let mut unread = Vec::new();
            loop {
                while let Some(control) = state.session.pop_control() {
                    match control {
                        DriverControl::Response(octets) => write(io, &octets).await?,
                        DriverControl::StartTls => Pin::new(&mut *io).encrypt(),
                        DriverControl::Shutdown => return Ok(()),
                    }
                }
                match interpreter.interpret(state).await {
                    Ok(eaten) => drop(state.session.input.drain(..eaten.unwrap_or(0))),
                    Err(ParseError::Incomplete) => {
                        if !line(io, &mut unread, &mut state.session.input).await? {
                            state.session.shutdown();
                        }
                    }
                    Err(_) => {
                        let end = state.session.input.iter().position(|octet| *octet == b'\n').map(|at| at + 1);
                        state.session.input.drain(..end.unwrap_or(state.session.input.len()));
                        state.session.say_invalid_syntax();
                    }
                }
            }
        })
    }
}

async fn write(io: &mut Box<dyn MayBeTls>, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        let written = poll_fn(|context| io::Write::poll_write(Pin::new(&mut *io), context, octets)).await?;
        octets = &octets[written..];
    }
    Ok(())
}

/// One more line; `false`: there is none.
async fn line(io: &mut Box<dyn MayBeTls>, unread: &mut Vec<u8>, input: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        if let Some(end) = unread.iter().position(|octet| *octet == b'\n') {
            input.extend(unread.drain(..=end));
            return Ok(true);
        }
        let mut room = [0; 4096];
        let read = poll_fn(|context| io::Read::poll_read(Pin::new(&mut *io), context, &mut room)).await?;
        if read == 0 {
            return Ok(false);
        }
        unread.extend_from_slice(&room[..read]);
    }
}

/// A connection as samotop reads and writes it.
struct Connection(DuplexStream);

impl io::Read for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(room);
        ready!(Pin::new(&mut self.get_mut().0).poll_read(context, &mut read))?;
        Poll::Ready(Ok(read.filled().len()))
    }
}

impl io::Write for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, octets)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }
    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

/// What polls a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Tokio,
    /// A thread of its own, without tokio.
    None,
}

/// How a client comes to samotop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Clear,
    /// TLS was undone before.
    Tls,
    /// By a socket in the file system.
    Nameless,
}

/// Serves on a free port until the test ends.
pub async fn serve(service: Service, runtime: Runtime, way: Way) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, client)) = listener.accept().await {
            let (ours, mut theirs) = duplex(4096);
            let client = if way == Way::Nameless { "/run/samotop.sock".to_owned() } else { client.to_string() };
            let ours = Box::new(Connection(ours));
            let io = if way == Way::Tls { TlsCapable::encrypted(ours) } else { TlsCapable::plaintext(ours) };
            let io = Box::new(io) as Box<dyn MayBeTls>;
            let session = service.handle(Ok(io), ConnectionInfo::new(address.to_string(), client));
            match runtime {
                Runtime::Tokio => drop(tokio::spawn(session)),
                Runtime::None => drop(std::thread::spawn(move || block_on(session))),
            }
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut theirs).await });
        }
    });
    address
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// STARTTLS without its TLS: what samotop says of it is what counts here.
#[derive(Debug)]
pub struct Pretended;

impl TlsProvider for Pretended {
    fn get_tls_upgrade(&self) -> Option<Box<dyn TlsUpgrade>> {
        Some(Box::new(Self))
    }
}

impl TlsUpgrade for Pretended {
    fn upgrade_to_tls(&self, stream: Box<dyn Io>, _: String) -> S3Fut<io::Result<Box<dyn Io>>> {
        Box::pin(std::future::ready(Ok(stream)))
    }
}
