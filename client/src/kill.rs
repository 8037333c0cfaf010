//! `kill`: a signal to a container's process.

use std::time::Duration;

use nix::libc::{SIGKILL, SIGRTMAX, SIGRTMIN, SIGTERM};
use nix::sys::signal::Signal;

use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Status};
use crate::shim::{Exit, Shim};
use crate::{ended, events, truth};

/// How long the kernel has to end what was killed. docker waits as long.
pub(crate) const DYING: Duration = Duration::from_secs(10);

/// Sends a signal: its name, with SIG before it or not, or its number.
///
/// # Errors
/// There is no such signal or container, it does not run, or it does not end although it was killed.
pub async fn kill(client: &Client, name: &str, signal_name: &str) -> Result<()> {
    let number = signal(signal_name)?;
    let (lock, mut record) = truth::hold(client, name).await?;
    if !matches!(record.state.status, Status::Running | Status::Paused) {
        return Err(Error::conflict(format!(
            "container {} is not running: there is nothing to send a signal to",
            record.name
        )));
    }
    // What ends it by the user's word is not started again; SIGHUP to a server is no such word.
    let ends = number == SIGKILL || stop_signal(&record).is_ok_and(|it| it == number);
    let said = ends && !record.state.stopped_by_user;
    if said {
        record.state.stopped_by_user = true;
        lock.save(&record)?;
    }
    // The lock is held until it is sent, so that nobody takes its end for one by the user's word if it is not.
    let sent = async {
        let shim = Shim::of(&record).await?;
        shim.kill("", number).await.map(|()| shim)
    };
    let shim = match sent.await {
        Ok(shim) => shim,
        Err(error) => {
            // Where the shim went away it may have been sent.
            if said && error.kind != Kind::CutOff {
                record.state.stopped_by_user = false;
                let _ = lock.save(&record);
            }
            return Err(match error.kind {
                Kind::NotFound | Kind::CutOff => Error::conflict(format!("container {} has just ended", record.name)),
                _ => error,
            });
        }
    };
    events::container(&client.paths, "kill", &record, &[("signal", &number.to_string())]);
    drop(lock);
    if number == SIGKILL {
        // So that the next command sees it ended.
        death(&shim, &record).await?;
        ended::settle(client, &record.id).await?;
    } else if ends && record.state.status == Status::Paused {
        // What is frozen does not hear.
        let _ = shim.resume().await;
    }
    Ok(())
}

/// Waits for the end of a container that was sent SIGKILL: how it ended; none where its shim has deleted it already, or went away.
///
/// # Errors
/// It is still there after [`DYING`]: nobody shall wait for the kernel for ever.
pub(crate) async fn death(shim: &Shim, record: &Container) -> Result<Option<Exit>> {
    match tokio::time::timeout(DYING, shim.wait("")).await {
        Ok(exit) => Ok(exit.ok()),
        Err(_) => Err(Error::failed(format!(
            "container {} was killed {} s ago and has not ended: the kernel still holds a process of it, which waits for a disk, \
             stands in a frozen cgroup or is traced; it ends once that is over",
            record.name,
            DYING.as_secs()
        ))),
    }
}

/// The signal that asks this container to end.
pub(crate) fn stop_signal(record: &Container) -> Result<i32> {
    match record.config.stop_signal.as_str() {
        "" => Ok(SIGTERM),
        name => signal(name),
    }
}

/// A signal's number: of its name, with SIG before it or not (RTMIN+3, too), or of the number itself.
///
/// # Errors
/// There is none.
pub fn signal(text: &str) -> Result<i32> {
    let wrong = || Error::usage(format!("{text:?} is no signal: give a name such as TERM, or a number from 1 to 64"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=SIGRTMAX()).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok().filter(|it| (0..=30).contains(it)),
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => Some(SIGRTMIN() + offset(rest, '+').ok_or_else(wrong)?),
        (_, Some(rest)) => Some(SIGRTMAX() - offset(rest, '-').ok_or_else(wrong)?),
        _ => None,
    };
    match real_time {
        Some(number) if (SIGRTMIN()..=SIGRTMAX()).contains(&number) => Ok(number),
        Some(_) => Err(wrong()),
        None => format!("SIG{name}").parse::<Signal>().map(|it| it as i32).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("HUP", 1),
            ("RTMIN", SIGRTMIN()),
            ("SIGRTMIN+3", SIGRTMIN() + 3),
            ("RTMAX-1", SIGRTMAX() - 1),
            ("64", 64),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for wrong in ["", "0", "65", "-9", "SIG", "NOPE", "RTMIN+31", "RTMIN-1", "9x"] {
            assert!(signal(wrong).unwrap_err().message.contains("is no signal"), "{wrong}");
        }
    }
}
