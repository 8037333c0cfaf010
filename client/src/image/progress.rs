//! How a transfer is shown, in docker's words: bars on a terminal, a line for each step in a pipe.
//!
//! ```text
//! 4f4fb700ef54: Extracting [==============>               ] 26.2MB/47MB       on a terminal, one line a layer
//! 9b829c73b52b: Pull complete
//! ```

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tare_proto::store::item::Phase;
use tare_proto::store::{Item, Progress};

use super::reference::short;
use crate::units::human_size;

/// A bar, its parts, and what is shown of something that has no length now.
const MOVING: &str = "{prefix}: {msg} [{bar:30}] {sizes}";
const RESTING: &str = "{prefix}: {msg}";

/// Which words are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Layers come from a registry.
    Pull,
    /// Layers go to a registry.
    Push,
    /// Layers come from an archive.
    Load,
}

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// The command's own result goes there too.
    Stdout,
    /// Something else is the command's result.
    Stderr,
}

/// Shows a transfer.
pub struct Show {
    verb: Verb,
    to: To,
    how: How,
    /// Other names for what the store calls by a digest.
    names: HashMap<String, String>,
    /// What is here and has only to be put on the disk for good, with all the others.
    done: HashSet<String>,
}

enum How {
    Bars { all: MultiProgress, bars: HashMap<String, ProgressBar> },
    Lines { said: HashMap<String, &'static str> },
    Quiet,
}

impl Show {
    pub(super) fn new(verb: Verb, to: To, quiet: bool) -> Self {
        let terminal = match to {
            To::Stdout => io::stdout().is_terminal(),
            To::Stderr => io::stderr().is_terminal(),
        };
        let how = match (quiet, terminal) {
            (true, _) => How::Quiet,
            (false, true) => {
                let target = match to {
                    To::Stdout => ProgressDrawTarget::stdout(),
                    To::Stderr => ProgressDrawTarget::stderr(),
                };
                How::Bars { all: MultiProgress::with_draw_target(target), bars: HashMap::new() }
            }
            (false, false) => How::Lines { said: HashMap::new() },
        };
        Self { verb, to, how, names: HashMap::new(), done: HashSet::new() }
    }

    /// What the store calls `digest` is shown as `name`.
    pub(super) fn call(&mut self, digest: &str, name: &str) {
        self.names.insert(digest.to_owned(), name.to_owned());
    }

    /// Whether anything is shown at all.
    pub(super) const fn is_quiet(&self) -> bool {
        matches!(self.how, How::Quiet)
    }

    /// A line that stays, among the bars or before them. That nobody reads it stops no work.
    pub(super) fn line(&self, text: &str) {
        match &self.how {
            How::Quiet => {}
            How::Bars { all, bars } if !bars.is_empty() => {
                let _ = all.println(printable(text));
            }
            How::Bars { .. } | How::Lines { .. } => self.write(&printable(text)),
        }
    }

    /// One message of a stream.
    pub(super) fn progress(&mut self, progress: &Progress) {
        for item in &progress.items {
            // Documents come and go at once.
            if matches!(item.kind.as_str(), "layer" | "blob" | "snapshot") {
                self.item(item);
            }
        }
        if !self.is_quiet() {
            for notice in &progress.notices {
                match &self.how {
                    How::Bars { all, .. } => drop(all.println(printable(notice))),
                    _ => drop(writeln!(io::stderr(), "{}", printable(notice))),
                }
            }
        }
    }

    /// A layer of which the store said nothing, since there was nothing to do.
    pub(super) fn exists(&mut self, digest: &str) {
        let mut item = Item::new();
        (item.id, item.phase) = (digest.to_owned(), Phase::EXISTS.into());
        self.item(&item);
    }

    /// Nothing moves any more: what is shown stays, and what follows stands below it.
    pub(super) fn end(&mut self) {
        if let How::Bars { bars, .. } = &mut self.how {
            for (_, bar) in bars.drain() {
                bar.abandon();
            }
        }
    }

    fn item(&mut self, item: &Item) {
        let phase = item.phase.enum_value_or_default();
        if phase == Phase::DONE {
            self.done.insert(item.id.clone());
        } else if phase == Phase::SYNCING && self.done.contains(&item.id) {
            return;
        }
        let name = printable(self.names.get(&item.id).map_or_else(|| short(&item.id), String::as_str));
        let word = word(self.verb, phase);
        match &mut self.how {
            How::Quiet => {}
            How::Bars { all, bars } => {
                let moving = item.total > 0 && is_moving(phase);
                let style = style(if moving { MOVING } else { RESTING });
                let bar = bars.entry(item.id.clone()).or_insert_with(|| {
                    let bar = ProgressBar::new(item.total).with_style(style.clone());
                    all.add(bar.with_prefix(name).with_message(word))
                });
                bar.set_style(style);
                bar.set_length(item.total.max(item.offset));
                bar.set_position(item.offset);
                bar.set_message(word);
            }
            How::Lines { said } => {
                let mut lines = Vec::new();
                for word in steps(self.verb, phase, said.get(&item.id).copied()) {
                    said.insert(item.id.clone(), word);
                    lines.push(format!("{name}: {word}"));
                }
                for line in lines {
                    self.write(&line);
                }
            }
        }
    }

