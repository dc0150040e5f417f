//! HTTP/1.1 with limits that hold before a reader is known: on the number of connections, on the size of a request, and on
//! time. One thread carries all connections and one more makes the pages, so that a stranger costs one small buffer.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::connections::{Connections, Progress};

/// Most bytes of a request's head; more is answered with 431.
const HEAD_BYTES: usize = 16 << 10;
/// Most headers of a request; more are answered with 431.
const HEADERS: usize = 64;
/// Longest time in which the head of a request arrives; for TLS, the handshake has the same time before.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest life of a connection: of a reader who does not read, too.
const LIFETIME: Duration = Duration::from_secs(30);
/// Time between two checks for the end.
const LOOK: Duration = Duration::from_millis(200);
/// Pause after the system gave no connection, for example for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answer to a request.
pub(super) type Answer = Response<Full<Bytes>>;
/// Head of a request. Its body is never read.
pub(super) type Head = Request<()>;

/// The pages that a server shows.
pub(super) trait Site: Send + Sync + 'static {
    /// Answer to a request that gets no page; at once, since strangers can ask for it.
    fn refused(&self, head: &Head) -> Option<Answer>;

    /// The page; it may take time, and only one is made at a time.
    fn page(&self, head: &Head) -> Answer;
}

/// Server that carries requests to a function and its answers back.
pub(super) struct Listener {
    runtime: Runtime,
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on an address, with TLS if there is a certificate.
    pub(super) fn open(address: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let socket = StdListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let socket = {
            let _inside = runtime.enter();
            TcpListener::from_std(socket)?
        };
        Ok(Self { runtime, socket, tls })
    }

    /// Address that the server listens on.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Answers requests until `stop` returns true.
    pub(super) fn serve(self, stop: &impl Fn() -> bool, site: &Arc<impl Site>) {
        let Self { runtime, socket, tls } = self;
        runtime.block_on(async {
            let mut connections = Connections::default();
            while !stop() {
                let Ok(arrived) = timeout(LOOK, socket.accept()).await else { continue };
                let Ok((stream, peer)) = arrived else {
                    sleep(PAUSE).await;
                    continue;
                };
                connections.make_room();
                let progress = Progress::default();
                let carried = carry(stream, tls.clone(), progress.clone(), Arc::clone(site));
                // A reader that has gone, or that ran out of time, needs no answer.
                let task = tokio::spawn(timeout(LIFETIME, carried));
                connections.add(peer.ip(), progress, task.abort_handle());
            }
        });
        // A ledger that does not answer holds nobody up.
        runtime.shutdown_background();
    }
}

async fn carry(stream: TcpStream, tls: Option<TlsAcceptor>, progress: Progress, site: Arc<impl Site>) {
    match tls {
        None => one_request(stream, progress, site).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HEAD_TIME, tls.accept(stream)).await {
                one_request(stream, progress, site).await;
            }
        }
    }
}

/// Answers one request on a connection and closes it: a connection that waits for its next request takes the place of
/// another.
async fn one_request<S>(stream: S, progress: Progress, site: Arc<impl Site>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        answer(request.map(drop), progress.clone(), Arc::clone(&site))
    });
    // An error is the reader's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(head: Head, progress: Progress, site: Arc<impl Site>) -> Result<Answer, Infallible> {
    if let Some(refusal) = site.refused(&head) {
        return Ok(refusal);
    }
    progress.admitted();
    let page = tokio::task::spawn_blocking(move || site.page(&head)).await;
    Ok(page.unwrap_or_else(|_| {
        let mut failed = Response::new(Full::from("vmgate serve failed to make this page\n"));
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    }))
}
