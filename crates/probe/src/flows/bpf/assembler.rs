//! A small assembler for eBPF: instructions as methods, jumps to labels, no toolchain.
//!
//! Only the instructions that the flow counter needs. Encodings follow the kernel's
//! Documentation/bpf/standardization/instruction-set.rst. It never panics: a label that was never placed or is too
//! far away is an error of [`Assembler::finish`].

/// Registers. R0 is a call's result, R1 to R5 its arguments (lost by the call), R6 to R9 survive calls,
/// R10 points to the end of the 512-byte stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of a load or store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// 64-bit arithmetic, unsigned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Move = 0xb0,
}

/// Condition of a jump; comparisons are unsigned, [`Condition::AnyBit`] is a bit test.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition {
    Equal = 0x10,
    Above = 0x20,
    AnyBit = 0x40,
    NotEqual = 0x50,
    Below = 0xa0,
    AtMost = 0xb0,
}

/// Kernel functions a program calls, by their number in include/uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    KtimeGetNs = 5,
    SkbLoadBytes = 26,
    KtimeGetCoarseNs = 160,
}

/// A jump target in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// One instruction in the kernel's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A jump without a reachable target: a bug in vmgate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flow counter could not be assembled: jump at instruction {at} has no reachable target")]
pub struct BrokenJump {
    at: usize,
}

/// A program under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<Instruction>,
    places: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

const CLASS_LD: u8 = 0x00;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU: u8 = 0x04;
const CLASS_JMP: u8 = 0x05;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEM: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
const SOURCE_REGISTER: u8 = 0x08;
const TO_BIG_ENDIAN: u8 = 0xd8;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// Source field of a 64-bit immediate that is a map, or an address within an array map's value.
const PSEUDO_MAP: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

impl Assembler {
    fn emit(&mut self, code: u8, dst: Reg, src: u8, offset: i16, immediate: i32) {
        let registers =
            if cfg!(target_endian = "little") { src << 4 | dst as u8 } else { (dst as u8) << 4 | src };
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    /// `dst = dst op value`
    pub(crate) fn alu(&mut self, op: Alu, dst: Reg, value: i32) {
        self.emit(CLASS_ALU64 | op as u8, dst, 0, 0, value);
    }

    /// `dst = dst op src`
    pub(crate) fn alu_reg(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.emit(CLASS_ALU64 | SOURCE_REGISTER | op as u8, dst, src as u8, 0, 0);
    }

    /// `dst = value`
    pub(crate) fn set(&mut self, dst: Reg, value: i32) {
        self.alu(Alu::Move, dst, value);
    }

    /// `dst = src`
    pub(crate) fn copy(&mut self, dst: Reg, src: Reg) {
        self.alu_reg(Alu::Move, dst, src);
    }

    /// `dst = -dst`, as the two's complement, so that an atomic add subtracts.
    pub(crate) fn negate(&mut self, dst: Reg) {
        self.emit(CLASS_ALU64 | 0x80, dst, 0, 0, 0);
    }

    /// `dst = the low 16 bits of dst, which are in network order, as a number`
    pub(crate) fn network_half(&mut self, dst: Reg) {
        self.emit(CLASS_ALU | TO_BIG_ENDIAN, dst, 0, 0, 16);
    }

    /// `dst = the low 32 bits of dst, which are in network order, as a number`
    pub(crate) fn network_word(&mut self, dst: Reg) {
        self.emit(CLASS_ALU | TO_BIG_ENDIAN, dst, 0, 0, 32);
    }

    /// `dst = the low 32 bits of dst`
    pub(crate) fn low_word(&mut self, dst: Reg) {
        self.alu(Alu::ShiftLeft, dst, 32);
        self.alu(Alu::ShiftRight, dst, 32);
    }

    /// `dst = base[offset]`
    pub(crate) fn load(&mut self, width: Width, dst: Reg, base: Reg, offset: i16) {
        self.emit(CLASS_LDX | MODE_MEM | width as u8, dst, base as u8, offset, 0);
    }

    /// `base[offset] = src`
    pub(crate) fn store(&mut self, width: Width, base: Reg, offset: i16, src: Reg) {
        self.emit(CLASS_STX | MODE_MEM | width as u8, base, src as u8, offset, 0);
    }

    /// `base[offset] = value`
    pub(crate) fn store_value(&mut self, width: Width, base: Reg, offset: i16, value: i32) {
        self.emit(CLASS_ST | MODE_MEM | width as u8, base, 0, offset, value);
    }

    /// `base[offset] += src`, atomically, 64 bits
    pub(crate) fn atomic_add(&mut self, base: Reg, offset: i16, src: Reg) {
        self.emit(CLASS_STX | MODE_ATOMIC | Width::Double as u8, base, src as u8, offset, 0);
    }

    /// `dst = R10 + offset`, an address on the stack
    pub(crate) fn stack(&mut self, dst: Reg, offset: i16) {
        self.copy(dst, Reg::R10);
        self.alu(Alu::Add, dst, i32::from(offset));
    }

    /// `dst = the map behind the descriptor`
    pub(crate) fn map(&mut self, dst: Reg, descriptor: i32) {
        self.wide(dst, PSEUDO_MAP, descriptor, 0);
    }

    /// `dst = the address of byte offset in the one value of an array map`
    pub(crate) fn map_value(&mut self, dst: Reg, descriptor: i32, offset: i32) {
        self.wide(dst, PSEUDO_MAP_VALUE, descriptor, offset);
    }

    fn wide(&mut self, dst: Reg, kind: u8, low: i32, high: i32) {
        self.emit(CLASS_LD | Width::Double as u8, dst, kind, 0, low);
        self.emit(0, Reg::R0, 0, 0, high);
    }

    /// `R0 = helper(R1, …)`
    pub(crate) fn call(&mut self, helper: Helper) {
        self.emit(CLASS_JMP | CALL, Reg::R0, 0, 0, helper as i32);
    }

    /// Ends the program; R0 is its result.
    pub(crate) fn exit(&mut self) {
        self.emit(CLASS_JMP | EXIT, Reg::R0, 0, 0, 0);
    }

    /// A label, to be placed once with [`Self::place`].
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Places the label before the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// Jumps to the label.
    pub(crate) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(CLASS_JMP, Reg::R0, 0, 0, 0);
    }

