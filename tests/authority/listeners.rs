//! Promise 13: listeners and strangers. `vmgate serve` is run as people run it, and strangers do what they like.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use vmgate_ledger::{
    Campaign, Ledger,
    campaign::{CampaignEvent, CampaignMove},
    entry::Entry,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Memory that strangers may cost altogether, in KiB.
const MEMORY: u64 = 50 << 10;
/// Longest wait for something that happens at once when it happens.
const SOON: Duration = Duration::from_mins(1);

/// `vmgate serve` of a campaign.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Server {
    fn start(folder: TempDir, arguments: &[&str]) -> Self {
        if !folder.path().join("ledger.db").exists() {
            campaign(folder.path(), 1);
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmgate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--ledger", "ledger.db"])
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("VMGATE_CONFIG")
            .env_remove("VMGATE_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("vmgate serve says: {line}")).parse().unwrap();
        Self { child, address, folder }
    }

    /// Number after a name in the kernel's description of the server's process.
    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Answer to a request with the token.
    fn page(&self) -> String {
        let mut stream = self.connect();
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ledger with a campaign of so many moves, each to a host of its own.
fn campaign(folder: &Path, moves: usize) {
    let one = |number| CampaignMove {
        vm: format!("web{number}"),
        from: "qemu+ssh://hv/system".into(),
        to: format!("qemu+ssh://hv{number}/system"),
        wave: 0,
        exclusive: Vec::new(),
        expected_seconds: None,
    };
    let event = CampaignEvent::Opened {
        id: "CHG-7".into(),
        waves: vec!["all".into()],
        window_end: None,
        error_budget: None,
        moves: (0..moves).map(one).collect(),
    };
    let opened = Campaign { campaign: "sha256:7".into(), event };
    let ledger = Ledger::open(folder.join("ledger.db")).unwrap();
    ledger.append(&Entry::Campaign(opened)).unwrap();
}

/// A file that only its owner can read.
fn private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A server with a token, on whose page the campaign is seen.
fn with_token() -> Server {
    let folder = tempfile::tempdir().unwrap();
    private(folder.path(), "token", TOKEN);
    let server = Server::start(folder, &["--token-file", "token"]);
    assert!(server.page().contains("CHG-7"));
    server
}

/// True if the other end has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

/// Promise 13: 2,000 connections that never finish their request cost less than 50 MB and three threads, and deny nobody
/// the page.
#[test]
fn two_thousand_half_open_requests_cost_little_and_deny_nobody_the_page() {
    let server = with_token();
    let (memory, threads) = (server.status("VmRSS"), server.status("Threads"));
    let mut strangers = Vec::new();
    for number in 0..2000 {
        let mut stranger = server.connect();
        // Some say nothing, some begin, some fill all that a head may hold.
        let text = match number % 3 {
            0 => String::new(),
            1 => "GET / HTTP/1.1\r\nHost: x\r\n".to_owned(),
            _ => format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15 << 10)),
        };
        // Whoever was closed meanwhile cannot be written to.
        let _ = stranger.write_all(text.as_bytes());
        strangers.push(stranger);
        if number % 500 == 499 {
            let start = Instant::now();
            assert!(server.page().contains("CHG-7"));
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }
    let (more, now) = (server.status("VmHWM").saturating_sub(memory), server.status("Threads"));
    assert!(more < MEMORY, "{more} KiB more than the {memory} KiB before");
    assert!(now <= threads + 1 && now <= 4, "{now} threads");
    let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(open < 200, "{open} files and connections are open");
}

/// Promise 13: one header of 400 MiB without an end is cut off, with an answer, and costs less than 50 MB.
#[test]
fn an_endless_header_is_cut_off() {
    let server = with_token();
    let memory = server.status("VmRSS");
    let mut stranger = server.connect();
    let _ = stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ");
    let part = vec![b'a'; 1 << 20];
    let sent = (0..400).take_while(|_| stranger.write_all(&part).is_ok()).count();
    assert!(sent < 50, "{sent} MiB were taken");
    let more = server.status("VmHWM").saturating_sub(memory);
    assert!(more < MEMORY, "{more} KiB more");
    assert!(server.page().contains("CHG-7"));
    // One that is only a little too large reads why.
    for header in [format!("X: {}", "a".repeat(20 << 10)), "X: a\r\n".repeat(100)] {
        let mut reader = server.connect();
        reader.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 431");
    }
}

/// Promise 13: who sends a request byte by byte, or none, is closed after a set time, and so is everybody after an answer.
#[test]
fn who_takes_for_ever_is_closed() {
    let server = with_token();
    let start = Instant::now();
    let (mut silent, mut slow) = (server.connect(), server.connect());
    slow.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while !is_closed(&mut slow) {
        let _ = slow.write_all(b"a");
        assert!(start.elapsed() < SOON, "who sends byte by byte stays");
    }
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(is_closed(&mut silent), "who says nothing stays");
    // After an answer too: nobody keeps a connection for later.
    let mut answered = server.connect();
    answered.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(is_closed(&mut answered));
}

/// Promise 13: who has the token and does not read what was asked for is closed after a set time.
#[test]
fn who_does_not_read_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    private(folder.path(), "token", TOKEN);
    campaign(folder.path(), 10_000);
    let server = Server::start(folder, &["--token-file", "token"]);
    let mut reader = server.connect();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    reader.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 12];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(String::from_utf8_lossy(&first), "HTTP/1.1 200");
    let sockets = || {
        let files = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
        let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let (with_reader, start) = (sockets(), Instant::now());
    while sockets() >= with_reader {
        assert!(start.elapsed() < SOON, "who does not read stays");
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"\n"), "the whole answer was taken: {} bytes", rest.len());
}

/// Promise 13: without the token nothing else of a request is looked at, whatever its method, path and body.
#[test]
fn a_stranger_learns_nothing_but_that_a_token_is_needed() {
    let server = with_token();
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /no/such/page HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdee\r\n\r\n",
    ] {
        let mut stranger = server.connect();
        stranger.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stranger.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 401", "{request}");
        assert!(is_closed(&mut stranger), "{request}");
    }
}

/// Promise 13: with a certificate the page is served over TLS only, with the same limits; a key that others can read is
/// refused.
#[test]
fn with_a_certificate_the_page_is_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let key = folder.path().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let serve =
        ["serve", "--listen", "127.0.0.1:0", "--ledger", "ledger.db", "--tls-cert", "cert.pem", "--tls-key"];
    campaign(folder.path(), 1);
    let refused = crate::said::vmgate_in(folder.path(), &[&serve[..], &["key.pem"]].concat()).exits(2);
    assert!(refused.stderr.contains("chmod 600") && refused.stderr.contains("key.pem"), "{}", refused.stderr);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let server = Server::start(folder, &["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let certificate = server.folder.path().join("cert.pem");
    let ask = |host: &str| {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile"])
            .arg(&certificate)
            .args(["-connect", &server.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        let _ = client.wait();
        answer
    };
    let page = ask("localhost");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("CHG-7"), "{page}");
    assert!(ask("evil.example").starts_with("HTTP/1.1 403"));
    // Without TLS there is no answer, and half a handshake keeps nobody out.
    let mut plain = server.connect();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let memory = server.status("VmRSS");
    let _strangers: Vec<_> = (0..2000).map(|_| server.connect()).collect();
    assert!(ask("localhost").contains("CHG-7"));
    let more = server.status("VmHWM").saturating_sub(memory);
    assert!(more < MEMORY, "{more} KiB more");
}
