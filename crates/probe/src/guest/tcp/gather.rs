//! TCP connections of this machine, from its kernel: one dump per address family, then options and route of each.

use std::{
    collections::BTreeMap,
    fs,
    io::{Error, ErrorKind},
    net::IpAddr,
};

use vmgate_facts::{Cause, Fact, Unknown};

use crate::{
    guest::{
        MOST_PROCESSES, MOST_SOCKETS,
        tcp::{
            KernelSocket, KernelSockets,
            diag::{self, DiagSocket},
            route,
            socket_options::{self, SocketOptions},
            timer,
        },
    },
    netlink::Netlink,
};

/// States that may carry data: all but time-wait, closed and listening (net/tcp_states.h).
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12;
/// A datagram of a dump is at most this long (net/netlink/af_netlink.c, max_recvmsg_len).
const DATAGRAM: usize = 64 << 10;
/// Most peers whose route is queried.
const MOST_ROUTES: usize = 1024;

/// File descriptor of a socket: process id and descriptor number.
type SocketDescriptor = (i32, i32);

/// Every TCP connection of this machine, none over loopback.
pub(crate) fn gather() -> Result<KernelSockets, Unknown> {
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        sockets.extend(dump(u8::try_from(family).unwrap_or(0)).map_err(|error| {
            let cause = if error.kind() == ErrorKind::PermissionDenied {
                Cause::PermissionDenied
            } else {
                Cause::NotSupported
            };
            Unknown::new(cause, format!("the kernel does not list its sockets (INET_DIAG): {error}"))
        })?);
    }
    sockets.retain(|socket| !socket.local.ip().is_loopback() && !socket.remote.ip().is_loopback());
    let socket_descriptors = socket_descriptors(&sockets);
    let mut routes = Routes::default();
    let described = sockets.into_iter().map(|socket| {
        let ends = (socket.local, socket.remote);
        let options = options(&socket, &socket_descriptors);
        let rto_min_seconds = routes.rto_min(socket.remote.ip());
        (ends, describe(&socket, options, rto_min_seconds))
    });
    Ok(KernelSockets(described.collect()))
}

fn describe(
    socket: &DiagSocket,
    options: Result<SocketOptions, Unknown>,
    rto_min_seconds: Fact<Option<f64>>,
) -> KernelSocket {
    let options = Fact::from(options);
    KernelSocket {
        timer: timer(socket.timer),
        retransmits: socket.retransmits.into(),
        unacknowledged: socket.queued > 0 || socket.info.is_some_and(|info| info.unacknowledged > 0),
        rto: socket.info.map(|info| (info.rto_seconds, info.backoff.into())),
        user_timeout_seconds: options.as_ref().map(|options| options.user_timeout_seconds),
        keepalive: options.map(|options| options.keepalive),
        rto_min_seconds,
    }
}

fn dump(family: u8) -> Result<Vec<DiagSocket>, Error> {
    let netlink = Netlink::open(libc::NETLINK_SOCK_DIAG)?;
    netlink.send(&diag::request(family, STATES))?;
    let mut buffer = vec![0; DATAGRAM];
    let mut sockets = Vec::new();
    loop {
        let batch = diag::parse(netlink.receive(&mut buffer)?).map_err(Error::other)?;
        if let Some(code) = batch.error.filter(|code| *code != 0) {
            // A kernel without IPv6 has no such sockets.
            return if code == libc::ENOENT { Ok(sockets) } else { Err(Error::from_raw_os_error(code)) };
        }
        sockets.extend(batch.sockets);
        if sockets.len() > MOST_SOCKETS {
            return Err(Error::other(format!("more than {MOST_SOCKETS} sockets")));
        }
        if batch.done {
            return Ok(sockets);
        }
    }
}

/// One file descriptor of each socket, by the socket's inode.
fn socket_descriptors(sockets: &[DiagSocket]) -> BTreeMap<u64, SocketDescriptor> {
    let mut wanted: BTreeMap<u64, Option<SocketDescriptor>> =
        sockets.iter().map(|socket| (socket.inode, None)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).take(MOST_PROCESSES)
    {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let found = (|| {
                let target = fs::read_link(descriptor.path()).ok()?;
                let inode =
                    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()?;
                Some((inode, descriptor.file_name().to_str()?.parse::<i32>().ok()?))
            })();
            if let Some((inode, number)) = found
                && let Some(slot) = wanted.get_mut(&inode)
            {
                slot.get_or_insert((process, number));
            }
        }
    }
    wanted.into_iter().filter_map(|(inode, slot)| Some((inode, slot?))).collect()
}

