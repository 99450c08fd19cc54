//! A next hop that does with each recipient what the address says, keeps a ledger, and falls silent where it is told to.
//!
//! `ok.…`: taken. `later.…`: 451 the first time, then taken; `late.…`: five times. `never.…`: 554. `drop.…`: the connection is lost after the final dot the first
//! time, with the mail taken where the address ends its local part in `t`; then taken. `rlater.…` and `rnever.…` are answered at RCPT in
//! any case.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Where it answers for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Rcpt,
    /// SMTP: the answer for the first recipient is the mail's. LMTP: one each.
    Dot,
}

/// Where it falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    Greeting,
    Ehlo,
    /// After its reply to STARTTLS: in the handshake.
    Handshake,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// It no longer reads.
    Content,
    Dot,
    /// It answers the final dot after two seconds.
    LateDot,
    /// LMTP: after the first answer.
    SecondDot,
}

/// What a hostile server does after a line that begins with what it waits for ("": at once).
#[derive(Debug, Clone, Copy)]
pub enum Move {
    Say(&'static str),
    /// Again and again, as fast as it is read.
    Flood(&'static str),
    /// An octet every 20 ms, for ever.
    Drip(&'static str),
    Close,
    /// Closes with a reset.
    Reset,
}

/// A hostile server's moves; after the last it waits.
pub type Script = &'static [(&'static str, Move)];

#[derive(Debug, Clone)]
pub struct Manner {
    pub lmtp: bool,
    pub at: At,
    pub offers: &'static [&'static str],
    pub silent: Option<Silent>,
    /// How long it thinks over a mail.
    pub thinks: Duration,
    /// In place of all else.
    pub hostile: Option<Script>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            lmtp: false,
            at: At::Dot,
            offers: &["PIPELINING", "8BITMIME"],
            silent: None,
            thinks: Duration::ZERO,
            hostile: None,
        }
    }
}

#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// How often each recipient's mail was taken.
    pub taken: HashMap<String, usize>,
    /// Contents, with those they were for.
    pub mails: Vec<(Vec<String>, Vec<u8>)>,
    /// Commands, without contents.
    pub commands: Vec<String>,
    pub connections: usize,
    tries: HashMap<String, usize>,
}

#[derive(Clone)]
pub struct Teller {
    pub address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Teller {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve_on(listener, manner)
    }

