//! The captures that are compared, each with its packet count and its cost.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pnet::{
    datalink::{self, Channel, NetworkInterface},
    packet::{Packet, ethernet::EthernetPacket, ipv4::Ipv4Packet, udp::UdpPacket},
};
use vmgate_probe::flows::{Limits, Method, watch};

use crate::generator::Generator;

const INTERFACE: &str = "tap0";

/// Capture method.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watcher {
    Kernel,
    Captured,
    PnetFiltered,
    Pnet,
    Tcpdump,
    /// A packet socket whose filter refuses everything: the minimum cost of any watcher.
    Refusing,
}

/// Result of one run.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    sent: u64,
    took: Duration,
    counted: u64,
    /// Processor time of the watcher.
    busy: Duration,
}

impl Run {
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.counted)
    }

    #[allow(clippy::cast_precision_loss, reason = "a table")]
    pub(crate) fn lost_percent(&self) -> f64 {
        100.0 * self.lost() as f64 / self.sent as f64
    }

    #[allow(clippy::cast_precision_loss, reason = "a table")]
    pub(crate) fn sent_per_second(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn watcher_percent(&self) -> f64 {
        100.0 * self.busy.as_secs_f64() / self.took.as_secs_f64()
    }
}

/// Outcome of a watcher: packets counted, processor time.
type Counted = (u64, Duration);

pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// True if a packet socket of this namespace receives every protocol, as those of tcpdump and pnet do.
fn somebody_listens() -> bool {
    let sockets = fs::read_to_string("/proc/net/packet").unwrap();
    sockets.lines().any(|line| line.split_whitespace().nth(3) == Some("0003"))
}

fn wait_for_listener() {
    for _ in 0..2000 {
        if somebody_listens() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the watcher never began");
}

fn interface() -> NetworkInterface {
    datalink::interfaces().into_iter().find(|one| one.name == INTERFACE).unwrap()
}

impl Watcher {
    /// The methods that count packets.
    pub(crate) const COUNTING: [Self; 5] =
        [Self::Kernel, Self::Captured, Self::PnetFiltered, Self::Pnet, Self::Tcpdump];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Kernel => "vmgate, kernel-counted (eBPF)",
            Self::Captured => "vmgate, captured (cBPF, ring, own parsing)",
            Self::PnetFiltered => "pnet datalink on a socket with cBPF and 16 MiB",
            Self::Pnet => "pnet datalink, plain",
            Self::Refusing => "a packet socket that refuses everything",
            Self::Tcpdump => "tcpdump -w /dev/null, 16 MiB",
        }
    }

    /// Watches while packets are sent at the rate.
    pub(crate) fn run(self, generator: &Generator, rate: u32, time: Duration) -> Run {
        let ((sent, took), (counted, busy)) = self.around(time, || generator.paced(rate, time));
        Run { sent, took, counted, busy }
    }

    /// Watches while packets are sent as fast as possible; nanoseconds a packet, infinite where the
    /// watch ended before the sending.
    pub(crate) fn burst(self, generator: &Generator, packets: u32) -> f64 {
        let longest = Duration::from_nanos(u64::from(packets) * 20_000);
        let ((cost, watched), _) = self.around(longest, || (generator.burst(packets), somebody_listens()));
        if watched { cost } else { f64::INFINITY }
    }

    fn around<T>(self, time: Duration, traffic: impl FnOnce() -> T) -> (T, Counted) {
        let window = time + Duration::from_millis(500);
        match self {
            Self::Kernel => with_thread(traffic, |_| vmgate(Method::KernelCounted, window)),
            Self::Captured => with_thread(traffic, |_| vmgate(Method::Captured, window)),
            Self::PnetFiltered => with_thread(traffic, |stop| pnet(Some(filtered_socket(512)), stop)),
            Self::Refusing => with_thread(traffic, |stop| pnet(Some(filtered_socket(0)), stop)),
            Self::Pnet => with_thread(traffic, |stop| pnet(None, stop)),
            Self::Tcpdump => tcpdump(traffic),
        }
    }
}

fn with_thread<T>(
    traffic: impl FnOnce() -> T,
    watcher: impl FnOnce(&AtomicBool) -> u64 + Send,
) -> (T, Counted) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let before = thread_time();
            let counted = watcher(&stop);
            (counted, thread_time().saturating_sub(before))
        });
        wait_for_listener();
        let result = traffic();
        stop.store(true, Ordering::Relaxed);
        (result, watching.join().unwrap())
    })
}

