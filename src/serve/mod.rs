//! A read-only page and the metrics of a campaign, over HTTP.
//!
//! On the loopback address only, unless a token is asked for. Nothing can be changed through it.

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

pub use self::{board::Board, metrics::metrics, page::page};
use vmgate_execute::campaign::uptime_seconds;
use vmgate_ledger::Ledger;

/// Shortest token: what is shorter can be tried out.
const TOKEN_LENGTH: usize = 16;
/// Requests that are answered at once.
const WORKERS: usize = 4;
/// How soon the end is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// What keeps the page from being served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Others could read it.
    #[error(
        "{0} is reached from other machines: name a file with a token (--token-file), or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// The token is none.
    #[error("the token has {0} characters: {TOKEN_LENGTH} are wanted, such as `openssl rand -hex 16` gives")]
    ShortToken(usize),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, String),
}

/// Who may read.
enum Access {
    /// Whoever is on this machine.
    Local,
    /// Whoever has the token, by its digest, so that comparing takes as long for any wrong one.
    Token([u8; 32]),
}

/// A page that waits for readers.
pub struct Page {
    server: Server,
    access: Access,
    ledger: Ledger,
    board: Mutex<Board>,
}

impl Page {
    /// Listens at an address, for a campaign by its digest. With a token, only whoever has it may read.
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
            None => return Err(ServeError::Open(address)),
        };
        let server = Server::http(address).map_err(|error| ServeError::Listen(address, error.to_string()))?;
        Ok(Self { server, access, ledger, board: Mutex::new(Board::new(campaign)) })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.server_addr().to_ip()
    }

    /// Answers until `stop` says so.
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
            let answer = Answer::plain(405, "this is only to be read");
            return Answer { more: Some(("Allow", "GET, HEAD")), ..answer };
        }
        let path = request.url().split('?').next().unwrap_or_default();
        let shown = match path {
            "/" => self.show("text/html; charset=utf-8", |board| {
                page(board, Timestamp::now()).map_err(|error| error.to_string())
            }),
            "/metrics" => self.show("text/plain; version=0.0.4; charset=utf-8", |board| Ok(metrics(board))),
            _ => Ok(Answer::plain(404, "here are / and /metrics")),
        };
        shown.unwrap_or_else(|why| Answer::plain(503, &why))
    }

    /// The campaign as it is now.
    fn show(
        &self,
        kind: &'static str,
        render: impl Fn(&Board) -> Result<String, String>,
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
            // A page elsewhere whose name was made to lead here is a stranger, whatever the browser thinks.
            Self::Local if header("Host").is_some_and(is_local) => Ok(()),
            Self::Local => Err(Answer::plain(403, "ask for it by a loopback address or as localhost")),
            Self::Token(digest)
                if header("Authorization")
                    .and_then(given)
                    .is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == *digest) =>
            {
                Ok(())
            }
            Self::Token(_) => Err(Answer {
                more: Some(("WWW-Authenticate", "Basic realm=\"vmgate: any name, the token as password\"")),
                ..Answer::plain(401, "it wants the token: as a bearer token, or as the password of any user")
            }),
        }
    }
}

/// Whether a Host header names this machine by its loopback.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token of an Authorization header: a bearer token, or the password of basic authentication.
fn given(header: &str) -> Option<String> {
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

    /// What a page over an empty campaign answers to a request.
    fn answered(token: Option<&str>, request: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        let page = Page::open("127.0.0.1:0".parse().unwrap(), token, ledger, "sha256:0").unwrap();
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
            Page::open(address.parse().unwrap(), token, ledger, "sha256:0").err().unwrap().to_string()
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
        assert_eq!(given("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(given("basic b3BzOmFiYw==").as_deref(), Some("abc"));
        for nothing in ["", "abc", "Basic", "Basic !!", "Basic b3Bz", "Digest abc"] {
            assert_eq!(given(nothing), None, "{nothing}");
        }
    }
}