    fn write(&self, text: &str) {
        let _ = match self.to {
            To::Stdout => writeln!(io::stdout().lock(), "{text}"),
            To::Stderr => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}

fn is_moving(phase: Phase) -> bool {
    matches!(phase, Phase::FETCHING | Phase::SENDING | Phase::EXTRACTING)
}

/// What docker says of something that is there.
fn word(verb: Verb, phase: Phase) -> &'static str {
    match (verb, phase) {
        (Verb::Push, Phase::WAITING) => "Preparing",
        (_, Phase::WAITING) => "Waiting",
        (Verb::Load, Phase::FETCHING | Phase::EXTRACTING | Phase::VERIFYING | Phase::SYNCING) => "Loading layer",
        (_, Phase::FETCHING) => "Downloading",
        (_, Phase::VERIFYING) => "Verifying Checksum",
        (_, Phase::EXTRACTING) => "Extracting",
        (_, Phase::SYNCING) => "Download complete",
        (_, Phase::SENDING) => "Pushing",
        (_, Phase::MOUNTED) => "Mounted from another repository",
        (_, Phase::SKIPPED) => "Skipped",
        (_, Phase::FAILED) => "Failed",
        (Verb::Push, Phase::EXISTS) => "Layer already exists",
        (_, Phase::EXISTS) => "Already exists",
        (Verb::Pull, Phase::DONE) => "Pull complete",
        (Verb::Push, Phase::DONE) => "Pushed",
        (Verb::Load, Phase::DONE) => "Loaded",
    }
}

/// The lines to be written of something that is there now: those that docker writes on the way and that a look has missed, too.
fn steps(verb: Verb, phase: Phase, said: Option<&'static str>) -> Vec<&'static str> {
    let now = word(verb, phase);
    let mut lines = Vec::new();
    match verb {
        // Its end is said once, whatever is still done with all of them together.
        Verb::Pull if said == Some("Pull complete") && phase != Phase::FAILED => return lines,
        Verb::Pull => {
            if said.is_none() && phase != Phase::EXISTS {
                lines.push("Pulling fs layer");
            }
            if phase == Phase::DONE && said != Some("Download complete") {
                lines.push("Download complete");
            }
        }
        Verb::Push if said.is_none() => lines.push("Preparing"),
        Verb::Push | Verb::Load => {}
    }
    if !is_moving(phase) && phase != Phase::WAITING {
        lines.push(now);
    }
    lines.dedup();
    lines.retain(|it| said != Some(it));
    lines
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test makes each of them.
    ProgressStyle::with_template(template).map_or_else(
        |_| ProgressStyle::default_bar(),
        |it| {
            it.progress_chars("=> ").with_key("sizes", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                let _ = write!(to, "{}/{}", human_size(state.pos()), human_size(state.len().unwrap_or(0)));
            })
        },
    )
}

/// Without what a terminal would obey: names and messages may come from a registry or an image.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_dockers_lines_once_each() {
        let mut said = None;
        let mut all = Vec::new();
        for phase in [
            Phase::WAITING,
            Phase::FETCHING,
            Phase::EXTRACTING,
            Phase::EXTRACTING,
            Phase::VERIFYING,
            Phase::SYNCING,
            Phase::DONE,
        ] {
            for word in steps(Verb::Pull, phase, said) {
                said = Some(word);
                all.push(word);
            }
        }
        assert_eq!(all, ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]);
        // What is over before anybody looked.
        assert_eq!(steps(Verb::Pull, Phase::DONE, None), ["Pulling fs layer", "Download complete", "Pull complete"]);
        assert!(steps(Verb::Pull, Phase::DONE, Some("Pull complete")).is_empty());
        assert_eq!(steps(Verb::Pull, Phase::EXISTS, None), ["Already exists"]);
        assert_eq!(steps(Verb::Push, Phase::EXISTS, None), ["Preparing", "Layer already exists"]);
        assert_eq!(steps(Verb::Push, Phase::DONE, Some("Preparing")), ["Pushed"]);
        assert!(steps(Verb::Push, Phase::WAITING, Some("Preparing")).is_empty());
    }

    #[test]
    fn the_bars_are_ones() {
        for template in [MOVING, RESTING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
    }
}
