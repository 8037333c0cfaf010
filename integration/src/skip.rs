//! Counted, printed skips.

use std::io::Write;

/// Ends the test as skipped, with the reason; counted by `integration/test`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::report_skip(&format!($($reason)*));
        return;
    }};
}

/// Prints the skip past the test runner's capture, and appends it to the file `TARE_SKIPS` names, where it is counted.
pub fn report_skip(reason: &str) {
    note("skipped", "TARE_SKIPS", reason);
}

/// As [`report_skip`], for what failed once and not again: in the file `TARE_UNSTEADY` names.
pub fn report_unsteady(what: &str) {
    note("unsteady", "TARE_UNSTEADY", what);
}

fn note(word: &str, variable: &str, text: &str) {
    let thread = std::thread::current();
    let line = format!("{word}: {}: {text}\n", thread.name().unwrap_or("a test"));
    // Not eprintln: the runner would keep that back when the test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(variable) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap_or_else(|e| panic!("open the file {variable} names: {e}"));
        file.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("write to the file {variable} names: {e}"));
    }
}
