//! HTTP for those who watch: small, bounded, and on a listener of its own.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::text;

/// Connections at once: those who watch are few.
const CONNECTIONS: usize = 32;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// For a connection as a whole.
const WHOLE: Duration = Duration::from_secs(120);
/// After accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What is told to those who watch. Both may take a while, and are asked on a thread that may wait.
pub trait Watched: Send + Sync + 'static {
    /// The numbers, in the text format.
    fn metrics(&self) -> String;
    /// Why no mail can be taken and treated now, each reason a line; none: it can.
    fn unready(&self) -> Vec<String>;
}

/// Serves until dropped.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Handle {
    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves what is watched on a socket that has its address.
///
/// # Errors
/// The socket is of no use.
pub fn serve(socket: TcpListener, watched: Arc<dyn Watched>) -> io::Result<Handle> {
    let address = socket.local_addr()?;
    Ok(Handle { address, task: tokio::spawn(accept(socket, watched)) })
}

async fn accept(socket: TcpListener, watched: Arc<dyn Watched>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let watched = watched.clone();
        connections.spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(WHOLE, connection(stream, watched)).await;
        });
    }
}

async fn connection(stream: TcpStream, watched: Arc<dyn Watched>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let watched = watched.clone();
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), watched).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of those who watch was lost");
    }
}

async fn answer(method: &Method, path: &str, watched: Arc<dyn Watched>) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = told(StatusCode::METHOD_NOT_ALLOWED, plain, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let asked = match path {
        "/metrics" => {
            tokio::task::spawn_blocking(move || (StatusCode::OK, text::CONTENT_TYPE, watched.metrics())).await
        }
        // That it answers is the answer.
        "/healthz" => Ok((StatusCode::OK, plain, "alive\n".to_owned())),
        "/readyz" => {
            tokio::task::spawn_blocking(move || match watched.unready() {
                reasons if reasons.is_empty() => (StatusCode::OK, plain, "ready\n".to_owned()),
                reasons => (StatusCode::SERVICE_UNAVAILABLE, plain, format!("{}\n", reasons.join("\n"))),
            })
            .await
        }
        _ => Ok((StatusCode::NOT_FOUND, plain, "there are /metrics, /healthz and /readyz\n".to_owned())),
    };
    match asked {
        Ok((status, kind, body)) => told(status, kind, body),
        Err(error) => {
            tracing::error!(%error, "what is told to those who watch ended in a defect");
            told(StatusCode::INTERNAL_SERVER_ERROR, plain, "a defect of the gateway: look at its log\n".to_owned())
        }
    }
}

fn told(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
