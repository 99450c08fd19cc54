//! Stands before a server: counts its connections, and keeps them waiting as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Gate {
    pub address: SocketAddr,
    opened: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// Before `server`; shut, a connection is taken and nothing comes.
    pub async fn before(server: SocketAddr, open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, opens) = watch::channel(open);
        let opened = Arc::new(AtomicUsize::new(0));
        let counted = opened.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let mut opens = opens.clone();
                tokio::spawn(async move {
                    opens.wait_for(|open| *open).await.map(|_| ()).ok()?;
                    let mut server = TcpStream::connect(server).await.ok()?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
        Self { address, opened, open, task }
    }

    pub fn set(&self, open: bool) {
        self.open.send(open).unwrap();
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Waits until somebody is at the gate.
    pub async fn somebody(&self) {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            while self.connections() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        waited.await.expect("nobody came");
    }
}
