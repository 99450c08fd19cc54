//! Asks a gateway at work over its control socket.

use std::io;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::protocol::{ANSWER_MAX, Refused, Request, parse_answer};

/// A conversation with a gateway.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// `NotFound` and `ConnectionRefused`: no gateway is at work there.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(path).await?) })
    }

    /// Asks, and waits for the answer as long as it takes.
    ///
    /// # Errors
    /// What the gateway refused, or that it went away.
    pub async fn ask(&mut self, request: &Request) -> Result<Value, Refused> {
        let line = self.line(request).await.map_err(gone)?;
        parse_answer(&line)
    }

    /// Asks for content: the octets after the answer.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_octets(&mut self, request: &Request) -> Result<Bytes, Refused> {
        let said = self.ask(request).await?;
        let len = said.get("octets").and_then(Value::as_u64).unwrap_or_default();
        let mut octets = Vec::new();
        let read = (&mut self.stream).take(len).read_to_end(&mut octets).await.map_err(gone)?;
        if read as u64 != len {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(octets.into())
    }

    async fn line(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        // Refused before it asked: the answer is there already.
        let written = self.stream.get_mut().write_all(&request.line()).await;
        let mut line = Vec::new();
        (&mut self.stream).take(ANSWER_MAX as u64).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            written?;
        }
        line.pop().filter(|octet| *octet == b'\n').ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(line)
    }
}

fn gone(error: io::Error) -> Refused {
    Refused::new(
        format!("the gateway went away before it answered: {error}"),
        "what was asked for may be done; look, and ask again",
    )
}
