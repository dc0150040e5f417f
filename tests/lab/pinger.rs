//! Silence of a guest as a machine outside both hosts sees it: echo requests every 10 ms, and the longest time without an answer.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

use crate::harness::in_operators_network;

const EVERY: Duration = Duration::from_millis(10);

/// Echo requests to one guest from the operator's network, until [`Pinger::longest_silence`].
pub(crate) struct Pinger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Pinger {
    /// Starts, and waits for the first answer.
    pub(crate) fn start(address: &str) -> Self {
        let guest: Ipv4Addr = address.parse().unwrap();
        let raw = in_operators_network(|| {
            socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).expect("a raw socket, as root")
        });
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (ends, hears) = (Arc::clone(&stop), Arc::clone(&heard));
        let thread = thread::spawn(move || watch(&raw, guest, &ends, &hears));
        let start = Instant::now();
        while !heard.load(Ordering::Relaxed) {
            assert!(start.elapsed() < Duration::from_mins(1), "{guest} does not answer");
            thread::sleep(EVERY);
        }
        Self { stop, thread }
    }

    /// Longest time without an answer, once the guest answers again.
    pub(crate) fn longest_silence(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().as_secs_f64()
    }
}

fn watch(raw: &OwnedFd, guest: Ipv4Addr, ends: &AtomicBool, hears: &AtomicBool) -> Duration {
    let (mut last, mut longest, mut next) = (None::<Instant>, Duration::ZERO, Instant::now());
    let mut asked_to_end = None::<Instant>;
    loop {
        if Instant::now() >= next {
            next += EVERY;
            // While a neighbour is sought the kernel may have no room for one more.
            let _ = sendto(raw, &request(), SendFlags::DONTWAIT, &SocketAddrV4::new(guest, 0));
        }
        let mut buffer = [0; 256];
        while let Ok((length, _)) = recv(raw, &mut buffer, RecvFlags::DONTWAIT) {
            // An IP header of 20 bytes, then type 0: an answer. Of whom, the header says.
            if length >= 28 && buffer[12..16] == guest.octets() && buffer[20] == 0 {
                let now = Instant::now();
                longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                hears.store(true, Ordering::Relaxed);
            }
        }
        if ends.load(Ordering::Relaxed) {
            let since = *asked_to_end.get_or_insert_with(Instant::now);
            if last.is_some_and(|last| last > since) || since.elapsed() > Duration::from_mins(2) {
                return longest.max(last.map_or(Duration::MAX, |last| last.elapsed()));
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Echo request (RFC 792) with a number of ours.
fn request() -> [u8; 8] {
    let mut message = [8, 0, 0, 0, 0x76, 0x6d, 0, 1];
    let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}
