//! Health checks: `HEALTHCHECK` of an image, `--health-…` of a call.
//!
//! There is no daemon to run them. So whoever starts a container that has one leaves a process behind, `tarectl watch-health ID`: it runs
//! the test in the container at each interval, writes what it finds into the record, and ends with the container, when that is
//! started anew, or with its shim. One that was killed is replaced by the next command that looks at its container.
//!
//! ```text
//! starting ── a test succeeds ──> healthy ── `retries` failures in a row ──> unhealthy ── a test succeeds ──> healthy
//!     └─ `retries` failures in a row after `start-period` ──> unhealthy
//! ```

use std::path::PathBuf;
use std::time::Duration;

use crate::background::{self, Turn};
use crate::client::Client;
use crate::error::Result;
use crate::record::{Container, Health, HealthResult, HealthState, Status};
use crate::shim::Shim;
use crate::time::Time;
use crate::{events, exec, records};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// What is kept of a test's output, in bytes, and how many tests.
const OUTPUT: usize = 4096;
const RESULTS: usize = 5;
/// The code of a test that could not be run or took too long.
const NOT_RUN: i64 = -1;

/// What the record says when a container has just been started.
pub(crate) fn at_start(record: &Container) -> Option<HealthState> {
    test_of(record).map(|_| HealthState { status: "starting".to_owned(), ..HealthState::default() })
}

/// Leaves a process behind that watches, if there is something to watch and nobody does.
pub(crate) fn ensure(client: &Client, record: &Container) -> Result<()> {
    if is_ensured(client, record) {
        return Ok(());
    }
    background::ensure(client, "watch-health", &record.id, &turn(client, &record.id))
}

/// Whether somebody watches, or there is nothing to watch.
pub(crate) fn is_ensured(client: &Client, record: &Container) -> bool {
    record.state.health.is_none() || background::is_taken(&turn(client, &record.id))
}

/// What whoever watches holds. Each run has its own, for whoever watched the last one may not have ended yet.
fn turn(client: &Client, id: &str) -> PathBuf {
    client.paths.running(id).join("health.lock")
}

/// `tarectl watch-health ID`: checks one run of a container from its start to its end.
///
/// # Errors
/// The record or the shim cannot be reached though the container runs.
pub async fn watch(client: &Client, id: &str) -> Result<()> {
    // With the lock on the record, so that both are of one run.
    let Some((lock, record)) = records::hold(client, id)? else { return Ok(()) };
    let Some(_turn) = Turn::take(&turn(client, id))? else { return Ok(()) };
    drop(lock);
    let Some((health, command)) = test_of(&record) else { return Ok(()) };
    let Ok(shim) = Shim::of(&record).await else { return Ok(()) };
    let run = record.state.started_at;
    let mut end = std::pin::pin!(shim.wait(""));
    loop {
        let now = match records::load(client, id) {
            Ok(now) if now.state.started_at == run => now,
            _ => return Ok(()),
        };
        let step = async {
            tokio::time::sleep(pause(&health, &now)).await;
            match shim.state("").await?.status {
                Status::Running => check(client, &now, &shim, &health, &command).await.map(Some),
                // What is frozen is neither well nor ill.
                _ => Ok(None),
            }
        };
        let result = tokio::select! {
            // Also the shim's: there is nothing to be checked any more.
            _ = &mut end => return Ok(()),
            result = step => result?,
        };
        if let Some(result) = result
            && !note(client, id, run, &health, result)?
        {
            return Ok(());
        }
    }
}

/// How long until the next check.
fn pause(health: &Health, record: &Container) -> Duration {
    let starting = record.state.health.as_ref().is_some_and(|it| it.status == "starting");
    let period = nanoseconds(health.start_period, Duration::ZERO);
    if starting && record.state.started_at.ago() < period {
        nanoseconds(health.start_interval, START_INTERVAL).min(nanoseconds(health.interval, INTERVAL))
    } else {
        nanoseconds(health.interval, INTERVAL)
    }
}

fn nanoseconds(value: i64, usual: Duration) -> Duration {
    u64::try_from(value).ok().filter(|it| *it > 0).map_or(usual, Duration::from_nanos)
}

