//! [`Access`] → the program that the unified hierarchy asks at each use of a device.
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`, where `access_type` holds the
//! wanted uses in its upper and the sort of the node in its lower half, and lets the use happen if it returns 1.
//!
//! ```text
//! r2 = sort, r3 = uses, r4 = major, r5 = minor
//! for each exception:  if it does not concern this use, go to the next;  return the opposite of the default
//! return the default
//! ```

use super::devices::{Access, Effect, NodeType, Uses};

/// One instruction, as the kernel's `struct bpf_insn` lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The destination register in the lower, the source register in the upper half.
    pub registers: u8,
    /// How far a jump goes, or where in memory a load reads.
    pub offset: i16,
    /// The immediate operand.
    pub value: i32,
}

/// `*(u32 *)(src + offset)` into dst.
pub(crate) const LOAD_WORD: u8 = 0x61;
/// dst = src.
pub(crate) const MOVE_REGISTER: u8 = 0xbc;
/// dst = value.
pub(crate) const MOVE_VALUE: u8 = 0xb4;
/// dst &= value.
pub(crate) const AND_VALUE: u8 = 0x54;
/// dst >>= value.
pub(crate) const SHIFT_RIGHT: u8 = 0x74;
/// Jump always.
pub(crate) const JUMP: u8 = 0x05;
/// Jump if the lower 32 bits of dst differ from value: device numbers use all 32, a 64-bit comparison would extend the sign.
pub(crate) const JUMP_NOT_EQUAL: u8 = 0x56;
/// Jump if dst and value share a bit.
pub(crate) const JUMP_ANY_BIT: u8 = 0x46;
/// Return r0.
pub(crate) const EXIT: u8 = 0x95;

const SORT: u8 = 2;
const USES: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Compiles the program for `access`.
pub fn compile(access: &Access) -> Vec<Instruction> {
    let verdict = |effect| i32::from(effect == Effect::Allow);
    let mut program = vec![
        op(LOAD_WORD, SORT | 1 << 4, 0, 0),
        op(MOVE_REGISTER, USES | SORT << 4, 0, 0),
        op(AND_VALUE, SORT, 0, 0xffff),
        op(SHIFT_RIGHT, USES, 0, 16),
        op(LOAD_WORD, MAJOR | 1 << 4, 4, 0),
        op(LOAD_WORD, MINOR | 1 << 4, 8, 0),
    ];
    let default = access.default();
    for (node, uses) in access.exceptions() {
        // Each condition jumps over what is left of its exception; how far that is becomes known at its end.
        let mut conditions = vec![op(
            JUMP_NOT_EQUAL,
            SORT,
            0,
            match node.typ {
                NodeType::Block => 1,
                NodeType::Char => 2,
            },
        )];
        match default {
            // What is allowed must be allowed in each wanted use ...
            Effect::Deny if uses == Uses::ALL => {}
            Effect::Deny => conditions.push(op(JUMP_ANY_BIT, USES, 0, i32::from(Uses::ALL.bits() & !uses.bits()))),
            // ... what is denied is denied already if one of the wanted uses is.
            Effect::Allow => conditions.extend([op(JUMP_ANY_BIT, USES, 1, i32::from(uses.bits())), op(JUMP, 0, 0, 0)]),
        }
        conditions.extend(node.major.map(|major| op(JUMP_NOT_EQUAL, MAJOR, 0, major.cast_signed())));
        conditions.extend(node.minor.map(|minor| op(JUMP_NOT_EQUAL, MINOR, 0, minor.cast_signed())));
        let count = conditions.len();
        for (index, condition) in conditions.iter_mut().enumerate() {
            if condition.offset == 0 {
                // At most five conditions and two more instructions: the distance always fits.
                condition.offset = i16::try_from(count - index - 1 + 2).unwrap_or(i16::MAX);
            }
        }
        program.extend(conditions);
        program.extend(returning(1 - verdict(default)));
    }
    program.extend(returning(verdict(default)));
    program
}

fn returning(value: i32) -> [Instruction; 2] {
    [op(MOVE_VALUE, 0, 0, value), op(EXIT, 0, 0, 0)]
}

fn op(code: u8, registers: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers, offset, value }
}
