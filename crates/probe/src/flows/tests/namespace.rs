//! Tests on real interfaces in separate network namespaces: exact counts, by both methods.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use vmgate_facts::{Fact, FlowDirection, Opener, SystemFamily};

use crate::flows::{
    Flow, FlowCapture, Limits, Method, Traffic, probe,
    tests::{
        frames::{GUEST_MAC, PEER_MAC, ethernet, fragment, ipv4, ipv6, options, udp, v6},
        wire::{GuestSide, Tap, drop_capabilities, in_namespace, inject, ip, watched},
    },
    udp_capture, watch,
};

const BOTH: [Method; 2] = [Method::KernelCounted, Method::Captured];

fn flow<'a>(capture: &'a FlowCapture, guest: &str, peer: &str, vlan: Option<u16>) -> &'a Flow {
    let (guest, peer) = (guest.parse().unwrap(), peer.parse().unwrap());
    let same = |flow: &&Flow| flow.guest == guest && flow.peer == peer && flow.vlan == vlan;
    capture.flows.iter().find(same).unwrap_or_else(|| panic!("no {guest} {peer} in {:#?}", capture.flows))
}

fn traffic(packets: u64, bytes: u64, later_fragments: u64) -> Traffic {
    Traffic { packets, bytes, later_fragments }
}

/// Sends `datagrams` datagrams of `bytes` bytes each.
fn send(from: &str, to: &str, datagrams: usize, bytes: usize) {
    let socket = UdpSocket::bind(from).unwrap();
    for _ in 0..datagrams {
        socket.send_to(&vec![b'x'; bytes], to).unwrap();
    }
}

