//! Counting part of the program: UDP datagrams and their segments, fragments, and the sums of each flow.

use crate::flows::{
    bpf::{
        assembler::{Alu, Condition, Label, Reg, Width},
        counter::{
            AT, Counter, ETHERNET, FRAGMENTS, HEADER, IDENTIFICATION, IP, IS_FIRST, KEY, NEXT, NOW, OCTETS,
            PACKETS, PART_KEY, SKB, VALUE,
        },
        layout::{
            COUNT_BYTES, COUNT_FIRST, COUNT_FRAGMENTS, COUNT_GUEST_MAC, COUNT_LAST, COUNT_OCTETS,
            COUNT_PACKETS, KEY_BYTES, KEY_FROM_GUEST, KEY_PORTS, KEY_PROTOCOL, PART_BYTES, PART_OCTETS,
            PART_PACKETS, PART_SEEN, PART_WAITS, TOTAL_NO_ROOM, TOTAL_STRAY_OCTETS, TOTAL_STRAY_PACKETS,
        },
    },
    parse::{FRAGMENT_LIFE, UDP},
};

/// Offset in struct __sk_buff of the payload size of each segment of an offloaded packet; 0 for others.
const SKB_GSO_SIZE: i16 = 176;

impl Counter {
    /// UDP header, and number of segments of a segmentation-offloaded packet.
    pub(super) fn datagram(&mut self) {
        self.asm.place(self.udp);
        self.read(HEADER, 8);
        let asm = &mut self.asm;
        let single = asm.label();
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER);
        asm.place(self.ports);
        asm.store(Width::Word, Reg::R10, KEY + KEY_PORTS, Reg::R1);
        // R3: length of all headers from IP to UDP, which must not exceed the packet.
        asm.copy(Reg::R3, AT);
        asm.alu_reg(Alu::Sub, Reg::R3, IP);
        asm.alu(Alu::Add, Reg::R3, 8);
        asm.load(Width::Double, Reg::R2, Reg::R10, OCTETS);
        asm.jump_if_reg(Reg::R3, Condition::Above, Reg::R2, self.malformed);
        asm.set(Reg::R5, 1);
        asm.store(Width::Double, Reg::R10, PACKETS, Reg::R5);
        asm.load(Width::Word, Reg::R4, SKB, SKB_GSO_SIZE);
        asm.jump_if(Reg::R4, Condition::Equal, 0, single);
        // R5 = ceil(payload / size); every segment but the first adds its own headers.
        asm.copy(Reg::R5, Reg::R2);
        asm.alu_reg(Alu::Sub, Reg::R5, Reg::R3);
        asm.jump_if_reg(Reg::R5, Condition::AtMost, Reg::R4, single);
        asm.alu_reg(Alu::Add, Reg::R5, Reg::R4);
        asm.alu(Alu::Sub, Reg::R5, 1);
        asm.alu_reg(Alu::Div, Reg::R5, Reg::R4);
        asm.store(Width::Double, Reg::R10, PACKETS, Reg::R5);
        asm.alu(Alu::Sub, Reg::R5, 1);
        asm.alu_reg(Alu::Mul, Reg::R5, Reg::R3);
        asm.alu_reg(Alu::Add, Reg::R2, Reg::R5);
        asm.store(Width::Double, Reg::R10, OCTETS, Reg::R2);
        asm.place(single);
        self.now();
        self.asm.load(Width::Double, Reg::R1, Reg::R10, IS_FIRST);
        self.asm.jump_if(Reg::R1, Condition::Equal, 0, self.count);
    }

    pub(super) fn part_key(&mut self) {
        self.move_doubles(PART_KEY, (Reg::R10, KEY), KEY_BYTES);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, IDENTIFICATION);
        self.asm.store(Width::Word, Reg::R10, PART_KEY + KEY_PORTS, Reg::R1);
    }

    /// Looks the datagram up; jumps to `none` unless its entry (then in R0) is young enough.
    pub(super) fn living_part(&mut self, none: Label) {
        self.lookup(self.maps.parts, PART_KEY);
        let asm = &mut self.asm;
        asm.jump_if(Reg::R0, Condition::Equal, 0, none);
        asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        asm.load(Width::Double, Reg::R2, Reg::R0, PART_SEEN);
        asm.alu_reg(Alu::Sub, Reg::R1, Reg::R2);
        asm.alu(Alu::ShiftRight, Reg::R1, 30);
        asm.jump_if(Reg::R1, Condition::Above, i32::from(FRAGMENT_LIFE), none);
    }

    /// First fragment: records the flow for later fragments, and adds those that arrived before it.
    pub(super) fn first_fragment(&mut self) {
        let alone = self.asm.label();
        self.part_key();
        self.living_part(alone);
        let asm = &mut self.asm;
        asm.load(Width::Double, Reg::R1, Reg::R0, PART_WAITS);
        asm.jump_if(Reg::R1, Condition::Equal, 0, alone);
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

    /// Adds the datagram to its flow.
    pub(super) fn count_datagram(&mut self) {
        self.asm.place(self.count);
        self.asm.store_value(Width::Byte, Reg::R10, KEY + KEY_PROTOCOL, i32::from(UDP));
        self.add_up(self.maps.flows, TOTAL_NO_ROOM);
        self.asm.jump(self.sample);
    }

    /// Adds the packet to its entry, which is created if the table has room; the entry is then in R0.
    pub(super) fn add_up(&mut self, map: i32, no_room: i16) {
        const ONLY_NEW: i32 = 1;
        let (found, room) = (self.asm.label(), self.asm.label());
        self.lookup(map, KEY);
        self.asm.jump_if(Reg::R0, Condition::NotEqual, 0, found);
        self.zero(VALUE, COUNT_BYTES);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        self.asm.store(Width::Double, Reg::R10, VALUE + COUNT_FIRST, Reg::R1);
        self.guest_mac();
        self.update(map, KEY, ONLY_NEW);
        self.lookup(map, KEY);
        self.asm.jump_if(Reg::R0, Condition::NotEqual, 0, room);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, PACKETS);
        self.total(no_room, Reg::R1);
        self.asm.jump(self.done);
        self.asm.place(found);
        self.asm.place(room);
        for (counter, amount) in
            [(COUNT_PACKETS, PACKETS), (COUNT_OCTETS, OCTETS), (COUNT_FRAGMENTS, FRAGMENTS)]
        {
            let none = self.asm.label();
            self.asm.load(Width::Double, Reg::R1, Reg::R10, amount);
            self.asm.jump_if(Reg::R1, Condition::Equal, 0, none);
            self.asm.atomic_add(Reg::R0, counter, Reg::R1);
            self.asm.place(none);
        }
        self.asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        self.asm.store(Width::Double, Reg::R0, COUNT_LAST, Reg::R1);
    }

    pub(super) fn guest_mac(&mut self) {
        let asm = &mut self.asm;
        let (from_guest, stored) = (asm.label(), asm.label());
        asm.load(Width::Byte, Reg::R1, Reg::R10, KEY + KEY_FROM_GUEST);
        asm.jump_if(Reg::R1, Condition::NotEqual, 0, from_guest);
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

    /// Later fragment, which carries no ports: it belongs to the flow of the datagram's first fragment.
    pub(super) fn fragment_without_ports(&mut self) {
        let [unheard, wait] = std::array::from_fn(|_| self.asm.label());
        self.asm.place(self.later_fragment);
        self.now();
        self.part_key();
        self.asm.set(Reg::R1, 1);
        self.asm.store(Width::Double, Reg::R10, PACKETS, Reg::R1);
        self.asm.store(Width::Double, Reg::R10, FRAGMENTS, Reg::R1);
        self.living_part(unheard);
        self.asm.load(Width::Double, Reg::R1, Reg::R0, PART_WAITS);
        self.asm.jump_if(Reg::R1, Condition::NotEqual, 0, wait);
        self.move_doubles(KEY, (Reg::R0, 0), KEY_BYTES);
        self.asm.jump(self.count);

        // The entry already waits for its first fragment: add one more. (Only UDP creates such an entry.)
        self.asm.place(wait);
        self.asm.set(Reg::R1, 1);
        self.asm.atomic_add(Reg::R0, PART_PACKETS, Reg::R1);
        self.total(TOTAL_STRAY_PACKETS, Reg::R1);
        self.asm.load(Width::Double, Reg::R1, Reg::R10, OCTETS);
        self.asm.atomic_add(Reg::R0, PART_OCTETS, Reg::R1);
        self.total(TOTAL_STRAY_OCTETS, Reg::R1);
        self.asm.jump(self.done);

        self.asm.place(unheard);
        self.asm.jump_if(NEXT, Condition::NotEqual, i32::from(UDP), self.done);
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
}
