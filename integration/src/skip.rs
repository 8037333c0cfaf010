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
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // Not eprintln: the runner would keep that back when the test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("open the file TARE_SKIPS names");
        file.write_all(line.as_bytes()).expect("write to the file TARE_SKIPS names");
    }
}
