//! The profile's entries -> the rules of each number on each architecture.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::conditions::{Condition, Op};
use super::syscalls::{self, Arch};
use super::{action, calls};
use crate::error::{Error, Result};

/// One rule: an action, and the conditions that all must hold.
pub(super) struct Rule {
    pub(super) action: u32,
    pub(super) conditions: Vec<Condition>,
}

/// The rules of all architectures.
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    /// For each architecture the rules of each number, as (number, index in `rules`), sorted by number, the rules of one
    /// number in the profile's order.
    pub(super) numbers: [Vec<(u32, u32)>; Arch::COUNT],
    /// For each architecture the greatest number that the profile names, in whatever rule; 0 for none.
    pub(super) newest: [u32; Arch::COUNT],
}

impl Rules {
    pub(super) fn collect(spec: &LinuxSeccomp, default: u32, archs: &[Arch]) -> Result<Self> {
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
