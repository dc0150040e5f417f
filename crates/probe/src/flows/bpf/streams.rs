//! Part of the program for what is not UDP: TCP connections and packets of other protocols, and the choice of the packets
//! that go to the socket.

use crate::flows::{
    bpf::{
        assembler::{Alu, Condition, Label, Reg, Width},
        counter::{AT, Counter, DATA, FLAGS, HEADER, IP, KEY, NEXT, NOW, OCTETS, PACKETS, SEQUENCE},
        layout::{
            Budget, COUNT_FLAGS, COUNT_HIGHEST, COUNT_PACKETS, COUNT_PASSED, COUNT_SENT_AGAIN, COUNT_SLOT,
            KEY_PORTS, KEY_PROTOCOL, TOTAL_STREAMS_NO_ROOM,
        },
    },
    directed_flow::{ACK, FIN, OPENING, RST, SYN},
    parse::{CONTROL_PROTOCOLS, SCTP, TCP, TCP_READ},
};

/// Most packets of one direction of a flow in a second (2^30 ns) that go to the socket.
pub(crate) const MOST_OF_A_FLOW: i32 = 64;
/// Number of packets of one direction that count as its first.
const FIRST_PACKETS: i32 = 8;

const fn immediate(flags: u32) -> i32 {
    flags.cast_signed()
}

impl Counter {
    /// Packet of any protocol but UDP, with ports if it is TCP or SCTP.
    pub(super) fn stream(&mut self) {
        let [tcp, count] = std::array::from_fn(|_| self.asm.label());
        self.asm.place(self.stream);
        self.asm.store(Width::Byte, Reg::R10, KEY + KEY_PROTOCOL, NEXT);
        self.asm.set(Reg::R1, 1);
        self.asm.store(Width::Double, Reg::R10, PACKETS, Reg::R1);
        self.now();
        self.asm.jump_if(NEXT, Condition::Equal, i32::from(TCP), tcp);
        self.asm.jump_if(NEXT, Condition::NotEqual, i32::from(SCTP), count);
        self.read(HEADER, 4);
        self.asm.load(Width::Word, Reg::R1, Reg::R10, HEADER);
        self.asm.store(Width::Word, Reg::R10, KEY + KEY_PORTS, Reg::R1);
        self.asm.jump(count);
        self.segment(tcp);
        self.asm.place(count);
        self.add_up(self.maps.streams, TOTAL_STREAMS_NO_ROOM);
        self.asm.jump_if(NEXT, Condition::NotEqual, i32::from(TCP), self.sample);
        self.sequence();
    }

