//! The conditions that rules put on the arguments of one system call, as a decision graph of 32-bit tests.
//!
//! A filter sees each argument as two 32-bit words. A rule becomes a chain of tests; the chains of one call are merged into
//! levels. A level is tried from its first test on: a test leads to an action, to a level below (after which, if nothing
//! there decides, the next test of its own level goes on), or to the next test at once. What falls off the last level gets
//! the default action.
//!
//! Which rule wins where several match is nowhere documented, so it is what libseccomp does: it follows from the order of
//! the tests in a level ([`Test::before`]), from what equal tests share ([`Graph::unite`]) and from what it leaves out as
//! already said. Contradicting rules are an error here where they are one there. A test compares every decision with
//! libseccomp's.
//!
//! This module knows neither JSON nor BPF.

use super::redundant::Outcome;

/// A comparison of one argument, as a rule states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) arg: u8,
    /// How it is compared.
    pub(super) op: Op,
    /// The bits that count; all of them unless `op` is `MaskedEq`.
    pub(super) mask: u64,
    /// What it is compared with.
    pub(super) value: u64,
}

/// The comparisons of `SCMP_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq,
}

/// The comparisons that a filter can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    MaskedEqual,
    Greater,
    GreaterOrEqual,
}

/// Two rules of one call that demand different things of the same arguments.
#[derive(Debug)]
pub(super) struct Conflict;

/// Where a test leads to, by the index of a test in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    /// To the next test of the level.
    Next,
    /// To this action: a `SECCOMP_RET_*` value with its data.
    Act(u32),
    /// To the level of this test.
    Below(usize),
}

/// A comparison of one word of one argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    pub(super) arg: u8,
    /// Whether it is the argument's upper word.
    pub(super) high: bool,
    pub(super) compare: Compare,
    pub(super) mask: u32,
    pub(super) value: u32,
    pub(super) yes: Branch,
    pub(super) no: Branch,
    /// The operator of the rule, which decides the order together with `whole`, the rule's whole value.
    op: Op,
    whole: u64,
    /// The level it stands in.
    level: usize,
}

impl Test {
    /// Where one outcome leads to.
    pub(super) fn branch(&self, outcome: bool) -> Branch {
        if outcome { self.yes } else { self.no }
    }

    /// Whether nothing stands below it.
    pub(super) fn is_leaf(&self) -> bool {
        !matches!(self.yes, Branch::Below(_)) && !matches!(self.no, Branch::Below(_))
    }

    /// Whether it asks the same question as `other`.
    pub(super) fn same(&self, other: &Self) -> bool {
        (self.arg, self.high, self.compare, self.mask, self.value)
            == (other.arg, other.high, other.compare, other.mask, other.value)
    }

    /// Whether it is tried before `other` in a level: the later argument first, then the more precise operator, then the
    /// value from which on the comparison holds less often.
    pub(super) fn before(&self, other: &Self) -> bool {
        let rank = |test: &Self| {
            let precision = match test.op {
                Op::Eq | Op::Ne | Op::MaskedEq => 2,
                Op::Le | Op::Lt => 1,
                Op::Ge | Op::Gt => 0,
            };
            (test.arg, test.high, precision)
        };
        match rank(self).cmp(&rank(other)) {
            std::cmp::Ordering::Equal if matches!(other.op, Op::Le | Op::Lt) => self.value < other.value,
            std::cmp::Ordering::Equal => self.value > other.value,
            order => order.is_gt(),
        }
    }
}

/// All that the rules say about the arguments of one call.
#[derive(Debug, Default)]
pub(super) struct Graph {
    tests: Vec<Test>,
    levels: Vec<Vec<usize>>,
    /// A test of the topmost level, if there is one.
    top: Option<usize>,
}

impl Graph {
    /// Drops the conditions that always hold, as libseccomp does: a mask without bits.
    pub(super) fn is_needed(condition: &Condition, wide: bool) -> bool {
        condition.op != Op::MaskedEq || condition.mask as u32 != 0 || (wide && condition.mask != 0)
    }

