//! What is left to be done when a container has ended, by whoever finds it first: the command that waited for it, `tarectl publish`
//! (which its shim calls), or any later command.
//!
//! ```text
//! the record says         and so it is                                         what is done, with the lock held
//! running, paused         the shim says so                                     somebody is set to watch its health, if nobody does
//! paused                  for a commit that was killed                         it goes on
//! running, paused         the shim says: stopped                               over
//! running, paused         no shim (killed, or the host was booted)             clean up, over
//! any other, with a shim  a start or a clean-up was killed                     running, if the shim says so; or else clean up
//! restarting              nobody waits to start it again                       somebody is set to
//! removing                a create or a removal was killed                     removed
//! exited, with --rm       a restart was killed                                 removed
//!
//! over:  exited | restarting | removing, the code and the time are saved ─> task deleted, network given back, RUN/containers/<id> removed
//!        ─> saved without a shim ─> removed, or somebody set to start it again ─> the shim ends
//! ```
//!
//! Each step may be the last one of a process that is killed, and may be done twice. The end of the shim comes last of all: it
//! may be the parent of whoever does this, and takes it along.

use std::io;

use nix::errno::Errno;
use nix::unistd::Pid;
use tare_proto::{any::unpack, cgroups_v1, cgroups_v2};

use crate::client::Client;
use crate::error::{Context, Kind, Result};
use crate::record::{Container, Status};
use crate::records::{self, Lock};
use crate::shim::{self, Exit, Shim};
use crate::time::Time;
use crate::{commit, disk, events, health, kill, network, pause, policy, restart, rm, shm, start};

/// The status of a process that nobody saw end: as if killed.
const KILLED: i64 = 137;
/// Of one that was there before the host was booted.
const BOOTED: i64 = 255;

/// Settles what there is to settle, waiting for whoever is at it; the exit code if the container has ended and is still there.
///
/// # Errors
/// Something cannot be cleaned up; what could be was.
pub(crate) async fn settle(client: &Client, id: &str) -> Result<Option<i64>> {
    // Removed meanwhile.
    let Some((lock, record)) = records::hold(client, id)? else { return Ok(None) };
    Ok(match check(client, lock, record).await? {
        Some((_, record)) if matches!(record.state.status, Status::Running | Status::Paused) => None,
        Some((_, record)) => Some(record.state.exit_code),
        None => None,
    })
}

/// Compares the record with what is so, and does what is left to be done. None: the container is no more.
///
/// # Errors
/// As [`settle`].
pub(crate) async fn check(client: &Client, lock: Lock, mut record: Container) -> Result<Option<(Lock, Container)>> {
    match record.state.status {
        Status::Removing => {
            rm::destroy(client, lock, record).await?;
            Ok(None)
        }
        Status::Running | Status::Paused => match how(client, &record).await? {
            How::Runs(status) => {
                if record.state.status != status {
                    record.state.status = status;
                    lock.save(&record)?;
                }
                if commit::is_given_up(client, &record) {
                    pause::resume(client, &lock, &mut record).await?;
                    commit::forget(client, &record.id);
                }
                health::ensure(client, &record)?;
                Ok(Some((lock, record)))
            }
            How::Ended(shim, exit) => over(client, lock, record, Some(shim), exit).await,
            How::Gone(code) => {
                let exit = Exit { code, at: Time::now() };
                over(client, lock, record, None, exit).await
            }
        },
        Status::Restarting | Status::Created | Status::Exited | Status::Dead => {
            let (lock, mut record) = recover(client, lock, record).await?;
            match record.state.status {
                Status::Restarting => policy::ensure(client, &record)?,
                Status::Exited | Status::Dead if restart::is_last_end(client, &record) => {
                    record.state.status = Status::Removing;
                    lock.save(&record)?;
                    rm::destroy(client, lock, record).await?;
                    return Ok(None);
                }
                _ => {}
            }
            Ok(Some((lock, record)))
        }
    }
}

