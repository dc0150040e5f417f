//! HTTP server for the checks of a site and a campaign: a read-only page, and metrics.
//!
//! On the loopback address only, unless a token is required. Nothing can be changed through it, and strangers can ask for
//! little: see [`listener`].

mod access;
mod checks;
mod comparison;
mod connections;
mod dashboard;
mod listener;
mod metrics;
mod page;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
        WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};
use jiff::Timestamp;
use thiserror::Error;
use vmgate_execute::campaign::uptime_seconds;
use vmgate_ledger::Ledger;

use self::{
    access::{Access, Refusal},
    listener::{Answer, Head, Listener, Site},
};
pub use self::{
    dashboard::Dashboard,
    metrics::metrics,
    page::page,
    tls::{Certificate, CertificateError},
};

/// Shortest token, in characters: a shorter one could be guessed.
const TOKEN_LENGTH: usize = 16;

const TEXT: &str = "text/plain; charset=utf-8";

/// Error at the start of the server.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address is not loopback, and no token is required.
    #[error(
        "{0} can be reached from other machines: give a file with a token (--token-file), or listen on 127.0.0.1"
    )]
    NoToken(SocketAddr),
    /// The token is too short.
    #[error(
        "the token has {0} characters, but {TOKEN_LENGTH} are needed: create one with `openssl rand -hex 16`"
    )]
    ShortToken(usize),
    /// The server cannot listen on the address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, String),
}

/// HTTP server for the page and metrics of one campaign.
pub struct StatusServer {
    listener: Listener,
    site: Arc<Campaign>,
    scheme: &'static str,
}

impl StatusServer {
    /// Listens on an address, for a campaign by its digest. With a token, only readers who send the token may read; with a
    /// certificate, they read over TLS.
    pub fn open(
        address: SocketAddr,
        token: Option<&str>,
        certificate: Option<&Certificate>,
        ledger: Ledger,
        campaign: &str,
    ) -> Result<Self, ServeError> {
        let access = match token {
            Some(token) if token.len() < TOKEN_LENGTH => return Err(ServeError::ShortToken(token.len())),
            Some(token) => Access::with_token(token),
            None if address.ip().is_loopback() => Access::Local,
            None => return Err(ServeError::NoToken(address)),
        };
        let listener = Listener::open(address, certificate.map(Certificate::acceptor))
            .map_err(|error| ServeError::Listen(address, error.to_string()))?;
        let site = Arc::new(Campaign { access, ledger, board: Mutex::new(Dashboard::new(campaign)) });
        Ok(Self { listener, site, scheme: if certificate.is_some() { "https" } else { "http" } })
    }

    /// URL of the page, by the address that the server listens on.
    pub fn url(&self) -> Option<String> {
        self.listener.address().map(|address| format!("{}://{address}/", self.scheme))
    }

    /// Answers requests until `stop` returns true.
    pub fn serve(self, stop: &impl Fn() -> bool) {
        self.listener.serve(stop, &self.site);
    }
}

/// The page and the metrics of one campaign.
struct Campaign {
    access: Access,
    ledger: Ledger,
    board: Mutex<Dashboard>,
}

impl Site for Campaign {
    fn refused(&self, head: &Head) -> Option<Answer> {
        // First of all, and before anything else of the request is looked at.
        if let Err(refusal) = self.access.check(head.headers()) {
            return Some(refused(refusal));
        }
        if !matches!(*head.method(), Method::GET | Method::HEAD) {
            let mut answer =
                answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "this page is read-only\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(answer);
        }
        let known = matches!(head.uri().path(), "/" | "/metrics");
        (!known).then(|| {
            answer(StatusCode::NOT_FOUND, TEXT, "not found: the pages are / and /metrics\n".to_owned())
        })
    }

    fn page(&self, head: &Head) -> Answer {
        let shown = if head.uri().path() == "/metrics" {
            self.show("text/plain; version=0.0.4; charset=utf-8", |board| Ok(metrics(board)))
        } else {
            self.show("text/html; charset=utf-8", |board| {
                page(board, Timestamp::now()).map_err(|error| error.to_string())
            })
        };
        shown.unwrap_or_else(|why| answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")))
    }
}

impl Campaign {
    /// Renders the present state of the campaign.
    fn show(
        &self,
        kind: &'static str,
        render: impl Fn(&Dashboard) -> Result<String, String>,
    ) -> Result<Answer, String> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.ledger.records(&board.unread()).map_err(|error| error.to_string())?;
        board.read(&records, uptime_seconds());
        Ok(answer(StatusCode::OK, kind, render(&board)?))
    }
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::NotLocal => {
            answer(StatusCode::FORBIDDEN, TEXT, "use a loopback address or localhost in the URL\n".to_owned())
        }
        Refusal::NoToken => {
            let text =
                "the token is required: as a bearer token, or as the password of any user\n".to_owned();
            let mut answer = answer(StatusCode::UNAUTHORIZED, TEXT, text);
            let ask = HeaderValue::from_static("Basic realm=\"vmgate: any name, the token as password\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, ask);
            answer
        }
    }
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
    ];
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    /// Answer of a server of an empty campaign to a request.
    fn answered(token: Option<&str>, request: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        let page =
            StatusServer::open("127.0.0.1:0".parse().unwrap(), token, None, ledger, "sha256:0").unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let address = page.listener.address().unwrap();
            scope.spawn(|| page.serve(&|| stop.load(Ordering::Relaxed)));
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            stop.store(true, Ordering::Relaxed);
            read.unwrap();
            answer
        })
    }

    #[test]
    fn whoever_is_here_reads_and_changes_nothing() {
        let page = answered(None, "GET / HTTP/1.1\r\nHost: localhost");
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("No campaign and no check"), "{page}");
        let metrics = answered(None, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:8480");
        assert!(metrics.contains("vmgate_campaign_moves{change=\"\",state=\"done\"} 0"), "{metrics}");
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: evil.example", "403"),
            ("GET / HTTP/1.0", "403"),
            ("POST / HTTP/1.1\r\nHost: localhost", "405"),
            ("GET /../etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ] {
            let answer = answered(None, request);
            assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
        }
    }

    #[test]
    fn with_a_token_nobody_reads_without_it() {
        const TOKEN: &str = "0123456789abcdef";
        let ask =
            |header: &str| answered(Some(TOKEN), &format!("GET / HTTP/1.1\r\nHost: far.example\r\n{header}"));
        assert!(ask("Authorization: Bearer 0123456789abcdef").starts_with("HTTP/1.1 200"));
        for wrong in ["Accept: */*", "Authorization: Bearer 0123456789abcdee", "Authorization: Basic Og=="] {
            let answer = ask(wrong);
            assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate"), "{answer}");
        }
    }

    #[test]
    fn nothing_is_open_to_others_by_mistake() {
        let open = |address: &str, token| {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
            StatusServer::open(address.parse().unwrap(), token, None, ledger, "sha256:0")
                .err()
                .unwrap()
                .to_string()
        };
        assert!(open("0.0.0.0:0", None).contains("--token-file"));
        assert!(open("0.0.0.0:0", Some("short")).contains("has 5 characters"));
        assert!(open("203.0.113.7:1", Some("0123456789abcdef")).contains("203.0.113.7:1"));
    }
}
