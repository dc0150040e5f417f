//! The program that counts UDP flows in the kernel, as a socket filter: it looks at every frame of the interface
//! and lets none of them through to the socket.
//!
//! The packet is read with bpf_skb_load_bytes only, so no guest can make it read beyond a packet. What it does is
//! what [`parse`](crate::collect::probe::flows::parse) does with a captured frame; a test runs both on the same
//! frames and compares.

use super::assembler::{Alu, Assembler, BrokenJump, Helper, Instruction, Label, Reg, When, Width};
use super::layout::{
    COUNT_BYTES, COUNT_FIRST, COUNT_FRAGMENTS, COUNT_GUEST_MAC, COUNT_LAST, COUNT_OCTETS, COUNT_PACKETS,
    KEY_BYTES, KEY_DESTINATION, KEY_FROM_GUEST, KEY_INNER_VLAN, KEY_PORTS, KEY_VERSION, KEY_VLAN, PART_BYTES,
    PART_OCTETS, PART_PACKETS, PART_SEEN, PART_WAITS, TOTAL_FRAMES, TOTAL_MALFORMED, TOTAL_NO_ROOM,
    TOTAL_STRAY_OCTETS, TOTAL_STRAY_PACKETS, TOTAL_TOO_DEEP,
};
use crate::collect::probe::flows::GuestEnd;
use crate::collect::probe::flows::parse::{
    DEEPEST_EXTENSIONS, DEEPEST_TAGS, EXTENSIONS, FRAGMENT_LIFE, IPV6_AH, IPV6_FRAGMENT, TAGS, UDP,
};

/// Descriptors of the maps the program writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    pub(crate) flows: i32,
    pub(crate) parts: i32,
    pub(crate) totals: i32,
}

// Offsets in struct __sk_buff (include/uapi/linux/bpf.h).
const SKB_LENGTH: i16 = 0;
const SKB_PACKET_TYPE: i16 = 4;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;
const SKB_GSO_SIZE: i16 = 176;
const PACKET_OUTGOING: i32 = 4;

// The stack, below R10.
const KEY: i16 = -48;
const PART_KEY: i16 = -96;
const VALUE: i16 = -176;
const HEADER: i16 = -216;
const ETHERNET: i16 = -232;
const NOW: i16 = -240;
const OCTETS: i16 = -248;
const PACKETS: i16 = -256;
const FRAGMENTS: i16 = -264;
/// Not zero: the packet is the first of a fragmented datagram.
const IS_FIRST: i16 = -272;
const IDENTIFICATION: i16 = -280;

/// The context, all along.
const SKB: Reg = Reg::R6;
/// Offset in the frame of what is looked at next.
const AT: Reg = Reg::R7;
/// Offset of the IP header.
const IP: Reg = Reg::R8;
/// EtherType, then the next header's protocol, then the map value that is filled.
const NEXT: Reg = Reg::R9;

struct Counter {
    asm: Assembler,
    maps: Maps,
    /// Nothing to count.
    done: Label,
    malformed: Label,
    too_deep: Label,
    ipv4: Label,
    ipv6: Label,
    udp: Label,
    later_fragment: Label,
    count: Label,
}

/// Assembles the program for an interface whose guest is at the given end.
pub(crate) fn assemble(maps: Maps, guest: GuestEnd) -> Result<Vec<Instruction>, BrokenJump> {
    let mut asm = Assembler::default();
    let [done, malformed, too_deep, ipv4, ipv6, udp, later_fragment, count] =
        std::array::from_fn(|_| asm.label());
    let mut counter =
        Counter { asm, maps, done, malformed, too_deep, ipv4, ipv6, udp, later_fragment, count };
    counter.begin();
    counter.link_layer(guest);
    counter.internet_v4();
    counter.internet_v6();
    counter.datagram();
    counter.first_fragment();
    counter.fragment_without_ports();
    counter.add_up();
    counter.ends();
    counter.asm.finish()
}

impl Counter {
    /// Reads `length` bytes of the frame at [`AT`] to the stack, or gives the packet up as malformed.
    fn read(&mut self, to: i16, length: i32) {
        let asm = &mut self.asm;
        asm.copy(Reg::R1, SKB);
        asm.copy(Reg::R2, AT);
        asm.stack(Reg::R3, to);
        asm.set(Reg::R4, length);
        asm.call(Helper::SkbLoadBytes);
        asm.jump_if(Reg::R0, When::NotEqual, 0, self.malformed);
    }

