//! Who is behind a proxy that speaks the PROXY protocol: read before anything else, TLS included.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::smtp::proxy::{self, Origin};

/// A proxy sends its header at once.
const WAIT: Duration = Duration::from_secs(10);

/// Reads the header and nothing behind it: the client's address, or the proxy's where it speaks for itself.
pub(super) async fn client<S: AsyncRead + Unpin>(stream: &mut S, proxy: SocketAddr) -> io::Result<SocketAddr> {
    let header = async {
        let mut octets = Vec::new();
        loop {
            let missing = u64::try_from(proxy::missing(&octets)).unwrap_or(1);
            if stream.take(missing).read_buf(&mut octets).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match proxy::read(&octets) {
                Ok(None) => {}
                Ok(Some((_, Origin::Client(client)))) => return Ok(client),
                Ok(Some((_, Origin::Connection))) => return Ok(proxy),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    };
    timeout(WAIT, header).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no PROXY header in 10 s"))?
}
