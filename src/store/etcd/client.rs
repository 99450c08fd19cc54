//! Connections to etcd: one member at a time, another when it does not answer.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, pki_types};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Streaming};
use tonic_prost::ProstCodec;

use super::wire::{
    AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse, WatchRequest, WatchResponse,
};
use crate::config::Etcd;
use crate::relay::hop::Roots;
use crate::store::StoreError;

/// One answer at most, in octets: a page of a thousand records, but where they are unusually large.
const ANSWER_MAX: usize = 64 << 20;
/// A member that does not answer one request within this is left for another one, where there is time for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// A connection is asked for signs of life this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why etcd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EtcdError {
    /// No member answered in time; a change may or may not have been made.
    #[error("etcd does not answer: {0}")]
    Unavailable(String),
    /// No member could be connected to: nothing was asked.
    #[error("etcd cannot be reached: {0}")]
    Unreachable(String),
    /// It answered, and will not.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// It answered with more than is taken at a time.
    #[error("etcd answers with too much: {0}")]
    TooLarge(String),
}

impl From<EtcdError> for StoreError {
    fn from(error: EtcdError) -> Self {
        match error {
            EtcdError::Unavailable(_) | EtcdError::Unreachable(_) => Self::Unavailable(error.to_string()),
            EtcdError::Refused(_) | EtcdError::TooLarge(_) => Self::Io(error.to_string()),
        }
    }
}

