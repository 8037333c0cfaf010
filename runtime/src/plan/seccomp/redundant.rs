//! What a new rule makes of those before it: before libseccomp adds a rule to a graph, it takes out what the new one says
//! more shortly, or leaves out the new one if an old one seems to say it already.
//!
//! It would not matter if it were only that. But the search compares more coarsely than the rules do (it takes a test for
//! said when only its other outcome is), so a rule can be left out that some call needed. Profiles are written against
//! those decisions, so the search is repeated here as it is. `Seen` is what it has found out on its way.

use super::conditions::{Branch, Graph};

/// What is known at one point of the search. The search follows the graph's tests and the new chain's at the same time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The tests met last were the same.
    same: bool,
    /// Some tests met were the same.
    ever_same: bool,
    /// The graph ends here.
    graph_ends: bool,
    /// The new chain ends here.
    chain_ends: bool,
    /// Tests of the graph were passed that the new chain does not have.
    graph_longer: bool,
    /// Tests of the new chain were passed that the graph does not have.
    chain_longer: bool,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            same: self.same || other.same,
            ever_same: self.ever_same || other.ever_same,
            graph_ends: self.graph_ends || other.graph_ends,
            chain_ends: self.chain_ends || other.chain_ends,
            graph_longer: self.graph_longer || other.graph_longer,
            chain_longer: self.chain_longer || other.chain_longer,
        }
    }

    /// What the caller knows after a search below it that ended with `found`.
    fn after(self, found: Self) -> Self {
        if found.same { self.and(found) } else { Self { same: false, ..self } }
    }
}

/// What becomes of the new rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is to be added.
    Add,
    /// It is said already.
    Drop,
}

impl Graph {
    /// Takes out what the rule of `chain`, with `action`, makes redundant; says whether it is needed itself.
    pub(super) fn prune(&mut self, top: usize, chain: usize, action: u32) -> Outcome {
        let mut removed = false;
        let seen = self.search(top, chain, action, Seen::default(), &mut removed);
        match !removed && seen.same && seen.graph_ends && seen.chain_longer {
            true => Outcome::Drop,
            false => Outcome::Add,
        }
    }

    fn search(&mut self, start: usize, chain: usize, action: u32, seen: Seen, removed: &mut bool) -> Seen {
        // Some tests were the same, and then one was not.
        if seen.ever_same && !seen.same {
            return seen;
        }
        let new = *self.test(chain);
        let mut here = seen;
        for known in self.level(start).to_vec() {
            let old = *self.test(known);
            if old.same(&new) {
                here = here.and(Seen {
                    same: true,
                    ever_same: true,
                    chain_ends: new.is_leaf(),
                    graph_ends: old.is_leaf(),
                    ..Seen::default()
                });
                let more = |old: Branch, new: Branch| old != Branch::Next && new == Branch::Next;
                if more(old.yes, new.yes) || more(old.no, new.no) {
                    return seen.after(here);
                }
                if here.chain_ends && here.graph_ends && (acts(old.yes), acts(old.no)) != (acts(new.yes), acts(new.no))
                {
                    return seen.after(here);
                }
                for outcome in [true, false] {
                    let (Branch::Below(old), Branch::Below(new)) = (self.leads(known, outcome), new.branch(outcome))
                    else {
                        continue;
                    };
                    let below = Seen { same: true, ever_same: true, ..seen };
                    let found = self.search(old, new, action, below, removed);
                    if found.same {
                        here = here.and(found);
                    }
                }
                if here.same && self.all_lead_to(known, action) {
                    if here.chain_ends && here.graph_longer {
                        self.remove(known);
                        *removed = true;
                    } else if here.graph_ends && here.chain_longer {
                        return seen.after(here);
                    }
                }
            } else if new.before(&old) {
                if seen.chain_longer {
                    return seen.after(here);
                }
                let below = Seen { same: false, graph_longer: true, ..seen };
                for outcome in [true, false] {
                    let Branch::Below(old) = self.leads(known, outcome) else { continue };
                    let found = self.search(old, chain, action, below, removed);
                    if found.same {
                        return seen.after(here.and(found));
                    }
                }
            } else {
                if seen.graph_longer {
                    return seen.after(here);
                }
                let below = Seen { same: false, chain_longer: true, ..seen };
                for outcome in [true, false] {
                    let Branch::Below(new) = new.branch(outcome) else { continue };
                    let found = self.search(known, new, action, below, removed);
                    if found.same {
                        return seen.after(here.and(found));
                    }
                }
            }
        }
        seen.after(Seen { same: false, ..here })
    }

    fn leads(&self, test: usize, outcome: bool) -> Branch {
        self.test(test).branch(outcome)
    }
}

/// The action of a branch, if it leads to one.
fn acts(branch: Branch) -> Option<u32> {
    match branch {
        Branch::Act(action) => Some(action),
        Branch::Next | Branch::Below(_) => None,
    }
}
