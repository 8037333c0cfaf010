//! Named points between the steps of whatever must survive a crash, and a clock that jumps. They are in debug builds only.
//!
//! `TARE_STORE_FAULT=content.commit.renamed:2` kills the program, by SIGKILL, when it comes to that point for the second time;
//! `…=error` after the name (and number) lets the step fail instead, and `*` in the name's place is any point. Crash tests go through
//! [`POINTS`], and through all that one call passes.
//! `TARE_STORE_CLOCK` names a file with the seconds by which the clock is wrong, read each time that it is looked at.

use std::time::SystemTime;

use crate::error::Result;

/// All points there are.
pub const POINTS: &[&str] = &[
    "content.ingest.row",
    "content.ingest.made",
    "content.ingest.wrote",
    "content.commit.verified",
    "content.commit.synced",
    "content.commit.renamed",
    "content.commit.directory_synced",
    "content.commit.row",
    "content.delete.row",
    "snapshots.spare.made",
    "snapshots.prepare.taken",
    "snapshots.prepare.made",
    "snapshots.prepare.row",
    "snapshots.copy.entry",
    "snapshots.commit.synced",
    "snapshots.commit.row",
    "snapshots.remove.row",
    "snapshots.remove.renamed",
    "extraction.made",
    "extraction.synced",
    "publish.begin",
    "publish.before_commit",
    "publish.committed",
    "gc.marked",
    "gc.swept",
    "gc.unlinked_one",
    "gc.unlinked",
    "fetch.complete",
    "extract.complete",
    "pull.documents",
    "pull.complete",
    "pull.published",
    "import.taken",
    "import.published",
];

/// Passes, unless a test wants otherwise.
#[cfg(not(any(test, debug_assertions)))]
#[inline(always)]
pub fn point(_name: &'static str) -> Result<()> {
    Ok(())
}

/// Passes, unless a test wants otherwise.
#[cfg(any(test, debug_assertions))]
pub fn point(name: &'static str) -> Result<()> {
    armed::point(name)
}

/// What the clock says.
#[must_use]
pub fn now() -> SystemTime {
    #[cfg(any(test, debug_assertions))]
    return armed::now();
    #[cfg(not(any(test, debug_assertions)))]
    SystemTime::now()
}

#[cfg(test)]
pub(crate) use armed::fail_at;

#[cfg(any(test, debug_assertions))]
mod armed {
    use std::ffi::OsString;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, SystemTime};

    use crate::error::{Error, Result};

    /// In the place of a name: whichever comes.
    const ANY: &str = "*";

    struct Fault {
        name: String,
        nth: usize,
        error: bool,
    }

    fn wanted() -> Option<&'static Fault> {
        static WANTED: OnceLock<Option<Fault>> = OnceLock::new();
        let read = || {
            let text = std::env::var("TARE_STORE_FAULT").ok()?;
            let (rest, error) = text.strip_suffix("=error").map_or((text.as_str(), false), |rest| (rest, true));
            let (name, nth) = rest.split_once(':').unwrap_or((rest, "1"));
            assert!(name == ANY || super::POINTS.contains(&name), "TARE_STORE_FAULT names {name:?}, which is no point");
            Some(Fault { name: name.to_owned(), nth: nth.parse().expect("a number after the colon"), error })
        };
        WANTED.get_or_init(read).as_ref()
    }

    pub(super) fn point(name: &'static str) -> Result<()> {
        static PASSED: AtomicUsize = AtomicUsize::new(0);
        debug_assert!(super::POINTS.contains(&name), "{name} is missing in the table of points");
        #[cfg(test)]
        if HERE.with_borrow(|here| here.contains(&name)) {
            return Err(Error::internal(format!("a test lets {name} fail")));
        }
        let Some(fault) = wanted().filter(|it| it.name == name || it.name == ANY) else { return Ok(()) };
        if PASSED.fetch_add(1, Ordering::SeqCst) + 1 != fault.nth {
            return Ok(());
        }
        if fault.error {
            return Err(Error::internal(format!("a test lets {name} fail")));
        }
        // Nothing is to run after this, as in a crash.
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }

    pub(super) fn now() -> SystemTime {
        static FILE: OnceLock<Option<OsString>> = OnceLock::new();
        let now = SystemTime::now();
        let Some(file) = FILE.get_or_init(|| std::env::var_os("TARE_STORE_CLOCK")) else { return now };
        let text = std::fs::read_to_string(file).expect("the file that TARE_STORE_CLOCK names");
        let wrong: i64 = text.trim().parse().expect("seconds in the file that TARE_STORE_CLOCK names");
        let by = Duration::from_secs(wrong.unsigned_abs());
        if wrong < 0 { now - by } else { now + by }
    }

    #[cfg(test)]
    thread_local! {
        static HERE: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// Lets a point fail in this thread until the value is dropped.
    #[cfg(test)]
    pub(crate) fn fail_at(name: &'static str) -> impl Drop {
        struct Disarm(&'static str);
        impl Drop for Disarm {
            fn drop(&mut self) {
                HERE.with_borrow_mut(|here| here.retain(|it| *it != self.0));
            }
        }
        assert!(super::POINTS.contains(&name), "{name} is no point");
        HERE.with_borrow_mut(|here| here.push(name));
        Disarm(name)
    }
}
