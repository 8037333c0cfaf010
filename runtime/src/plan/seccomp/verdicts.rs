//! The rules of all numbers -> the verdict of every number there is, as ranges.

use nix::libc;
use oci_spec::runtime::LinuxSeccompAction;

use super::conditions::Graph;
use super::program::{Range, Verdict};
use super::rules::Rules;
use super::syscalls::{self, Arch, X32_BIT};
use crate::error::{Error, Result};

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
pub(super) fn ranges(
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