    /// Adds a rule: `action` where all `conditions` hold (at least one, each of another argument, in the order of the
    /// arguments). `wide` says that arguments have 64 bits.
    pub(super) fn add(&mut self, conditions: &[Condition], wide: bool, action: u32) -> Result<(), Conflict> {
        let Some(chain) = self.chain(conditions, wide, action) else { return Ok(()) };
        if let Some(top) = self.top
            && self.prune(top, chain, action) == Outcome::Drop
        {
            return Ok(());
        }
        // Looked at again: the pruning may have moved it.
        self.top = match self.top {
            Some(top) => Some(self.merge(top, chain)?),
            None => Some(chain),
        };
        Ok(())
    }

    /// The topmost level.
    pub(super) fn top(&self) -> &[usize] {
        self.top.map(|top| self.level(top)).unwrap_or_default()
    }

    /// The tests of the level that `test` stands in, in the order in which they are tried.
    pub(super) fn level(&self, test: usize) -> &[usize] {
        &self.levels[self.tests[test].level]
    }

    /// One test.
    pub(super) fn test(&self, test: usize) -> &Test {
        &self.tests[test]
    }

    /// Makes the chain of a rule, each test alone in its level; returns the first.
    fn chain(&mut self, conditions: &[Condition], wide: bool, action: u32) -> Option<usize> {
        let mut first = None;
        // Where the condition before this one holds: a test, and whether its yes or its no is meant.
        let mut holds: Vec<(usize, bool)> = Vec::new();
        for condition in conditions {
            let (start, accepted) = match wide {
                true => self.wide(condition),
                false => self.narrow(condition),
            };
            for (test, outcome) in holds {
                *self.branch(test, outcome) = Branch::Below(start);
            }
            holds = accepted;
            first.get_or_insert(start);
        }
        for (test, outcome) in holds {
            *self.branch(test, outcome) = Branch::Act(action);
        }
        first
    }

    /// The test of a 32-bit argument, and where the condition holds.
    fn narrow(&mut self, condition: &Condition) -> (usize, Vec<(usize, bool)>) {
        let (compare, outcome) = match condition.op {
            Op::Eq => (Compare::Equal, true),
            Op::Ne => (Compare::Equal, false),
            Op::MaskedEq => (Compare::MaskedEqual, true),
            Op::Gt => (Compare::Greater, true),
            Op::Le => (Compare::Greater, false),
            Op::Ge => (Compare::GreaterOrEqual, true),
            Op::Lt => (Compare::GreaterOrEqual, false),
        };
        let test = self.place(condition, false, compare);
        (test, vec![(test, outcome)])
    }

    /// The tests of a 64-bit argument, the first of them, and where the condition holds.
    fn wide(&mut self, condition: &Condition) -> (usize, Vec<(usize, bool)>) {
        let equality = match condition.op {
            Op::Eq | Op::Ne => Compare::Equal,
            Op::MaskedEq => Compare::MaskedEqual,
            Op::Gt | Op::Le | Op::Ge | Op::Lt => return self.wide_order(condition),
        };
        let high = self.place(condition, true, equality);
        let low = self.place(condition, false, equality);
        *self.branch(high, true) = Branch::Below(low);
        match condition.op {
            Op::Ne => (high, vec![(high, false), (low, false)]),
            _ => (high, vec![(low, true)]),
        }
    }

    /// The three tests of an order: the upper word is greater; or it is equal, and then the lower word decides.
    fn wide_order(&mut self, condition: &Condition) -> (usize, Vec<(usize, bool)>) {
        let lower = match condition.op {
            Op::Gt | Op::Le => Compare::Greater,
            _ => Compare::GreaterOrEqual,
        };
        let above = self.place(condition, true, Compare::Greater);
        let level = self.place(condition, true, Compare::Equal);
        let low = self.place(condition, false, lower);
        *self.branch(above, false) = Branch::Below(level);
        *self.branch(level, true) = Branch::Below(low);
        match condition.op {
            Op::Gt | Op::Ge => (above, vec![(above, true), (low, true)]),
            _ => (above, vec![(level, false), (low, false)]),
        }
    }

    /// Makes a test that stands alone in a level of its own.
    fn place(&mut self, condition: &Condition, high: bool, compare: Compare) -> usize {
        let word = |whole: u64| if high { (whole >> 32) as u32 } else { whole as u32 };
        let mask = word(condition.mask);
        let index = self.tests.len();
        self.tests.push(Test {
            arg: condition.arg,
            high,
            compare,
            mask,
            value: word(condition.value) & mask,
            yes: Branch::Next,
            no: Branch::Next,
            op: condition.op,
            whole: condition.value,
            level: self.levels.len(),
        });
        self.levels.push(vec![index]);
        index
    }