/// Runs the test once.
async fn check(
    client: &Client,
    record: &Container,
    shim: &Shim,
    health: &Health,
    command: &[String],
) -> Result<HealthResult> {
    let start = Time::now();
    let request = exec::Request { container: record.id.clone(), command: command.to_vec(), ..exec::Request::default() };
    let within = nanoseconds(health.timeout, TIMEOUT);
    let (exit_code, output) = match exec::captured(client, record, shim, &request, within, OUTPUT).await {
        Ok((code, output)) => (code, String::from_utf8_lossy(&output).into_owned()),
        Err(error) => (NOT_RUN, format!("the health check was not run to its end: {error}")),
    };
    Ok(HealthResult { start, end: Time::now(), exit_code, output })
}

/// Writes a result into the record; false when it is another run's by now.
fn note(client: &Client, id: &str, run: Time, health: &Health, result: HealthResult) -> Result<bool> {
    let Some((lock, mut record)) = records::hold(client, id)? else { return Ok(false) };
    if record.state.started_at != run || !matches!(record.state.status, Status::Running | Status::Paused) {
        return Ok(false);
    }
    let before = record.state.health.take().unwrap_or_default();
    let after = judge(before.clone(), health, record.state.started_at, result);
    let changed = after.status != before.status;
    record.state.health = Some(after);
    lock.save(&record)?;
    if changed {
        let status = record.state.health.as_ref().map_or("", |it| it.status.as_str());
        events::container(&client.paths, &format!("health_status: {status}"), &record, &[]);
    }
    Ok(true)
}

/// What one more result makes of a container's health.
fn judge(mut state: HealthState, health: &Health, started: Time, result: HealthResult) -> HealthState {
    let retries = if health.retries > 0 { health.retries } else { RETRIES };
    if result.exit_code == 0 {
        state.failing_streak = 0;
        "healthy".clone_into(&mut state.status);
    } else {
        let since_start = result.start.nanoseconds().unwrap_or(0) - started.nanoseconds().unwrap_or(0);
        // At first failures do not count.
        let early = state.status == "starting" && since_start < i128::from(health.start_period);
        if !early {
            state.failing_streak += 1;
        }
        if state.failing_streak >= retries {
            "unhealthy".clone_into(&mut state.status);
        }
    }
    state.log.push(result);
    let extra = state.log.len().saturating_sub(RESULTS);
    state.log.drain(..extra);
    state
}

/// What is to be checked, and by which command; None if nothing is.
fn test_of(record: &Container) -> Option<(Health, Vec<String>)> {
    let health = record.config.healthcheck.clone()?;
    let command = match health.test.split_first()? {
        (kind, rest) if kind == "CMD" => rest.to_vec(),
        (kind, rest) if kind == "CMD-SHELL" => {
            let shell = record.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            shell.into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => return None,
    };
    (!command.is_empty()).then_some((health, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn result(at: i64, code: i64) -> HealthResult {
        HealthResult { start: Time::since_epoch(1000 + at, 0), exit_code: code, ..HealthResult::default() }
    }

    #[test]
    fn a_container_is_healthy_when_a_test_succeeds_and_unhealthy_when_too_many_fail() {
        let health = Health { retries: 2, start_period: 10 * SECOND, ..Health::default() };
        let started = Time::since_epoch(1000, 0);
        let mut state = HealthState { status: "starting".into(), ..HealthState::default() };
        for (at, code, status, streak) in [
            (1, 1, "starting", 0),
            (9, 1, "starting", 0),
            (11, 1, "starting", 1),
            (12, 1, "unhealthy", 2),
            (13, 0, "healthy", 0),
            (14, 3, "healthy", 1),
            (15, NOT_RUN, "unhealthy", 2),
        ] {
            state = judge(state, &health, started, result(at, code));
            assert_eq!((state.status.as_str(), state.failing_streak), (status, streak), "at {at}");
        }
        assert_eq!((state.log.len(), state.log[4].exit_code), (RESULTS, NOT_RUN));
    }

    #[test]
    fn what_a_test_is() {
        let of = |test: &[&str]| {
            let mut record = Container::default();
            let test = test.iter().map(|it| (*it).to_owned()).collect();
            record.config.healthcheck = Some(Health { test, ..Health::default() });
            test_of(&record).map(|(_, command)| command.join(" "))
        };
        assert_eq!(of(&["CMD", "/check", "-a"]).unwrap(), "/check -a");
        assert_eq!(of(&["CMD-SHELL", "exit 1"]).unwrap(), "/bin/sh -c exit 1");
        assert_eq!((of(&["NONE"]), of(&[]), of(&["CMD"])), (None, None, None));
        assert!(at_start(&Container::default()).is_none());
    }
}
