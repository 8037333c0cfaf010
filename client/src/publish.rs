//! `publish`: what a shim runs at each event, with the event on its standard input.
//!
//! The shim runs one at a time, in order, kills one that takes more than five seconds, and runs it again when it failed or was killed.
//! So what is done here can be done twice, and little is: an exit is settled (see [`crate::ended`]).

use std::io::Read;

use tare_proto::events::{TaskExit, TaskOOM};
use tare_proto::{Any, Message, any};

use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::Status;
use crate::{ended, events, records};

/// More is no event.
const LIMIT: u64 = 4 << 20;
/// So long after an end a lack of memory may still be told: it comes right before it, and by another process.
const LATE: u64 = 10;

/// Whether anything is done about events of this topic. The others need not be read.
#[must_use]
pub fn concerns(topic: &str) -> bool {
    matches!(topic, "/tasks/exit" | "/tasks/oom" | "/tasks/paused" | "/tasks/resumed")
}

/// Takes an event from standard input.
///
/// # Errors
/// It is none, or what follows from it cannot be done now.
pub async fn publish(client: &Client, topic: &str) -> Result<()> {
    if !concerns(topic) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(LIMIT).read_to_end(&mut bytes).context(|| "read the event".to_owned())?;
    let event = Any::parse_from_bytes(&bytes).map_err(|error| Error::usage(format!("read the event: {error}")))?;
    handle(client, &event).await
}

/// Does what follows from an event.
async fn handle(client: &Client, event: &Any) -> Result<()> {
    let wrong = |error| Error::usage(format!("read the event {}: {error}", event.type_url));
    if let Some(exit) = any::unpack::<TaskExit>(event).map_err(wrong)? {
        if exit.id == exit.container_id {
            return ended::settle(client, &exit.container_id).await.map(drop);
        }
        if let Ok(record) = records::load(client, &exit.container_id) {
            let code = exit.exit_status.to_string();
            events::container(&client.paths, "exec_die", &record, &[("execID", &exit.id), ("exitCode", &code)]);
        }
        return Ok(());
    }
    if let Some(oom) = any::unpack::<TaskOOM>(event).map_err(wrong)? {
        return out_of_memory(client, &oom.container_id);
    }
    // Paused or resumed: by our own command, which records it, or by another client of the shim.
    let paused = any::unpack::<tare_proto::events::TaskPaused>(event).map_err(wrong)?.map(|it| it.container_id);
    let resumed = any::unpack::<tare_proto::events::TaskResumed>(event).map_err(wrong)?.map(|it| it.container_id);
    match paused.or(resumed) {
        Some(id) => ended::settle(client, &id).await.map(drop),
        None => Ok(()),
    }
}

fn out_of_memory(client: &Client, id: &str) -> Result<()> {
    let Some((lock, mut record)) = records::hold(client, id)? else { return Ok(()) };
    let of_this_run = match record.state.status {
        Status::Running | Status::Paused => true,
        _ => record.state.finished_at.ago().as_secs() < LATE,
    };
    events::container(&client.paths, "oom", &record, &[]);
    if of_this_run && !record.state.oom_killed {
        record.state.oom_killed = true;
        lock.save(&record)?;
    }
    Ok(())
}
