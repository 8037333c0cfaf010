//! What several tests need.

use std::io::Write;

/// Prints why a test cannot run here, and appends it to the file `TARE_SKIPS` names, where `integration/test` counts it.
pub(crate) fn skip(why: &str) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
}

/// Makes a fifo.
pub(crate) fn fifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, Mode};
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o700), 0).expect("a fifo");
}

/// An instance below this directory, without any program.
pub(crate) fn client(directory: &std::path::Path) -> crate::client::Client {
    let place = |name: &str| directory.join(name);
    let paths = crate::paths::Paths { root: place("root"), run: place("run"), store: place("store.sock") };
    let none = || place("none");
    let programs = crate::client::Programs { store: none(), shim: none(), runtime: none(), tarectl: none() };
    crate::client::Client::new(paths, programs)
}

/// Makes a program of a script. Another process writes it: what other tests start at this moment would otherwise hold it open, and
/// what is open for writing cannot be run.
pub(crate) fn program(path: &std::path::Path, text: &str) {
    let mut writer = std::process::Command::new("sh");
    writer.args(["-c", "printf %s \"$2\" >\"$1\" && chmod 700 \"$1\"", "sh"]).arg(path).arg(text);
    assert!(writer.status().expect("run sh").success(), "{}", path.display());
}
