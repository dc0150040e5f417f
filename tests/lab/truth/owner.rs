//! The owner of connections whose peer falls silent: one static program that runs in a lab guest or in a network
//! namespace. It keeps requests going on each connection, watches the kernel's own account of it (TCP_INFO), and
//! says on standard output what became of it. Times are this machine's monotonic clock, counted from the send of
//! the request that went unanswered. Plain rustc builds it; the few system calls are declared here.
//!
//! `owner to=IP:PORT seconds=S [connections=N] [every=MS] [user-timeout=MS]`
//!
//! Lines: `ready N`, then for each silence longer than 150 ms
//! `C answered silence=S first=S tries=N rto=S` or `C lost silence=S first=S tries=N rto=S error=NUMBER`,
//! where `first` is when the first retransmission by timer was seen, `tries` how many there were, and `rto` the
//! retransmission time-out before the silence.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

extern "C" {
    fn getsockopt(fd: i32, level: i32, name: i32, value: *mut u8, length: *mut u32) -> i32;
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const u8, length: u32) -> i32;
}

const IPPROTO_TCP: i32 = 6;
const TCP_INFO: i32 = 11;
const TCP_USER_TIMEOUT: i32 = 18;

struct Account {
    retransmits: u8,
    rto: f64,
}

fn account(stream: &TcpStream) -> Account {
    let mut info = [0_u8; 104];
    let mut length = 104_u32;
    // SAFETY: the buffer is as long as `length` says and outlives the call; the descriptor is the stream's own.
    let ok = unsafe { getsockopt(stream.as_raw_fd(), IPPROTO_TCP, TCP_INFO, info.as_mut_ptr(), &mut length) };
    let rto = u32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
    Account { retransmits: if ok == 0 { info[2] } else { 0 }, rto: f64::from(rto) / 1e6 }
}

fn converse(number: usize, mut stream: TcpStream, every: Duration, until: Instant, ready: &AtomicUsize, all: usize) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0_u8; 64];
    let mut rounds = 0;
    while Instant::now() < until {
        let sent = Instant::now();
        let mut rto = account(&stream).rto;
        let (mut first, mut tries) = (None, 0);
        let mut error = stream.write_all(b"are you there?\n").err();
        while error.is_none() {
            match stream.read(&mut buffer) {
                Ok(0) => error = Some(std::io::Error::from_raw_os_error(104)),
                Ok(_) => break,
                Err(e) if matches!(e.raw_os_error(), Some(11 | 4)) => {}
                Err(e) => error = Some(e),
            }
            let now = account(&stream);
            if now.retransmits > tries {
                first.get_or_insert(sent.elapsed());
                tries = now.retransmits;
            }
            if tries == 0 && now.rto > 0.0 {
                rto = now.rto;
            }
        }
        let silence = sent.elapsed().as_secs_f64();
        let first = first.map_or(-1.0, |first| first.as_secs_f64());
        if let Some(error) = error {
            let code = error.raw_os_error().unwrap_or(0);
            println!("{number} lost silence={silence:.3} first={first:.3} tries={tries} rto={rto:.3} error={code}");
            return;
        }
        if silence > 0.15 {
            println!("{number} answered silence={silence:.3} first={first:.3} tries={tries} rto={rto:.3}");
        }
        rounds += 1;
        // Enough answers that the estimate of the round trip, and with it the RTO, has settled.
        if rounds == 40 && ready.fetch_add(1, Ordering::SeqCst) + 1 == all {
            println!("ready {all}");
        }
        thread::sleep(if rounds < 40 { Duration::from_millis(10) } else { every });
    }
}

fn main() {
    let word = |key: &str| std::env::args().find_map(|word| word.strip_prefix(key).map(str::to_owned));
    let number = |key: &str| word(key).map(|text| text.parse::<u64>().expect("a number"));
    let to: SocketAddr = word("to=").expect("to=IP:PORT").parse().expect("IP:PORT");
    let until = Instant::now() + Duration::from_secs(number("seconds=").expect("seconds="));
    let every = Duration::from_millis(number("every=").unwrap_or(50));
    let all = usize::try_from(number("connections=").unwrap_or(1)).unwrap();
    let user_timeout = u32::try_from(number("user-timeout=").unwrap_or(0)).unwrap();
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        for connection in 0..all {
            let stream = TcpStream::connect(to).expect("connect");
            let value = user_timeout.to_ne_bytes();
            // SAFETY: the value is four bytes long, as the length says, and outlives the call.
            unsafe { setsockopt(stream.as_raw_fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, value.as_ptr(), 4) };
            let ready = &ready;
            scope.spawn(move || converse(connection, stream, every, until, ready, all));
        }
    });
    println!("done");
}
