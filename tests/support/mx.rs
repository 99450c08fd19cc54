//! A server with TLS good or bad, which keeps apart what came in clear and what came under TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use waxwing::pki::authority::Issued;

/// How a next hop answers STARTTLS.
#[derive(Clone, Copy, PartialEq)]
pub enum StartTls {
    /// Offered and done.
    Done,
    /// Not offered: an old server, or one in between who took the line out.
    Stripped,
    /// Offered, then this reply.
    Answer(&'static str),
}

/// A next hop with TLS, which keeps apart what came in clear and what came under TLS.
#[derive(Clone)]
pub struct Mx {
    pub address: SocketAddr,
    state: Arc<Mutex<MxState>>,
}

pub struct MxState {
    identity: Option<Arc<ServerConfig>>,
    start: StartTls,
    pub clear: String,
    pub sealed: String,
    pub connections: usize,
    /// Who connected.
    pub peers: Vec<IpAddr>,
    /// The names that TLS was begun with.
    pub names: Vec<String>,
}

impl Mx {
    pub async fn start(start: StartTls, identity: Option<&Issued>) -> Self {
        let chain: Vec<&Issued> = identity.into_iter().collect();
        Self::at("127.0.0.1:0".parse().unwrap(), start, &chain).await
    }

    /// The same at an address, with a certificate and those above it.
    pub async fn at(address: SocketAddr, start: StartTls, chain: &[&Issued]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let state = MxState {
            identity: (!chain.is_empty()).then(|| server(chain)),
            start,
            clear: String::new(),
            sealed: String::new(),
            connections: 0,
            peers: Vec::new(),
            names: Vec::new(),
        };
        let mx = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let accepting = mx.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                accepting.state.lock().unwrap().peers.push(peer.ip());
                let mx = accepting.clone();
                tokio::spawn(async move { mx.serve(stream).await });
            }
        });
        mx
    }

    pub fn becomes(&self, start: StartTls, identity: &Issued) {
        let mut state = self.state.lock().unwrap();
        (state.start, state.identity) = (start, Some(server(&[identity])));
    }

    pub fn clear(&self) -> String {
        self.state.lock().unwrap().clear.clone()
    }

    pub fn sealed(&self) -> String {
        self.state.lock().unwrap().sealed.clone()
    }

    /// What was seen so far.
    pub fn seen<T>(&self, what: impl FnOnce(&MxState) -> T) -> T {
        what(&self.state.lock().unwrap())
    }

    pub async fn until(&self, what: impl Fn(&MxState) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !what(&self.state.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("clear: {}\nTLS: {}", self.clear(), self.sealed()));
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let (start, identity) = {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            (state.start, state.identity.clone())
        };
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 mx.example ESMTP\r\n").await.ok()?;
        let wants_tls = self.talk(&mut stream, start, false).await?;
        if !wants_tls {
            return None;
        }
        let stream = TlsAcceptor::from(identity?).accept(stream.into_inner()).await.ok()?;
        let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
        self.state.lock().unwrap().names.push(name);
        self.talk(&mut BufReader::new(stream), StartTls::Stripped, true).await;
        None
    }

    /// Till the end, or till TLS begins.
    async fn talk<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        start: StartTls,
        tls: bool,
    ) -> Option<bool> {
        let mut in_data = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return Some(false);
            }
            {
                let mut state = self.state.lock().unwrap();
                let log = if tls { &mut state.sealed } else { &mut state.clear };
                log.push_str(&line);
            }
            if in_data && line != ".\r\n" {
                continue;
            }
            let reply: &str = match line.get(..4).unwrap_or_default() {
                _ if in_data => {
                    in_data = false;
                    "250 2.0.0 taken\r\n"
                }
                "EHLO" if start == StartTls::Stripped => "250 mx.example\r\n",
                "EHLO" => "250-mx.example\r\n250 STARTTLS\r\n",
                "STAR" => match start {
                    StartTls::Answer(reply) => reply,
                    _ => "220 go\r\n",
                },
                "DATA" => {
                    in_data = true;
                    "354 go\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "250 2.0.0 ok\r\n",
            };
            stream.write_all(reply.as_bytes()).await.ok()?;
            if line.starts_with("STAR") && start == StartTls::Done {
                return Some(true);
            }
        }
    }
}

/// TLS as this server, with the certificates above its own.
pub fn server(chain: &[&Issued]) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(chain[0].pkcs8.to_vec()).unwrap();
    let chain = chain.iter().map(|one| CertificateDer::from(one.certificate.der().to_vec())).collect();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}