    fn branch(&mut self, test: usize, outcome: bool) -> &mut Branch {
        let test = &mut self.tests[test];
        if outcome { &mut test.yes } else { &mut test.no }
    }

    /// Adds `new` to the level of `start`, looking from `start` on; returns where to look from the next time.
    fn merge(&mut self, start: usize, new: usize) -> Result<usize, Conflict> {
        let level = self.tests[start].level;
        let Some(from) = self.levels[level].iter().position(|&test| test == start) else { return Ok(start) };
        for at in from..self.levels[level].len() {
            let known = self.levels[level][at];
            if self.tests[known].same(&self.tests[new]) {
                self.unite(known, new)?;
                return Ok(start);
            }
            if self.tests[new].before(&self.tests[known]) {
                self.stand(new, level, at);
                return Ok(if at == from { new } else { start });
            }
        }
        self.stand(new, level, self.levels[level].len());
        Ok(start)
    }

    /// Moves a test into a level. Whoever led to the level it was alone in, leads to the whole of its new one now.
    fn stand(&mut self, test: usize, level: usize, at: usize) {
        self.levels[level].insert(at, test);
        self.tests[test].level = level;
    }

    /// Takes a test out of its level, with what stands below it.
    pub(super) fn remove(&mut self, test: usize) {
        let level = &mut self.levels[self.tests[test].level];
        let Some(at) = level.iter().position(|&other| other == test) else { return };
        level.remove(at);
        // Who led to it leads to the test beside it.
        let beside = level.get(at.saturating_sub(1)).copied();
        for other in &mut self.tests {
            for branch in [&mut other.yes, &mut other.no] {
                if *branch == Branch::Below(test) {
                    *branch = beside.map_or(Branch::Next, Branch::Below);
                }
            }
        }
        if self.top == Some(test) {
            self.top = beside;
        }
    }

    /// Takes over what `new` says beyond `known`, which asks the same.
    fn unite(&mut self, known: usize, new: usize) -> Result<(), Conflict> {
        for outcome in [true, false] {
            self.unite_action(known, new, outcome)?;
        }
        for outcome in [true, false] {
            let Branch::Below(more) = *self.branch(new, outcome) else { continue };
            match *self.branch(known, outcome) {
                Branch::Below(below) => *self.branch(known, outcome) = Branch::Below(self.merge(below, more)?),
                Branch::Next => *self.branch(known, outcome) = Branch::Below(more),
                // An action is reached here already: what the new rule asks further is not looked at.
                Branch::Act(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes over the action of one branch.
    fn unite_action(&mut self, known: usize, new: usize, outcome: bool) -> Result<(), Conflict> {
        let Branch::Act(action) = *self.branch(new, outcome) else { return Ok(()) };
        let present = *self.branch(known, outcome);
        match present {
            Branch::Act(same) if same == action => Ok(()),
            Branch::Act(_) => {
                let (old, fresh) = (self.tests[known], self.tests[new]);
                // The upper word alone cannot tell two rules apart: the greater value has the say. (For the no's too,
                // libseccomp means; but its releases up to 2.6.1 leave them as they are.)
                if outcome && fresh.high && fresh.whole > old.whole {
                    *self.branch(known, outcome) = Branch::Act(action);
                }
                if old.is_leaf() || fresh.is_leaf() { Err(Conflict) } else { Ok(()) }
            }
            Branch::Below(below) if !self.all_lead_to(below, action) => Err(Conflict),
            Branch::Below(_) | Branch::Next => {
                *self.branch(known, outcome) = Branch::Act(action);
                Ok(())
            }
        }
    }

    /// Whether every action of a level and below it is `action`.
    pub(super) fn all_lead_to(&self, test: usize, action: u32) -> bool {
        self.level(test).iter().all(|&test| {
            [self.tests[test].yes, self.tests[test].no].into_iter().all(|branch| match branch {
                Branch::Next => true,
                Branch::Act(other) => other == action,
                Branch::Below(below) => self.all_lead_to(below, action),
            })
        })
    }
}
