//! The program that counts flows in the kernel, as a socket filter: it reads every frame of the interface and passes a
//! bounded number of them to the socket (see [`Budget`]).
//!
//! The packet is read with bpf_skb_load_bytes only, so no guest can make it read beyond a packet. It classifies frames
//! like [`parse`](crate::flows::parse); a test runs both on the same frames and compares.

use crate::flows::{
    GuestEnd,
    bpf::{
        assembler::{Alu, Assembler, BrokenJump, Condition, Helper, Instruction, Label, Reg, Width},
        layout::{
            BUDGET_PASSED, BUDGET_REFUSED, Budget, KEY_BYTES, TOTAL_FRAMES, TOTAL_MALFORMED, TOTAL_TOO_DEEP,
        },
    },
    filter::SNAP_BYTES,
};

/// The clocks that a program may read. Both count from the same moment, so their values are comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Time of the last tick, at most 10 ms ago; far cheaper. Needs Linux 5.11.
    Coarse,
    /// Exact time. Needs Linux 5.8 for programs that are not under the GPL.
    Exact,
}

/// File descriptors of the maps that the program writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    pub(crate) flows: i32,
    pub(crate) streams: i32,
    pub(crate) parts: i32,
    pub(crate) totals: i32,
}

// The stack, below R10.
pub(super) const KEY: i16 = -48;
pub(super) const PART_KEY: i16 = -96;
pub(super) const VALUE: i16 = -176;
pub(super) const HEADER: i16 = -216;
/// Directly below [`HEADER`], so that one call reads both.
pub(super) const ETHERNET: i16 = HEADER - 14;
pub(super) const NOW: i16 = -240;
pub(super) const OCTETS: i16 = -248;
pub(super) const PACKETS: i16 = -256;
pub(super) const FRAGMENTS: i16 = -264;
/// Nonzero if the packet is the first fragment of a datagram.
pub(super) const IS_FIRST: i16 = -272;
pub(super) const IDENTIFICATION: i16 = -280;
// Of a TCP segment.
pub(super) const SEQUENCE: i16 = -288;
pub(super) const DATA: i16 = -296;
pub(super) const FLAGS: i16 = -304;

/// The context (struct __sk_buff), throughout the program.
pub(super) const SKB: Reg = Reg::R6;
/// Offset in the frame of the next header.
pub(super) const AT: Reg = Reg::R7;
/// Offset of the IP header.
pub(super) const IP: Reg = Reg::R8;
/// EtherType, then the protocol of the next header.
pub(super) const NEXT: Reg = Reg::R9;

/// The program under construction.
pub(super) struct Counter {
    pub(super) asm: Assembler,
    pub(super) maps: Maps,
    pub(super) clock: Clock,
    /// Exit without counting.
    pub(super) done: Label,
    pub(super) malformed: Label,
    pub(super) too_deep: Label,
    pub(super) ipv4: Label,
    pub(super) ipv6: Label,
    pub(super) udp: Label,
    /// As `udp`, with the ports in R1.
    pub(super) ports: Label,
    pub(super) later_fragment: Label,
    pub(super) count: Label,
    /// Packet of any protocol but UDP.
    pub(super) stream: Label,
    /// Decision on a packet whose flow's entry is in R0: to the socket, or not.
    pub(super) sample: Label,
    /// Frame that is not IP.
    pub(super) link: Label,
    pub(super) pass: Label,
}

/// Assembles the program for an interface with the guest at the given end.
pub(crate) fn assemble(maps: Maps, guest: GuestEnd, clock: Clock) -> Result<Vec<Instruction>, BrokenJump> {
    let mut asm = Assembler::default();
    let mut label = || asm.label();
    let mut counter = Counter {
        done: label(),
        malformed: label(),
        too_deep: label(),
        ipv4: label(),
        ipv6: label(),
        udp: label(),
        ports: label(),
        later_fragment: label(),
        count: label(),
        stream: label(),
        sample: label(),
        link: label(),
        pass: label(),
        asm,
        maps,
        clock,
    };
    counter.begin();
    counter.link_layer(guest);
    counter.internet_v4();
    counter.internet_v6();
    counter.datagram();
    counter.first_fragment();
    counter.fragment_without_ports();
    counter.count_datagram();
    counter.stream();
    counter.sample();
    counter.ends();
    counter.asm.finish()
}