#[test]
#[ignore = "needs root: make test runs it"]
fn what_a_guest_and_its_peer_send_is_counted_exactly() {
    in_namespace(|| {
        let guest = GuestSide::with_pair();
        // Somebody listens, so that no ICMP errors make senders fail.
        let _host = ["10.9.0.2:6000", "[fd09::2]:6000"].map(|at| UdpSocket::bind(at).unwrap());
        for method in BOTH {
            let capture = watched("tap0", method, &Limits::default(), || {
                guest.run(|| {
                    let _guest = ["10.9.0.1:5500", "[fd09::1]:5500"].map(|at| UdpSocket::bind(at).unwrap());
                    send("10.9.0.1:5000", "10.9.0.2:6000", 100, 100);
                    send("[fd09::1]:5000", "[fd09::2]:6000", 70, 200);
                    send("10.9.0.1:5001", "239.1.2.3:7000", 20, 50);
                    send("10.9.0.1:5002", "10.9.0.2:6000", 10, 4000);
                    send("[fd09::1]:5002", "[fd09::2]:6000", 10, 4000);
                });
                send("10.9.0.2:6001", "10.9.0.1:5500", 30, 300);
                send("[fd09::2]:6001", "[fd09::1]:5500", 40, 10);
            });
            assert_eq!(capture.method, method);
            assert!(capture.complete, "{:?}", capture.holes());
            assert_eq!(capture.flows.len(), 7);

            let one = flow(&capture, "10.9.0.1:5000", "10.9.0.2:6000", None);
            assert_eq!(one.direction, FlowDirection::FromGuest);
            assert_eq!((one.from_guest, one.to_guest), (traffic(100, 100 * 128, 0), Traffic::default()));
            let rate = 100.0 / capture.window_seconds;
            assert!((one.packets_per_second - rate).abs() < 1e-9 && rate < 101.0);
            assert!(one.first_seen_seconds <= one.last_seen_seconds);
            assert!(one.last_seen_seconds < capture.window_seconds);

            let one = flow(&capture, "[fd09::1]:5000", "[fd09::2]:6000", None);
            assert_eq!(one.from_guest, traffic(70, 70 * 248, 0));
            let one = flow(&capture, "10.9.0.1:5001", "239.1.2.3:7000", None);
            assert_eq!(one.multicast_group, Some("239.1.2.3".parse().unwrap()));
            assert_eq!(one.from_guest, traffic(20, 20 * 78, 0));
            // 4008 bytes of UDP in 1480, 1480 and 1048; over IPv6 in 1448, 1448 and 1112.
            let one = flow(&capture, "10.9.0.1:5002", "10.9.0.2:6000", None);
            assert_eq!(one.from_guest, traffic(30, 10 * (4008 + 3 * 20), 20));
            let one = flow(&capture, "[fd09::1]:5002", "[fd09::2]:6000", None);
            assert_eq!(one.from_guest, traffic(30, 10 * (4008 + 3 * 48), 20));

            let one = flow(&capture, "10.9.0.1:5500", "10.9.0.2:6001", None);
            assert_eq!(one.direction, FlowDirection::ToGuest);
            assert_eq!(one.to_guest, traffic(30, 30 * 328, 0));
            let one = flow(&capture, "[fd09::1]:5500", "[fd09::2]:6001", None);
            assert_eq!(one.to_guest, traffic(40, 40 * 58, 0));
        }
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn a_real_connection_and_a_real_group_are_on_the_wire() {
    in_namespace(|| {
        let guest = GuestSide::with_pair();
        let listener = TcpListener::bind("10.9.0.2:5432").unwrap();
        let capture = watched("tap0", Method::KernelCounted, &Limits::default(), || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut buffer = [0; 4];
                    while stream.read_exact(&mut buffer).is_ok() {
                        stream.write_all(&buffer).unwrap();
                    }
                });
                guest.run(|| {
                    let member = UdpSocket::bind("0.0.0.0:0").unwrap();
                    member
                        .join_multicast_v4(&"239.1.2.3".parse().unwrap(), &"10.9.0.1".parse().unwrap())
                        .unwrap();
                    let mut stream = TcpStream::connect("10.9.0.2:5432").unwrap();
                    let mut buffer = [0; 4];
                    for _ in 0..20 {
                        stream.write_all(b"ping").unwrap();
                        stream.read_exact(&mut buffer).unwrap();
                    }
                });
            });
        });
        let wire = capture.wire.unwrap();
        assert!(wire.complete, "{:?}", wire.holes);
        assert_eq!(wire.system.family, Fact::Known(SystemFamily::Linux), "{}", wire.system.evidence);
        assert!(wire.addresses.contains(&"10.9.0.1".to_owned()), "{:?}", wire.addresses);
        let [one] = &wire.tcp[..] else { panic!("{:#?}", wire.tcp) };
        assert_eq!((&*one.remote, one.service.as_deref()), ("10.9.0.2:5432", Some("PostgreSQL")));
        assert_eq!((one.opened_by, one.opening_seen, one.closing_seen), (Opener::Guest, true, true));
        assert!(one.packets_from_guest >= 21 && one.packets_to_guest >= 21, "{one:?}");
        assert!(one.rtt_seconds.known().is_some_and(|rtt| *rtt > 0.0), "{one:?}");
        assert!(wire.groups.iter().any(|group| group.address == "239.1.2.3"), "{:?}", wire.groups);
        assert!(!wire.groups_complete, "no querier asked");
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn tags_options_fragments_and_offload_are_seen_on_a_tap() {
    in_namespace(|| {
        let tap = Tap::open();
        let (guest, peer) = ([10, 8, 0, 5], [10, 8, 0, 9]);
        let v4 =
            |options: &[u8], fragment, payload: &[u8]| ipv4((guest, peer), 17, options, fragment, payload);
        let datagram = v4(&[], None, &udp(5000, 6000, 100));
        let answer = ipv4((peer, guest), 17, &[], None, &udp(6000, 5000, 10));
        let deep = ipv6((v6(5), v6(9)), &[(0, options(8)), (60, options(16))], 17, &udp(5000, 6000, 0));
        for method in BOTH {
            let capture = watched("tap0", method, &Limits::default(), || {
                // The kernel moves the first tag of an incoming frame to the packet's metadata.
                tap.send(&ethernet(true, &[(0x8100, 7)], 0x0800, &datagram));
                tap.send(&ethernet(true, &[(0x88a8, 7), (0x8100, 9)], 0x0800, &datagram));
                // An outgoing frame keeps the tag in the frame.
                inject("tap0", &ethernet(false, &[(0x8100, 7)], 0x0800, &answer));
                inject("tap0", &ethernet(false, &[(0x8100, 7), (0x8100, 9)], 0x0800, &answer));
                tap.send(&ethernet(true, &[], 0x0800, &v4(&[1; 24], None, &udp(5001, 6000, 0))));
                tap.send(&ethernet(true, &[], 0x86dd, &deep));
                // The last fragment first.
                let (first, last) = (udp(5002, 6000, 792), [0; 100]);
                tap.send(&ethernet(true, &[], 0x0800, &v4(&[], Some((4, 100, false)), &last)));
                tap.send(&ethernet(true, &[], 0x0800, &v4(&[], Some((4, 0, true)), &first)));
                let large = ethernet(true, &[], 0x0800, &v4(&[], None, &udp(5003, 6000, 2500)));
                tap.send_offloaded(&large, 1000);
                // Not UDP, and not even sane.
                tap.send(&ethernet(true, &[], 0x0800, &ipv4((guest, peer), 6, &[], None, &[0; 20])));
                tap.send(&ethernet(true, &[], 0x0800, &v4(&[], None, &[1, 2, 3])));
            });
            assert!(capture.complete, "{:?}", capture.holes());
            assert_eq!(capture.malformed_packets, 1);
            let tagged = flow(&capture, "10.8.0.5:5000", "10.8.0.9:6000", Some(7));
            assert_eq!(tagged.direction, FlowDirection::Both);
            let both: Vec<_> = capture.flows.iter().filter(|flow| flow.vlan == Some(7)).collect();
            assert_eq!(both.len(), 2);
            for flow in both {
                assert!(matches!(flow.inner_vlan, None | Some(9)));
                assert_eq!((flow.from_guest, flow.to_guest), (traffic(1, 128, 0), traffic(1, 38, 0)));
                assert_eq!(flow.guest_mac, "52:54:00:00:00:01");
            }
            let one = flow(&capture, "10.8.0.5:5001", "10.8.0.9:6000", None);
            assert_eq!(one.from_guest, traffic(1, 20 + 24 + 8, 0));
            let one = flow(&capture, "[fd00::5]:5000", "[fd00::9]:6000", None);
            assert_eq!(one.from_guest, traffic(1, 40 + 8 + 16 + 8, 0));
            let one = flow(&capture, "10.8.0.5:5002", "10.8.0.9:6000", None);
            assert_eq!(one.from_guest, traffic(2, 2 * 20 + 800 + 100, 1));
            let one = flow(&capture, "10.8.0.5:5003", "10.8.0.9:6000", None);
            assert_eq!(one.from_guest, traffic(3, 3 * 28 + 2500, 0));
            assert_eq!(capture.flows.len(), 6);
        }
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn on_a_macvtap_what_goes_out_is_the_guests() {
    in_namespace(|| {
        ip("link add lower type veth peer name away");
        ip("link add link lower name mac0 address 52:54:00:00:00:01 type macvtap mode bridge");
        for name in ["lower", "away", "mac0"] {
            ip(&format!("link set {name} up"));
        }
        let (guest, peer) = ([10, 8, 0, 5], [10, 8, 0, 9]);
        for method in BOTH {
            let capture = watched("mac0", method, &Limits::default(), || {
                let question = ipv4((guest, peer), 17, &[], None, &udp(5000, 53, 20));
                let answer = ipv4((peer, guest), 17, &[], None, &udp(53, 5000, 40));
                inject("mac0", &ethernet(true, &[], 0x0800, &question));
                inject("away", &ethernet(false, &[], 0x0800, &answer));
            });
            assert!(capture.complete, "{:?}", capture.holes());
            let one = flow(&capture, "10.8.0.5:5000", "10.8.0.9:53", None);
            assert_eq!((one.from_guest, one.to_guest), (traffic(1, 48, 0), traffic(1, 68, 0)));
        }
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn a_capture_with_a_hole_is_not_complete() {
    in_namespace(|| {
        let tap = Tap::open();
        let (guest, peer) = ([10, 8, 0, 5], [10, 8, 0, 9]);
        let datagram =
            |port| ethernet(true, &[], 0x0800, &ipv4((guest, peer), 17, &[], None, &udp(port, 53, 0)));
        let stray =
            ethernet(true, &[], 0x0800, &ipv4((guest, peer), 17, &[], Some((4, 100, false)), &[0; 80]));
        let small = Limits { max_flows: 4, ..Limits::default() };
        for method in BOTH {
            let full = watched("tap0", method, &small, || (1..=9).for_each(|port| tap.send(&datagram(port))));
            assert_eq!((full.complete, full.flows.len(), full.table_full_packets), (false, 4, 5));
            let strays = watched("tap0", method, &small, || tap.send(&stray));
            assert_eq!((strays.complete, strays.stray_fragments), (false, 1));
            let deep =
                ethernet(true, &[(0x8100, 1), (0x8100, 2), (0x8100, 3), (0x8100, 4)], 0x0800, &[0; 40]);
            let unreadable = watched("tap0", method, &small, || tap.send(&deep));
            assert_eq!((unreadable.complete, unreadable.unreadable_packets), (false, 1));
            let down = watched("tap0", method, &small, || {
                tap.send(&datagram(1));
                // `watched` wants the watch to outlast the traffic: let it end a moment later.
                thread::Builder::new()
                    .spawn(|| {
                        thread::sleep(Duration::from_millis(50));
                        ip("link set tap0 down");
                    })
                    .unwrap();
            });
            assert_eq!((down.complete, down.interrupted, down.flows.len()), (false, true, 1));
            ip("link set tap0 up");
            let fact = udp_capture(&[down]).unwrap();
            assert!(!fact.complete && fact.holes[0].contains("too early"), "{:?}", fact.holes);
        }
        let limits = Limits { buffer_bytes: 1, max_processor_share: 0.01, ..Limits::default() };
        let burst = watched("tap0", Method::Captured, &limits, || {
            (0..20_000).for_each(|_| tap.send(&datagram(1)));
        });
        assert!(burst.drops > 0 && !burst.complete);
        let counted: u64 = burst.flows.iter().map(|flow| flow.packets).sum();
        assert_eq!(counted + burst.drops, 20_000, "what is dropped is counted");
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn where_the_kernel_may_not_count_packets_are_captured() {
    const NET_RAW: u32 = 13;
    const SYS_ADMIN: u32 = 21;
    const BPF: u32 = 39;
    in_namespace(|| {
        let _tap = Tap::open();
        let moment = Duration::from_millis(10);
        drop_capabilities(&[SYS_ADMIN, BPF]);
        let capture = watch("tap0", moment, &Limits::default()).unwrap();
        assert_eq!((capture.method, capture.complete, capture.frames), (Method::Captured, true, None));
        assert!(capture.kernel_refused.is_some_and(|why| why.contains("CAP_BPF")));
        let only = Limits { method: Some(Method::KernelCounted), ..Limits::default() };
        assert!(watch("tap0", moment, &only).unwrap_err().to_string().contains("CAP_BPF"));
        drop_capabilities(&[NET_RAW]);
        let error = watch("tap0", moment, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("CAP_NET_RAW"));
    });
}

#[test]
#[ignore = "needs root: make test runs it"]
fn errors_say_what_to_do() {
    in_namespace(|| {
        let error =
            |name: &str| watch(name, Duration::from_millis(10), &Limits::default()).unwrap_err().to_string();
        assert!(error("vnet9").contains("existing interfaces: lo"), "{}", error("vnet9"));
        assert!(!error("a\u{1b}[2J").contains('\u{1b}'));
        ip("link add tap0 type veth peer name guest0");
        assert!(error("tap0").contains("is down"));
        ip("tuntap add dev tun0 mode tun");
        ip("link set tun0 up");
        assert!(error("tun0").contains("not Ethernet"));
        let document =
            serde_json::to_value(probe(&["vnet9".into()], Duration::from_millis(10), &Limits::default()));
        assert_eq!(document.unwrap()["interfaces"][0]["failed"]["unknown"]["cause"], "not-collected");
    });
}

#[test]
fn the_made_frames_have_the_addresses_the_tests_expect() {
    let frame = ethernet(true, &[], 0x86dd, &fragment(1, 0, true));
    assert_eq!((&frame[..6], &frame[6..12]), (&PEER_MAC[..], &GUEST_MAC[..]));
}