/// Finds what a start or a clean-up has left that was killed: what runs is adopted, all else is taken away.
///
/// # Errors
/// As [`settle`].
pub(crate) async fn recover(client: &Client, lock: Lock, mut record: Container) -> Result<(Lock, Container)> {
    if record.state.shim.is_empty() {
        return Ok((lock, record));
    }
    if let How::Runs(status) = how(client, &record).await? {
        return adopt(client, lock, record, status).await;
    }
    let shim = shim_of(client, &record).await;
    clean(client, &mut record, shim.as_ref()).await?;
    lock.save(&record)?;
    end(shim).await;
    Ok((lock, record))
}

/// A container that was started by a command that was killed before it could say so.
async fn adopt(client: &Client, lock: Lock, mut record: Container, status: Status) -> Result<(Lock, Container)> {
    record.state.status = status;
    record.state.pid = Shim::of(&record).await?.state("").await?.pid;
    record.state.started_at = Time::now();
    record.state.finished_at = Time::NEVER;
    record.state.stopped_by_user = false;
    record.state.health = health::at_start(&record);
    lock.save(&record)?;
    health::ensure(client, &record)?;
    Ok((lock, record))
}

/// How a container is that its record says runs.
enum How {
    Runs(Status),
    Ended(Shim, Exit),
    /// There is no shim that knows of it; its exit code is this.
    Gone(i64),
}

async fn how(client: &Client, record: &Container) -> Result<How> {
    let shim = match Shim::of(record).await {
        Err(error) if error.kind == Kind::NotFound => {
            return Ok(How::Gone(if shim::is_anything_left(client, &record.id) { KILLED } else { BOOTED }));
        }
        shim => shim?,
    };
    let bundle = client.paths.bundle(&record.id);
    if !bundle.is_dir() {
        // Somebody removed it. The shim calls the runtime in it, and could not even end the container.
        disk::make_private(&bundle)?;
    }
    match shim.state("").await {
        Err(error) if error.kind == Kind::NotFound => Ok(How::Gone(KILLED)),
        // It died while it was asked.
        Err(_) if !shim::is_alive(&record.state.shim) => Ok(How::Gone(KILLED)),
        Err(error) => Err(error),
        Ok(state) => Ok(match state.status {
            Status::Exited => How::Ended(shim, state.exit),
            Status::Paused => How::Runs(Status::Paused),
            // Made, and never started.
            Status::Created => How::Gone(KILLED),
            _ => How::Runs(Status::Running),
        }),
    }
}

/// Records the end, cleans up, and does what the policy says. None: the container is no more.
async fn over(
    client: &Client,
    lock: Lock,
    mut record: Container,
    shim: Option<Shim>,
    exit: Exit,
) -> Result<Option<(Lock, Container)>> {
    let booted = shim.is_none() && !shim::is_anything_left(client, &record.id);
    record.state.status = Status::Exited;
    record.state.exit_code = exit.code;
    record.state.finished_at = if exit.at.is_never() { Time::now() } else { exit.at };
    record.state.pid = 0;
    if let Some(shim) = &shim
        && record.host_config.memory > 0
    {
        record.state.oom_killed |= oom_killed(shim).await;
    }
    // After a boot it is `tarectl boot` that brings back what should run.
    let again = if booted { None } else { policy::next(&record) };
    if let Some(delay) = again {
        record.state.status = Status::Restarting;
        record.state.restart_delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    } else if restart::is_last_end(client, &record) {
        record.state.status = Status::Removing;
    }
    // What is to follow is saved with the end: whoever goes on, if we are killed, could not tell it from a start that was.
    lock.save(&record)?;
    events::container(&client.paths, "die", &record, &[("exitCode", &exit.code.to_string())]);
    clean(client, &mut record, shim.as_ref()).await?;
    let saved = lock.save(&record);
    let left = match record.state.status {
        // What goes needs no room for its record: whoever goes on, if we are killed, finds that it is clean.
        Status::Removing => {
            rm::destroy(client, lock, record).await?;
            None
        }
        Status::Restarting => {
            saved?;
            policy::ensure(client, &record)?;
            Some((lock, record))
        }
        _ => {
            saved?;
            Some((lock, record))
        }
    };
    end(shim).await;
    Ok(left)
}

