//! libseccomp's rules as it shows them itself: its pseudo code (seccomp_export_pfc(3)).
//!
//! ```text
//! # filter for arch x86 (1073741827)
//! if ($arch == 1073741827)
//!   # filter for syscall "write" (4) [priority: 65530]
//!   if ($syscall == 4)
//!     if ($a1.hi32 & 0x00000005 == 5)
//!       action ALLOW;
//!     else
//!       if ($a1.lo32 > 7)
//!         ...
//!   # default action
//!   action ERRNO(1);
//! ```
//!
//! A condition with nothing beneath that decides goes on with the next one.

use std::collections::HashMap;

use crate::bpf::Call;

/// The rules of all calls that have conditions, by audit architecture and number.
pub(crate) struct Tree {
    calls: HashMap<(u32, u32), Vec<Step>>,
    default: u32,
}

enum Step {
    Act(u32),
    If { arg: usize, high: bool, test: Test, yes: Vec<Step>, no: Vec<Step> },
}

enum Test {
    Equal(u32),
    Masked(u32, u32),
    Greater(u32),
    GreaterOrEqual(u32),
}

impl Tree {
    pub(crate) fn parse(text: &str) -> Self {
        let lines: Vec<(usize, &str)> = text
            .split('|')
            .map(|line| (line.len() - line.trim_start().len(), line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let mut calls = HashMap::new();
        let mut default = 0;
        let mut audit = 0;
        let mut at = 0;
        while let Some(&(depth, line)) = lines.get(at) {
            at += 1;
            if let Some(arch) = number_in(line, "if ($arch == ") {
                audit = arch;
            } else if let Some(number) = number_in(line, "if ($syscall == ") {
                let body = steps(&lines, &mut at, depth);
                // A negative number is a call that the architecture lacks: shown here, but not in the program.
                if number as i32 >= 0 {
                    calls.insert((audit, number), body);
                }
            } else if depth > 0 {
                default = action(line);
            }
        }
        Self { calls, default }
    }

    /// The action for a call that has rules.
    pub(crate) fn decide(&self, call: &Call) -> Option<u32> {
        let steps = self.calls.get(&(call.audit, call.number))?;
        Some(walk(steps, call).unwrap_or(self.default))
    }
}

fn walk(steps: &[Step], call: &Call) -> Option<u32> {
    steps.iter().find_map(|step| match step {
        Step::Act(action) => Some(*action),
        Step::If { arg, high, test, yes, no } => {
            let word = if *high { (call.args[*arg] >> 32) as u32 } else { call.args[*arg] as u32 };
            let holds = match *test {
                Test::Equal(value) => word == value,
                Test::Masked(mask, value) => word & mask == value,
                Test::Greater(value) => word > value,
                Test::GreaterOrEqual(value) => word >= value,
            };
            walk(if holds { yes } else { no }, call)
        }
    })
}

/// The lines deeper than `depth`, from `at` on.
fn steps(lines: &[(usize, &str)], at: &mut usize, depth: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(&(deeper, line)) = lines.get(*at)
        && deeper > depth
    {
        *at += 1;
        let Some(condition) = line.strip_prefix("if ($a") else {
            steps.push(Step::Act(action(line)));
            continue;
        };
        let words: Vec<&str> = condition.trim_end_matches(')').split_whitespace().collect();
        let high = words[0].ends_with(".hi32");
        let arg = words[0][..1].parse().unwrap();
        let value = |word: &str| word.parse().unwrap();
        let test = match words[1..] {
            ["==", right] => Test::Equal(value(right)),
            [">", right] => Test::Greater(value(right)),
            [">=", right] => Test::GreaterOrEqual(value(right)),
            ["&", mask, "==", right] => {
                Test::Masked(u32::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap(), value(right))
            }
            _ => panic!("a condition {line}"),
        };
        let yes = self::steps(lines, at, deeper);
        let mut no = Vec::new();
        if lines.get(*at) == Some(&(deeper, "else")) {
            *at += 1;
            no = self::steps(lines, at, deeper);
        }
        steps.push(Step::If { arg, high, test, yes, no });
    }
    steps
}

fn number_in(line: &str, prefix: &str) -> Option<u32> {
    line.strip_prefix(prefix)?.trim_end_matches(')').parse().ok()
}

fn action(line: &str) -> u32 {
    let name = line.strip_prefix("action ").and_then(|rest| rest.strip_suffix(';')).unwrap();
    let (name, data) = name.split_once('(').unwrap_or((name, "0)"));
    let data: u32 = data.trim_end_matches(')').parse().unwrap();
    match name {
        "KILL_PROCESS" => 0x8000_0000,
        "KILL" => 0,
        "TRAP" => 0x0003_0000,
        "ERRNO" => 0x0005_0000 | data,
        "TRACE" => 0x7ff0_0000 | data,
        "LOG" => 0x7ffc_0000,
        "ALLOW" => 0x7fff_0000,
        // What it has no word for.
        other => u32::from_str_radix(other.trim_start_matches("0x"), 16).unwrap(),
    }
}