impl Counter {
    /// Reads `length` bytes of the frame at [`AT`] to the stack, or counts the packet as malformed.
    pub(super) fn read(&mut self, to: i16, length: i32) {
        let asm = &mut self.asm;
        asm.copy(Reg::R1, SKB);
        asm.copy(Reg::R2, AT);
        asm.stack(Reg::R3, to);
        asm.set(Reg::R4, length);
        asm.call(Helper::SkbLoadBytes);
        asm.jump_if(Reg::R0, Condition::NotEqual, 0, self.malformed);
    }

    pub(super) fn zero(&mut self, from: i16, bytes: usize) {
        for double in 0..i16::try_from(bytes / 8).unwrap_or(0) {
            self.asm.store_value(Width::Double, Reg::R10, from + 8 * double, 0);
        }
    }

    pub(super) fn move_doubles(&mut self, to: i16, from: (Reg, i16), bytes: usize) {
        for double in 0..i16::try_from(bytes / 8).unwrap_or(0) {
            self.asm.load(Width::Double, Reg::R1, from.0, from.1 + 8 * double);
            self.asm.store(Width::Double, Reg::R10, to + 8 * double, Reg::R1);
        }
    }

    /// Adds a register to one of the totals; R2 is lost.
    pub(super) fn total(&mut self, at: i16, amount: Reg) {
        self.asm.map_value(Reg::R2, self.maps.totals, i32::from(at));
        self.asm.atomic_add(Reg::R2, 0, amount);
    }

    pub(super) fn lookup(&mut self, map: i32, key: i16) {
        self.asm.map(Reg::R1, map);
        self.asm.stack(Reg::R2, key);
        self.asm.call(Helper::MapLookup);
    }

    pub(super) fn update(&mut self, map: i32, key: i16, flags: i32) {
        self.asm.map(Reg::R1, map);
        self.asm.stack(Reg::R2, key);
        self.asm.stack(Reg::R3, VALUE);
        self.asm.set(Reg::R4, flags);
        self.asm.call(Helper::MapUpdate);
    }

    /// Reads the time to R0 and to the stack.
    pub(super) fn now(&mut self) {
        self.asm.call(match self.clock {
            Clock::Coarse => Helper::KtimeGetCoarseNs,
            Clock::Exact => Helper::KtimeGetNs,
        });
        self.asm.store(Width::Double, Reg::R10, NOW, Reg::R0);
    }

    pub(super) fn begin(&mut self) {
        self.asm.copy(SKB, Reg::R1);
        self.asm.set(Reg::R1, 1);
        self.total(TOTAL_FRAMES, Reg::R1);
        self.zero(KEY, KEY_BYTES);
        self.zero(HEADER, 32);
        self.zero(FRAGMENTS, 8);
        self.zero(IS_FIRST, 8);
        self.zero(IDENTIFICATION, 8);
    }

    /// The exits of the program; the result is the number of bytes that go to the socket.
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
        self.asm.place(self.pass);
        self.asm.set(Reg::R0, i32::try_from(SNAP_BYTES).unwrap_or(0));
        self.asm.exit();
    }

    /// Passes the packet if the budget has room for it; else counts it there as refused.
    pub(super) fn pass_within(&mut self, budget: Budget) {
        let asm = &mut self.asm;
        let (same, full) = (asm.label(), asm.label());
        asm.map_value(Reg::R2, self.maps.totals, i32::from(budget.at()));
        asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        asm.alu(Alu::ShiftRight, Reg::R1, 27);
        asm.load(Width::Double, Reg::R3, Reg::R2, 0);
        asm.jump_if_reg(Reg::R1, Condition::Equal, Reg::R3, same);
        asm.store(Width::Double, Reg::R2, 0, Reg::R1);
        asm.store_value(Width::Double, Reg::R2, BUDGET_PASSED, 0);
        asm.place(same);
        asm.load(Width::Double, Reg::R3, Reg::R2, BUDGET_PASSED);
        asm.jump_if(Reg::R3, Condition::Above, budget.most() - 1, full);
        asm.alu(Alu::Add, Reg::R3, 1);
        asm.store(Width::Double, Reg::R2, BUDGET_PASSED, Reg::R3);
        asm.jump(self.pass);
        asm.place(full);
        asm.set(Reg::R3, 1);
        asm.atomic_add(Reg::R2, BUDGET_REFUSED, Reg::R3);
        asm.jump(self.done);
    }
}