    pub fn serve_on(listener: TcpListener, manner: Manner) -> Self {
        let teller = Self {
            address: listener.local_addr().unwrap(),
            manner: Arc::new(Mutex::new(manner)),
            ledger: Arc::default(),
        };
        let accepting = teller.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.ledger.lock().unwrap().connections += 1;
                let teller = accepting.clone();
                tokio::spawn(async move { teller.serve(BufReader::new(stream)).await });
            }
        });
        teller
    }

    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap().clone()
    }

    pub fn taken(&self, address: &str) -> usize {
        self.ledger.lock().unwrap().taken.get(address).copied().unwrap_or_default()
    }

    pub fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    fn manner(&self) -> Manner {
        self.manner.lock().unwrap().clone()
    }

    async fn pause(&self, at: Silent) {
        if self.manner().silent == Some(at) {
            std::future::pending::<()>().await;
        }
    }

    async fn serve(&self, mut stream: BufReader<TcpStream>) -> Option<()> {
        // Replies are written one by one; none waits for the acknowledgement of the one before.
        let _ = stream.get_ref().set_nodelay(true);
        if let Some(script) = self.manner().hostile {
            return self.play(&mut stream, script).await;
        }
        self.pause(Silent::Greeting).await;
        say(&mut stream, "220 teller.example ready").await?;
        let mut to: Vec<String> = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&read_line(&mut stream).await?).trim_end().to_owned();
            self.ledger.lock().unwrap().commands.push(line.clone());
            let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            match line.get(..4).unwrap_or(&line).to_ascii_uppercase().as_str() {
                "EHLO" | "LHLO" => {
                    self.pause(Silent::Ehlo).await;
                    let mut reply = String::from("250-teller.example\r\n");
                    self.manner().offers.iter().for_each(|offer| reply.push_str(&format!("250-{offer}\r\n")));
                    say(&mut stream, &format!("{reply}250 HELP")).await?;
                }
                "STAR" => {
                    self.pause(Silent::StartTls).await;
                    say(&mut stream, "220 go ahead").await?;
                    self.pause(Silent::Handshake).await;
                }
                "MAIL" => {
                    self.pause(Silent::Mail).await;
                    to.clear();
                    say(&mut stream, "250 2.1.0 sender ok").await?;
                }
                "RCPT" => {
                    self.pause(Silent::Rcpt).await;
                    let early = self.manner().at == At::Rcpt || address.starts_with('r');
                    let code = if early { self.judge(&address, false) } else { 250 };
                    if code == 250 {
                        to.push(address);
                    }
                    say(&mut stream, &format!("{code} recipient {code}")).await?;
                }
                "DATA" if to.is_empty() => say(&mut stream, "554 5.5.1 nobody").await?,
                "DATA" => {
                    self.pause(Silent::Data).await;
                    say(&mut stream, "354 go on").await?;
                    self.content(&mut stream, std::mem::take(&mut to)).await?;
                }
                "RSET" => {
                    to.clear();
                    say(&mut stream, "250 reset").await?;
                }
                "QUIT" => return None,
                _ => say(&mut stream, "250 ok").await?,
            }
        }
    }

    async fn play(&self, stream: &mut BufReader<TcpStream>, script: Script) -> Option<()> {
        for (wanted, action) in script {
            while !wanted.is_empty() {
                let line = read_line(stream).await?;
                if line.starts_with(wanted.as_bytes()) {
                    break;
                }
            }
            match action {
                Move::Say(text) => stream.get_mut().write_all(text.as_bytes()).await.ok()?,
                Move::Flood(text) => {
                    let much = text.repeat(64 * 1024 / text.len());
                    loop {
                        stream.get_mut().write_all(much.as_bytes()).await.ok()?;
                    }
                }
                Move::Drip(text) => {
                    for octet in text.bytes().cycle() {
                        stream.get_mut().write_all(&[octet]).await.ok()?;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                Move::Close => return None,
                Move::Reset => {
                    let _ = socket2::SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
                    return None;
                }
            }
        }
        while read_line(stream).await.is_some() {}
        None
    }

    /// The answer for a recipient; 0: the connection is to be lost.
    fn judge(&self, address: &str, dot: bool) -> u16 {
        let local = address.split('@').next().unwrap_or_default();
        let mut ledger = self.ledger.lock().unwrap();
        let (manner, dropped) = (local.split('.').next().unwrap_or_default(), local.ends_with('t'));
        if (manner == "drop" && !dot) || (manner.starts_with('r') && dot) {
            return 250;
        }
        let tries = ledger.tries.entry(address.to_owned()).or_default();
        *tries += 1;
        match (manner, *tries) {
            ("later" | "rlater", 1) | ("late", ..=5) => 451,
            ("never" | "rnever", _) => 554,
            ("drop", 1) => {
                if dropped {
                    *ledger.taken.entry(address.to_owned()).or_default() += 1;
                }
                0
            }
            _ => 250,
        }
    }

    async fn content(&self, stream: &mut BufReader<TcpStream>, to: Vec<String>) -> Option<()> {
        let manner = self.manner();
        if manner.silent == Some(Silent::Content) {
            std::future::pending::<()>().await;
        }
        let mut content = Vec::new();
        loop {
            let line = read_line(stream).await?;
            if line == b".\r\n" {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        self.pause(Silent::Dot).await;
        if manner.silent == Some(Silent::LateDot) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        if !manner.thinks.is_zero() {
            tokio::time::sleep(manner.thinks).await;
        }
        let mut good = Vec::new();
        // With answers at RCPT, only those who lose the connection are left to be judged here.
        let judged = |address: &str| match manner.at {
            At::Dot => self.judge(address, true),
            At::Rcpt if address.starts_with("drop.") => self.judge(address, true),
            At::Rcpt => 250,
        };
        if manner.lmtp {
            for (at, address) in to.iter().enumerate() {
                if at == 1 {
                    self.pause(Silent::SecondDot).await;
                }
                let code = judged(address);
                if code == 0 {
                    return None;
                }
                if code == 250 {
                    *self.ledger.lock().unwrap().taken.entry(address.clone()).or_default() += 1;
                    good.push(address.clone());
                }
                say(stream, &format!("{code} <{address}> {code}")).await?;
            }
        } else {
            let codes: Vec<u16> = match manner.at {
                At::Dot => to.first().map(|address| judged(address)).into_iter().collect(),
                At::Rcpt => to.iter().map(|address| judged(address)).collect(),
            };
            let code = codes.iter().copied().min().unwrap_or(554);
            if code == 0 {
                return None;
            }
            if code == 250 {
                let mut ledger = self.ledger.lock().unwrap();
                to.iter().for_each(|address| *ledger.taken.entry(address.clone()).or_default() += 1);
                good = to;
            }
            self.remember(&good, &content);
            return say(stream, &format!("{code} the mail {code}")).await;
        }
        self.remember(&good, &content);
        Some(())
    }

    fn remember(&self, good: &[String], content: &[u8]) {
        if !good.is_empty() {
            self.ledger.lock().unwrap().mails.push((good.to_vec(), content.to_vec()));
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, reply: &str) -> Option<()> {
    stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await.ok()
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    (stream.read_until(b'\n', &mut line).await.ok()? > 0).then_some(line)
}