struct Connection {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

/// See the module.
pub(super) struct Client {
    endpoints: Vec<Uri>,
    tls: Option<TlsConnector>,
    /// Name and password.
    user: Option<(String, zeroize::Zeroizing<String>)>,
    /// The member that is asked.
    current: AtomicUsize,
    connection: Mutex<Option<Arc<Connection>>>,
    pub(super) timeout: Duration,
}

fn unavailable(why: impl std::fmt::Display) -> EtcdError {
    EtcdError::Unavailable(why.to_string())
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Client {
    pub fn new(config: &Etcd) -> Result<Self, StoreError> {
        let bad = |what: String| StoreError::Refused(what);
        let endpoints = config
            .endpoints
            .iter()
            .map(|one| one.parse::<Uri>().map_err(|error| bad(format!("etcd endpoint {one}: {error}"))));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let secure = endpoints.iter().any(|one| one.scheme_str() == Some("https"));
        let tls = if secure { Some(tls(config).map_err(bad)?) } else { None };
        let user = match &config.user {
            None => None,
            Some((name, file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| StoreError::Io(format!("etcd password_file {}: {error}", file.display())))?;
                Some((name.clone(), text.lines().next().unwrap_or_default().to_owned().into()))
            }
        };
        let connection = Mutex::default();
        Ok(Self { endpoints, tls, user, current: AtomicUsize::new(0), connection, timeout: config.timeout })
    }

    /// The member that is asked.
    pub fn endpoint(&self) -> String {
        self.endpoints.get(self.at()).map(Uri::to_string).unwrap_or_default()
    }

    fn at(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.endpoints.len().max(1)
    }

    /// Another member is asked from now on, where `failed` still is the connection in use.
    fn leave(&self, failed: &Arc<Connection>) {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|one| Arc::ptr_eq(one, failed)) {
            *held = None;
            self.current.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Another member is asked from now on.
    pub fn next(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self) -> Result<Arc<Connection>, EtcdError> {
        if let Some(held) = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(held);
        }
        let at = self.at();
        let uri = self.endpoints.get(at).cloned().ok_or_else(|| unavailable("no endpoint is configured"))?;
        let name = uri.to_string();
        let endpoint = Endpoint::from(uri)
            .connect_timeout(PATIENCE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let connector = Connector { tls: self.tls.clone() };
        let connecting = endpoint.connect_with_connector(connector);
        let channel = match timeout(PATIENCE, connecting).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                self.current.store(at + 1, Ordering::Relaxed);
                return Err(EtcdError::Unreachable(format!("{name} {}", chain(&error))));
            }
            Err(_) => {
                self.current.store(at + 1, Ordering::Relaxed);
                return Err(EtcdError::Unreachable(format!("{name} does not let itself be connected to")));
            }
        };
        let mut connection = Connection { channel, token: None };
        if let Some((user, password)) = &self.user {
            let request = AuthenticateRequest { name: user.clone(), password: password.to_string() };
            let answer: AuthenticateResponse =
                call(&connection, "/etcdserverpb.Auth/Authenticate", request, Instant::now() + PATIENCE)
                    .await
                    .inspect_err(|_| self.current.store(at + 1, Ordering::Relaxed))?;
            let token = answer.token.parse().map_err(|_| EtcdError::Refused("its token is no header value".into()))?;
            connection.token = Some(token);
        }
        let connection = Arc::new(connection);
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    /// Asks one member after the other until one answers or the time is over. Only for what may be asked twice.
    async fn ask<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: prost::Message + Clone + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let end = Instant::now() + self.timeout;
        loop {
            let failed = match self.connect().await {
                Ok(connection) => {
                    let one = end.min(Instant::now() + PATIENCE);
                    match call(&connection, path, request.clone(), one).await {
                        Err(silent @ EtcdError::Unavailable(_)) => {
                            self.leave(&connection);
                            silent
                        }
                        other => return other,
                    }
                }
                Err(refused @ EtcdError::Refused(_)) => return Err(refused),
                Err(away) => away,
            };
            if Instant::now() + Duration::from_millis(50) >= end {
                return Err(failed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, EtcdError> {
        self.ask("/etcdserverpb.KV/Range", request).await
    }

    /// A change, asked once: where it fails as unavailable it may have been made; as unreachable it was not.
    pub async fn change_once(&self, request: TxnRequest) -> Result<TxnResponse, EtcdError> {
        let connection = self.connect().await?;
        let answer = call(&connection, "/etcdserverpb.KV/Txn", request, Instant::now() + PATIENCE).await;
        if matches!(answer, Err(EtcdError::Unavailable(_))) {
            self.leave(&connection);
        }
        answer
    }

    /// A change that does no harm when it is made twice.
    pub async fn change(&self, request: TxnRequest) -> Result<TxnResponse, EtcdError> {
        self.ask("/etcdserverpb.KV/Txn", request).await
    }

    pub async fn status(&self) -> Result<StatusResponse, EtcdError> {
        self.ask("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    /// Begins a watch that ends where the member has no leader any more.
    pub async fn watch(
        &self,
        requests: tokio::sync::mpsc::Receiver<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, EtcdError> {
        let connection = self.connect().await?;
        let mut grpc = Grpc::new(connection.channel.clone()).max_decoding_message_size(ANSWER_MAX);
        let opening = async {
            grpc.ready().await.map_err(|error| unavailable(chain(&error)))?;
            let mut request = tonic::Request::new(Requests(requests));
            authorise(&connection, &mut request);
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let path = "/etcdserverpb.Watch/Watch".parse().map_err(unavailable)?;
            let answer = grpc.streaming(request, path, ProstCodec::default()).await.map_err(of_status)?;
            Ok(answer.into_inner())
        };
        let opened = timeout(PATIENCE, opening).await.unwrap_or_else(|_| Err(unavailable("no watch in time")));
        if opened.is_err() {
            self.leave(&connection);
        }
        opened
    }
}

/// What is asked on a watch, as a stream.
struct Requests(tokio::sync::mpsc::Receiver<WatchRequest>);

impl tokio_stream::Stream for Requests {
    type Item = WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<WatchRequest>> {
        self.0.poll_recv(context)
    }
}

fn authorise<T>(connection: &Connection, request: &mut tonic::Request<T>) {
    if let Some(token) = &connection.token {
        request.metadata_mut().insert("token", token.clone());
    }
}

fn of_status(status: tonic::Status) -> EtcdError {
    let text = status.message().to_owned();
    match status.code() {
        // A token that is no longer known is got anew with another connection.
        Code::Unauthenticated => EtcdError::Unavailable(text),
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted => EtcdError::Unavailable(if text.is_empty() { status.code().to_string() } else { text }),
        // tonic's; etcd uses the same code for what was compacted.
        Code::OutOfRange if text.contains("message length too large") => EtcdError::TooLarge(text),
        _ => EtcdError::Refused(text),
    }
}

async fn call<Q, A>(connection: &Connection, path: &'static str, request: Q, until: Instant) -> Result<A, EtcdError>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(connection.channel.clone()).max_decoding_message_size(ANSWER_MAX);
    let calling = async {
        grpc.ready().await.map_err(|error| unavailable(chain(&error)))?;
        let mut request = tonic::Request::new(request);
        authorise(connection, &mut request);
        let path = path.parse().map_err(unavailable)?;
        let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await.map_err(of_status)?;
        Ok(answer.into_inner())
    };
    timeout_at(until, calling).await.unwrap_or_else(|_| Err(unavailable("no answer in time")))
}

/// TLS by the configured CA, or the system's, and our certificate where there is one.
fn tls(config: &Etcd) -> Result<TlsConnector, String> {
    let roots = match &config.ca {
        Some(file) => Roots::file(file).map_err(|error| format!("etcd ca {}: {error}", file.display()))?,
        None => Roots::system(),
    };
    let identity = match &config.identity {
        None => None,
        Some((certificate, key)) => Some(identity(certificate, key)?),
    };
    let mut tls: ClientConfig = roots.verifying_as(identity)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

type Identity = (Vec<pki_types::CertificateDer<'static>>, pki_types::PrivateKeyDer<'static>);

fn identity(certificate: &Path, key: &Path) -> Result<Identity, String> {
    use rustls::pki_types::pem::PemObject;
    let chain = pki_types::CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| format!("etcd certificate {}: {error}", certificate.display()))?;
    let key =
        pki_types::PrivateKeyDer::from_pem_file(key).map_err(|error| format!("etcd key {}: {error}", key.display()))?;
    Ok((chain, key))
}

/// TCP, and TLS where the endpoint says https.
#[derive(Clone)]
struct Connector {
    tls: Option<TlsConnector>,
}

/// A connection of either kind.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone().filter(|_| uri.scheme_str() == Some("https"));
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(2379))).await?;
            tcp.set_nodelay(true)?;
            let Some(tls) = tls else { return Ok(TokioIo::new(Box::new(tcp) as Box<dyn Stream>)) };
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            Ok(TokioIo::new(Box::new(tls.connect(name, tcp).await?) as Box<dyn Stream>))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_told_from_what_was_compacted() {
        let tonic = "Error, decoded message length too large: found 70000000 bytes, the limit is: 67108864 bytes";
        assert!(matches!(of_status(tonic::Status::out_of_range(tonic)), EtcdError::TooLarge(_)));
        let etcd = "etcdserver: mvcc: required revision has been compacted";
        assert!(matches!(of_status(tonic::Status::out_of_range(etcd)), EtcdError::Refused(_)));
    }
}
