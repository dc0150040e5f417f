//! Workloads of a lab guest: one static program, started by `rc` once for each workload. It reports on its standard output
//! (the serial console) what it has started, and its losses.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;
const PAGE: usize = 4096;

const USAGE: &str = "usage: workload idle
       workload dirty size=MIB rate=MIB_PER_SECOND pattern=random|hotcold|zipf|sweep|phases
       workload pattern size=MIB rate=MIB_PER_SECOND
       workload udp to=IP:PORT rate=PACKETS_PER_SECOND [size=BYTES] [listen=PORT] [group=IP]
       workload tcp to=IP:PORT [retries2=N] [every=MS]
       workload tcp-listen port=N
       workload sctp to=IP:PORT | listen=PORT
       workload hold size=MIB kind=locked|shared|huge|grow [rate=MIB_PER_SECOND]
       corosync -f token=MS [peers=IP/IP]";

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = if program.ends_with("corosync") {
        "corosync".to_owned()
    } else {
        words.next().unwrap_or_default()
    };
    let outcome = Settings::read(words).and_then(|settings| match name.as_str() {
        "idle" => idle(),
        "dirty" => dirty(&settings),
        "pattern" => pattern(&settings),
        "udp" => udp(&settings),
        "tcp" => tcp(&settings),
        "tcp-listen" => tcp_listen(&settings),
        "sctp" => sctp(&settings),
        "hold" => hold(&settings),
        "corosync" => corosync(&settings),
        other => Err(format!("no workload is called '{other}'\n{USAGE}")),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("workload {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The `key=value` words of a command line.
struct Settings(HashMap<String, String>);

impl Settings {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        words
            .filter(|word| !word.starts_with('-'))
            .map(|word| match word.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(format!("'{word}' is not key=value\n{USAGE}")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn optional<T: FromStr>(&self, key: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        self.0
            .get(key)
            .map(|text| {
                text.parse()
                    .map_err(|error| format!("{key}={text}: {error}"))
            })
            .transpose()
    }

    fn required<T: FromStr>(&self, key: &str) -> Result<T, String>
    where
        T::Err: Display,
    {
        self.optional(key)?
            .ok_or_else(|| format!("{key}= is missing\n{USAGE}"))
    }
}

fn idle() -> Outcome {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

#[derive(Clone, Copy)]
enum Pattern {
    /// Every page is as likely as any other.
    Random,
    /// Nine writes of ten go to a tenth of the pages.
    HotCold,
    /// The page of rank n is as likely as 1/n: a few are written all the time, most hardly ever.
    Zipf,
    /// One page after the other, again and again: the worst for pre-copy.
    Sweep,
    /// At random, for four seconds of eight; then nothing.
    Phases,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "hotcold" => Ok(Self::HotCold),
            "zipf" => Ok(Self::Zipf),
            "sweep" => Ok(Self::Sweep),
            "phases" => Ok(Self::Phases),
            _ => Err("neither random, hotcold, zipf, sweep nor phases".to_owned()),
        }
    }
}

/// Dirties pages at a steady rate. The number of pages is computed from the clock, so that a late wake-up is made up for; a
/// longer standstill (a migration's blackout) is not.
fn dirty(settings: &Settings) -> Outcome {
    let size: usize = settings.required("size")?;
    let rate: f64 = settings.required("rate")?;
    let pattern: Pattern = settings.optional("pattern")?.unwrap_or(Pattern::Random);
    if size == 0 || rate <= 0.0 {
        return Err("size and rate must be above zero".to_owned());
    }
    let pages = size * MIB / PAGE;
    let pages_per_second = rate * MIB as f64 / PAGE as f64;
    // From a page's beginning, so that a page of ours is one of the guest's.
    let mut memory = vec![1_u8; (pages + 1) * PAGE];
    let begin = memory.as_ptr().align_offset(PAGE);
    let memory = &mut memory[begin..begin + pages * PAGE];
    println!("workload dirty: {size} MiB at {rate} MiB/s");

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut next = 0;
    let mut value = 0_u64;
    let mut owed = 0.0;
    let began = Instant::now();
    let mut last = began;
    loop {
        thread::sleep(Duration::from_millis(10));
        let now = Instant::now();
        if matches!(pattern, Pattern::Phases) && (now - began).as_secs() % 8 >= 4 {
            last = now;
            continue;
        }
        owed += (now - last).as_secs_f64().min(0.5) * pages_per_second;
        last = now;
        while owed >= 1.0 {
            owed -= 1.0;
            let page = match pattern {
                Pattern::Random | Pattern::Phases => random.below(pages),
                Pattern::HotCold if random.below(10) > 0 => random.below((pages / 10).max(1)),
                Pattern::HotCold => random.below(pages),
                Pattern::Zipf => scatter(random.rank(pages), pages),
                Pattern::Sweep => {
                    next = (next + 1) % pages;
                    next
                }
            };
            value = value.wrapping_add(1);
            // Part of a page at both ends and in the middle: whoever compares pages or samples them sees the change.
            for offset in [0, PAGE / 2, PAGE - 8] {
                let at = page * PAGE + offset;
                memory[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            std::hint::black_box(&mut *memory);
        }
    }
}

/// File with the progress of `pattern`.
const PATTERN_STATE: &str = "/run/pattern";

/// Fills memory with a pattern that can be computed again: each word of a page from the page's number and its generation. Pages
/// are rewritten at a steady rate, and before that they are read; one after the other all of them are read as well. The
/// file says how many pages were read and how many differed from what was written: `read=N broken=N`.
fn pattern(settings: &Settings) -> Outcome {
    let size: usize = settings.required("size")?;
    let rate: f64 = settings.required("rate")?;
    if size == 0 || rate <= 0.0 {
        return Err("size and rate must be above zero".to_owned());
    }
    const WORDS: usize = PAGE / 8;
    let pages = size * MIB / PAGE;
    let mut memory = vec![0_u64; pages * WORDS];
    let mut generations = vec![0_u64; pages];
    let word = |page: usize, generation: u64, at: usize| {
        (page as u64 ^ generation << 32 ^ (at as u64) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let write = |memory: &mut [u64], page: usize, generation: u64| {
        for (at, slot) in memory[page * WORDS..][..WORDS].iter_mut().enumerate() {
            *slot = word(page, generation, at);
        }
    };
    let holds = |memory: &[u64], page: usize, generation: u64| {
        memory[page * WORDS..][..WORDS]
            .iter()
            .enumerate()
            .all(|(at, slot)| *slot == word(page, generation, at))
    };
    for page in 0..pages {
        write(&mut memory, page, 0);
    }
    println!("workload pattern: {size} MiB at {rate} MiB/s");

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let pages_per_second = rate * MIB as f64 / PAGE as f64;
    let (mut read, mut broken, mut next, mut owed) = (0_u64, 0_u64, 0, 0.0);
    let (mut last, mut told) = (Instant::now(), Instant::now());
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = Instant::now();
        owed += (now - last).as_secs_f64().min(0.5) * pages_per_second;
        last = now;
        while owed >= 1.0 {
            owed -= 1.0;
            next = (next + 1) % pages;
            let chosen = random.below(pages);
            for page in [next, chosen] {
                read += 1;
                if !holds(std::hint::black_box(&memory), page, generations[page]) {
                    broken += 1;
                    println!("workload pattern: page {page} is not what was written");
                    write(&mut memory, page, generations[page]);
                }
            }
            generations[chosen] += 1;
            write(&mut memory, chosen, generations[chosen]);
        }
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            fs::write(PATTERN_STATE, format!("read={read} broken={broken}\n"))
                .map_err(|error| format!("write {PATTERN_STATE}: {error}"))?;
        }
    }
}

/// Xorshift: the standard library has no random numbers, and these need only be spread.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// A rank from 0 on, the n-th about as likely as 1/n: the inverse of a logarithmic distribution.
    fn rank(&mut self, ranks: usize) -> usize {
        let unit = self.below(1 << 30) as f64 / (1_u64 << 30) as f64;
        ((ranks as f64).powf(unit) as usize - 1).min(ranks - 1)
    }
}

/// Position of a rank in memory: neighbours in rank are not neighbours in memory.
fn scatter(rank: usize, pages: usize) -> usize {
    (rank as u64).wrapping_mul(2_654_435_761) as usize % pages
}

/// Sends numbered datagrams; without `to` only listens. An unreachable peer is no reason to stop: UDP does not know.
fn udp(settings: &Settings) -> Outcome {
    let listener = match settings.optional::<u16>("listen")? {
        Some(port) => {
            let socket = bind_udp(port)?;
            if let Some(group) = settings.optional::<Ipv4Addr>("group")? {
                socket
                    .join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)
                    .map_err(|error| format!("join {group}: {error}"))?;
            }
            println!("workload udp: listening on {port}");
            Some(thread::spawn(move || drain(&socket)))
        }
        None => None,
    };
    if let Some(to) = settings.optional::<SocketAddr>("to")? {
        let rate: f64 = settings.required("rate")?;
        if rate <= 0.0 {
            return Err("rate must be above zero".to_owned());
        }
        let size: usize = settings.optional("size")?.unwrap_or(100);
        let socket = bind_udp(0)?;
        socket
            .connect(to)
            .map_err(|error| format!("connect to {to}: {error}"))?;
        println!("workload udp: {rate} packets/s to {to}");
        send_steadily(&socket, rate, size.clamp(8, 1400));
    }
    if let Some(listener) = listener {
        let _ = listener.join();
    }
    Ok(())
}

fn send_steadily(socket: &UdpSocket, rate: f64, size: usize) {
    let mut packet = vec![0_u8; size];
    let mut number = 0_u64;
    let mut owed = 0.0;
    let mut last = Instant::now();
    let nap = Duration::from_secs_f64((1.0 / rate).clamp(0.001, 1.0));
    loop {
        thread::sleep(nap);
        let now = Instant::now();
        owed += (now - last).as_secs_f64().min(0.5) * rate;
        last = now;
        while owed >= 1.0 {
            owed -= 1.0;
            number += 1;
            packet[..8].copy_from_slice(&number.to_be_bytes());
            let _ = socket.send(&packet);
        }
    }
}

fn bind_udp(port: u16) -> Result<UdpSocket, String> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("bind udp port {port}: {error}"))
}

fn drain(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        if socket.recv(&mut buffer).is_err() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Keeps one connection busy with small requests, each echoed by the peer, and reports its loss.
fn tcp(settings: &Settings) -> Outcome {
    let to: SocketAddr = settings.required("to")?;
    let every = Duration::from_millis(settings.optional("every")?.unwrap_or(200));
    if let Some(retries) = settings.optional::<u32>("retries2")? {
        fs::write("/proc/sys/net/ipv4/tcp_retries2", retries.to_string())
            .map_err(|error| format!("set tcp_retries2: {error}"))?;
    }
    let mut refused = false;
    loop {
        match TcpStream::connect(to) {
            Ok(stream) => {
                println!("workload tcp: connected to {to}");
                refused = false;
                let begin = Instant::now();
                let error = converse(stream, every);
                println!(
                    "workload tcp: connection to {to} lost after {:.1} s: {error}",
                    begin.elapsed().as_secs_f64()
                );
            }
            Err(error) if !refused => {
                println!("workload tcp: {to} does not answer yet: {error}");
                refused = true;
            }
            Err(_) => {}
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn converse(mut stream: TcpStream, every: Duration) -> std::io::Error {
    let mut buffer = [0_u8; 64];
    loop {
        if let Err(error) = stream.write_all(b"are you there?\n") {
            return error;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return ErrorKind::UnexpectedEof.into(),
            Ok(_) => thread::sleep(every),
            Err(error) => return error,
        }
    }
}

fn tcp_listen(settings: &Settings) -> Outcome {
    let port: u16 = settings.required("port")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("bind tcp port {port}: {error}"))?;
    println!("workload tcp-listen: listening on {port}");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0_u8; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Looks like corosync from outside: its name, its configuration file, its socket, a token to each peer.
fn corosync(settings: &Settings) -> Outcome {
    let token: u64 = settings.optional("token")?.unwrap_or(1000);
    let peers: Vec<Ipv4Addr> = match settings.optional::<String>("peers")? {
        Some(list) => list
            .split('/')
            .map(|peer| {
                peer.parse()
                    .map_err(|error| format!("peers={list}: {error}"))
            })
            .collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let file = "/etc/corosync/corosync.conf";
    fs::create_dir_all("/etc/corosync")
        .and_then(|()| fs::write(file, corosync_conf(token, &peers)))
        .map_err(|error| format!("write {file}: {error}"))?;
    let socket = bind_udp(5405)?;
    socket
        .set_read_timeout(Some(Duration::from_millis((token / 4).max(10))))
        .map_err(|error| error.to_string())?;
    println!("workload corosync: token {token} ms");
    let mut buffer = [0; 2048];
    loop {
        for peer in &peers {
            let _ = socket.send_to(b"token", (*peer, 5405));
        }
        if socket.recv(&mut buffer).is_ok() {
            thread::sleep(Duration::from_millis((token / 4).max(10)));
        }
    }
}

fn corosync_conf(token: u64, peers: &[Ipv4Addr]) -> String {
    let mut text = format!(
        "totem {{\n    version: 2\n    cluster_name: lab\n    transport: udpu\n    token: {token}\n}}\n\n\
         quorum {{\n    provider: corosync_votequorum\n}}\n\nnodelist {{\n"
    );
    let local = Ipv4Addr::LOCALHOST;
    for (index, address) in std::iter::once(&local).chain(peers).enumerate() {
        text += &format!(
            "    node {{\n        ring0_addr: {address}\n        nodeid: {}\n    }}\n",
            index + 1
        );
    }
    text + "}\n"
}

/// Functions of the C library, which the standard library links anyway.
mod c {
    use std::ffi::{c_int, c_void};

    #[repr(C)]
    pub struct SockaddrIn {
        pub family: u16,
        pub port: [u8; 2],
        pub address: [u8; 4],
        pub zero: [u8; 8],
    }

    extern "C" {
        pub fn mmap(
            addr: *mut c_void,
            length: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
        pub fn bind(fd: c_int, address: *const SockaddrIn, length: u32) -> c_int;
        pub fn connect(fd: c_int, address: *const SockaddrIn, length: u32) -> c_int;
        pub fn listen(fd: c_int, backlog: c_int) -> c_int;
    }
}

/// Holds memory of one kind, with all pages touched.
fn hold(settings: &Settings) -> Outcome {
    const READ_WRITE: i32 = 3;
    const ANONYMOUS: i32 = 0x20;
    const POPULATE: i32 = 0x8000;
    let size: usize = settings.required("size")?;
    let kind: String = settings.required("kind")?;
    let flags = match kind.as_str() {
        "locked" => 0x2 | 0x2000,
        "shared" => 0x1,
        "huge" => 0x2 | 0x40000,
        "grow" => return grow(size, settings.required("rate")?),
        _ => return Err(format!("kind={kind}: neither locked, shared, huge nor grow")),
    };
    // SAFETY: a new mapping of its own, that nothing else is said to be in.
    let memory = unsafe {
        c::mmap(
            std::ptr::null_mut(),
            size * MIB,
            READ_WRITE,
            flags | ANONYMOUS | POPULATE,
            -1,
            0,
        )
    };
    if memory as isize == -1 {
        return Err(format!("hold {size} MiB {kind}: {}", std::io::Error::last_os_error()));
    }
    println!("workload hold: {size} MiB {kind}");
    idle()
}

/// Allocates memory step by step and frees it, repeatedly: like a program that loads its data again and again.
fn grow(size: usize, rate: usize) -> Outcome {
    println!("workload hold: up to {size} MiB at {rate} MiB/s");
    loop {
        let mut held: Vec<Vec<u8>> = Vec::new();
        let begin = Instant::now();
        while held.len() < size {
            let owed = (begin.elapsed().as_secs_f64() * rate as f64) as usize;
            while held.len() < owed.min(size) {
                held.push(vec![1; MIB]);
            }
            thread::sleep(Duration::from_millis(10));
        }
        std::hint::black_box(&held);
    }
}

/// One SCTP association. The standard library has no SCTP, but such a socket of the TCP kind can be read and written.
fn sctp(settings: &Settings) -> Outcome {
    use std::os::fd::FromRawFd;
    const IPPROTO_SCTP: i32 = 132;
    // SAFETY: no pointers.
    let fd = unsafe { c::socket(2, 1, IPPROTO_SCTP) };
    let failed = |doing: &str| format!("sctp: {doing}: {}", std::io::Error::last_os_error());
    if fd < 0 {
        return Err(failed("socket"));
    }
    let name = |address: Ipv4Addr, port: u16| c::SockaddrIn {
        family: 2,
        port: port.to_be_bytes(),
        address: address.octets(),
        zero: [0; 8],
    };
    if let Some(port) = settings.optional::<u16>("listen")? {
        let name = name(Ipv4Addr::UNSPECIFIED, port);
        // SAFETY: the name is a sockaddr_in of the length given, and lives through the call.
        if unsafe { c::bind(fd, &name, 16) } != 0 || unsafe { c::listen(fd, 8) } != 0 {
            return Err(failed("listen"));
        }
        // SAFETY: the descriptor is ours; an SCTP socket of this kind accepts as a TCP one does.
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        println!("workload sctp: listening on {port}");
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
        return Ok(());
    }
    let to: std::net::SocketAddrV4 = settings.required("to")?;
    let name = name(*to.ip(), to.port());
    for _ in 0..60 {
        // SAFETY: as above.
        if unsafe { c::connect(fd, &name, 16) } == 0 {
            // SAFETY: the descriptor is ours, and nothing else closes it.
            let stream = unsafe { TcpStream::from_raw_fd(fd) };
            println!("workload sctp: connected to {to}");
            let error = converse(stream, Duration::from_secs(1));
            return Err(format!("association to {to} lost: {error}"));
        }
        thread::sleep(Duration::from_secs(1));
    }
    Err(failed("connect"))
}