    /// Ports, sequence number, length of the data and flags of a TCP segment.
    fn segment(&mut self, tcp: Label) {
        self.asm.place(tcp);
        self.read(HEADER, i32::try_from(TCP_READ).unwrap_or(0));
        let asm = &mut self.asm;
        let (no_data, flags) = (asm.label(), asm.label());
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER);
        asm.store(Width::Word, Reg::R10, KEY + KEY_PORTS, Reg::R1);
        asm.load(Width::Word, Reg::R1, Reg::R10, HEADER + 4);
        asm.network_word(Reg::R1);
        asm.store(Width::Double, Reg::R10, SEQUENCE, Reg::R1);
        // R3: length of all headers from IP to TCP; R4: what is left of the packet.
        asm.copy(Reg::R3, AT);
        asm.alu_reg(Alu::Sub, Reg::R3, IP);
        asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER + 12);
        asm.alu(Alu::ShiftRight, Reg::R1, 4);
        asm.alu(Alu::ShiftLeft, Reg::R1, 2);
        asm.alu_reg(Alu::Add, Reg::R3, Reg::R1);
        asm.load(Width::Double, Reg::R2, Reg::R10, OCTETS);
        asm.set(Reg::R4, 0);
        asm.jump_if_reg(Reg::R3, Condition::Above, Reg::R2, no_data);
        asm.copy(Reg::R4, Reg::R2);
        asm.alu_reg(Alu::Sub, Reg::R4, Reg::R3);
        asm.place(no_data);
        asm.store(Width::Double, Reg::R10, DATA, Reg::R4);
        asm.load(Width::Byte, Reg::R1, Reg::R10, HEADER + 13);
        asm.alu(Alu::And, Reg::R1, immediate(FIN | SYN | RST | ACK));
        asm.jump_if(Reg::R1, Condition::NotEqual, immediate(SYN), flags);
        asm.set(Reg::R1, immediate(SYN | OPENING));
        asm.place(flags);
        asm.store(Width::Double, Reg::R10, FLAGS, Reg::R1);
    }

    /// Flags of the connection, and whether the segment was sent before: its end is not beyond what was seen. A probe of one
    /// old byte is a keepalive.
    fn sequence(&mut self) {
        let asm = &mut self.asm;
        let [plain, no_probe, old, again, newer] = std::array::from_fn(|_| asm.label());
        asm.load(Width::Double, Reg::R1, Reg::R10, FLAGS);
        asm.load(Width::Word, Reg::R2, Reg::R0, COUNT_FLAGS);
        asm.alu_reg(Alu::Or, Reg::R2, Reg::R1);
        asm.store(Width::Word, Reg::R0, COUNT_FLAGS, Reg::R2);
        // R5: the segment's end in sequence space.
        asm.load(Width::Double, Reg::R3, Reg::R10, SEQUENCE);
        asm.load(Width::Double, Reg::R4, Reg::R10, DATA);
        asm.copy(Reg::R5, Reg::R3);
        asm.alu_reg(Alu::Add, Reg::R5, Reg::R4);
        asm.alu(Alu::And, Reg::R1, immediate(FIN | SYN));
        asm.jump_if(Reg::R1, Condition::Equal, 0, plain);
        asm.alu(Alu::Add, Reg::R5, 1);
        asm.place(plain);
        asm.low_word(Reg::R5);
        asm.load(Width::Double, Reg::R2, Reg::R0, COUNT_PACKETS);
        asm.jump_if(Reg::R2, Condition::Equal, 1, newer);
        asm.load(Width::Word, Reg::R2, Reg::R0, COUNT_HIGHEST);
        asm.jump_if(Reg::R1, Condition::NotEqual, 0, no_probe);
        asm.jump_if(Reg::R4, Condition::Above, 1, no_probe);
        asm.alu(Alu::Add, Reg::R3, 1);
        asm.low_word(Reg::R3);
        asm.jump_if_reg(Reg::R3, Condition::Equal, Reg::R2, self.sample);
        asm.place(no_probe);
        asm.copy(Reg::R3, Reg::R5);
        asm.alu_reg(Alu::Sub, Reg::R3, Reg::R2);
        asm.low_word(Reg::R3);
        asm.jump_if(Reg::R3, Condition::Equal, 0, old);
        asm.alu(Alu::ShiftRight, Reg::R3, 31);
        asm.jump_if(Reg::R3, Condition::Equal, 0, newer);
        asm.place(old);
        asm.alu_reg(Alu::Add, Reg::R4, Reg::R1);
        asm.jump_if(Reg::R4, Condition::NotEqual, 0, again);
        asm.jump(self.sample);
        asm.place(again);
        asm.load(Width::Word, Reg::R1, Reg::R0, COUNT_SENT_AGAIN);
        asm.alu(Alu::Add, Reg::R1, 1);
        asm.store(Width::Word, Reg::R0, COUNT_SENT_AGAIN, Reg::R1);
        asm.jump(self.sample);
        asm.place(newer);
        asm.store(Width::Word, Reg::R0, COUNT_HIGHEST, Reg::R5);
    }

    /// Choice of what goes to the socket: the first packets of each second of each direction, within the budgets.
    pub(super) fn sample(&mut self) {
        self.asm.place(self.sample);
        let asm = &mut self.asm;
        let [same, first, control, link] = std::array::from_fn(|_| asm.label());
        asm.load(Width::Double, Reg::R1, Reg::R10, NOW);
        asm.alu(Alu::ShiftRight, Reg::R1, 30);
        asm.load(Width::Double, Reg::R2, Reg::R0, COUNT_SLOT);
        asm.jump_if_reg(Reg::R1, Condition::Equal, Reg::R2, same);
        asm.store(Width::Double, Reg::R0, COUNT_SLOT, Reg::R1);
        asm.store_value(Width::Double, Reg::R0, COUNT_PASSED, 0);
        asm.place(same);
        asm.load(Width::Double, Reg::R3, Reg::R0, COUNT_PASSED);
        asm.jump_if(Reg::R3, Condition::Above, MOST_OF_A_FLOW - 1, self.done);
        asm.alu(Alu::Add, Reg::R3, 1);
        asm.store(Width::Double, Reg::R0, COUNT_PASSED, Reg::R3);
        asm.load(Width::Double, Reg::R3, Reg::R0, COUNT_PACKETS);
        asm.jump_if(Reg::R3, Condition::AtMost, FIRST_PACKETS, first);
        for protocol in CONTROL_PROTOCOLS {
            asm.jump_if(NEXT, Condition::Equal, i32::from(protocol), control);
        }
        self.pass_within(Budget::More);
        self.asm.place(first);
        self.pass_within(Budget::First);
        self.asm.place(self.link);
        self.now();
        self.asm.jump(link);
        self.asm.place(control);
        self.asm.place(link);
        self.pass_within(Budget::Control);
    }
}