fn options(
    socket: &DiagSocket,
    socket_descriptors: &BTreeMap<u64, SocketDescriptor>,
) -> Result<SocketOptions, Unknown> {
    if socket.inode == 0 {
        return Err(Unknown::new(
            Cause::NotSupported,
            "no process holds this socket: its options cannot be read",
        ));
    }
    let (process, descriptor) = socket_descriptors.get(&socket.inode).copied().ok_or_else(|| {
        Unknown::new(Cause::PermissionDenied, "only root sees which process holds a socket, and its options")
    })?;
    socket_options::options(process, descriptor).map_err(|error| {
        let cause = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Cause::PermissionDenied,
            // Before Linux 5.6 there is no pidfd_getfd.
            Some(libc::ENOSYS) => Cause::NotSupported,
            _ => Cause::NotCollected,
        };
        Unknown::new(cause, format!("cannot read the socket options of process {process}: {error}"))
    })
}

/// The minimum RTO of the route to each peer; each peer is queried once.
#[derive(Default)]
struct Routes {
    known: BTreeMap<IpAddr, Fact<Option<f64>>>,
}

impl Routes {
    fn rto_min(&mut self, peer: IpAddr) -> Fact<Option<f64>> {
        if let Some(fact) = self.known.get(&peer) {
            return fact.clone();
        }
        if self.known.len() >= MOST_ROUTES {
            return Fact::unknown(
                Cause::NotCollected,
                format!("vmgate queries the routes of {MOST_ROUTES} peers at most"),
            );
        }
        let answer = (|| {
            let netlink = Netlink::open(libc::NETLINK_ROUTE)?;
            netlink.send(&route::request(peer))?;
            let mut buffer = vec![0; 8192];
            route::parse(netlink.receive(&mut buffer)?).map_err(Error::other)
        })();
        let fact = match answer {
            Ok(least) => Fact::Known(least),
            Err(error) => {
                Fact::unknown(Cause::NotCollected, format!("cannot query the route to {peer}: {error}"))
            }
        };
        self.known.insert(peer, fact.clone());
        fact
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpStream, os::fd::AsRawFd, time::Duration};

    use rustix::net::sockopt;
    use vmgate_facts::KeepAlive;

    use crate::guest::tcp::gather::*;

    #[test]
    fn this_kernel_tells_of_a_connection_of_our_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        stream.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let sockets = dump(2).unwrap();
        let ours =
            sockets.iter().find(|s| s.remote == address && s.local == stream.local_addr().unwrap()).unwrap();
        let info = ours.info.unwrap();
        assert!((0.2..1.0).contains(&info.rto_seconds), "{info:?}");
        assert_eq!((info.backoff, ours.retransmits), (0, 0));
        let (process, descriptor) = socket_descriptors(&sockets)[&ours.inode];
        assert_eq!((process.cast_unsigned(), descriptor), (std::process::id(), stream.as_raw_fd()));
    }

    #[test]
    fn options_of_a_socket_are_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let none = SocketOptions { user_timeout_seconds: None, keepalive: None };
        assert_eq!(socket_options::options_of(&stream).unwrap(), none);
        sockopt::set_socket_keepalive(&stream, true).unwrap();
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30)).unwrap();
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5)).unwrap();
        sockopt::set_tcp_keepcnt(&stream, 3).unwrap();
        sockopt::set_tcp_user_timeout(&stream, 1500).unwrap();
        let read = socket_options::options_of(&stream).unwrap();
        assert_eq!(read.user_timeout_seconds, Some(1.5));
        assert_eq!(read.keepalive, Some(KeepAlive { idle_seconds: 30.0, interval_seconds: 5.0, probes: 3 }));
        // Through the process, as for another process: needs root, or a kernel that lets a process read itself.
        let own = std::process::id().cast_signed();
        if let Ok(through_process) = socket_options::options(own, stream.as_raw_fd()) {
            assert_eq!(through_process, read);
        }
    }

    #[test]
    fn the_route_of_a_peer_sets_no_least_rto_by_itself() {
        assert_eq!(Routes::default().rto_min("127.0.0.1".parse().unwrap()), Fact::Known(None));
    }
}
