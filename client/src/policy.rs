//! `--restart`: what starts again after an exit, and when.
//!
//! ```text
//! exit ── by policy? ── no ──> exited
//!            └─ yes ──> restarting, with a delay: 100 ms, twice as long each time, a minute at most; from anew after 10 s of running
//!                          └─ `tarectl revive ID`, in the background: waits, then starts it, if it is still to be
//! ```
//!
//! Whoever waits to revive it holds `revive.lock` in the container's directory, until it has the lock on the record: a second one ends at
//! once, and a command that finds a container to be restarted and the lock free sets another to it.

use std::path::PathBuf;
use std::time::Duration;

use crate::background::{self, Turn};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Status};
use crate::watch::Watch;
use crate::{ended, records, start};

/// The first delay, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// What ran so long starts from the first delay again.
const WELL: i128 = 10_000_000_000;

/// After how long a container that has just exited is started again; None if it is not.
pub(crate) fn next(record: &Container) -> Option<Duration> {
    let (state, policy) = (&record.state, &record.host_config.restart_policy);
    let wanted = match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let limit = policy.maximum_retry_count;
            state.exit_code != 0 && (limit == 0 || state.restart_count < limit)
        }
        _ => false,
    };
    if !wanted || state.stopped_by_user {
        return None;
    }
    let ran = state.finished_at.nanoseconds().unwrap_or(0) - state.started_at.nanoseconds().unwrap_or(0);
    let last = Duration::from_millis(state.restart_delay);
    Some(if ran >= WELL || last.is_zero() { FIRST } else { (last * 2).min(LONGEST) })
}

/// Whether the container should run after a boot, or whenever what should run is brought back.
pub(crate) fn should_run(record: &Container) -> bool {
    let was_up = matches!(record.state.status, Status::Exited | Status::Restarting | Status::Dead);
    match record.host_config.restart_policy.name.as_str() {
        "always" => was_up,
        "unless-stopped" => was_up && !record.state.stopped_by_user,
        "on-failure" => was_up && !record.state.stopped_by_user && next(record).is_some(),
        _ => false,
    }
}

/// Sets somebody to start it again, unless somebody is.
pub(crate) fn ensure(client: &Client, record: &Container) -> Result<()> {
    background::ensure(client, "revive", &record.id, &turn(client, &record.id))
}

/// Whether somebody waits to start it again.
pub(crate) fn is_ensured(client: &Client, id: &str) -> bool {
    background::is_taken(&turn(client, id))
}

/// What whoever waits to start it again holds.
fn turn(client: &Client, id: &str) -> PathBuf {
    client.paths.container(id).join("revive.lock")
}

/// `tarectl revive ID`: waits as long as the record says, and starts the container, if that is still to be done then.
///
/// # Errors
/// It cannot be started; the record says so, too.
pub async fn revive(client: &Client, id: &str) -> Result<()> {
    loop {
        let Some(turn) = Turn::take(&turn(client, id))? else { return Ok(()) };
        if is_due(client, id).await? {
            let Some((lock, record)) = records::hold(client, id)? else { return Ok(()) };
            // The container may end before this process does, and whoever sees that must find that nobody waits to start it. Until
            // it runs, the lock on the record keeps the others off.
            drop(turn);
            // Another may have come first: what he has started, and may have ended since, is not ours to clean up.
            if record.state.status != Status::Restarting {
                return Ok(());
            }
            // Another who was to start it may have been killed over it.
            let (lock, mut record) = ended::recover(client, lock, record).await?;
            if record.state.status != Status::Restarting {
                return Ok(());
            }
            record.state.restart_count += 1;
            // As docker: one that cannot be started is not tried again.
            return start::begin(client, lock, record, None).await?.go(client).await.map(drop);
        }
        drop(turn);
        // Whoever looked meanwhile believes that somebody waits.
        if !records::load(client, id).is_ok_and(|it| it.state.status == Status::Restarting) {
            return Ok(());
        }
    }
}

/// Waits until it is time, or it is not to be started again any more.
async fn is_due(client: &Client, id: &str) -> Result<bool> {
    let mut changes = Watch::new(&client.paths.container(id))?;
    loop {
        let record = match records::load(client, id) {
            Err(error) if error.kind == Kind::NotFound => return Ok(false),
            record => record?,
        };
        if record.state.status != Status::Restarting {
            return Ok(false);
        }
        let waited = record.state.finished_at.ago();
        let left = Duration::from_millis(record.state.restart_delay).saturating_sub(waited);
        if left.is_zero() {
            return Ok(true);
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            changed = changes.changed() => changed?,
        }
    }
}

