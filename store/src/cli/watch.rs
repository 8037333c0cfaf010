//! How a call's progress is shown: bars on a terminal, lines in a pipe, JSON for programs.
//!
//! ```text
//! 4f4fb700ef54 extracting ███████████░░░░░░░░░  26.2 MiB/47.0 MiB  31.0 MiB/s  unpacked 70.1 MiB
//! 9b829c73b52b waiting    ░░░░░░░░░░░░░░░░░░░░       0 B/23.6 MiB
//! layers: 4, fetched 26.2 MiB of 70.6 MiB; fetching 0, verifying 0, extracting 1, waiting 2, done 1
//! ```
//!
//! Bars and lines go to standard error; JSON, one object for each message, to standard output.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tare_proto::store::item::Phase;
use tare_proto::store::{Item, Progress};

use super::output::{self, Done, bytes, short};

/// Bars at once; of more items, those are shown that move.
const BARS: usize = 16;

/// The way that was chosen.
pub(crate) enum Watch {
    /// Bars on a terminal.
    Bars(Bars),
    /// Lines: one for each item that begins or ends.
    Lines(HashMap<String, Phase>),
    /// One object for each message.
    Json,
    /// Nothing.
    Quiet,
}

impl Watch {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        match (json, quiet) {
            (_, true) => Self::Quiet,
            (true, _) => Self::Json,
            _ if std::io::stderr().is_terminal() => Self::Bars(Bars::new()),
            _ => Self::Lines(HashMap::new()),
        }
    }

    /// Shows one message. Its result is the caller's.
    pub(crate) fn show(&mut self, progress: &Progress) -> Done {
        match self {
            Self::Bars(bars) => {
                progress.items.iter().for_each(|item| bars.item(item));
                progress.notices.iter().for_each(|notice| bars.notice(notice));
                bars.sum();
            }
            Self::Lines(shown) => {
                for item in &progress.items {
                    let phase = item.phase.enum_value_or_default();
                    if shown.insert(item.id.clone(), phase) != Some(phase) {
                        say(&plain(item, phase));
                    }
                }
                progress.notices.iter().for_each(|notice| say(notice));
            }
            Self::Json if !progress.items.is_empty() || !progress.notices.is_empty() => {
                output::document(&as_json(progress))?;
            }
            Self::Json | Self::Quiet => {}
        }
        Ok(())
    }

    /// Takes the bars away; what is printed from here on is the result.
    pub(crate) fn end(self) {
        if let Self::Bars(bars) = self {
            let _ = bars.all.clear();
        }
    }
}

/// A line of its own on standard error; that nobody reads it stops no work.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

/// Without what a terminal would obey: names and messages may come from a registry.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// In a person's words.
pub(crate) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::WAITING => "waiting",
        Phase::FETCHING => "fetching",
        Phase::VERIFYING => "verifying",
        Phase::EXTRACTING => "extracting",
        Phase::SYNCING => "syncing",
        Phase::DONE => "done",
        Phase::EXISTS => "exists",
        Phase::SENDING => "sending",
        Phase::MOUNTED => "mounted",
        Phase::SKIPPED => "skipped",
        Phase::FAILED => "failed",
    }
}

fn ended(phase: Phase) -> bool {
    matches!(phase, Phase::DONE | Phase::EXISTS | Phase::MOUNTED | Phase::SKIPPED | Phase::FAILED)
}

fn plain(item: &Item, phase: Phase) -> String {
    let size = if item.total > 0 { format!(" {}", bytes(item.total)) } else { String::new() };
    format!("{} {}: {}{size}", item.kind, short(&item.id), word(phase))
}

fn as_json(progress: &Progress) -> Value {
    let item = |it: &Item| {
        json!({
            "id": it.id,
            "kind": it.kind,
            "phase": word(it.phase.enum_value_or_default()),
            "offset": it.offset,
            "total": it.total,
            "extracted": it.extracted,
        })
    };
    json!({ "items": progress.items.iter().map(item).collect::<Vec<_>>(), "notices": progress.notices })
}