fn vmgate(method: Method, window: Duration) -> u64 {
    let limits = Limits { method: Some(method), max_processor_share: 1.0, ..Limits::default() };
    let capture = watch(INTERFACE, window, &limits).unwrap();
    let counted = capture.flows.iter().map(|flow| flow.packets).sum();
    assert!(capture.complete || capture.drops > 0, "{:?}", capture.holes());
    counted
}

/// Typical use of pnet: read, parse, count.
fn pnet(socket_fd: Option<i32>, stop: &AtomicBool) -> u64 {
    let config = datalink::Config {
        read_timeout: Some(Duration::from_millis(100)),
        socket_fd,
        promiscuous: false,
        ..datalink::Config::default()
    };
    let Ok(Channel::Ethernet(_, mut receiver)) = datalink::channel(&interface(), config) else { panic!() };
    let mut counted = 0;
    loop {
        match receiver.next() {
            Ok(frame) => counted += u64::from(is_udp(frame)),
            Err(_) if stop.load(Ordering::Relaxed) => return counted,
            Err(_) => {}
        }
    }
}

fn is_udp(frame: &[u8]) -> bool {
    let read = || {
        let ethernet = EthernetPacket::new(frame)?;
        let ip = Ipv4Packet::new(ethernet.payload())?;
        UdpPacket::new(ip.payload()).map(|udp| udp.get_destination() == 6000)
    };
    read().unwrap_or(false)
}

/// `snap`: how much of a UDP packet it lets through.
fn filtered_socket(snap: u32) -> i32 {
    let jump = |k, jf| libc::sock_filter { code: 0x15, jt: 0, jf, k };
    let mut code = [
        libc::sock_filter { code: 0x28, jt: 0, jf: 0, k: 12 },
        jump(0x0800, 3),
        libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: 23 },
        jump(17, 1),
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: snap },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
    ];
    let program = libc::sock_fprog { len: 6, filter: code.as_mut_ptr() };
    let buffer = 16_i32 << 20;
    // SAFETY: both values are live and as long as is said; the kernel copies them.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap();
        let attached = libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        );
        let sized =
            libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const buffer).cast(), 4);
        assert_eq!((attached, sized), (0, 0));
        socket
    }
}

fn tcpdump<T>(traffic: impl FnOnce() -> T) -> (T, Counted) {
    let words = ["-i", INTERFACE, "-n", "-s", "64", "-B", "16384", "-w", "/dev/null", "udp"];
    let mut child = Command::new("tcpdump").args(words).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening"))).unwrap().unwrap();
    let result = traffic();
    thread::sleep(Duration::from_millis(200));
    let busy = interrupt(&mut child);
    let counted = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_suffix(" packets captured").and_then(|count| count.parse().ok()))
        .unwrap();
    (result, (counted, busy))
}

/// Ends the child as Ctrl-C would; its processor time.
fn interrupt(child: &mut Child) -> Duration {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: all zeros is a valid rusage; status and usage are live; the child is ours and not waited for yet.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        libc::kill(pid, libc::SIGINT);
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid);
        usage
    };
    let time = |value: libc::timeval| {
        Duration::new(u64::try_from(value.tv_sec).unwrap(), u32::try_from(value.tv_usec).unwrap() * 1000)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Duration of a run of the BPF program by the kernel's own statistics: total nanoseconds, and number of runs.
pub(crate) fn kernel_nanoseconds(generator: &Generator) -> Option<(f64, u64)> {
    const BPF_ENABLE_STATS: i32 = 32;
    let run_time = 0_u32;
    // SAFETY: the command takes these 4 bytes; the descriptor it gives keeps the statistics on until it is closed.
    let statistics = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const run_time, 4) };
    let statistics = i32::try_from(statistics).ok().filter(|descriptor| *descriptor >= 0)?;
    let (found, _) = Watcher::Kernel.around(Duration::from_secs(2), || {
        generator.paced(500_000, Duration::from_millis(1500));
        let begin = Instant::now();
        let found = program_statistics();
        assert!(begin.elapsed() < Duration::from_millis(400));
        found
    });
    // SAFETY: the descriptor is ours and not used again.
    unsafe { libc::close(statistics) };
    #[allow(clippy::cast_precision_loss, reason = "a table")]
    found.map(|(time, runs)| (time as f64 / runs as f64, runs))
}

/// run_time_ns and run_cnt of the one program this process holds.
fn program_statistics() -> Option<(u64, u64)> {
    fs::read_dir("/proc/self/fdinfo").ok()?.flatten().find_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let number = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some((number("run_time_ns:")?, number("run_cnt:")?)).filter(|(_, runs)| *runs > 0)
    })
}
