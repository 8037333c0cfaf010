//! The tables of what a caller is shown to do.

use super::{User, World};

/// One feature of a caller.
pub struct Row {
    /// What is shown, in words.
    pub feature: &'static str,
    /// A script for `sh -eu`, run after the table's prologue in `/run/world`.
    pub script: &'static str,
    /// Its standard output, without the newlines at the end.
    pub prints: &'static str,
    /// Its exit status.
    pub status: i32,
}

/// A row whose script succeeds.
pub const fn row(feature: &'static str, script: &'static str, prints: &'static str) -> Row {
    Row { feature, script, prints, status: 0 }
}

/// Runs every row and says for each one that went wrong what was done, what was expected and what came.
pub fn run_rows(world: &World, user: User, prologue: &str, rows: &[Row]) -> Vec<String> {
    // A developer's way to one row; everything is run without it.
    let only = std::env::var("TARE_E2E_ROW").unwrap_or_default();
    rows.iter()
        .filter(|row| row.feature.contains(&only))
        .filter_map(|row| check_row(world, user, prologue, row))
        .collect()
}

fn check_row(world: &World, user: User, prologue: &str, row: &Row) -> Option<String> {
    let started = std::time::Instant::now();
    let outcome = world.sh(user, &format!("{prologue}\n{}", row.script));
    println!("{:6.2} s  {}", started.elapsed().as_secs_f32(), row.feature);
    if outcome.status == Some(row.status) && outcome.stdout.trim_end() == row.prints {
        return None;
    }
    Some(format!(
        "--- {}\n{}\nexpected status {}, printing:\n{}\ngot {}, printing:\n{}\nand on standard error:\n{}",
        row.feature,
        row.script,
        row.status,
        row.prints,
        outcome.status.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}")),
        outcome.stdout.trim_end(),
        outcome.stderr.trim_end(),
    ))
}

/// Skips the test if one of these programs is not installed.
#[macro_export]
macro_rules! need {
    ($($program:literal),*) => {
        for program in ["busybox", "setpriv", "pidwait", "script", "jq", $($program),*] {
            if !$crate::world::has(program) {
                $crate::skip!("{program} is not installed");
            }
        }
    };
}

/// Fails the test if anything went wrong with a caller, with all that did and the end of its server's log.
///
/// # Panics
/// If there are failures.
#[track_caller]
pub fn assert_shown(caller: &str, (failures, log): (Vec<String>, String)) {
    assert!(failures.is_empty(), "{} of {caller}'s checks failed:\n{}\n{log}", failures.len(), failures.join("\n"));
}