    fn zero(&mut self, from: i16, bytes: usize) {
        for double in 0..i16::try_from(bytes / 8).unwrap_or(0) {
            self.asm.store_value(Width::Double, Reg::R10, from + 8 * double, 0);
        }
    }

    fn move_doubles(&mut self, to: i16, from: (Reg, i16), bytes: usize) {
        for double in 0..i16::try_from(bytes / 8).unwrap_or(0) {
            self.asm.load(Width::Double, Reg::R1, from.0, from.1 + 8 * double);
            self.asm.store(Width::Double, Reg::R10, to + 8 * double, Reg::R1);
        }
    }

    /// Adds a register to one of the totals; R2 is lost.
    fn total(&mut self, at: i16, amount: Reg) {
        self.asm.map_value(Reg::R2, self.maps.totals, i32::from(at));
        self.asm.atomic_add(Reg::R2, 0, amount);
    }

    fn lookup(&mut self, map: i32, key: i16) {
        self.asm.map(Reg::R1, map);
        self.asm.stack(Reg::R2, key);
        self.asm.call(Helper::MapLookup);
    }

    fn update(&mut self, map: i32, key: i16, flags: i32) {
        self.asm.map(Reg::R1, map);
        self.asm.stack(Reg::R2, key);
        self.asm.stack(Reg::R3, VALUE);
        self.asm.set(Reg::R4, flags);
        self.asm.call(Helper::MapUpdate);
    }

    fn begin(&mut self) {
        self.asm.copy(SKB, Reg::R1);
        self.asm.set(Reg::R1, 1);
        self.total(TOTAL_FRAMES, Reg::R1);
        self.zero(KEY, KEY_BYTES);
        self.zero(FRAGMENTS, 8);
        self.zero(IS_FIRST, 8);
        self.zero(IDENTIFICATION, 8);
    }

    /// Direction, VLANs in the packet's metadata and in the frame, EtherType.
    fn link_layer(&mut self, guest: GuestEnd) {
        self.asm.set(AT, 0);
        self.read(ETHERNET, 14);
        self.asm.set(AT, 14);
        let asm = &mut self.asm;

        let other_way = asm.label();
        let when_incoming = match guest {
            GuestEnd::Peer => When::Equal,
            GuestEnd::Interface => When::NotEqual,
        };
        asm.load(Width::Word, Reg::R1, SKB, SKB_PACKET_TYPE);
        asm.jump_if(Reg::R1, when_incoming, PACKET_OUTGOING, other_way);
        asm.store_value(Width::Byte, Reg::R10, KEY + KEY_FROM_GUEST, 1);
        asm.place(other_way);

        let untagged = asm.label();
        asm.load(Width::Word, Reg::R1, SKB, SKB_VLAN_PRESENT);
        asm.jump_if(Reg::R1, When::Equal, 0, untagged);
        asm.load(Width::Word, Reg::R1, SKB, SKB_VLAN_TCI);
        asm.alu(Alu::And, Reg::R1, 0xfff);
        asm.store(Width::Half, Reg::R10, KEY + KEY_VLAN, Reg::R1);
        asm.place(untagged);

        asm.load(Width::Half, NEXT, Reg::R10, ETHERNET + 12);
        asm.network_half(NEXT);
        let network = self.asm.label();
        for _ in 0..DEEPEST_TAGS {
            self.tag(network);
        }
        for tag in TAGS {
            self.asm.jump_if(NEXT, When::Equal, i32::from(tag), self.too_deep);
        }
        let asm = &mut self.asm;
        asm.place(network);
        asm.copy(IP, AT);
        asm.jump_if(NEXT, When::Equal, libc::ETH_P_IP, self.ipv4);
        asm.jump_if(NEXT, When::Equal, libc::ETH_P_IPV6, self.ipv6);
        asm.jump(self.done);
    }

