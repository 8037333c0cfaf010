//! `stop`: a container is asked to end, and killed if it does not.

use std::time::Duration;

use nix::libc::SIGKILL;

use crate::client::Client;
use crate::error::{Kind, Result};
use crate::record::Status;
use crate::shim::Shim;
use crate::{ended, events, kill, truth};

/// How long it has, in seconds, unless its image or a flag says otherwise.
const PATIENCE: i64 = 10;

/// Stops a container; one that does not run is left alone. `seconds` and `signal` win over what the container has; -1 is for ever.
///
/// # Errors
/// There is none, the signal is none, or it does not end although it was killed.
pub async fn stop(client: &Client, name: &str, seconds: Option<i64>, signal: Option<&str>) -> Result<()> {
    let asked = signal.map(kill::signal).transpose()?;
    let (lock, mut record) = truth::hold(client, name).await?;
    match record.state.status {
        Status::Running | Status::Paused => {}
        Status::Restarting => {
            record.state.status = Status::Exited;
            record.state.stopped_by_user = true;
            lock.save(&record)?;
            events::container(&client.paths, "stop", &record, &[]);
            return Ok(());
        }
        _ => return Ok(()),
    }
    let first = match asked {
        Some(number) => number,
        None => kill::stop_signal(&record)?,
    };
    let seconds = seconds.or(record.config.stop_timeout).unwrap_or(PATIENCE);
    let said = std::mem::replace(&mut record.state.stopped_by_user, true);
    lock.save(&record)?;
    let shim = match Shim::of(&record).await {
        Err(error) if error.kind == Kind::NotFound => None,
        shim => Some(shim?),
    };
    if let Some(shim) = &shim
        && let Err(error) = send(shim, first).await
    {
        // It goes on, and its end will be none by the user's word.
        record.state.stopped_by_user = said;
        let _ = lock.save(&record);
        return Err(error);
    }
    let tell = |number: i32| {
        events::container(&client.paths, "kill", &record, &[("signal", &number.to_string())]);
    };
    if shim.is_some() {
        tell(first);
    }
    // Not held while it ends: its end is recorded by whoever comes first.
    drop(lock);
    if let Some(shim) = shim {
        if record.state.status == Status::Paused {
            // What is frozen does not hear.
            let _ = shim.resume().await;
        }
        if !ends(&shim, seconds).await {
            send(&shim, SIGKILL).await?;
            tell(SIGKILL);
            kill::death(&shim, &record).await?;
        }
    }
    ended::settle(client, &record.id).await?;
    events::container(&client.paths, "stop", &record, &[]);
    Ok(())
}

/// Sends a signal; that it has ended meanwhile is as well.
async fn send(shim: &Shim, signal: i32) -> Result<()> {
    match shim.kill("", signal).await {
        Err(error) if !matches!(error.kind, Kind::NotFound | Kind::CutOff) => Err(error),
        _ => Ok(()),
    }
}

/// Waits for the end, so many seconds at most; -1 is for ever. A shim that has deleted it already, or went away, is an end, too.
async fn ends(shim: &Shim, seconds: i64) -> bool {
    match u64::try_from(seconds) {
        Err(_) => shim.wait("").await.map_or(true, |_| true),
        Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), shim.wait("")).await.is_ok(),
    }
}
