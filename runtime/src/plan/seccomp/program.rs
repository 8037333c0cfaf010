//! Verdicts over ranges of system call numbers -> a classic BPF program.
//!
//! ```text
//!     load the architecture; one comparison for each that is known, else kill
//!     for each architecture:
//!         load the number
//!         a binary tree of `>=` comparisons over the ranges, the often used ones near its root
//!         at each leaf an action, or the tests of the arguments
//! ```
//!
//! Jumps of a BPF program go forward only, by at most 255 instructions. So the program is written from its end: each
//! target stands already, its distance is known, and a target too far away is repeated (an action) or reached by a long
//! jump. The kernel limits a program to 4,096 instructions.

use seccompiler::sock_filter;

use super::conditions::{Branch, Compare, Graph};

/// What a filter says of the calls in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A `SECCOMP_RET_*` value with its data.
    Act(u32),
    /// It depends on the arguments: the graph of this index.
    Ask(usize),
}

/// System call numbers from `first` to the next range's first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) verdict: Verdict,
    /// How often it is used, compared with others: at least 1.
    pub(super) weight: u32,
}

/// The calls of one audit architecture: ranges in order, the first of which starts at 0.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    pub(super) ranges: Vec<Range>,
}

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
pub(super) const MAX_LENGTH: usize = 4096;

// linux/bpf_common.h, linux/filter.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// struct seccomp_data of linux/seccomp.h; the architectures here are all little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Writes the program: `fallback` is for what the tests of arguments leave open, `stranger` for other architectures.
pub(super) fn assemble(sections: &[Section], graphs: &[Graph], fallback: u32, stranger: u32) -> Vec<sock_filter> {
    let mut writer = Writer { code: Vec::with_capacity(1024), actions: Vec::new() };
    let mut entries = Vec::with_capacity(sections.len());
    // From the last section to the first, as everything here: the first is the native one, nearest to the start.
    for section in sections.iter().rev() {
        let tree = writer.tree(&section.ranges, graphs, fallback);
        // A single range needs no number, and where its action stands is anywhere.
        let entry = if section.ranges.len() == 1 { tree } else { writer.put(LOAD, NUMBER) };
        entries.push((section.audit, entry));
    }
    let mut next = writer.action(stranger);
    for (audit, entry) in entries {
        next = writer.choose(JUMP_EQUAL, audit, entry, next);
    }
    writer.put(LOAD, ARCHITECTURE);
    writer.code.reverse();
    writer.code
}

/// The index of an instruction, counted from the program's end.
type Label = usize;

struct Writer {
    /// The program, its last instruction first.
    code: Vec<sock_filter>,
    /// Each action and where it was last written.
    actions: Vec<(u32, Label)>,
}

impl Writer {
    fn put(&mut self, code: u16, k: u32) -> Label {
        self.code.push(sock_filter { code, jt: 0, jf: 0, k });
        self.code.len() - 1
    }

    /// How many instructions lie between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.code.len() - 1 - label
    }

    /// A return of `action`: one that stands near, or a new one.
    fn action(&mut self, action: u32) -> Label {
        // Half of a jump's reach: what is written before the jump must not push it out of reach at once.
        const NEAR: usize = 128;
        let known = self.actions.iter().position(|&(known, _)| known == action);
        if let Some(at) = known {
            let label = self.actions[at].1;
            if self.distance(label) < NEAR {
                return label;
            }
        }
        let label = self.put(RETURN, action);
        match known {
            Some(at) => self.actions[at].1 = label,
            None => self.actions.push((action, label)),
        }
        label
    }

    /// A label that leads to `label` and that a conditional jump can reach after `later` more instructions.
    fn within_reach(&mut self, label: Label, later: usize) -> Label {
        if self.distance(label) + later <= u8::MAX.into() {
            return label;
        }
        match self.code[label].code {
            RETURN => self.action(self.code[label].k),
            _ => self.put(JUMP, self.distance(label) as u32),
        }
    }

    /// A comparison of the accumulator with `k`.
    fn choose(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.within_reach(yes, 1);
        let no = self.within_reach(no, 0);
        // Both fit now: within_reach left at most 255 between.
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.code.push(sock_filter { code, jt, jf, k });
        self.code.len() - 1
    }

    /// The tree over `ranges`, split where the weights on both sides are most alike.
    fn tree(&mut self, ranges: &[Range], graphs: &[Graph], fallback: u32) -> Label {
        if let [range] = ranges {
            return match range.verdict {
                Verdict::Act(action) => self.action(action),
                Verdict::Ask(graph) => self.graph(&graphs[graph], fallback),
            };
        }
        let middle = middle(ranges);
        let (lower, upper) = ranges.split_at(middle);
        let yes = self.tree(upper, graphs, fallback);
        let no = self.tree(lower, graphs, fallback);
        self.choose(JUMP_GREATER_OR_EQUAL, ranges[middle].first, yes, no)
    }

    fn graph(&mut self, graph: &Graph, fallback: u32) -> Label {
        let end = self.action(fallback);
        self.level(graph, graph.top(), end, &mut Vec::new())
    }

    /// The tests of a level, after the last of which the program goes on at `end`.
    ///
    /// `written` remembers the levels that stand already with the end they lead to: rules share levels, and without it each
    /// ordered comparison of a rule would double all that follows.
    fn level(&mut self, graph: &Graph, level: &[usize], end: Label, written: &mut Vec<(usize, Label, Label)>) -> Label {
        let Some(&first) = level.first() else { return end };
        // Too long already: it is going to be refused, and what rules multiply must not take long to find that out.
        if self.code.len() > MAX_LENGTH {
            return end;
        }
        if let Some(&(_, _, label)) = written.iter().find(|&&(start, after, _)| (start, after) == (first, end)) {
            return label;
        }
        let mut next = end;
        for &test in level.iter().rev() {
            let test = graph.test(test);
            let yes = self.branch(graph, test.yes, next, written);
            let no = self.branch(graph, test.no, next, written);
            let code = match test.compare {
                Compare::Equal | Compare::MaskedEqual => JUMP_EQUAL,
                Compare::Greater => JUMP_GREATER,
                Compare::GreaterOrEqual => JUMP_GREATER_OR_EQUAL,
            };
            if yes == no {
                next = yes;
                continue;
            }
            self.choose(code, test.value, yes, no);
            if test.mask != u32::MAX {
                self.put(AND, test.mask);
            }
            next = self.put(LOAD, ARGUMENTS + 8 * u32::from(test.arg) + if test.high { 4 } else { 0 });
        }
        written.push((first, end, next));
        next
    }

    fn branch(
        &mut self,
        graph: &Graph,
        branch: Branch,
        next: Label,
        written: &mut Vec<(usize, Label, Label)>,
    ) -> Label {
        match branch {
            Branch::Next => next,
            Branch::Act(action) => self.action(action),
            Branch::Below(test) => self.level(graph, graph.level(test), next, written),
        }
    }
}

/// Where to split: the index of the first range of the upper half, by weight.
fn middle(ranges: &[Range]) -> usize {
    let whole: u32 = ranges.iter().map(|range| range.weight).sum();
    let mut lower = 0;
    for (at, range) in ranges.iter().enumerate() {
        let with = lower + range.weight;
        if 2 * with >= whole {
            // With this range or without it: the smaller difference, and neither side empty.
            let at = if whole - 2 * lower <= 2 * with - whole { at } else { at + 1 };
            return at.clamp(1, ranges.len() - 1);
        }
        lower = with;
    }
    ranges.len() - 1
}
