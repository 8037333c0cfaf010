//! linux.seccomp -> the BPF program that the kernel runs before each system call of the container, and how to load it.
//!
//! The decision for every architecture, number and arguments is the one that runc with libseccomp takes, which profiles
//! are written against: the architecture the program is built for is always part of the filter; an architecture that is
//! not kills the thread; names nobody knows are skipped; several conditions on one argument are alternatives; and a call
//! newer than any the profile names fails with ENOSYS instead of the default action ([`newer`]).
//!
//! The compiler is our own. seccompiler, whose instruction type we use, compiles for one architecture at a time, knows
//! neither NOTIFY nor an errno of each rule, and tests number after number; and libseccomp is a C library that takes
//! milliseconds for what is 0.1 ms here. The steps: `syscalls` (names to numbers), `conditions` (rules of one call to a
//! graph of tests), here (the verdict of every number), `program` (verdicts to instructions).
//!
//! On the wire (create keeps it for exec), little-endian: `"tare-sc1"`, u32 flags, u8 1 or 0 for a listener or none, with
//! one its path and its metadata (u32 length, bytes), u32 number of instructions, and each as u16 code, u8 jt, u8 jf, u32 k.

mod bytes;
mod conditions;
mod program;
mod redundant;
mod syscalls;
mod table;

use std::path::PathBuf;

use nix::libc;
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use seccompiler::sock_filter;

use crate::error::{Error, Result};
use conditions::{Condition, Graph, Op};
use program::{MAX_LENGTH, Range, Section, Verdict};
use syscalls::{Arch, X32_BIT};

/// seccomp(2): SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, since Linux 5.19.
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
/// seccomp(2): SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// seccomp(2): SECCOMP_FILTER_FLAG_LOG.
pub const LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// seccomp(2): SECCOMP_FILTER_FLAG_SPEC_ALLOW.
pub const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// A filter, ready to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seccomp {
    /// The program: 1 to 4,096 instructions.
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2), NEW_LISTENER included when a rule notifies.
    pub flags: u32,
    /// Whom to give the listener, when a rule notifies.
    pub notify: Option<Notify>,
}

/// The agent that decides what a rule with SCMP_ACT_NOTIFY leaves to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The agent's socket.
    pub listener_path: PathBuf,
    /// What to tell it, passed on as it is.
    pub metadata: String,
}

/// What `tare features` tells of seccomp: the names that a configuration may use.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// `SCMP_ACT_*`.
    pub actions: &'static [&'static str],
    /// `SCMP_CMP_*`.
    pub operators: &'static [&'static str],
    /// `SCMP_ARCH_*`.
    pub archs: &'static [&'static str],
    /// `SECCOMP_FILTER_FLAG_*` that are known; `sys::seccomp::supports` tells which of them the kernel has.
    pub known_flags: &'static [&'static str],
}

