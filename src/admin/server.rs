//! The control socket of a gateway at work: a Unix-domain socket for the user it runs as, and for root.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::protocol::{REQUEST_MAX, Refused, Request, answer_line};
use super::queue::{Answer, Desk};

/// Conversations at once.
const CONVERSATIONS: usize = 16;
/// How long a request may take to come, and an answer to be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket, in its place; nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    socket: UnixListener,
    path: PathBuf,
    own: u32,
}

/// The socket at work; it goes away when this is dropped.
#[derive(Debug)]
#[must_use = "dropping the handle closes the socket"]
pub struct Handle {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// Makes the socket, mode 0600, in place of one that nobody listens on.
///
/// # Errors
/// Something else than a socket is there, another gateway answers on it, or the folder cannot be written.
pub fn bind(path: &Path) -> io::Result<Bound> {
    let own = own_uid()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another gateway answers there"));
        }
        _ => {}
    }
    // Under another name first: it is never there with wider permissions.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let _ = std::fs::remove_file(&unfinished);
    let socket = UnixListener::bind(&unfinished)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unfinished, path)?;
    Ok(Bound { socket, path: path.to_owned(), own })
}

/// The user this process runs as.
pub fn own_uid() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

/// Who may ask: the user the gateway runs as, and root.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

impl Bound {
    /// Answers until the handle is dropped.
    pub fn serve(self, desk: Desk) -> Handle {
        let Bound { socket, path, own } = self;
        Handle { path, task: tokio::spawn(accept(socket, Arc::new(desk), own)) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(socket: UnixListener, desk: Arc<Desk>, own: u32) {
    let room = Arc::new(Semaphore::new(CONVERSATIONS));
    let mut conversations = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while conversations.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                conversations.spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(stream, &desk, own).await {
                        tracing::debug!(%error, "control socket");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, desk: &Desk, own: u32) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut stream = BufReader::new(stream);
    if !may_ask(uid, own) {
        tracing::warn!(target: "waxwing::queue", uid, "control socket: refused");
        let refused = Refused::new(
            format!("user {uid} may not ask this gateway"),
            format!("ask as user {own}, which it runs as, or as root"),
        );
        return write(&mut stream, Err(refused)).await;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut stream).take(REQUEST_MAX as u64 + 1);
        if timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = match Request::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            Ok(request) => desk.answer(request, uid).await,
            Err(refused) => Err(refused),
        };
        write(&mut stream, answer).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn write(stream: &mut BufReader<UnixStream>, answer: Result<Answer, Refused>) -> io::Result<()> {
    let (line, octets) = match answer {
        Ok(Answer { said, octets }) => (answer_line(&Ok(said)), octets),
        Err(refused) => (answer_line(&Err(refused)), Bytes::new()),
    };
    let stream = stream.get_mut();
    for octets in [line.as_slice(), &octets] {
        // A reader that takes nothing is given up; one that takes its time over much is not.
        for chunk in octets.chunks(256 << 10) {
            timeout(PATIENCE, stream.write_all(chunk)).await??;
        }
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_user_and_root_may_ask_and_nobody_else() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_takes_the_place_of_a_dead_one_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let bound = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "it is alive");
        drop(bound);
        assert!(path.exists(), "as kill -9 leaves it");
        drop(bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file of somebody's").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file of somebody's");
    }
}