/// One bar for each layer or blob, and a line that sums them up.
pub(crate) struct Bars {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
    items: HashMap<String, Item>,
    sum: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let sum = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}  {elapsed}")));
        sum.enable_steady_tick(std::time::Duration::from_millis(120));
        Self { all, bars: HashMap::new(), items: HashMap::new(), sum }
    }

    fn item(&mut self, item: &Item) {
        // Documents come and go at once.
        if !matches!(item.kind.as_str(), "layer" | "blob" | "snapshot") {
            return;
        }
        let phase = item.phase.enum_value_or_default();
        self.items.insert(item.id.clone(), item.clone());
        if !self.bars.contains_key(&item.id) && self.bars.len() >= BARS && (ended(phase) || phase == Phase::WAITING) {
            return;
        }
        if self.bars.len() >= BARS && !self.bars.contains_key(&item.id) {
            self.make_room();
        }
        let (all, sum) = (&self.all, &self.sum);
        let bar = self.bars.entry(item.id.clone()).or_insert_with(|| {
            let bar = all.insert_before(sum, ProgressBar::new(item.total));
            bar.set_prefix(short(&item.id).to_owned());
            bar
        });
        let moving = matches!(phase, Phase::FETCHING | Phase::SENDING | Phase::EXTRACTING | Phase::VERIFYING);
        bar.set_style(style(if moving {
            "{prefix} {msg:<24} {bar:20} {binary_bytes:>11}/{binary_total_bytes:<11} {binary_bytes_per_sec:>13}"
        } else {
            "{prefix} {msg:<24} {bar:20} {binary_bytes:>11}/{binary_total_bytes:<11}"
        }));
        bar.set_length(item.total.max(item.offset));
        bar.set_position(if ended(phase) && phase != Phase::FAILED { item.total } else { item.offset });
        let unpacked = if item.extracted > 0 { format!(", unpacked {}", bytes(item.extracted)) } else { String::new() };
        bar.set_message(format!("{}{unpacked}", word(phase)));
    }

    /// The bar of something that has ended gives its line to something that moves.
    fn make_room(&mut self) {
        let over = |id: &&String| self.items.get(*id).is_none_or(|it| ended(it.phase.enum_value_or_default()));
        let found = self.bars.keys().find(over).cloned();
        if let Some(bar) = found.and_then(|id| self.bars.remove(&id)) {
            self.all.remove(&bar);
        }
    }

    fn notice(&self, notice: &str) {
        let _ = self.all.println(printable(notice));
    }

    fn sum(&self) {
        self.sum.set_message(sum(self.items.values()));
    }
}

/// How many are where, and how far all of them are.
fn sum<'a>(items: impl Iterator<Item = &'a Item> + Clone) -> String {
    let count = |phase: Phase| items.clone().filter(|it| it.phase.enum_value_or_default() == phase).count();
    let mut words = Vec::new();
    for phase in [Phase::FETCHING, Phase::SENDING, Phase::VERIFYING, Phase::EXTRACTING, Phase::SYNCING, Phase::WAITING]
    {
        match count(phase) {
            0 => {}
            n => words.push(format!("{n} {}", word(phase))),
        }
    }
    let over = items.clone().filter(|it| ended(it.phase.enum_value_or_default()));
    words.push(format!("{} of {} done", over.clone().count(), items.clone().count()));
    let here = |it: &Item| if ended(it.phase.enum_value_or_default()) { it.total } else { it.offset.min(it.total) };
    let (now, whole) = (items.clone().map(here).sum(), items.map(|it| it.total).sum());
    format!("{}; {} of {}", words.join(", "), bytes(now), bytes(whole))
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test makes each of them.
    ProgressStyle::with_template(template).map_or_else(|_| ProgressStyle::default_bar(), |it| it.progress_chars("█░"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, phase: Phase, offset: u64, total: u64) -> Item {
        let mut it = Item::new();
        (it.id, it.kind, it.phase, it.offset, it.total) = (id.into(), "layer".into(), phase.into(), offset, total);
        it
    }

    #[test]
    fn the_sum_says_what_is_waiting() {
        let items = [
            item("sha256:a", Phase::FETCHING, 1024, 4096),
            item("sha256:b", Phase::WAITING, 0, 2048),
            item("sha256:c", Phase::EXISTS, 0, 1024),
        ];
        assert_eq!(sum(items.iter()), "1 fetching, 1 waiting, 1 of 3 done; 2.00 KiB of 7.00 KiB");
        assert_eq!(plain(&items[1], Phase::WAITING), "layer b: waiting 2.00 KiB");
    }

    #[test]
    fn bars_show_what_moves_and_never_more_than_fit() {
        let mut bars = Bars::new();
        bars.all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        for n in 0..BARS * 3 {
            bars.item(&item(&format!("sha256:{n:012}"), Phase::DONE, 5, 5));
        }
        assert_eq!((bars.bars.len(), bars.items.len()), (BARS, BARS * 3));
        bars.item(&item("sha256:moving", Phase::EXTRACTING, 1, 5));
        assert_eq!(bars.bars.len(), BARS);
        let bar = &bars.bars["sha256:moving"];
        assert_eq!((bar.position(), bar.length(), bar.message().as_str()), (1, Some(5), "extracting"));
        for template in [
            "{spinner} {msg}  {elapsed}",
            "{prefix} {msg:<24} {bar:20} {binary_bytes:>11}/{binary_total_bytes:<11} {binary_bytes_per_sec:>13}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn what_a_registry_says_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
    }

    #[test]
    fn json_has_every_number() {
        let mut progress = Progress::new();
        progress.items.push(item("sha256:a", Phase::VERIFYING, 1, 2));
        progress.notices.push("again".into());
        let expected = json!({
            "items": [{"id": "sha256:a", "kind": "layer", "phase": "verifying", "offset": 1, "total": 2, "extracted": 0}],
            "notices": ["again"],
        });
        assert_eq!(as_json(&progress), expected);
    }
}
