//! What runc with libseccomp decides: the oracle.
//!
//! libseccomp shows a filter in two forms, the program and a pseudo code of its rules ([`Tree`]). They differ for one call in
//! a thousand that random rules can tell apart: the program compares what an earlier test has left in the accumulator. There
//! the rules count. And some rules it cannot take at all: it goes round in circles, or it finds a contradiction in the
//! rules of a call for an architecture that lacks the call.
//!
//! libseccomp does the filter, driven through the small C program beside this file (ours is a static program, which cannot
//! load a library). What runc does around it (which rules it adds, and the ENOSYS for newer calls that it puts in front) is
//! said here in the plainest way, and nothing here uses the code under test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};
use seccompiler::sock_filter;

use crate::bpf::{Call, run};
use crate::tree::Tree;

/// The architectures in the order of the C program's answers, with their audit value.
pub(crate) const ARCHS: [(Arch, u32); 6] = [
    (Arch::ScmpArchX86_64, 0xc000_003e),
    (Arch::ScmpArchX86, 0x4000_0003),
    (Arch::ScmpArchX32, 0xc000_003e),
    (Arch::ScmpArchAarch64, 0xc000_00b7),
    (Arch::ScmpArchArm, 0x4000_0028),
    (Arch::ScmpArchRiscv64, 0xc000_00f3),
];

#[cfg(target_arch = "x86_64")]
const NATIVE: Arch = Arch::ScmpArchX86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Arch = Arch::ScmpArchAarch64;
#[cfg(target_arch = "riscv64")]
const NATIVE: Arch = Arch::ScmpArchRiscv64;

/// The error for a profile on which libseccomp does not come to an end.
pub(crate) const ENDLESS: &str = "no end";

pub(crate) const ENOSYS: u32 = 0x0005_0000 | 38;

/// The C program, running.
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Running {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, requests, answers }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// libseccomp.
pub(crate) struct Library {
    program: PathBuf,
    running: Running,
    numbers: HashMap<String, [i32; 6]>,
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

impl Library {
    /// Starts it, under a `name` of the test's own; nothing where the machine has no libseccomp to build with.
    pub(crate) fn open(name: &str) -> Option<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/libseccomp.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libseccomp-{name}-{}", std::process::id()));
        let built = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).arg("-lseccomp").output();
        if !built.is_ok_and(|output| output.status.success()) {
            skipped(&format!("{name}: no C compiler, or no libseccomp to link with (libseccomp-dev)"));
            return None;
        }
        Some(Self { running: Running::start(&program), program, numbers: HashMap::new() })
    }

    /// The answer to a request; nothing if libseccomp did not come to an end.
    fn ask(&mut self, request: &str) -> Option<String> {
        let mut answer = String::new();
        // A program that is gone shows by the missing answer.
        let _ = self.running.requests.write_all(request.as_bytes());
        self.running.answers.read_line(&mut answer).unwrap();
        if answer.ends_with('\n') {
            return Some(answer);
        }
        self.running = Running::start(&self.program);
        None
    }

    /// The numbers of a call, in the order of [`ARCHS`]; negative where there is none.
    pub(crate) fn resolve(&mut self, name: &str) -> [i32; 6] {
        if let Some(known) = self.numbers.get(name) {
            return *known;
        }
        let answer = self.ask(&format!("resolve {name}\n")).unwrap();
        let numbers: Vec<i32> = answer.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let numbers = numbers.try_into().unwrap();
        self.numbers.insert(name.to_owned(), numbers);
        numbers
    }

    /// All names that it has a number for on one of [`ARCHS`].
    pub(crate) fn names(&mut self) -> Vec<String> {
        let mut names: Vec<String> = self.ask("names\n").unwrap().split_whitespace().map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The filter of a profile; its error if libseccomp refuses it.
    pub(crate) fn filter(&mut self, profile: &LinuxSeccomp) -> Result<Vec<sock_filter>, String> {
        let default = value(profile.default_action(), profile.default_errno_ret());
        let mut request = format!("filter {default:x}\n");
        for arch in profile.architectures().iter().flatten() {
            request += &format!("arch {:x}\n", *arch as u32);
        }
        for call in profile.syscalls().iter().flatten() {
            let action = value(call.action(), call.errno_ret());
            if action == default {
                continue;
            }
            let args = call.args().clone().unwrap_or_default();
            let args: Vec<(usize, String)> = args
                .iter()
                .map(|arg| {
                    let (a, b) = (arg.value(), arg.value_two().unwrap_or_default());
                    (arg.index(), format!(" {} {} {a:x} {b:x}", arg.index(), operator(arg.op())))
                })
                .collect();
            let repeats = args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|before| before.0 == arg.0));
            for name in call.names() {
                if repeats {
                    for (_, arg) in &args {
                        request += &format!("rule {action:x} {name} 1{arg}\n");
                    }
                } else {
                    let all: String = args.iter().map(|(_, arg)| arg.as_str()).collect();
                    request += &format!("rule {action:x} {name} {}{all}\n", args.len());
                }
            }
        }
        request += "build\n";
        let answer = self.ask(&request).ok_or(ENDLESS)?;
        if let Some(error) = answer.strip_prefix("error ") {
            return Err(error.trim_end().to_owned());
        }
        let instruction = |text: &str| {
            let mut fields = text.split(':').map(|field| u32::from_str_radix(field, 16).unwrap());
            let mut next = || fields.next().unwrap();
            sock_filter { code: next() as u16, jt: next() as u8, jf: next() as u8, k: next() }
        };
        Ok(answer.split_whitespace().map(instruction).collect())
    }

    /// All that runc's filter for a profile depends on.
    pub(crate) fn runc(&mut self, profile: &LinuxSeccomp) -> Result<Runc, String> {
        let program = self.filter(profile)?;
        let tree = Tree::parse(&self.ask("tree\n").ok_or(ENDLESS)?);
        let mut archs = profile.architectures().clone().unwrap_or_default();
        archs.push(NATIVE);
        let mut newest = [0; 6];
        for (at, (arch, _)) in ARCHS.iter().enumerate() {
            if archs.contains(arch) {
                for call in profile.syscalls().iter().flatten() {
                    for name in call.names() {
                        newest[at] = newest[at].max(self.resolve(name)[at]);
                    }
                }
            }
        }
        if [LinuxSeccompAction::ScmpActAllow, LinuxSeccompAction::ScmpActLog, LinuxSeccompAction::ScmpActTrace]
            .contains(&profile.default_action())
        {
            newest = [0; 6];
        }
        Ok(Runc { program, tree, newest })
    }
}