    /// One VLAN tag in the frame; without one, on to the network layer.
    fn tag(&mut self, network: Label) {
        let tagged = self.asm.label();
        for tag in TAGS {
            self.asm.jump_if(NEXT, When::Equal, i32::from(tag), tagged);
        }
        self.asm.jump(network);
        self.asm.place(tagged);
        self.read(HEADER, 4);
        let asm = &mut self.asm;
        let (inner, known) = (asm.label(), asm.label());
        asm.alu(Alu::Add, AT, 4);
        asm.load(Width::Half, NEXT, Reg::R10, HEADER + 2);
        asm.network_half(NEXT);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER);
        asm.network_half(Reg::R1);
        asm.alu(Alu::And, Reg::R1, 0xfff);
        asm.jump_if(Reg::R1, When::Equal, 0, known);
        asm.load(Width::Half, Reg::R2, Reg::R10, KEY + KEY_VLAN);
        asm.jump_if(Reg::R2, When::NotEqual, 0, inner);
        asm.store(Width::Half, Reg::R10, KEY + KEY_VLAN, Reg::R1);
        asm.jump(known);
        asm.place(inner);
        asm.load(Width::Half, Reg::R2, Reg::R10, KEY + KEY_INNER_VLAN);
        asm.jump_if(Reg::R2, When::NotEqual, 0, known);
        asm.store(Width::Half, Reg::R10, KEY + KEY_INNER_VLAN, Reg::R1);
        asm.place(known);
    }

    /// Stores the IP packet's length: what its header says, but never more than the frame holds.
    fn packet_length(&mut self, said: Reg) {
        let asm = &mut self.asm;
        let (keep, cut) = (asm.label(), asm.label());
        asm.load(Width::Word, Reg::R2, SKB, SKB_LENGTH);
        asm.alu_reg(Alu::Sub, Reg::R2, IP);
        asm.jump_if(said, When::Equal, 0, cut);
        asm.jump_if_reg(said, When::AtMost, Reg::R2, keep);
        asm.place(cut);
        asm.copy(said, Reg::R2);
        asm.place(keep);
        asm.store(Width::Double, Reg::R10, OCTETS, said);
    }

    fn internet_v4(&mut self) {
        self.asm.place(self.ipv4);
        self.read(HEADER, 20);
        let asm = &mut self.asm;
        asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER);
        asm.copy(Reg::R2, Reg::R1);
        asm.alu(Alu::ShiftRight, Reg::R2, 4);
        asm.jump_if(Reg::R2, When::NotEqual, 4, self.malformed);
        asm.alu(Alu::And, Reg::R1, 15);
        asm.jump_if(Reg::R1, When::Below, 5, self.malformed);
        asm.alu(Alu::ShiftLeft, Reg::R1, 2);
        asm.alu_reg(Alu::Add, AT, Reg::R1);
        asm.load(Width::Byte, NEXT, Reg::R10, HEADER + 9);
        asm.jump_if(NEXT, When::NotEqual, i32::from(UDP), self.done);
        asm.store_value(Width::Byte, Reg::R10, KEY + KEY_VERSION, 4);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 12);
        asm.store(Width::Word, Reg::R10, KEY, Reg::R1);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 16);
        asm.store(Width::Word, Reg::R10, KEY + KEY_DESTINATION, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 2);
        asm.network_half(Reg::R1);
        self.packet_length(Reg::R1);

        let asm = &mut self.asm;
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 4);
        asm.store(Width::Double, Reg::R10, IDENTIFICATION, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 6);
        asm.network_half(Reg::R1);
        asm.jump_if(Reg::R1, When::AnyBit, 0x1fff, self.later_fragment);
        asm.alu(Alu::And, Reg::R1, 0x2000);
        asm.store(Width::Double, Reg::R10, IS_FIRST, Reg::R1);
        asm.jump(self.udp);
    }

    fn internet_v6(&mut self) {
        self.asm.place(self.ipv6);
        self.read(HEADER, 40);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER);
        self.asm.alu(Alu::ShiftRight, Reg::R1, 4);
        self.asm.jump_if(Reg::R1, When::NotEqual, 6, self.malformed);
        self.asm.store_value(Width::Byte, Reg::R10, KEY + KEY_VERSION, 6);
        self.move_doubles(KEY, (Reg::R10, HEADER + 8), 32);
        let asm = &mut self.asm;
        let jumbo = asm.label();
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 4);
        asm.network_half(Reg::R1);
        asm.jump_if(Reg::R1, When::Equal, 0, jumbo);
        asm.alu(Alu::Add, Reg::R1, 40);
        asm.place(jumbo);
        self.packet_length(Reg::R1);
        self.asm.load(Width::Byte, NEXT, Reg::R10, HEADER + 6);
        self.asm.alu(Alu::Add, AT, 40);
        for _ in 0..DEEPEST_EXTENSIONS {
            self.extension();
        }
        self.asm.jump_if(NEXT, When::Equal, i32::from(UDP), self.udp);
        for header in EXTENSIONS.into_iter().chain([IPV6_FRAGMENT, IPV6_AH]) {
            self.asm.jump_if(NEXT, When::Equal, i32::from(header), self.too_deep);
        }
        self.asm.jump(self.done);
    }

    /// One IPv6 extension header; UDP leaves the chain, anything unknown ends the program.
    fn extension(&mut self) {
        let [options, authentication, fragment, length, after] = std::array::from_fn(|_| self.asm.label());
        self.asm.jump_if(NEXT, When::Equal, i32::from(UDP), self.udp);
        self.asm.jump_if(NEXT, When::Equal, i32::from(IPV6_FRAGMENT), fragment);
        self.asm.jump_if(NEXT, When::Equal, i32::from(IPV6_AH), authentication);
        for header in EXTENSIONS {
            self.asm.jump_if(NEXT, When::Equal, i32::from(header), options);
        }
        self.asm.jump(self.done);

        self.asm.place(authentication);
        self.read(HEADER, 2);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER + 1);
        self.asm.alu(Alu::Add, Reg::R1, 2);
        self.asm.alu(Alu::ShiftLeft, Reg::R1, 2);
        self.asm.jump(length);

        self.asm.place(options);
        self.read(HEADER, 2);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER + 1);
        self.asm.alu(Alu::Add, Reg::R1, 1);
        self.asm.alu(Alu::ShiftLeft, Reg::R1, 3);
        self.asm.place(length);
        self.asm.alu_reg(Alu::Add, AT, Reg::R1);
        self.asm.load(Width::Byte, NEXT, Reg::R10, HEADER);
        self.asm.jump(after);

        self.asm.place(fragment);
        self.read(HEADER, 8);
        let asm = &mut self.asm;
        asm.alu(Alu::Add, AT, 8);
        asm.load(Width::Byte, NEXT, Reg::R10, HEADER);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 4);
        asm.store(Width::Double, Reg::R10, IDENTIFICATION, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 2);
        asm.network_half(Reg::R1);
        asm.jump_if(Reg::R1, When::AnyBit, 0xfff8, self.later_fragment);
        asm.alu(Alu::And, Reg::R1, 1);
        asm.store(Width::Double, Reg::R10, IS_FIRST, Reg::R1);
        asm.place(after);
    }

    /// UDP header; how many packets a segmentation-offloaded one becomes.
    fn datagram(&mut self) {
        self.asm.place(self.udp);
        self.read(HEADER, 8);
        let asm = &mut self.asm;
        let single = asm.label();
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER);
        asm.store(Width::Word, Reg::R10, KEY + KEY_PORTS, Reg::R1);
        // R3: all headers from IP to UDP; they must lie within the packet.
        asm.copy(Reg::R3, AT);
        asm.alu_reg(Alu::Sub, Reg::R3, IP);
        asm.alu(Alu::Add, Reg::R3, 8);
        asm.load(Width::Double, Reg::R2, Reg::R10, OCTETS);
        asm.jump_if_reg(Reg::R3, When::Above, Reg::R2, self.malformed);
        asm.set(Reg::R5, 1);
        asm.store(Width::Double, Reg::R10, PACKETS, Reg::R5);
        asm.load(Width::Word, Reg::R4, SKB, SKB_GSO_SIZE);
        asm.jump_if(Reg::R4, When::Equal, 0, single);
        // R5 = ceil(payload / size); each but the first has its own headers.
        asm.copy(Reg::R5, Reg::R2);
        asm.alu_reg(Alu::Sub, Reg::R5, Reg::R3);
        asm.jump_if_reg(Reg::R5, When::AtMost, Reg::R4, single);
        asm.alu_reg(Alu::Add, Reg::R5, Reg::R4);
        asm.alu(Alu::Sub, Reg::R5, 1);
        asm.alu_reg(Alu::Div, Reg::R5, Reg::R4);
        asm.store(Width::Double, Reg::R10, PACKETS, Reg::R5);
        asm.alu(Alu::Sub, Reg::R5, 1);
        asm.alu_reg(Alu::Mul, Reg::R5, Reg::R3);
        asm.alu_reg(Alu::Add, Reg::R2, Reg::R5);
        asm.store(Width::Double, Reg::R10, OCTETS, Reg::R2);
        asm.place(single);
        asm.call(Helper::KtimeGetNs);
        asm.store(Width::Double, Reg::R10, NOW, Reg::R0);
        asm.load(Width::Double, Reg::R1, Reg::R10, IS_FIRST);
        asm.jump_if(Reg::R1, When::Equal, 0, self.count);
    }

    fn part_key(&mut self) {
        self.move_doubles(PART_KEY, (Reg::R10, KEY), KEY_BYTES);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, IDENTIFICATION);
        self.asm.store(Width::Word, Reg::R10, PART_KEY + KEY_PORTS, Reg::R1);
    }

    /// Looks the datagram up; jumps away unless its entry (then in R0) is young enough.
    fn living_part(&mut self, none: Label) {
        self.lookup(self.maps.parts, PART_KEY);
        let asm = &mut self.asm;
        asm.jump_if(Reg::R0, When::Equal, 0, none);
        asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        asm.load(Width::Double, Reg::R2, Reg::R0, PART_SEEN);
        asm.alu_reg(Alu::Sub, Reg::R1, Reg::R2);
        asm.alu(Alu::ShiftRight, Reg::R1, 30);
        asm.jump_if(Reg::R1, When::Above, i32::from(FRAGMENT_LIFE), none);
    }

    /// A first fragment: the later ones find their flow through it, and those that came early are taken over.
    fn first_fragment(&mut self) {
        let alone = self.asm.label();
        self.part_key();
        self.living_part(alone);
        let asm = &mut self.asm;
        asm.load(Width::Double, Reg::R1, Reg::R0, PART_WAITS);
        asm.jump_if(Reg::R1, When::Equal, 0, alone);
        asm.load(Width::Double, Reg::R3, Reg::R0, PART_PACKETS);
        asm.load(Width::Double, Reg::R4, Reg::R0, PART_OCTETS);
        asm.store(Width::Double, Reg::R10, FRAGMENTS, Reg::R3);
        for (mine, early, strays) in
            [(PACKETS, Reg::R3, TOTAL_STRAY_PACKETS), (OCTETS, Reg::R4, TOTAL_STRAY_OCTETS)]
        {
            self.asm.load(Width::Double, Reg::R1, Reg::R10, mine);
            self.asm.alu_reg(Alu::Add, Reg::R1, early);
            self.asm.store(Width::Double, Reg::R10, mine, Reg::R1);
            self.asm.negate(early);
            self.total(strays, early);
        }
        self.asm.place(alone);
        self.zero(VALUE, PART_BYTES);
        self.move_doubles(VALUE, (Reg::R10, KEY), KEY_BYTES);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        self.asm.store(Width::Double, Reg::R10, VALUE + PART_SEEN, Reg::R1);
        self.update(self.maps.parts, PART_KEY, 0);
        self.asm.jump(self.count);
    }

    /// Adds the packet to its flow, which is made if there is room.
    fn add_up(&mut self) {
        const ONLY_NEW: i32 = 1;
        self.asm.place(self.count);
        let (found, room) = (self.asm.label(), self.asm.label());
        self.lookup(self.maps.flows, KEY);
        self.asm.jump_if(Reg::R0, When::NotEqual, 0, found);
        self.zero(VALUE, COUNT_BYTES);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        self.asm.store(Width::Double, Reg::R10, VALUE + COUNT_FIRST, Reg::R1);
        self.guest_mac();
        self.update(self.maps.flows, KEY, ONLY_NEW);
        self.lookup(self.maps.flows, KEY);
        self.asm.jump_if(Reg::R0, When::NotEqual, 0, room);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, PACKETS);
        self.total(TOTAL_NO_ROOM, Reg::R1);
        self.asm.jump(self.done);
        self.asm.place(found);
        self.asm.place(room);
        for (counter, amount) in
            [(COUNT_PACKETS, PACKETS), (COUNT_OCTETS, OCTETS), (COUNT_FRAGMENTS, FRAGMENTS)]
        {
            let none = self.asm.label();
            self.asm.load(Width::Double, Reg::R1, Reg::R10, amount);
            self.asm.jump_if(Reg::R1, When::Equal, 0, none);
            self.asm.atomic_add(Reg::R0, counter, Reg::R1);
            self.asm.place(none);
        }
        self.asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        self.asm.store(Width::Double, Reg::R0, COUNT_LAST, Reg::R1);
        self.asm.jump(self.done);
    }

    fn guest_mac(&mut self) {
        let asm = &mut self.asm;
        let (from_guest, stored) = (asm.label(), asm.label());
        asm.load(Width::Byte, Reg::R1, Reg::R10, KEY + KEY_FROM_GUEST);
        asm.jump_if(Reg::R1, When::NotEqual, 0, from_guest);
        for (at, after) in [(0, Some(stored)), (6, None)] {
            for half in [0, 2, 4] {
                asm.load(Width::Half, Reg::R1, Reg::R10, ETHERNET + at + half);
                asm.store(Width::Half, Reg::R10, VALUE + COUNT_GUEST_MAC + half, Reg::R1);
            }
            if let Some(after) = after {
                asm.jump(after);
                asm.place(from_guest);
            }
        }
        asm.place(stored);
    }

    /// A fragment that does not carry the ports: its flow is that of the first fragment of the datagram.
    fn fragment_without_ports(&mut self) {
        let [unheard, wait] = std::array::from_fn(|_| self.asm.label());
        self.asm.place(self.later_fragment);
        self.asm.call(Helper::KtimeGetNs);
        self.asm.store(Width::Double, Reg::R10, NOW, Reg::R0);
        self.part_key();
        self.asm.set(Reg::R1, 1);
        self.asm.store(Width::Double, Reg::R10, PACKETS, Reg::R1);
        self.asm.store(Width::Double, Reg::R10, FRAGMENTS, Reg::R1);
        self.living_part(unheard);
        self.asm.load(Width::Double, Reg::R1, Reg::R0, PART_WAITS);
        self.asm.jump_if(Reg::R1, When::NotEqual, 0, wait);
        self.move_doubles(KEY, (Reg::R0, 0), KEY_BYTES);
        self.asm.jump(self.count);

        // Known to wait already: one more. (A header other than UDP's never made such an entry.)
        self.asm.place(wait);
        self.asm.set(Reg::R1, 1);
        self.asm.atomic_add(Reg::R0, PART_PACKETS, Reg::R1);
        self.total(TOTAL_STRAY_PACKETS, Reg::R1);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, OCTETS);
        self.asm.atomic_add(Reg::R0, PART_OCTETS, Reg::R1);
        self.total(TOTAL_STRAY_OCTETS, Reg::R1);
        self.asm.jump(self.done);

        self.asm.place(unheard);
        self.asm.jump_if(NEXT, When::NotEqual, i32::from(UDP), self.done);
        self.zero(VALUE, PART_BYTES);
        for (to, from) in
            [(PART_SEEN, NOW), (PART_WAITS, PACKETS), (PART_PACKETS, PACKETS), (PART_OCTETS, OCTETS)]
        {
            self.asm.load(Width::Double, Reg::R1, Reg::R10, from);
            self.asm.store(Width::Double, Reg::R10, VALUE + to, Reg::R1);
        }
        self.asm.load(Width::Double, Reg::R1, Reg::R10, PACKETS);
        self.total(TOTAL_STRAY_PACKETS, Reg::R1);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, OCTETS);
        self.total(TOTAL_STRAY_OCTETS, Reg::R1);
        self.update(self.maps.parts, PART_KEY, 0);
        self.asm.jump(self.done);
    }

    /// The ways out; the result is always 0: nothing goes to the socket.
    fn ends(&mut self) {
        for (label, total) in [(self.malformed, TOTAL_MALFORMED), (self.too_deep, TOTAL_TOO_DEEP)] {
            self.asm.place(label);
            self.asm.set(Reg::R1, 1);
            self.total(total, Reg::R1);
            self.asm.jump(self.done);
        }
        self.asm.place(self.done);
        self.asm.set(Reg::R0, 0);
        self.asm.exit();
    }
}
