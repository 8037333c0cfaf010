//! The root, the mounts, devices and masks against the running kernel, in namespaces of their own.
//!
//! Namespaces and the file mode mask belong to a process, and libtest runs tests as threads. So this is a harness of its own:
//! each case runs in a fresh copy of this program, which has one thread until the case starts another. A case that the
//! machine cannot run prints why and counts as skipped.

mod attacks;
mod binary;
mod binds;
mod cgroups;
mod devices;
mod filesystems;
mod roots;
mod users;
mod world;

use std::process::{Command, ExitCode, Stdio};

use nix::unistd::geteuid;

/// A test: its name and what it does; a panic fails it.
type Case = (&'static str, fn());

/// The variable that tells a copy of this program which case it is.
const CASE: &str = "TARE_KERNEL_TEST";

/// The exit status of a skipped case.
const SKIPPED: i32 = 77;

/// Ends the case as skipped.
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("skipped: {}", format_args!($($reason)*));
        $crate::exit_skipped()
    }};
}
pub(crate) use skip;

/// See [`skip`].
#[allow(clippy::disallowed_methods)]
fn exit_skipped() -> ! {
    std::process::exit(SKIPPED)
}

/// Prints the skip, and appends it to the file `TARE_SKIPS` names, where `integration/test` counts it.
fn count_skip(what: &str) {
    use std::io::Write;
    let line = format!("skipped: {what}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
}

fn main() -> ExitCode {
    let cases: Vec<Case> = [
        attacks::CASES,
        binary::CASES,
        binds::CASES,
        cgroups::CASES,
        devices::CASES,
        filesystems::CASES,
        roots::CASES,
        users::CASES,
    ]
    .concat();
    if let Ok(name) = std::env::var(CASE) {
        let (_, case) = cases.iter().find(|(known, _)| *known == name).expect("a known case");
        case();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in cases.iter().filter(|(name, _)| chosen(name)) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !geteuid().is_root() {
        count_skip(&format!("{} kernel tests: they need root", cases.len()));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for (name, _) in cases.iter().filter(|(name, _)| chosen(name)) {
        let this = std::env::current_exe().expect("the path of this program");
        let output = Command::new(this).env(CASE, name).stdin(Stdio::null()).output().expect("a copy of this program");
        match output.status.code() {
            Some(0) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Some(SKIPPED) => {
                skipped += 1;
                let reason = String::from_utf8_lossy(&output.stdout);
                println!("test {name} ... {}", reason.trim());
                count_skip(&format!("{name}: {}", reason.trim().trim_start_matches("skipped: ")));
            }
            _ => {
                println!("test {name} ... FAILED ({})", output.status);
                print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                failed.push(*name);
            }
        }
    }
    // In the words of libtest, where a test that skips itself counts as passed; skips are counted apart.
    let (result, passed) = (if failed.is_empty() { "ok" } else { "FAILED" }, passed + skipped);
    println!(
        "\ntest result: {result}. {passed} passed; {} failed; 0 ignored; {skipped} skipped {failed:?}",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