/// What is known, each list in order.
pub fn features() -> Features {
    Features {
        actions: &[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        operators: &[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: &[
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
        ],
        known_flags: &[
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
    }
}

/// The flag's value for seccomp(2); 0 for TSYNC, which changes nothing in a process of one thread.
pub fn flag_value(name: &str) -> Option<u32> {
    match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => Some(0),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Some(SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_LOG" => Some(LOG),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Some(WAIT_KILLABLE_RECV),
        _ => None,
    }
}

/// Compiles linux.seccomp.
pub fn lower(spec: &LinuxSeccomp) -> Result<Seccomp> {
    lower_on(Arch::NATIVE, spec)
}

/// [`lower`], as on a machine whose native architecture is `native`.
fn lower_on(native: Arch, spec: &LinuxSeccomp) -> Result<Seccomp> {
    let notify = notify(spec)?;
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let flags = flags(spec, notify.is_some())?;
    let archs = architectures(native, spec);
    let rules = Rules::collect(spec, default, &archs)?;

    let mut graphs = Vec::new();
    let mut sections = Vec::with_capacity(archs.len());
    for &arch in &archs {
        // x32 shares the audit architecture, and so the section, of x86_64.
        if arch == Arch::X32 && archs.contains(&Arch::X86_64) {
            continue;
        }
        let modes: &[Arch] = match arch {
            Arch::X86_64 if archs.contains(&Arch::X32) => &[Arch::X86_64, Arch::X32],
            _ => &[arch],
        };
        let ranges = ranges(spec.default_action(), default, modes, &rules, &mut graphs)?;
        sections.push(Section { audit: arch.audit(), ranges });
    }
    // What libseccomp does with an architecture that the filter does not know.
    let program = program::assemble(&sections, &graphs, default, libc::SECCOMP_RET_KILL_THREAD);
    if program.len() > MAX_LENGTH {
        return Err(Error::invalid(format!(
            "linux.seccomp needs more than the {MAX_LENGTH} instructions that the kernel takes: use fewer rules with arguments"
        )));
    }
    Ok(Seccomp { program, flags, notify })
}

/// Who is asked, if a rule asks. A listener's path without such a rule means nothing.
fn notify(spec: &LinuxSeccomp) -> Result<Option<Notify>> {
    // The listener reaches the parent by a write(2) after the filter is loaded: an agent asked about that write could
    // never have been given the listener.
    if spec.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::invalid("linux.seccomp: SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let mut asking = calls(spec).iter().filter(|call| call.action() == LinuxSeccompAction::ScmpActNotify).peekable();
    if asking.peek().is_none() {
        return Ok(None);
    }
    if asking.any(|call| call.names().iter().any(|name| name == "write")) {
        return Err(Error::invalid("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    let Some(listener_path) = spec.listener_path().clone().filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Error::invalid("linux.seccomp has a rule with SCMP_ACT_NOTIFY, but listenerPath is not set"));
    };
    Ok(Some(Notify { listener_path, metadata: spec.listener_metadata().clone().unwrap_or_default() }))
}

fn calls(spec: &LinuxSeccomp) -> &[LinuxSyscall] {
    spec.syscalls().as_deref().unwrap_or_default()
}

/// The flags of seccomp(2). No `flags` at all means SPEC_ALLOW, as with runc: the speculation mitigations that seccomp
/// would turn on cost more than they protect.
fn flags(spec: &LinuxSeccomp, notifies: bool) -> Result<u32> {
    let mut value = match spec.flags() {
        None => SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |value, flag| {
            value
                | match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
                    // Init has one thread: there is nobody to synchronize with.
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                }
        }),
    };
    if notifies {
        value |= NEW_LISTENER;
    } else if value & WAIT_KILLABLE_RECV != 0 {
        return Err(Error::invalid(
            "linux.seccomp.flags has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, but no rule has SCMP_ACT_NOTIFY",
        ));
    }
    Ok(value)
}

/// The architectures of the filter, without repeats, the native one first.
///
/// One without a table here cannot make a call on a machine this program runs on, so what its rules say does not matter.
fn architectures(native: Arch, spec: &LinuxSeccomp) -> Vec<Arch> {
    let mut archs = vec![native];
    for arch in spec.architectures().iter().flatten() {
        let arch = match arch {
            SpecArch::ScmpArchX86_64 => Arch::X86_64,
            SpecArch::ScmpArchX86 => Arch::X86,
            SpecArch::ScmpArchX32 => Arch::X32,
            SpecArch::ScmpArchAarch64 => Arch::Aarch64,
            SpecArch::ScmpArchArm => Arch::Arm,
            SpecArch::ScmpArchRiscv64 => Arch::Riscv64,
            _ => continue,
        };
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    archs
}

/// The `SECCOMP_RET_*` value of an action, with its data.
fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<u32> {
    if let Some(data) = data
        && !matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace)
    {
        // runtime-spec, config-linux: it must fail then.
        return Err(Error::invalid(format!(
            "linux.seccomp: errnoRet {data} is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"
        )));
    }
    let data = data.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        // The kernel's MAX_ERRNO is 4095, and libseccomp takes what is below it.
        LinuxSeccompAction::ScmpActErrno if data < 4095 => libc::SECCOMP_RET_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace if data <= 0xffff => libc::SECCOMP_RET_TRACE | data,
        LinuxSeccompAction::ScmpActErrno => {
            return Err(Error::invalid(format!("linux.seccomp: errnoRet {data} is not below 4095")));
        }
        LinuxSeccompAction::ScmpActTrace => {
            return Err(Error::invalid(format!("linux.seccomp: errnoRet {data} of SCMP_ACT_TRACE is not below 65536")));
        }
    })
}

/// One rule: an action, and the conditions that all must hold.
struct Rule {
    action: u32,
    conditions: Vec<Condition>,
}

/// The rules of all architectures.
struct Rules {
    rules: Vec<Rule>,
    /// For each architecture the rules of each number, as (number, index in `rules`), sorted by number, the rules of one
    /// number in the profile's order.
    numbers: [Vec<(u32, u32)>; Arch::COUNT],
    /// For each architecture the greatest number that the profile names, in whatever rule; 0 for none.
    newest: [u32; Arch::COUNT],
}

impl Rules {
    fn collect(spec: &LinuxSeccomp, default: u32, archs: &[Arch]) -> Result<Self> {
        let mut all = Self { rules: Vec::new(), numbers: Default::default(), newest: [0; Arch::COUNT] };
        for arch in archs {
            all.numbers[*arch as usize].reserve(512);
        }
        for call in calls(spec) {
            let action = action(call.action(), call.errno_ret())?;
            let conditions = alternatives(call)?;
            let first = all.rules.len();
            for conditions in conditions {
                all.rules.push(Rule { action, conditions });
            }
            let rules = first as u32..all.rules.len() as u32;
            for name in call.names() {
                if name.is_empty() {
                    return Err(Error::invalid("linux.seccomp.syscalls has an empty string for a name"));
                }
                // A name that no architecture has: a call of another architecture, or one newer than this program.
                let Some(numbers) = syscalls::find(name) else { continue };
                for &arch in archs {
                    all.name(name, numbers, arch, rules.clone(), action != default);
                }
            }
        }
        for numbers in &mut all.numbers {
            numbers.sort_by_key(|&(number, _)| number);
        }
        Ok(all)
    }

    /// Adds the rules of one name for one architecture. A rule that repeats the default action is not `effective`: it
    /// tells nothing, but the number counts as known.
    fn name(
        &mut self,
        name: &str,
        numbers: syscalls::Numbers,
        arch: Arch,
        rules: std::ops::Range<u32>,
        effective: bool,
    ) {
        let number = numbers.on(arch);
        let through = if arch == Arch::X86 { syscalls::multiplexed(name) } else { None };
        if let (Some(number), None) = (number, through) {
            // The direct numbers of multiplexed calls do not count, for libseccomp names these by their selector.
            let newest = &mut self.newest[arch as usize];
            *newest = number.max(*newest);
        }
        if !effective {
            return;
        }
        for rule in rules {
            if let Some((by, selector)) = through {
                let selected = self.selecting(rule, selector);
                self.numbers[arch as usize].push((by, selected));
            }
            if let Some(number) = number {
                self.numbers[arch as usize].push((number, rule));
            }
        }
    }

    /// Adds a rule like `rule` for a call that is made through another: its first argument is the selector, and nothing
    /// can be asked of what was the first argument.
    fn selecting(&mut self, rule: u32, selector: u32) -> u32 {
        let rule = &self.rules[rule as usize];
        let first = Condition { arg: 0, op: Op::Eq, mask: u64::MAX, value: selector.into() };
        let rest = rule.conditions.iter().copied().filter(|condition| condition.arg != 0);
        let conditions = std::iter::once(first).chain(rest).collect();
        let action = rule.action;
        self.rules.push(Rule { action, conditions });
        self.rules.len() as u32 - 1
    }
}

/// The conditions of each rule that an entry of the profile stands for: one rule, unless an argument is compared twice,
/// for then (runc's promise to old profiles) each comparison is a rule of its own.
fn alternatives(call: &LinuxSyscall) -> Result<Vec<Vec<Condition>>> {
    let mut conditions = Vec::new();
    for arg in call.args().iter().flatten() {
        conditions.push(condition(arg)?);
    }
    conditions.sort_by_key(|condition| condition.arg);
    if conditions.windows(2).any(|pair| pair[0].arg == pair[1].arg) {
        // In the order in which the profile has them.
        return call.args().iter().flatten().map(|arg| Ok(vec![condition(arg)?])).collect();
    }
    Ok(vec![conditions])
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition> {
    let index = u8::try_from(arg.index()).ok().filter(|&index| index < 6);
    let Some(index) = index else {
        return Err(Error::invalid(format!(
            "linux.seccomp: the argument index {} is not below 6, the number of arguments of a system call",
            arg.index()
        )));
    };
    let whole = |op| Condition { arg: index, op, mask: u64::MAX, value: arg.value() };
    Ok(match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => whole(Op::Ne),
        LinuxSeccompOperator::ScmpCmpLt => whole(Op::Lt),
        LinuxSeccompOperator::ScmpCmpLe => whole(Op::Le),
        LinuxSeccompOperator::ScmpCmpEq => whole(Op::Eq),
        LinuxSeccompOperator::ScmpCmpGe => whole(Op::Ge),
        LinuxSeccompOperator::ScmpCmpGt => whole(Op::Gt),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Condition { arg: index, op: Op::MaskedEq, mask: arg.value(), value: arg.value_two().unwrap_or_default() }
        }
    })
}

/// Calls that programs make all the time: they are found first.
const COMMON: [&str; 16] = [
    "read",
    "write",
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "openat",
    "close",
    "mmap",
    "newfstatat",
    "clock_gettime",
    "poll",
    "getpid",
];
/// How much more than a call of no note a common one weighs.
const COMMON_WEIGHT: u32 = 8;

/// The verdict of every number of one audit architecture; `modes` are its architectures, two only for x86_64 with x32.
fn ranges(
    kind: LinuxSeccompAction,
    default: u32,
    modes: &[Arch],
    rules: &Rules,
    graphs: &mut Vec<Graph>,
) -> Result<Vec<Range>> {
    let mut ranges = Vec::with_capacity(256);
    let mut spans = spans(kind, default, modes, rules).into_iter().peekable();
    // The numbers of the modes follow each other: x32's have a bit that x86_64's have not.
    let mut numbers = modes
        .iter()
        .flat_map(|&arch| rules.numbers[arch as usize].chunk_by(|a, b| a.0 == b.0).map(move |same| (arch, same)))
        .peekable();
    while let Some(span) = spans.next() {
        let end = spans.peek().map(|next| next.first - 1).unwrap_or(u32::MAX);
        push(&mut ranges, span.first, Verdict::Act(span.outcome.unwrap_or(default)));
        while let Some(&(arch, same)) = numbers.peek()
            && same[0].0 <= end
        {
            numbers.next();
            let number = same[0].0;
            // Also where ENOSYS comes first: contradicting rules are an error whether or not they are reached.
            let verdict = verdict(arch, same, rules, graphs)?;
            if span.outcome.is_none() {
                push(&mut ranges, number, verdict);
                if number < end {
                    push(&mut ranges, number + 1, Verdict::Act(default));
                }
            }
        }
    }
    weigh(&mut ranges, modes);
    Ok(ranges)
}

/// Adds a range, or lets the last one go on where the verdict is the same.
fn push(ranges: &mut Vec<Range>, first: u32, verdict: Verdict) {
    // A range that the next one covers from its first number on.
    if ranges.last().is_some_and(|last| last.first == first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.verdict != verdict) {
        ranges.push(Range { first, verdict, weight: 1 });
    }
}

/// Adds the weight of the common calls to the ranges that hold them.
fn weigh(ranges: &mut [Range], modes: &[Arch]) {
    for number in COMMON.iter().filter_map(|name| syscalls::find(name)).filter_map(|call| call.on(modes[0])) {
        let at = ranges.partition_point(|range| range.first <= number);
        // The first range starts at 0.
        ranges[at - 1].weight += COMMON_WEIGHT;
    }
}

/// Numbers from `first` to the next span's first.
struct Span {
    first: u32,
    /// What happens to all of them; nothing where the rules decide, and the default action after them.
    outcome: Option<u32>,
}

/// What is decided before any rule is looked at: numbers of the wrong mode, and numbers newer than the profile.
fn spans(kind: LinuxSeccompAction, default: u32, modes: &[Arch], rules: &Rules) -> Vec<Span> {
    const X32: u32 = X32_BIT as u32;
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let stranger = libc::SECCOMP_RET_KILL_THREAD;
    let newer = |arch: Arch| newer(kind, rules.newest[arch as usize]);
    let span = |first, outcome| Span { first, outcome };
    // From the first number that is newer than the profile up to where the next span starts.
    let tail = |arch| newer(arch).map(|first| span(first, Some(enosys)));
    let mut spans = Vec::with_capacity(8);
    match modes {
        [Arch::X86_64] => {
            spans.push(span(0, None));
            spans.extend(tail(Arch::X86_64));
            spans.push(span(X32, Some(stranger)));
            // libseccomp takes all numbers from the bit on for x32's, runc those with the bit.
            spans.push(span(2 * X32, Some(if newer(Arch::X86_64).is_some() { enosys } else { stranger })));
            spans.push(span(3 * X32, Some(stranger)));
            // -1 is how a tracer skips a call.
            spans.push(span(u32::MAX, Some(default)));
        }
        [Arch::X32] => {
            spans.push(span(0, Some(stranger)));
            spans.push(span(X32, None));
            spans.extend(tail(Arch::X32));
            spans.push(span(2 * X32, None));
            spans.push(span(3 * X32, newer(Arch::X32).map(|_| enosys)));
        }
        [Arch::X86_64, Arch::X32] => {
            spans.push(span(0, None));
            spans.extend(tail(Arch::X86_64));
            spans.push(span(X32, None));
            spans.extend(tail(Arch::X32));
            spans.push(span(2 * X32, newer(Arch::X86_64).map(|_| enosys)));
            spans.push(span(3 * X32, newer(Arch::X32).map(|_| enosys)));
        }
        _ => {
            spans.push(span(0, None));
            spans.extend(tail(modes[0]));
        }
    }
    spans
}

/// From which number on a call gets ENOSYS: from the one after the newest that the profile names.
///
/// The profile's author could not mean those, and the C library falls back on ENOSYS but fails on EPERM. Not where the
/// default lets calls through, or leaves them to a tracer; and not for a profile that names no call at all.
fn newer(kind: LinuxSeccompAction, newest: u32) -> Option<u32> {
    match kind {
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace => None,
        _ if newest == 0 => None,
        _ => Some(newest + 1),
    }
}

/// What the rules of one number say together.
fn verdict(arch: Arch, same: &[(u32, u32)], rules: &Rules, graphs: &mut Vec<Graph>) -> Result<Verdict> {
    let wide = arch.is_64_bit();
    let mut verdict = None;
    let mut graph = Graph::default();
    for &(number, rule) in same {
        let rule = &rules.rules[rule as usize];
        // The first rule without conditions is the last word.
        if matches!(verdict, Some(Verdict::Act(_))) {
            break;
        }
        if !rule.conditions.iter().any(|condition| Graph::is_needed(condition, wide)) {
            verdict = Some(Verdict::Act(rule.action));
            continue;
        }
        let needed: Vec<_> = rule.conditions.iter().copied().filter(|one| Graph::is_needed(one, wide)).collect();
        if graph.add(&needed, wide, rule.action).is_err() {
            return Err(Error::invalid(format!(
                "linux.seccomp has rules for the system call {} ({arch:?} number {number}) that demand different actions for the same arguments",
                syscalls::name(arch, number).unwrap_or_default()
            )));
        }
        verdict = Some(Verdict::Ask(graphs.len()));
    }
    if matches!(verdict, Some(Verdict::Ask(_))) {
        graphs.push(graph);
    }
    // Each number here has a rule.
    Ok(verdict.unwrap_or(Verdict::Act(libc::SECCOMP_RET_KILL_THREAD)))
}