/// Removes what there is of a container while it runs: task, processes, mounts, network, bundle. What runs is killed.
pub(crate) async fn clean(client: &Client, record: &mut Container, shim: Option<&Shim>) -> Result<()> {
    let id = record.id.clone();
    let by_shim = match shim {
        Some(shim) => delete(shim, record).await?,
        None => false,
    };
    // A shim that was found by the id alone, and knows of no task, may stand in the place of one that was killed.
    if !by_shim || record.state.shim == start::NONE_YET {
        shim::clean_up(client, record)?;
    }
    network::detach(client, record).await?;
    shm::remove(client, &id)?;
    let running = client.paths.running(&id);
    match std::fs::remove_dir_all(&running) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .context(|| format!("remove {}", running.display()))?;
    record.state.shim.clear();
    record.state.pid = 0;
    Ok(())
}

/// The shim that a record names, if it is there; or one that was started, and whose starter was killed before it could write that down:
/// starting it again finds it.
pub(crate) async fn shim_of(client: &Client, record: &Container) -> Option<Shim> {
    if record.state.shim != start::NONE_YET {
        return Shim::of(record).await.ok();
    }
    if !client.paths.bundle(&record.id).is_dir() {
        return None;
    }
    let address = shim::spawn(client, &record.id).and_then(shim::Starting::address).ok()?;
    Shim::connect(&address, &record.id).await.ok()
}

/// Has the shim delete its task; false if that is left to the program that cleans up after shims.
///
/// # Errors
/// It does not end although it was killed: what would be removed around it could not be removed again once it has.
async fn delete(shim: &Shim, record: &Container) -> Result<bool> {
    match shim.delete("").await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::NotFound => Ok(true),
        Err(_) => {
            // It runs: a start that failed half-way, or was killed.
            let _ = shim.kill("", nix::libc::SIGKILL).await;
            kill::death(shim, record).await?;
            Ok(shim.delete("").await.is_ok())
        }
    }
}

/// Lets the shim go; one that we cannot reach has gone.
async fn end(shim: Option<Shim>) {
    if let Some(shim) = shim {
        shim.shutdown().await;
    }
}

/// Whether the kernel killed a process of the container for want of memory.
async fn oom_killed(shim: &Shim) -> bool {
    let Ok(stats) = shim.stats().await else { return false };
    if let Ok(Some(metrics)) = unpack::<cgroups_v2::Metrics>(&stats) {
        return metrics.memory_events.oom_kill > 0;
    }
    match unpack::<cgroups_v1::Metrics>(&stats) {
        Ok(Some(metrics)) => metrics.memory_oom_control.oom_kill > 0,
        _ => false,
    }
}

/// Whether a record may be believed without asking anybody: what it says was so a moment ago.
pub(crate) fn is_plausible(client: &Client, record: &Container) -> bool {
    let state = &record.state;
    match state.status {
        Status::Running | Status::Paused => {
            is_process(state.pid)
                && shim::is_alive(&state.shim)
                && health::is_ensured(client, record)
                && !commit::is_given_up(client, record)
        }
        Status::Restarting => state.shim.is_empty() && policy::is_ensured(client, &record.id),
        Status::Removing => false,
        Status::Created => state.shim.is_empty(),
        Status::Exited | Status::Dead => state.shim.is_empty() && !restart::is_last_end(client, record),
    }
}

fn is_process(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    pid > 0 && !matches!(nix::sys::signal::kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}
