//! Random profiles, and the calls that try them: the same ones in each run.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder};
use serde_json::{Value, json};

use crate::bpf::Call;
use crate::libseccomp::{ARCHS, Library};

/// A generator of numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Whether the rules of one call may have different actions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actions {
    OnePerCall,
    Mixed,
}

/// Names over all of the table: multiplexed calls, calls of some architectures only, and names nobody knows.
const NAMES: [&str; 28] = [
    "read",
    "write",
    "openat",
    "close",
    "clone",
    "personality",
    "socket",
    "socketcall",
    "accept",
    "accept4",
    "send",
    "recv",
    "semop",
    "semget",
    "shmctl",
    "ipc",
    "mount",
    "ioctl",
    "fork",
    "execve",
    "cacheflush",
    "arm_fadvise64_64",
    "riscv_flush_icache",
    "futex_waitv",
    "restart_syscall",
    "waitid",
    "fcntl64",
    "no_such_call",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const VALUES: [u64; 12] =
    [0, 1, 2, 5, 40, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x2_0000_0005, 0x8000_0000, u64::MAX, u64::MAX - 1];

fn action(random: &mut Random) -> Value {
    let kinds = ["ALLOW", "ERRNO", "ERRNO", "KILL_PROCESS", "KILL", "TRAP", "LOG", "TRACE"];
    let kind = *random.pick(&kinds);
    match random.below(3) {
        0 if ["ERRNO", "TRACE"].contains(&kind) => {
            json!({"action": format!("SCMP_ACT_{kind}"), "errnoRet": 1 + random.below(90)})
        }
        _ => json!({"action": format!("SCMP_ACT_{kind}")}),
    }
}

pub(crate) fn profile(random: &mut Random, actions: Actions) -> LinuxSeccomp {
    let mut fixed: BTreeMap<&str, Value> = BTreeMap::new();
    let mut calls = Vec::new();
    let pool = 1 + random.below(NAMES.len());
    for _ in 0..1 + random.below(40) {
        let name = NAMES[random.below(pool)];
        // What goes through socketcall and ipc shares their rules.
        let shared = match name {
            "socketcall" | "socket" | "accept" | "accept4" | "send" | "recv" => "socketcall",
            "ipc" | "semop" | "semget" | "shmctl" => "ipc",
            name => name,
        };
        let fresh = action(random);
        let mut call = match actions {
            Actions::OnePerCall => fixed.entry(shared).or_insert(fresh).clone(),
            Actions::Mixed => fresh,
        };
        call["names"] = json!([name]);
        let count = *random.pick(&[0, 1, 1, 1, 2, 2, 3]);
        let mut args = Vec::new();
        // Of few indexes, so that rules meet.
        for _ in 0..count {
            args.push(json!({
                "index": *random.pick(&[0, 0, 1, 1, 2, 5]), "op": random.pick(&OPERATORS),
                "value": random.pick(&VALUES), "valueTwo": random.pick(&VALUES),
            }));
        }
        call["args"] = json!(args);
        calls.push(call);
    }
    let archs = ["X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64"];
    let archs: Vec<String> =
        archs.iter().filter(|_| random.below(3) > 0).map(|arch| format!("SCMP_ARCH_{arch}")).collect();
    let default = action(random);
    let mut profile = json!({"defaultAction": default["action"], "architectures": archs, "syscalls": calls});
    if let Some(errno) = default.get("errnoRet") {
        profile["defaultErrnoRet"] = errno.clone();
    }
    serde_json::from_value(profile).unwrap()
}

/// The calls that a profile could tell apart: each number it names and those beside it, on every architecture, with
/// arguments at and around each value it compares; and the limits of the number space.
pub(crate) fn calls(random: &mut Random, library: &mut Library, profile: &LinuxSeccomp, many: usize) -> Vec<Call> {
    let mut interesting: BTreeMap<(u32, u32), Vec<LinuxSeccompArg>> = BTreeMap::new();
    let mut audits: Vec<u32> = ARCHS.iter().map(|(_, audit)| *audit).collect();
    audits.extend([0, 0x8000_0016, 0xffff_ffff]);
    audits.sort_unstable();
    audits.dedup();
    for &audit in &audits {
        for edge in
            [0u32, 1, 500, 0x000f_0002, 0x4000_0000, 0x4000_0001, 0x4000_0fff, 0x8000_0000, 0xc000_0000, 0xc000_0001]
        {
            for number in [edge, edge.wrapping_sub(1)] {
                interesting.entry((audit, number)).or_default();
            }
        }
    }
    for call in profile.syscalls().iter().flatten() {
        for name in call.names() {
            let numbers = library.resolve(name);
            for ((_, audit), number) in ARCHS.iter().zip(numbers) {
                // A multiplexed call stands at its multiplexer, with the selectors as values of the first argument.
                let through = match number {
                    -120..=-100 => Some((102, (-number) as u64 % 100)),
                    -224..=-200 => Some((117, (-number) as u64 % 200)),
                    _ => None,
                };
                let args = call.args().clone().unwrap_or_default();
                if let Some((by, selector)) = through {
                    let selected = interesting.entry((*audit, by)).or_default();
                    selected.push(LinuxSeccompArgBuilder::default().value(selector).build().unwrap());
                    selected.extend(args.iter().filter(|arg| arg.index() > 0));
                }
                for number in [Some(number), direct(name)].into_iter().flatten().filter(|&number| number >= 0) {
                    let number = number as u32;
                    interesting.entry((*audit, number)).or_default().extend(&args);
                    for beside in [number.wrapping_sub(1), number + 1, number ^ 0x4000_0000] {
                        interesting.entry((*audit, beside)).or_default();
                    }
                }
            }
        }
    }
    let mut calls = Vec::new();
    for ((audit, number), args) in interesting {
        calls.push(Call { number, audit, args: [0; 6] });
        if args.is_empty() {
            continue;
        }
        let mut values: [Vec<u64>; 6] = std::array::from_fn(|_| vec![0, u64::MAX]);
        for arg in &args {
            for value in [Some(arg.value()), arg.value_two()].into_iter().flatten() {
                let around = [
                    value,
                    value.wrapping_add(1),
                    value.wrapping_sub(1),
                    value ^ (1 << 32),
                    !value,
                    value.swap_bytes(),
                ];
                values[arg.index()].extend(around);
                values[arg.index()].push(value & 0xffff_ffff);
            }
        }
        for _ in 0..many {
            calls.push(Call { number, audit, args: std::array::from_fn(|index| *random.pick(&values[index])) });
        }
    }
    calls
}

/// The direct number on x86 of some calls that libseccomp names by their selector.
fn direct(name: &str) -> Option<i32> {
    Some(match name {
        "socket" => 359,
        "accept4" => 364,
        "semget" => 393,
        "shmctl" => 396,
        _ => return None,
    })
}
