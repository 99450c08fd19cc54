//! A next hop that records every octet it is sent, and misbehaves as told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A mail that was taken: 250 was said to its final dot.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Dots undone.
    pub message: Vec<u8>,
}

impl Mail {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.message).into_owned()
    }
}

/// What goes wrong, for every transaction until changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// Connections are closed at once.
    Refuse,
    /// This answer to MAIL.
    Mail(u16),
    /// This answer to DATA.
    Data(u16),
    /// This answer to the final dot.
    Dot(u16),
    /// The connection is closed in the middle of the content.
    DropInData,
    /// The connection is closed after the final dot, without an answer; the mail counts as taken.
    DropAfterDot,
    /// Nothing is said after the final dot.
    Silent,
}

#[derive(Default)]
struct State {
    mails: Vec<Mail>,
    octets: Vec<u8>,
    fault: Fault,
    /// Answers to RCPT, by address.
    recipients: HashMap<String, u16>,
}

#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    came: Arc<Notify>,
}

impl Sink {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), state: Arc::default(), came: Arc::default() };
        let accepting = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = accepting.clone();
                tokio::spawn(async move { sink.serve(stream).await });
            }
        });
        sink
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    pub fn refuse(&self, recipient: &str, code: u16) {
        self.state.lock().unwrap().recipients.insert(recipient.into(), code);
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.lock().unwrap().mails.clone()
    }

    /// Every octet that came, commands too.
    pub fn octets(&self) -> Vec<u8> {
        self.state.lock().unwrap().octets.clone()
    }

    /// Forgets what came.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap();
        state.mails.clear();
        state.octets.clear();
    }

    /// Waits until so many mails have come.
    pub async fn wait(&self, count: usize) -> Vec<Mail> {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let came = self.came.notified();
                let mails = self.mails();
                if mails.len() >= count {
                    return mails;
                }
                came.await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{} of {count} mails came", self.mails().len()))
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let fault = || self.state.lock().unwrap().fault;
        if fault() == Fault::Refuse {
            return None;
        }
        stream.set_nodelay(true).ok()?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b"220 sink.example ESMTP\r\n").await.ok()?;
        let (mut from, mut to) = (String::new(), Vec::new());
        loop {
            let line = self.line(&mut stream).await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            let path = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            let code = match verb.as_str() {
                "EHLO" => {
                    stream
                        .get_mut()
                        .write_all(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
                        .await
                        .ok()?;
                    continue;
                }
                "MAIL" => match fault() {
                    Fault::Mail(code) => code,
                    _ => {
                        (from, to) = (path(), Vec::new());
                        250
                    }
                },
                "RCPT" => {
                    let code = self.state.lock().unwrap().recipients.get(&path()).copied().unwrap_or(250);
                    if code == 250 {
                        to.push(path());
                    }
                    code
                }
                "DATA" if to.is_empty() => 554,
                "DATA" => match fault() {
                    Fault::Data(code) => code,
                    fault => {
                        let mail = Mail { from: from.clone(), to: std::mem::take(&mut to), message: Vec::new() };
                        self.data(&mut stream, fault, mail).await?
                    }
                },
                "QUIT" => {
                    let _ = stream.get_mut().write_all(b"221 bye\r\n").await;
                    return None;
                }
                _ => 250,
            };
            stream.get_mut().write_all(format!("{code} sink says {code}\r\n").as_bytes()).await.ok()?;
        }
    }

    async fn data(&self, stream: &mut BufReader<TcpStream>, fault: Fault, mut mail: Mail) -> Option<u16> {
        stream.get_mut().write_all(b"354 go on\r\n").await.ok()?;
        loop {
            let line = self.line(stream).await?;
            if line == b".\r\n" {
                break;
            }
            if fault == Fault::DropInData {
                return None;
            }
            mail.message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let taken = matches!(fault, Fault::None | Fault::DropAfterDot);
        if taken {
            self.state.lock().unwrap().mails.push(mail);
            self.came.notify_waiters();
        }
        match fault {
            Fault::Dot(code) => Some(code),
            Fault::DropAfterDot => None,
            Fault::Silent => std::future::pending().await,
            _ => Some(250),
        }
    }

    async fn line(&self, stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = stream.read_until(b'\n', &mut line).await.ok()?;
        self.state.lock().unwrap().octets.extend_from_slice(&line);
        (read > 0).then_some(line)
    }
}
