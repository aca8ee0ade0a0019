//! A small assembler of eBPF: as many instructions as the XDP programs need, with names, and forward jumps to labels.
//!
//! Encoding: RFC 9669. An instruction is eight bytes: opcode, two registers, offset, immediate.

/// Registers. R0 holds results, R1 to R5 arguments, R6 to R9 survive calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R6 = 6,
}

/// Width of a load. Bytes come as they lie in memory; nothing is swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// BPF_LDX | BPF_MEM.
const LOAD_MEMORY: u8 = 0x61;
/// BPF_LD | BPF_IMM | BPF_DW: two instructions, 64 bits of immediate.
const LOAD_IMMEDIATE_64: u8 = 0x18;
/// BPF_ALU64 | BPF_MOV | BPF_X, and | BPF_K.
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
/// BPF_ALU64 | BPF_ADD | BPF_K.
const ADD_IMMEDIATE: u8 = 0x07;
/// BPF_JMP | BPF_JA.
const JUMP: u8 = 0x05;
/// BPF_JMP | BPF_JGT | BPF_X.
const JUMP_IF_GREATER: u8 = 0x2d;
/// BPF_JMP32 | BPF_JEQ | BPF_K, and BPF_JNE: compare the low 32 bits.
const JUMP_IF_EQUAL_32: u8 = 0x16;
const JUMP_UNLESS_EQUAL_32: u8 = 0x56;
/// BPF_JMP | BPF_CALL.
const CALL: u8 = 0x85;
/// BPF_JMP | BPF_EXIT.
const EXIT: u8 = 0x95;
/// `src` of a 64-bit immediate load that names a map by descriptor (linux/bpf.h).
const BPF_PSEUDO_MAP_FD: u8 = 1;

/// A place to jump to, forward only: the verifier of older kernels takes no loops, and none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<u64>,
    /// Instructions that jump to a label not yet placed.
    jumps: Vec<(usize, Label)>,
    /// Where each label is.
    places: Vec<Option<usize>>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        let word = u64::from(opcode)
            | u64::from(destination) << 8
            | u64::from(source) << 12
            | u64::from(offset as u16) << 16
            | u64::from(immediate as u32) << 32;
        self.code.push(word);
    }

    fn emit_jump(&mut self, opcode: u8, left: u8, right: u8, immediate: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(opcode, left, right, 0, immediate);
    }

    /// A label, to be placed later.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The next instruction is where `label` is.
    pub(super) fn place(&mut self, label: Label) {
        let before = self.places[label.0].replace(self.code.len());
        assert!(before.is_none(), "a label has one place");
    }

    /// `to = *(width *)(from + offset)`.
    pub(super) fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.emit(LOAD_MEMORY | width as u8, to as u8, from as u8, offset, 0);
    }

    /// `to = from`.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.emit(MOVE_REGISTER, to as u8, from as u8, 0, 0);
    }

    /// `to = value`.
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.emit(MOVE_IMMEDIATE, to as u8, 0, 0, value);
    }

    /// `to += value`.
    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.emit(ADD_IMMEDIATE, to as u8, 0, 0, value);
    }

    /// `to` = the map behind the descriptor.
    pub(super) fn set_map(&mut self, to: Register, descriptor: i32) {
        self.emit(LOAD_IMMEDIATE_64, to as u8, BPF_PSEUDO_MAP_FD, 0, descriptor);
        self.code.push(0);
    }

    /// Goes on at `to`.
    pub(super) fn jump(&mut self, to: Label) {
        self.emit_jump(JUMP, 0, 0, 0, to);
    }

    /// Goes on at `to` if `left > right`.
    pub(super) fn jump_if_greater(&mut self, left: Register, right: Register, to: Label) {
        self.emit_jump(JUMP_IF_GREATER, left as u8, right as u8, 0, to);
    }

    /// Goes on at `to` if the low half of `register` is `value`.
    pub(super) fn jump_if_equal(&mut self, register: Register, value: u32, to: Label) {
        self.emit_jump(JUMP_IF_EQUAL_32, register as u8, 0, value as i32, to);
    }

    /// Goes on at `to` unless the low half of `register` is `value`.
    pub(super) fn jump_unless_equal(&mut self, register: Register, value: u32, to: Label) {
        self.emit_jump(JUMP_UNLESS_EQUAL_32, register as u8, 0, value as i32, to);
    }

    /// Calls the kernel's helper of this number.
    pub(super) fn call(&mut self, helper: i32) {
        self.emit(CALL, 0, 0, 0, helper);
    }

    /// Returns R0.
    pub(super) fn exit(&mut self) {
        self.emit(EXIT, 0, 0, 0, 0);
    }

    /// The instructions, with jumps resolved.
    ///
    /// # Panics
    /// If a label that is jumped to was not placed, or lies before the jump or out of its reach: a mistake in the
    /// program that is being written.
    pub(super) fn finish(mut self) -> Vec<u64> {
        for (at, label) in &self.jumps {
            let place = self.places[label.0].expect("every label that is used is placed");
            let distance = place.checked_sub(at + 1).expect("jumps go forward");
            let distance = i16::try_from(distance).expect("programs are shorter than a jump reaches");
            self.code[*at] |= u64::from(distance as u16) << 16;
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the encodings that RFC 9669 gives.
    #[test]
    fn instructions_are_encoded_as_the_standard_says() {
        let mut program = Assembler::default();
        let end = program.label();
        program.load(Width::Word, Register::R2, Register::R1, 4);
        program.copy(Register::R4, Register::R2);
        program.add(Register::R4, 14);
        program.jump_if_greater(Register::R4, Register::R3, end);
        program.jump_unless_equal(Register::R4, 0xdead_beef, end);
        program.set_map(Register::R1, 7);
        program.call(51);
        program.place(end);
        program.set(Register::R0, 2);
        program.exit();
        let bytes: Vec<[u8; 8]> = program.finish().into_iter().map(u64::to_le_bytes).collect();
        assert_eq!(
            bytes,
            [
                [0x61, 0x12, 4, 0, 0, 0, 0, 0],
                [0xbf, 0x24, 0, 0, 0, 0, 0, 0],
                [0x07, 0x04, 0, 0, 14, 0, 0, 0],
                [0x2d, 0x34, 4, 0, 0, 0, 0, 0],
                [0x56, 0x04, 3, 0, 0xef, 0xbe, 0xad, 0xde],
                [0x18, 0x11, 0, 0, 7, 0, 0, 0],
                [0; 8],
                [0x85, 0, 0, 0, 51, 0, 0, 0],
                [0xb7, 0, 0, 0, 2, 0, 0, 0],
                [0x95, 0, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    #[should_panic(expected = "placed")]
    fn a_jump_to_nowhere_is_a_mistake() {
        let mut program = Assembler::default();
        let nowhere = program.label();
        program.jump(nowhere);
        program.finish();
    }
}
