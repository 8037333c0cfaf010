//! What several unit tests need.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A path below the directory for temporary files where nothing is.
pub(crate) fn unique_path(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    #[allow(clippy::disallowed_methods, reason = "a test keeps no state there")]
    let directory = std::env::temp_dir();
    directory.join(format!("tare-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Prints why a test cannot run here, and appends it to the file `TARE_SKIPS` names, where `integration/test` counts it.
pub(crate) fn skip(why: impl Display) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    // Not eprintln: the test runner would keep that back, as the test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
}
