//! Measured on the network: goodput between the hosts, and the guest's heartbeat as the operator sees it.
//!
//! Parts that must run in a namespace of the lab are this program again, started there by `ip netns exec`.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Outcome, lab};

/// Port and interval of heartbeats: one each 2.5 ms.
pub(crate) const HEARTBEAT_PORT: u16 = 9911;
pub(crate) const HEARTBEAT_RATE: u32 = 400;
const GOODPUT_PORT: u16 = 9912;

fn here_in(namespace: &str, arguments: &[&str]) -> Outcome<Child> {
    let child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// Listens for heartbeats in the operator's namespace.
pub(crate) struct Heartbeat(Child);

impl Heartbeat {
    pub(crate) fn listen() -> Outcome<Self> {
        here_in(&lab::namespace("op")?, &["heartbeat", &HEARTBEAT_PORT.to_string()]).map(Self)
    }

    /// Times between two heartbeats that are longer than usual, less the usual: when each ended, in seconds since 1970,
    /// and its length.
    pub(crate) fn silences(mut self) -> Outcome<Vec<(f64, f64)>> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
        self.0.wait()?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Silences end that much before and after the command at the most which waits for the migration.
const BEFORE_SECONDS: f64 = 1.0;
const AFTER_SECONDS: f64 = 0.5;

/// The silence of the switch: the longest that ended when the migration did. One of a throttled guest, earlier on, may be
/// longer. Where none did, the longest of all.
pub(crate) fn around(silences: &[(f64, f64)], ended: f64) -> Option<f64> {
    let longest = |of: &mut dyn Iterator<Item = &(f64, f64)>| of.map(|(_, length)| *length).reduce(f64::max);
    let near = |(end, _): &&(f64, f64)| (ended - BEFORE_SECONDS..ended + AFTER_SECONDS).contains(end);
    longest(&mut silences.iter().filter(near)).or_else(|| longest(&mut silences.iter()))
}

/// Prints silences of more than 10 ms as JSON when standard input ends. The kernel's own time of arrival counts: on a busy
/// machine this program may run late.
pub(crate) fn heartbeat(port: &str) -> Outcome<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port.parse()?))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a live int of the size given, and the descriptor is the socket's.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let ended = thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut arrivals: Vec<f64> = Vec::new();
    while !ended.is_finished() {
        arrivals.extend(arrival(&socket));
    }
    let mut gaps: Vec<f64> =
        arrivals.iter().zip(arrivals.iter().skip(1)).map(|(one, next)| next - one).collect();
    gaps.sort_by(f64::total_cmp);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
    let between = arrivals.iter().zip(arrivals.iter().skip(1));
    let silences: Vec<(f64, f64)> =
        between.map(|(one, next)| (*next, next - one - usual)).filter(|(_, length)| *length > 0.01).collect();
    println!("{}", serde_json::to_string(&silences)?);
    Ok(())
}

/// Time of arrival of the next datagram, in seconds; `None` if none comes.
fn arrival(socket: &UdpSocket) -> Option<f64> {
    let mut data = [0_u8; 256];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: msghdr is plain pointers and numbers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all pointers of the message are to live buffers of the lengths given.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) } < 0 {
        return None;
    }
    // SAFETY: the kernel filled the message; the header lies in `control`, and is null where there is none.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() }?;
    if header.cmsg_type != libc::SCM_TIMESTAMPNS {
        return None;
    }
    // SAFETY: a header of this type is followed by a timespec, which may lie unaligned.
    let time = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// Measurement of one TCP stream on the migration link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goodput {
    pub(crate) bytes_per_second: f64,
    /// Unsent and unacknowledged bytes that the sender's socket held.
    pub(crate) queue_bytes: f64,
}

/// Measures one TCP stream from a host to another.
pub(crate) fn goodput(from: &str, to: &str) -> Outcome<Goodput> {
    let address = env::var(format!("VMGATE_LAB_MIGRATE_{}", to.to_uppercase()))?;
    let sink = here_in(&lab::namespace(to)?, &["sink", &GOODPUT_PORT.to_string()])?;
    thread::sleep(Duration::from_millis(200));
    let source = here_in(&lab::namespace(from)?, &["source", &format!("{address}:{GOODPUT_PORT}")])?;
    Ok(Goodput { bytes_per_second: said(sink)?, queue_bytes: said(source)? })
}

/// The number that a program of ours printed.
fn said(mut child: Child) -> Outcome<f64> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    child.wait()?;
    Ok(line.trim().parse()?)
}

/// Prints the goodput of the one stream it takes: between its first half second and its end.
pub(crate) fn sink(port: &str) -> Outcome<()> {
    let (mut stream, _) = TcpListener::bind(("0.0.0.0", port.parse::<u16>()?))?.accept()?;
    let mut buffer = vec![0; 1 << 18];
    let began = Instant::now();
    let mut counted: Option<(Instant, u64)> = None;
    let mut last = began;
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        last = Instant::now();
        match &mut counted {
            None if began.elapsed() > Duration::from_millis(500) => counted = Some((last, 0)),
            None => {}
            Some((_, bytes)) => *bytes += got as u64,
        }
    }
    let (since, bytes) = counted.ok_or("the stream was too short")?;
    println!("{}", bytes as f64 / (last - since).as_secs_f64());
    Ok(())
}

/// Sends for two seconds, and prints the middle of what was queued in the second of them.
pub(crate) fn source(address: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    let buffer = vec![7; 1 << 18];
    let began = Instant::now();
    let mut queued: Vec<i32> = Vec::new();
    while began.elapsed() < Duration::from_secs(2) {
        stream.write_all(&buffer)?;
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is the stream's, and the pointer is to a live int, which is what TIOCOUTQ fills.
        let asked = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if asked == 0 && began.elapsed() > Duration::from_secs(1) {
            queued.push(bytes);
        }
    }
    queued.sort_unstable();
    println!("{}", queued.get(queued.len() / 2).copied().unwrap_or(0));
    Ok(())
}