/// runc's filter.
pub(crate) struct Runc {
    /// libseccomp's part.
    pub(crate) program: Vec<sock_filter>,
    tree: Tree,
    /// The newest call of each architecture, from which on runc answers ENOSYS itself; 0 for no such.
    newest: [i32; 6],
}

impl Runc {
    /// The action for a call.
    pub(crate) fn decide(&self, call: &Call) -> u32 {
        const X32_BIT: u32 = 1 << 30;
        for ((arch, audit), newest) in ARCHS.iter().zip(self.newest) {
            let mode = match arch {
                Arch::ScmpArchX86_64 => call.number & X32_BIT == 0,
                Arch::ScmpArchX32 => call.number & X32_BIT != 0,
                _ => true,
            };
            if *audit == call.audit && mode && newest > 0 && call.number > newest as u32 {
                return ENOSYS;
            }
        }
        // Only where the program gets to the rules at all can they decide.
        self.tree.decide(call).unwrap_or_else(|| run(&self.program, call).0)
    }

    /// Whether libseccomp's program does not do what its rules say.
    pub(crate) fn contradicts_itself(&self, call: &Call) -> bool {
        self.tree.decide(call).is_some_and(|action| action != run(&self.program, call).0)
    }
}

/// The value of an action for seccomp_init(3), which is the kernel's.
fn value(action: LinuxSeccompAction, data: Option<u32>) -> u32 {
    let data = data.unwrap_or(1);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    }
}

/// enum scmp_compare of seccomp.h.
fn operator(operator: LinuxSeccompOperator) -> u32 {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => 1,
        LinuxSeccompOperator::ScmpCmpLt => 2,
        LinuxSeccompOperator::ScmpCmpLe => 3,
        LinuxSeccompOperator::ScmpCmpEq => 4,
        LinuxSeccompOperator::ScmpCmpGe => 5,
        LinuxSeccompOperator::ScmpCmpGt => 6,
        LinuxSeccompOperator::ScmpCmpMaskedEq => 7,
    }
}

/// Says past the test runner's capture what was not tested, and appends it to the file `TARE_SKIPS` names, for counting.
pub(crate) fn skipped(what: &str) {
    let line = format!("skipped: {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
