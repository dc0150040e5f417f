//! HTTP server for a campaign: a read-only page, and metrics.
//!
//! On the loopback address only, unless a token is required. Nothing can be changed through it.

mod dashboard;
mod metrics;
mod page;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tiny_http::{Header, Method, Request, Response, Server};
use vmgate_execute::campaign::uptime_seconds;
use vmgate_ledger::Ledger;

pub use self::{dashboard::Dashboard, metrics::metrics, page::page};

/// Shortest token, in characters: a shorter one could be guessed.
const TOKEN_LENGTH: usize = 16;
/// Number of concurrent requests.
const WORKERS: usize = 4;
/// Time between two checks for the end.
const LOOK: Duration = Duration::from_millis(200);

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

/// Access control of the server.
enum Access {
    /// Only readers on this machine.
    Local,
    /// Only readers with the token, by its digest, so that the time of a comparison reveals nothing.
    Token([u8; 32]),
}

/// HTTP server for the page and metrics of one campaign.
pub struct StatusServer {
    server: Server,
    access: Access,
    ledger: Ledger,
    board: Mutex<Dashboard>,
}

impl StatusServer {
    /// Listens on an address, for a campaign by its digest. With a token, only readers who send the token may read.
    pub fn open(
        address: SocketAddr,
        token: Option<&str>,
        ledger: Ledger,
        campaign: &str,
    ) -> Result<Self, ServeError> {
        let access = match token {
            Some(token) if token.len() < TOKEN_LENGTH => return Err(ServeError::ShortToken(token.len())),
            Some(token) => Access::Token(Sha256::digest(token).into()),
            None if address.ip().is_loopback() => Access::Local,
            None => return Err(ServeError::NoToken(address)),
        };
        let server = Server::http(address).map_err(|error| ServeError::Listen(address, error.to_string()))?;
        Ok(Self { server, access, ledger, board: Mutex::new(Dashboard::new(campaign)) })
    }

    /// Address that the server listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.server_addr().to_ip()
    }

    /// Answers requests until `stop` returns true.
    pub fn serve(&self, stop: &(impl Fn() -> bool + Sync)) {
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while !stop() {
                        if let Ok(Some(request)) = self.server.recv_timeout(LOOK) {
                            self.answer(request);
                        }
                    }
                });
            }
        });
    }

    fn answer(&self, request: Request) {
        let Answer { status, kind, text, more } = self.answer_to(&request);
        let security = [
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
        ];
        let mut response = Response::from_string(text).with_status_code(status);
        for (name, value) in security.into_iter().chain(more) {
            if let Ok(header) = Header::from_bytes(name, value) {
                response = response.with_header(header);
            }
        }
        // A reader that has gone needs no answer.
        let _ = request.respond(response);
    }

    fn answer_to(&self, request: &Request) -> Answer {
        if let Err(refused) = self.access.allows(request) {
            return refused;
        }
        if !matches!(request.method(), Method::Get | Method::Head) {
            let answer = Answer::plain(405, "this page is read-only");
            return Answer { more: Some(("Allow", "GET, HEAD")), ..answer };
        }
        let path = request.url().split('?').next().unwrap_or_default();
        let shown = match path {
            "/" => self.show("text/html; charset=utf-8", |board| {
                page(board, Timestamp::now()).map_err(|error| error.to_string())
            }),
            "/metrics" => self.show("text/plain; version=0.0.4; charset=utf-8", |board| Ok(metrics(board))),
            _ => Ok(Answer::plain(404, "not found: the pages are / and /metrics")),
        };
        shown.unwrap_or_else(|why| Answer::plain(503, &why))
    }

    /// Renders the present state of the campaign.
    fn show(
        &self,
        kind: &'static str,
        render: impl Fn(&Dashboard) -> Result<String, String>,
    ) -> Result<Answer, String> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.ledger.records(&board.unread()).map_err(|error| error.to_string())?;
        board.read(&records, uptime_seconds());
        Ok(Answer { status: 200, kind, text: render(&board)?, more: None })
    }
}

struct Answer {
    status: u16,
    kind: &'static str,
    text: String,
    more: Option<(&'static str, &'static str)>,
}

impl Answer {
    fn plain(status: u16, text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", text: format!("{text}\n"), more: None }
    }
}

impl Access {
    fn allows(&self, request: &Request) -> Result<(), Answer> {
        let header = |name: &'static str| {
            request
                .headers()
                .iter()
                .find(|header| header.field.equiv(name))
                .map(|header| header.value.as_str())
        };
        match self {
            // Protection from DNS rebinding: the Host header of a foreign page is not a loopback name.
            Self::Local if header("Host").is_some_and(is_local) => Ok(()),
            Self::Local => Err(Answer::plain(403, "use a loopback address or localhost in the URL")),
            Self::Token(digest)
                if header("Authorization")
                    .and_then(token_from)
                    .is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == *digest) =>
            {
                Ok(())
            }
            Self::Token(_) => Err(Answer {
                more: Some(("WWW-Authenticate", "Basic realm=\"vmgate: any name, the token as password\"")),
                ..Answer::plain(
                    401,
                    "the token is required: as a bearer token, or as the password of any user",
                )
            }),
        }
    }
}

/// True if a Host header names a loopback address or localhost.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token of an Authorization header: a bearer token, or the password of basic authentication.
fn token_from(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded =
        scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest.trim()).ok())??;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
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
        let page = StatusServer::open("127.0.0.1:0".parse().unwrap(), token, ledger, "sha256:0").unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| page.serve(&|| stop.load(Ordering::Relaxed)));
            let mut stream = TcpStream::connect(page.address().unwrap()).unwrap();
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
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("0 of 0 moves done"), "{page}");
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
            assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("WWW-Authenticate"), "{answer}");
        }
    }

    #[test]
    fn nothing_is_open_to_others_by_mistake() {
        let open = |address: &str, token| {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
            StatusServer::open(address.parse().unwrap(), token, ledger, "sha256:0").err().unwrap().to_string()
        };
        assert!(open("0.0.0.0:0", None).contains("--token-file"));
        assert!(open("0.0.0.0:0", Some("short")).contains("has 5 characters"));
        assert!(open("203.0.113.7:1", Some("0123456789abcdef")).contains("203.0.113.7:1"));
    }

    #[test]
    fn only_the_loopback_is_this_machine() {
        for host in ["localhost", "LOCALHOST:8480", "127.0.0.1:8480", "127.1.2.3", "[::1]:8480", "[::1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:8480",
            "10.0.0.1:8480",
            "[2001:db8::1]:80",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        assert_eq!(token_from("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token_from("basic b3BzOmFiYw==").as_deref(), Some("abc"));
        for nothing in ["", "abc", "Basic", "Basic !!", "Basic b3Bz", "Digest abc"] {
            assert_eq!(token_from(nothing), None, "{nothing}");
        }
    }
}