    /// Jumps to the label if the comparison of the register with the value holds.
    pub(crate) fn jump_if(&mut self, dst: Reg, condition: Condition, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(CLASS_JMP | condition as u8, dst, 0, 0, value);
    }

    /// Jumps to the label if the comparison of the two registers holds.
    pub(crate) fn jump_if_reg(&mut self, dst: Reg, condition: Condition, src: Reg, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(CLASS_JMP | SOURCE_REGISTER | condition as u8, dst, src as u8, 0, 0);
    }

    /// The finished program, its jumps resolved.
    pub(crate) fn finish(mut self) -> Result<Vec<Instruction>, BrokenJump> {
        for (at, label) in self.jumps {
            let distance = self
                .places
                .get(label.0)
                .copied()
                .flatten()
                .and_then(|target| target.checked_sub(at + 1))
                .and_then(|distance| i16::try_from(distance).ok());
            match (self.code.get_mut(at), distance) {
                (Some(jump), Some(distance)) => jump.offset = distance,
                _ => return Err(BrokenJump { at }),
            }
        }
        Ok(self.code)
    }
}

#[cfg(test)]
mod tests {
    use crate::flows::bpf::assembler::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_documents_them() {
        let mut asm = Assembler::default();
        asm.load(Width::Word, Reg::R1, Reg::R6, 4);
        asm.network_half(Reg::R9);
        asm.atomic_add(Reg::R1, 16, Reg::R2);
        asm.exit();
        let code = asm.finish().unwrap();
        let bytes: Vec<_> =
            code.iter().map(|one| (one.code, one.registers, one.offset, one.immediate)).collect();
        assert_eq!(bytes, [(0x61, 0x61, 4, 0), (0xdc, 0x09, 0, 16), (0xdb, 0x21, 16, 0), (0x95, 0, 0, 0)]);
    }

    #[test]
    fn a_jump_counts_from_the_instruction_after_it() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.jump_if(Reg::R1, Condition::Equal, 7, end);
        asm.map(Reg::R2, 3);
        asm.place(end);
        asm.exit();
        assert_eq!(asm.finish().unwrap()[0].offset, 2);
    }

    #[test]
    fn a_label_that_was_never_placed_is_an_error() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), Err(BrokenJump { at: 0 }));
    }

    #[test]
    fn a_jump_backwards_is_an_error() {
        let mut asm = Assembler::default();
        let start = asm.label();
        asm.place(start);
        asm.jump(start);
        assert_eq!(asm.finish(), Err(BrokenJump { at: 0 }));
    }
}
