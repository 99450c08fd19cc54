//! A client that says what it is told to, and hears every octet of the replies.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// A reply: its code and its octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub code: u16,
    pub octets: String,
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connected and greeted.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::greet(address, "EHLO client.example").await
    }

    /// The same for LMTP.
    pub async fn connect_lmtp(address: SocketAddr) -> Self {
        Self::greet(address, "LHLO client.example").await
    }

    /// Connected from an address of this machine, and greeted.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source, 0)).unwrap();
        Self::greeted(socket.connect(address).await.unwrap(), "EHLO client.example").await
    }

    async fn greet(address: SocketAddr, hello: &str) -> Self {
        Self::greeted(TcpStream::connect(address).await.unwrap(), hello).await
    }

    async fn greeted(stream: TcpStream, hello: &str) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        assert_eq!(client.hear().await.code, 220);
        assert_eq!(client.say(hello).await.code, 250);
        client
    }

    /// Octets as they are; an error where the connection is gone.
    pub async fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(octets).await
    }

    /// All that still comes until the connection is closed.
    pub async fn rest(&mut self) -> String {
        let mut octets = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut self.stream, &mut octets);
        // A reset ends it too.
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("still open after a minute");
        String::from_utf8_lossy(&octets).into_owned()
    }

    pub async fn say(&mut self, command: &str) -> Said {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        self.hear().await
    }

    pub async fn hear(&mut self) -> Said {
        let mut octets = String::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(60), self.stream.read_line(&mut line)).await;
            assert!(read.expect("no reply in a minute").unwrap() > 0, "the connection was closed after {octets:?}");
            octets.push_str(&line);
            if line.as_bytes().get(3) == Some(&b' ') {
                return Said { code: line.get(..3).unwrap().parse().unwrap(), octets };
            }
        }
    }

    /// A whole transaction: the first reply that refuses, else the answer to the final dot.
    pub async fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Said {
        let said = self.say(&format!("MAIL FROM:<{from}>")).await;
        if said.code != 250 {
            return said;
        }
        for recipient in to {
            let said = self.say(&format!("RCPT TO:<{recipient}>")).await;
            if said.code != 250 {
                self.say("RSET").await;
                return said;
            }
        }
        self.data(message).await
    }

    /// DATA, the message and the final dot.
    pub async fn data(&mut self, message: &[u8]) -> Said {
        let said = self.say("DATA").await;
        if said.code != 354 {
            return said;
        }
        self.stream.get_mut().write_all(&stuffed(message)).await.unwrap();
        self.hear().await
    }
}

/// Dots doubled, the final dot put on.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    if !octets.ends_with(b"\r\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b".\r\n");
    octets
}
