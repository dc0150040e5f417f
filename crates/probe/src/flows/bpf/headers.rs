//! Header part of the program: from the frame to the UDP header, or to a fragment without one.

use crate::flows::{
    GuestEnd,
    bpf::{
        assembler::{Alu, Condition, Label, Reg, Width},
        counter::{AT, Counter, ETHERNET, HEADER, IDENTIFICATION, IP, IS_FIRST, KEY, NEXT, OCTETS, SKB},
        layout::{KEY_DESTINATION, KEY_FROM_GUEST, KEY_INNER_VLAN, KEY_VERSION, KEY_VLAN},
    },
    parse::{DEEPEST_EXTENSIONS, DEEPEST_TAGS, EXTENSIONS, IPV6_AH, IPV6_FRAGMENT, TAGS, UDP},
};

// Offsets in struct __sk_buff (include/uapi/linux/bpf.h).
const SKB_LENGTH: i16 = 0;
const SKB_PACKET_TYPE: i16 = 4;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;
const PACKET_OUTGOING: i32 = 4;
/// Ethernet without tags, IPv4 without options, UDP: one call to the kernel reads them all.
const USUAL_BYTES: i32 = 14 + 20 + 8;

impl Counter {
    /// Direction, VLANs in the packet's metadata and in the frame, EtherType.
    pub(super) fn link_layer(&mut self, guest: GuestEnd) {
        let (short, read) = (self.asm.label(), self.asm.label());
        self.asm.set(AT, 0);
        self.asm.load(Width::Word, Reg::R1, SKB, SKB_LENGTH);
        self.asm.jump_if(Reg::R1, Condition::Below, USUAL_BYTES, short);
        self.read(ETHERNET, USUAL_BYTES);
        self.asm.jump(read);
        self.asm.place(short);
        self.read(ETHERNET, 14);
        self.asm.place(read);
        self.asm.set(AT, 14);
        let asm = &mut self.asm;

        let to_guest = asm.label();
        let when_incoming = match guest {
            GuestEnd::Peer => Condition::Equal,
            GuestEnd::Interface => Condition::NotEqual,
        };
        asm.load(Width::Word, Reg::R1, SKB, SKB_PACKET_TYPE);
        asm.jump_if(Reg::R1, when_incoming, PACKET_OUTGOING, to_guest);
        asm.store_value(Width::Byte, Reg::R10, KEY + KEY_FROM_GUEST, 1);
        asm.place(to_guest);

        let untagged = asm.label();
        asm.load(Width::Word, Reg::R1, SKB, SKB_VLAN_PRESENT);
        asm.jump_if(Reg::R1, Condition::Equal, 0, untagged);
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
            self.asm.jump_if(NEXT, Condition::Equal, i32::from(tag), self.too_deep);
        }
        let asm = &mut self.asm;
        asm.place(network);
        asm.copy(IP, AT);
        asm.jump_if(NEXT, Condition::Equal, libc::ETH_P_IP, self.ipv4);
        asm.jump_if(NEXT, Condition::Equal, libc::ETH_P_IPV6, self.ipv6);
        asm.jump(self.link);
    }

    /// One VLAN tag in the frame; without one, jumps to the network layer.
    pub(super) fn tag(&mut self, network: Label) {
        let tagged = self.asm.label();
        for tag in TAGS {
            self.asm.jump_if(NEXT, Condition::Equal, i32::from(tag), tagged);
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
        asm.jump_if(Reg::R1, Condition::Equal, 0, known);
        asm.load(Width::Half, Reg::R2, Reg::R10, KEY + KEY_VLAN);
        asm.jump_if(Reg::R2, Condition::NotEqual, 0, inner);
        asm.store(Width::Half, Reg::R10, KEY + KEY_VLAN, Reg::R1);
        asm.jump(known);
        asm.place(inner);
        asm.load(Width::Half, Reg::R2, Reg::R10, KEY + KEY_INNER_VLAN);
        asm.jump_if(Reg::R2, Condition::NotEqual, 0, known);
        asm.store(Width::Half, Reg::R10, KEY + KEY_INNER_VLAN, Reg::R1);
        asm.place(known);
    }

    /// Stores the IP packet's length: the length in its header, but never more than the frame holds.
    pub(super) fn packet_length(&mut self, declared: Reg) {
        let asm = &mut self.asm;
        let (keep, cut) = (asm.label(), asm.label());
        asm.load(Width::Word, Reg::R2, SKB, SKB_LENGTH);
        asm.alu_reg(Alu::Sub, Reg::R2, IP);
        asm.jump_if(declared, Condition::Equal, 0, cut);
        asm.jump_if_reg(declared, Condition::AtMost, Reg::R2, keep);
        asm.place(cut);
        asm.copy(declared, Reg::R2);
        asm.place(keep);
        asm.store(Width::Double, Reg::R10, OCTETS, declared);
    }

    pub(super) fn internet_v4(&mut self) {
        let (elsewhere, read) = (self.asm.label(), self.asm.label());
        self.asm.place(self.ipv4);
        self.unless_read(elsewhere);
        self.asm.jump(read);
        self.asm.place(elsewhere);
        self.read(HEADER, 20);
        self.asm.place(read);
        let asm = &mut self.asm;
        asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER);
        asm.copy(Reg::R2, Reg::R1);
        asm.alu(Alu::ShiftRight, Reg::R2, 4);
        asm.jump_if(Reg::R2, Condition::NotEqual, 4, self.malformed);
        asm.alu(Alu::And, Reg::R1, 15);
        asm.jump_if(Reg::R1, Condition::Below, 5, self.malformed);
        asm.alu(Alu::ShiftLeft, Reg::R1, 2);
        asm.alu_reg(Alu::Add, AT, Reg::R1);
        asm.load(Width::Byte, NEXT, Reg::R10, HEADER + 9);
        asm.store_value(Width::Byte, Reg::R10, KEY + KEY_VERSION, 4);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 12);
        asm.store(Width::Word, Reg::R10, KEY, Reg::R1);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 16);
        asm.store(Width::Word, Reg::R10, KEY + KEY_DESTINATION, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 2);
        asm.network_half(Reg::R1);
        self.packet_length(Reg::R1);

        let asm = &mut self.asm;
        let datagram = asm.label();
        asm.jump_if(NEXT, Condition::Equal, i32::from(UDP), datagram);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 6);
        asm.network_half(Reg::R1);
        // A later fragment has no header of its own to look at.
        asm.jump_if(Reg::R1, Condition::AnyBit, 0x1fff, self.done);
        asm.jump(self.stream);
        asm.place(datagram);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 4);
        asm.store(Width::Double, Reg::R10, IDENTIFICATION, Reg::R1);
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 6);
        asm.network_half(Reg::R1);
        asm.jump_if(Reg::R1, Condition::AnyBit, 0x1fff, self.later_fragment);
        asm.alu(Alu::And, Reg::R1, 0x2000);
        asm.store(Width::Double, Reg::R10, IS_FIRST, Reg::R1);
        asm.jump_if(AT, Condition::NotEqual, 34, self.udp);
        self.unless_read(self.udp);
        self.asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 20);
        self.asm.jump(self.ports);
    }

    /// Jumps to `otherwise` unless the packet has the usual form, whose headers were read with the first call.
    fn unless_read(&mut self, otherwise: Label) {
        self.asm.jump_if(IP, Condition::NotEqual, 14, otherwise);
        self.asm.load(Width::Word, Reg::R1, SKB, SKB_LENGTH);
        self.asm.jump_if(Reg::R1, Condition::Below, USUAL_BYTES, otherwise);
    }

    pub(super) fn internet_v6(&mut self) {
        self.asm.place(self.ipv6);
        self.read(HEADER, 40);
        self.asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER);
        self.asm.alu(Alu::ShiftRight, Reg::R1, 4);
        self.asm.jump_if(Reg::R1, Condition::NotEqual, 6, self.malformed);
        self.asm.store_value(Width::Byte, Reg::R10, KEY + KEY_VERSION, 6);
        self.move_doubles(KEY, (Reg::R10, HEADER + 8), 32);
        let asm = &mut self.asm;
        let jumbo = asm.label();
        asm.load(Width::Half, Reg::R1, Reg::R10, HEADER + 4);
        asm.network_half(Reg::R1);
        asm.jump_if(Reg::R1, Condition::Equal, 0, jumbo);
        asm.alu(Alu::Add, Reg::R1, 40);
        asm.place(jumbo);
        self.packet_length(Reg::R1);
        self.asm.load(Width::Byte, NEXT, Reg::R10, HEADER + 6);
        self.asm.alu(Alu::Add, AT, 40);
        for _ in 0..DEEPEST_EXTENSIONS {
            self.extension();
        }
        self.asm.jump_if(NEXT, Condition::Equal, i32::from(UDP), self.udp);
        for header in EXTENSIONS.into_iter().chain([IPV6_FRAGMENT, IPV6_AH]) {
            self.asm.jump_if(NEXT, Condition::Equal, i32::from(header), self.too_deep);
        }
        self.asm.jump(self.stream);
    }

    /// One IPv6 extension header; UDP leaves the chain, any other protocol is a stream.
    pub(super) fn extension(&mut self) {
        let [options, authentication, fragment, length, after] = std::array::from_fn(|_| self.asm.label());
        self.asm.jump_if(NEXT, Condition::Equal, i32::from(UDP), self.udp);
        self.asm.jump_if(NEXT, Condition::Equal, i32::from(IPV6_FRAGMENT), fragment);
        self.asm.jump_if(NEXT, Condition::Equal, i32::from(IPV6_AH), authentication);
        for header in EXTENSIONS {
            self.asm.jump_if(NEXT, Condition::Equal, i32::from(header), options);
        }
        self.asm.jump(self.stream);

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
        asm.jump_if(Reg::R1, Condition::AnyBit, 0xfff8, self.later_fragment);
        asm.alu(Alu::And, Reg::R1, 1);
        asm.store(Width::Double, Reg::R10, IS_FIRST, Reg::R1);
        asm.place(after);
    }
}