/// Reads a policy as docker writes it: `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`.
///
/// # Errors
/// It is none.
pub fn parse(text: &str) -> Result<crate::record::RestartPolicy> {
    let wrong = || {
        Error::usage(format!(
            "{text:?} is no restart policy: give no, always, unless-stopped, on-failure or on-failure:N"
        ))
    };
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    let count = match (name, count) {
        ("no" | "" | "always" | "unless-stopped" | "on-failure", None) => 0,
        ("on-failure", Some(count)) => count.parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let name = if name.is_empty() { "no" } else { name };
    Ok(crate::record::RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use super::*;
    use crate::testing;
    use crate::time::Time;

    fn ended(policy: &str, code: i64, ran: u64, count: u32, last: u64) -> Container {
        let mut record = Container::default();
        record.host_config.restart_policy = parse(policy).unwrap();
        record.state.exit_code = code;
        record.state.restart_count = count;
        record.state.restart_delay = last;
        record.state.started_at = Time::since_epoch(1_000, 0);
        record.state.finished_at = Time::since_epoch(1_000 + i64::try_from(ran).unwrap(), 0);
        record
    }

    #[test]
    fn what_starts_again_and_when() {
        for (policy, code, ran, count, last, expected) in [
            ("no", 1, 0, 0, 0, None),
            ("", 1, 0, 0, 0, None),
            ("always", 0, 0, 0, 0, Some(100)),
            ("always", 0, 1, 3, 400, Some(800)),
            ("unless-stopped", 0, 1, 30, 60_000, Some(60_000)),
            ("unless-stopped", 0, 10, 30, 60_000, Some(100)),
            ("on-failure", 0, 0, 0, 0, None),
            ("on-failure", 3, 0, 99, 100, Some(200)),
            ("on-failure:2", 3, 0, 1, 100, Some(200)),
            ("on-failure:2", 3, 0, 2, 200, None),
        ] {
            let record = ended(policy, code, ran, count, last);
            assert_eq!(next(&record).map(|it| it.as_millis()), expected, "{policy} {code} {ran} {count} {last}");
        }
        let mut stopped = ended("always", 0, 0, 0, 0);
        stopped.state.stopped_by_user = true;
        assert_eq!(next(&stopped), None);
    }

    /// What has been started may end at once: whoever sees that must not take it that somebody waits to start it again.
    #[test]
    fn who_starts_a_container_waits_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let (held, program) = (directory.path().join("held"), directory.path().join("shim"));
        testing::fifo(&held);
        // A shim that is being started until somebody writes, and fails then.
        let text = format!("#!/bin/sh\ncat {0}\nrm {0}\nexit 1\n", held.display());
        testing::program(&program, &text);
        let instance = || {
            let mut client = testing::client(directory.path());
            client.programs.shim.clone_from(&program);
            // Not called, but looked for.
            client.programs.runtime.clone_from(&program);
            client
        };

        let client = instance();
        let mut record = Container { id: "6".repeat(64), name: "again".to_owned(), ..Container::default() };
        record.state.status = Status::Restarting;
        record.host_config.network_mode = "host".to_owned();
        let mut lock = records::make(&client, &record.id).unwrap();
        lock.save(&record).unwrap();
        lock.show(&client).unwrap();
        drop(lock);

        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let failed = runtime.block_on(revive(&instance(), &record.id));
                // In case that it did not come so far, so that nobody waits for it.
                let _ = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&held);
                failed.unwrap_err();
            });
            // Returns when the shim is being started.
            let _until_seen = OpenOptions::new().write(true).open(&held).unwrap();
            assert!(records::try_lock(&client, &record.id).unwrap().is_none(), "it is not being started");
            assert!(!is_ensured(&client, &record.id), "somebody seems to wait");
        });
    }

    /// Whoever waited for the lock finds what another has started. That may have ended, and its end is still to be told.
    #[test]
    fn who_comes_second_leaves_alone_what_another_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let client = testing::client(directory.path());
        let mut record = Container { id: "7".repeat(64), name: "again".to_owned(), ..Container::default() };
        record.state.status = Status::Restarting;
        let mut lock = records::make(&client, &record.id).unwrap();
        lock.save(&record).unwrap();
        lock.show(&client).unwrap();
        let inode = fs::metadata(client.paths.container(&record.id)).unwrap().ino();

        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(revive(&testing::client(directory.path()), &record.id))
            });
            // Nothing tells of one that begins to wait for a lock but the kernel's table.
            let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&format!(":{inode} "));
            while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) && !second.is_finished() {
                std::thread::yield_now();
            }
            let mut started = record.clone();
            started.state.status = Status::Running;
            started.state.shim = "unix:///nowhere".to_owned();
            lock.save(&started).unwrap();
            drop(lock);
            second.join().unwrap().unwrap();
            let found = records::load(&client, &record.id).unwrap().state;
            assert_eq!((found.status, found.shim), (Status::Running, started.state.shim));
        });
    }

    #[test]
    fn a_policy_is_one_of_dockers() {
        assert_eq!(parse("on-failure:3").unwrap().maximum_retry_count, 3);
        for wrong in ["sometimes", "always:3", "on-failure:", "on-failure:x", "on-failure:-1", "no:1"] {
            assert!(parse(wrong).unwrap_err().message.contains("no restart policy"), "{wrong}");
        }
    }

    #[test]
    fn what_a_boot_brings_back() {
        let exited = |policy: &str, stopped: bool| {
            let mut record = ended(policy, 255, 0, 0, 0);
            record.state.status = Status::Exited;
            record.state.stopped_by_user = stopped;
            should_run(&record)
        };
        assert!(exited("always", false) && exited("always", true) && exited("unless-stopped", false));
        assert!(exited("on-failure", false));
        assert!(!exited("unless-stopped", true) && !exited("no", false) && !exited("on-failure", true));
        let never_started = Container { host_config: ended("always", 0, 0, 0, 0).host_config, ..Container::default() };
        assert!(!should_run(&never_started));
    }
}
