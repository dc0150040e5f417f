//! Networks for tests: namespaces, veth pairs and taps that disappear with the thread that made them.

use std::{
    ffi::c_char,
    fs::{File, OpenOptions, read_to_string},
    io::{self, Write},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::flows::{FlowCapture, Limits, Method, socket::PacketSocket, watch};

/// Runs the body in a thread with a network namespace of its own. Threads and processes it starts share it.
pub(super) fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: no pointers; only this thread moves to the new namespace.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "needs root: {}", io::Error::last_os_error());
            body()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` with these words, in this thread's namespace.
pub(super) fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes capabilities (their numbers in capability.h) from this thread, and from those it starts.
pub(super) fn drop_capabilities(numbers: &[u32]) {
    let mut header = [0x2008_0522_u32, 0];
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: version 3 of the interface: a header of two words, two sets of three. Both are live.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()), 0);
        for number in numbers {
            for set in &mut sets[usize::try_from(number / 32).unwrap()] {
                *set &= !(1 << (number % 32));
            }
        }
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()), 0);
    }
}

/// A second namespace with `guest0`, the other end of `tap0` here; its jobs run in a thread inside it.
pub(super) struct GuestSide {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    results: mpsc::Receiver<thread::Result<()>>,
}

impl GuestSide {
    /// Makes the namespace and the pair, with addresses .1 for the guest and .2 here.
    pub(super) fn with_pair() -> Self {
        let (jobs, todo) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (done, results) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            in_namespace(|| {
                // SAFETY: no arguments, cannot fail.
                tell.send(unsafe { libc::gettid() }).unwrap();
                for job in todo {
                    done.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))).unwrap();
                }
            });
        });
        let guest = Self { jobs, results };
        let mac = |last: u8| format!("52:54:00:00:00:{last:02x}");
        let pair = format!("link add tap0 address {} type veth peer name guest0 address {}", mac(2), mac(1));
        ip(&format!("{pair} netns {}", told.recv().unwrap()));
        let up = move |name: &'static str, last: u8| {
            ip("link set lo up");
            ip(&format!("addr add 10.9.0.{last}/24 dev {name}"));
            ip(&format!("addr add fd09::{last}/64 dev {name} nodad"));
            ip(&format!("link set {name} up"));
            // Known neighbours: nothing waits, or is lost, for want of an address.
            let other = 3 - last;
            for address in [format!("10.9.0.{other}"), format!("fd09::{other}")] {
                ip(&format!("neigh add {address} lladdr {} dev {name} nud permanent", mac(other)));
            }
        };
        up("tap0", 2);
        guest.run(move || {
            up("guest0", 1);
            ip("route add 239.0.0.0/8 dev guest0");
        });
        guest
    }

    /// Runs the job in the guest's namespace and waits for it.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        self.results.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// Watches the interface with the method while `traffic` runs, which begins when the watch does. On a machine so
/// busy that the traffic outlasts the watch, both are done again with more time.
pub(super) fn watched(interface: &str, method: Method, limits: &Limits, traffic: impl Fn()) -> FlowCapture {
    let limits = Limits { method: Some(method), ..limits.clone() };
    for window in [1, 4, 16].map(Duration::from_secs) {
        let (capture, outlasted) = thread::scope(|scope| {
            let watch = scope.spawn(|| watch(interface, window, &limits));
            let deadline = Instant::now() + Duration::from_secs(15);
            while !somebody_listens() && !watch.is_finished() {
                assert!(Instant::now() < deadline, "the watch never began");
                thread::sleep(Duration::from_millis(2));
            }
            traffic();
            let outlasted = watch.is_finished();
            (watch.join().unwrap().unwrap(), outlasted)
        });
        if !outlasted || capture.interrupted {
            return capture;
        }
    }
    panic!("the traffic took longer than the watch");
}

/// True once a packet socket of this namespace receives every protocol (ETH_P_ALL is 0003): its column R is set a
/// moment after it is bound.
fn somebody_listens() -> bool {
    let sockets = read_to_string("/proc/thread-self/net/packet").unwrap();
    let hears = |line: &str| {
        let mut columns = line.split_whitespace().skip(3);
        columns.next() == Some("0003") && columns.nth(1) == Some("1")
    };
    sockets.lines().any(hears)
}

/// Sends a frame out of the interface, as if its owner did.
pub(super) fn inject(interface: &str, frame: &[u8]) {
    let socket = PacketSocket::new().unwrap();
    let all = crate::netlink::interfaces().unwrap();
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    to.sll_ifindex = i32::try_from(all.iter().find(|one| one.name == interface).unwrap().index).unwrap();
    // SAFETY: frame and address are live, with their lengths.
    let sent = unsafe {
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        libc::sendto(socket.raw(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
    };
    assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", io::Error::last_os_error());
}

/// A tap as QEMU opens it: frames written to it count as sent by the guest.
pub(super) struct Tap(File);

impl Tap {
    /// Makes the tap `tap0`, up, with offload headers.
    pub(super) fn open() -> Self {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tap0") {
            *to = c_char::from_ne_bytes([*from]);
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap();
        // SAFETY: TUNSETIFF takes an ifreq, which is live.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // The host's own multicast reports go through the filter, since they have an extension header.
        std::fs::write("/proc/sys/net/ipv6/conf/tap0/disable_ipv6", "1").unwrap();
        ip("link set tap0 up");
        Self(file)
    }

    /// The guest sends a frame.
    pub(super) fn send(&self, frame: &[u8]) {
        (&self.0).write_all(&[&[0; 10], frame].concat()).unwrap();
    }

    /// The guest sends one large UDP packet over IPv4, to be segmented into packets of `segment_bytes` of payload.
    pub(super) fn send_offloaded(&self, frame: &[u8], segment_bytes: u16) {
        const NEEDS_CHECKSUM: u8 = 1;
        const GSO_UDP_L4: u8 = 5;
        let mut header = vec![NEEDS_CHECKSUM, GSO_UDP_L4];
        for number in [42, segment_bytes, 34, 6] {
            header.extend(number.to_ne_bytes());
        }
        (&self.0).write_all(&[&header, frame].concat()).unwrap();
    }
}
