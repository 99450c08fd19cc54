//! A small SMTP relay: takes a mail, hands it on, then says 250. It counts by itself, and does harm as told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Harm done to one mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Not handed on, and answered 250.
    Drop,
    /// Handed on twice.
    Double,
    /// An octet of the body is changed.
    Alter,
    /// Handed to another hop: past the one that is to protect it.
    Bypass(SocketAddr),
    /// Nothing is answered, to anybody, for so long.
    Stall(Duration),
}

#[derive(Default)]
pub struct Counted {
    /// Mails answered 250.
    pub mails: u64,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
    /// The mails that were harmed: what was done, and their whole content.
    pub harmed: Vec<(Harm, Vec<u8>)>,
}

impl Counted {
    /// Mails a second.
    pub fn rate(&self) -> f64 {
        (self.mails - 1) as f64 / (self.last.unwrap() - self.first.unwrap()).as_secs_f64()
    }
}

type Plan = Arc<dyn Fn(u64) -> Option<Harm> + Send + Sync>;

#[derive(Clone)]
pub struct Forwarder {
    pub address: SocketAddr,
    next: SocketAddr,
    plan: Plan,
    counted: Arc<Mutex<Counted>>,
    /// Mails taken, by which harm is planned.
    number: Arc<Mutex<u64>>,
    stalled: Arc<Mutex<Option<Instant>>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Forwarder {
    /// Hands on to `next`; `plan` says what is done to the mail of a number.
    pub async fn start(next: SocketAddr, plan: impl Fn(u64) -> Option<Harm> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = Self {
            address: listener.local_addr().unwrap(),
            next,
            plan: Arc::new(plan),
            counted: Arc::default(),
            number: Arc::default(),
            stalled: Arc::default(),
            task: Arc::default(),
        };
        let serving = forwarder.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        *forwarder.task.lock().unwrap() = Some(task);
        forwarder
    }

    pub fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap()
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut client = BufReader::with_capacity(64 << 10, stream);
        let mut hop = None;
        client.get_mut().write_all(b"220 forwarder\r\n").await.ok()?;
        let (mut line, mut envelope) = (String::new(), String::new());
        loop {
            line.clear();
            if client.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let answer: &[u8] = match verb.as_str() {
                "EHLO" => b"250-forwarder\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
                "MAIL" => {
                    envelope.clone_from(&line);
                    b"250 ok\r\n"
                }
                "RCPT" => {
                    envelope.push_str(&line);
                    b"250 ok\r\n"
                }
                "QUIT" => {
                    let _ = client.get_mut().write_all(b"221 bye\r\n").await;
                    return None;
                }
                "DATA" => {
                    client.get_mut().write_all(b"354 go\r\n").await.ok()?;
                    let content = content(&mut client).await?;
                    if self.pass(&mut hop, &envelope, content).await.is_some() {
                        b"250 taken\r\n"
                    } else {
                        b"451 next hop\r\n"
                    }
                }
                _ => b"250 ok\r\n",
            };
            let until = *self.stalled.lock().unwrap();
            if let Some(until) = until {
                tokio::time::sleep_until(until.into()).await;
            }
            client.get_mut().write_all(answer).await.ok()?;
        }
    }

    /// `content` is as on the wire, with its final dot.
    async fn pass(&self, hop: &mut Option<BufReader<TcpStream>>, envelope: &str, mut content: Vec<u8>) -> Option<()> {
        let number = {
            let mut number = self.number.lock().unwrap();
            *number += 1;
            *number
        };
        let harm = (self.plan)(number);
        if let Some(harm) = harm {
            self.counted().harmed.push((harm, content.clone()));
        }
        match harm {
            Some(Harm::Alter) => {
                // In the middle of the body: neither a dot nor a line end becomes of it.
                let at = content.len() - content.len() / 4;
                let at = (at..content.len()).find(|at| content[*at].is_ascii_alphanumeric()).unwrap();
                content[at] ^= 1;
            }
            Some(Harm::Stall(time)) => *self.stalled.lock().unwrap() = Some(Instant::now() + time),
            _ => {}
        }
        let times = match harm {
            Some(Harm::Drop) => 0,
            Some(Harm::Double) => 2,
            _ => 1,
        };
        if let Some(Harm::Bypass(_)) = harm {
            *hop = None;
        }
        for _ in 0..times {
            if hop.is_none() {
                let next = if let Some(Harm::Bypass(other)) = harm { other } else { self.next };
                let stream = TcpStream::connect(next).await.ok()?;
                stream.set_nodelay(true).ok()?;
                let mut stream = BufReader::new(stream);
                say(&mut stream, b"", 1).await?;
                say(&mut stream, b"HELO forwarder\r\n", 1).await?;
                *hop = Some(stream);
            }
            let stream = hop.as_mut()?;
            let without_size: String =
                envelope.lines().map(|line| format!("{}>\r\n", line.split('>').next().unwrap_or_default())).collect();
            for line in without_size.split_inclusive("\r\n") {
                say(stream, line.as_bytes(), 1).await?;
            }
            say(stream, b"DATA\r\n", 1).await?;
            say(stream, &content, 1).await?;
        }
        if let Some(Harm::Bypass(_)) = harm {
            *hop = None;
        }
        let mut counted = self.counted();
        counted.mails += 1;
        counted.first.get_or_insert_with(Instant::now);
        counted.last = Some(Instant::now());
        Some(())
    }
}

/// Says something, and wants a 2xx or 3xx.
async fn say(stream: &mut BufReader<TcpStream>, words: &[u8], replies: usize) -> Option<()> {
    stream.get_mut().write_all(words).await.ok()?;
    for _ in 0..replies {
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        if !line.starts_with(['2', '3']) {
            return None;
        }
    }
    Some(())
}

/// Content up to and with the final dot, as on the wire.
async fn content(client: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        let read = client.read_until(b'\n', &mut content).await.ok()?;
        if read == 0 {
            return None;
        }
        if &content[start..] == b".\r\n" {
            return Some(content);
        }
    }
}
