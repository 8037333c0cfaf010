//! The architectures of system calls, and the number of each call by its name.
//!
//! The numbers are libseccomp's, and so are its two oddities: the calls of x32 carry a bit that marks them, and the socket
//! and System V IPC calls of x86 can be made in two ways ([`multiplexed`]).

use super::table::ROWS;

/// Marks the number of a system call of x32, which shares x86_64's audit architecture.
pub(super) const X32_BIT: i32 = 0x4000_0000;

/// In a [`Row`]: the architecture has no such call.
pub(super) const NONE: i32 = -1;

/// An architecture whose calls a filter can judge. The value is its column in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64 = 0,
    X86 = 1,
    X32 = 2,
    Aarch64 = 3,
    Arm = 4,
    Riscv64 = 5,
}

impl Arch {
    /// How many there are.
    pub(super) const COUNT: usize = 6;

    /// The architecture this program is built for: it is in every filter, named or not.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    /// The architecture this program is built for: it is in every filter, named or not.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;
    /// The architecture this program is built for: it is in every filter, named or not.
    #[cfg(target_arch = "riscv64")]
    pub(super) const NATIVE: Self = Self::Riscv64;

    /// `AUDIT_ARCH_*`, as the kernel tells it in seccomp_data.arch (linux/audit.h).
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether all 64 bits of an argument count. x32 has 64-bit registers, but libseccomp compares their low halves.
    pub(super) fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64 | Self::Riscv64)
    }
}

/// A call's name, padded with zeroes, as big-endian words: their order is the order of the names.
type Key = [u64; 4];

/// One call: its name, and its number on each architecture in the order of [`Arch`].
pub(super) struct Row {
    name: Key,
    numbers: [i32; Arch::COUNT],
}

/// Makes a line of the table.
pub(super) const fn row(name: &str, numbers: [i32; Arch::COUNT]) -> Row {
    match key(name.as_bytes()) {
        Some(name) => Row { name, numbers },
        None => panic!("a name in the table is longer than a key"),
    }
}

/// The key of a name; nothing if it is longer than that of any call.
const fn key(name: &[u8]) -> Option<Key> {
    if name.len() > size_of::<Key>() {
        return None;
    }
    let mut key = [0; 4];
    let mut at = 0;
    while at < name.len() {
        key[at / 8] |= (name[at] as u64) << (56 - 8 * (at % 8));
        at += 1;
    }
    Some(key)
}

/// The numbers of a call on every architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers(&'static [i32; Arch::COUNT]);

impl Numbers {
    /// The call's number on `arch`, if it has the call.
    pub(super) fn on(self, arch: Arch) -> Option<u32> {
        // A negative number is NONE; there is no other.
        u32::try_from(self.0[arch as usize]).ok()
    }
}

/// The numbers of the call `name`; nothing for a name that no architecture here has.
pub(super) fn find(name: &str) -> Option<Numbers> {
    let key = key(name.as_bytes())?;
    let at = ROWS.binary_search_by(|row| row.name.cmp(&key)).ok()?;
    Some(Numbers(&ROWS[at].numbers))
}

/// The name of the call `number` of `arch`, for messages.
pub(super) fn name(arch: Arch, number: u32) -> Option<String> {
    let row = ROWS.iter().find(|row| Numbers(&row.numbers).on(arch) == Some(number))?;
    let bytes = row.name.iter().flat_map(|word| word.to_be_bytes()).take_while(|&byte| byte != 0);
    Some(bytes.map(char::from).collect())
}

/// How x86 can make a call through another: the other's number, and the value of its first argument that selects the call
/// (socketcall(2), ipc(2); linux/net.h, linux/ipc.h).
pub(super) fn multiplexed(name: &str) -> Option<(u32, u32)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    let selector = match name {
        "socket" => 1,
        "bind" => 2,
        "connect" => 3,
        "listen" => 4,
        "accept" => 5,
        "getsockname" => 6,
        "getpeername" => 7,
        "socketpair" => 8,
        "send" => 9,
        "recv" => 10,
        "sendto" => 11,
        "recvfrom" => 12,
        "shutdown" => 13,
        "setsockopt" => 14,
        "getsockopt" => 15,
        "sendmsg" => 16,
        "recvmsg" => 17,
        "accept4" => 18,
        "recvmmsg" => 19,
        "sendmmsg" => 20,
        "semop" => return Some((IPC, 1)),
        "semget" => return Some((IPC, 2)),
        "semctl" => return Some((IPC, 3)),
        "semtimedop" => return Some((IPC, 4)),
        "msgsnd" => return Some((IPC, 11)),
        "msgrcv" => return Some((IPC, 12)),
        "msgget" => return Some((IPC, 13)),
        "msgctl" => return Some((IPC, 14)),
        "shmat" => return Some((IPC, 21)),
        "shmdt" => return Some((IPC, 22)),
        "shmget" => return Some((IPC, 23)),
        "shmctl" => return Some((IPC, 24)),
        _ => return None,
    };
    Some((SOCKETCALL, selector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_without_repeats() {
        assert!(ROWS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn numbers_by_name() {
        let read = find("read").unwrap();
        assert_eq!(
            [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::Riscv64].map(|arch| read.on(arch)),
            [Some(0), Some(3), Some(0x4000_0000), Some(63), Some(3), Some(63)]
        );
        assert_eq!(find("fork").unwrap().on(Arch::Aarch64), None);
        for absent in ["", "no_such_call", "a_name_that_is_longer_than_any_call"] {
            assert!(find(absent).is_none(), "{absent}");
        }
    }
}
