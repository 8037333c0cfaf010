//! An interpreter of classic BPF, as much as a seccomp filter uses.

use seccompiler::sock_filter;

/// What a filter judges: struct seccomp_data of linux/seccomp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) audit: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 if offset.is_multiple_of(8) => self.args[(offset as usize - 16) / 8] as u32,
            20..64 if offset % 8 == 4 => (self.args[(offset as usize - 20) / 8] >> 32) as u32,
            _ => panic!("a load from {offset}"),
        }
    }
}

/// What the program returns for `call`, and after how many instructions. A jump out of the program panics.
pub(crate) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for steps in 1.. {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x06 => return (k, steps),
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            code => panic!("an instruction {code:#x}"),
        }
    }
    unreachable!("jumps go forward, so the program ends");
}
