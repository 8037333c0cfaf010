//! `rm`: a container goes, with its root, its log and its name.

use nix::libc::SIGKILL;

use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Status};
use crate::records::{self, Lock};
use crate::shim::Shim;
use crate::{ended, events, kill, start, truth, volumes};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Also one that runs, which is killed; and what is damaged.
    pub force: bool,
    /// Its volumes without a name, too.
    pub volumes: bool,
}

/// Removes a container.
///
/// # Errors
/// There is none, it runs, or it does not end although it was killed: then it stays what it was.
pub async fn rm(client: &Client, name: &str, options: &Options) -> Result<()> {
    let (lock, mut record) = match truth::hold(client, name).await {
        Err(error) if options.force && error.kind == Kind::Failed => {
            return remove_damaged(client, name, error).await;
        }
        held => held?,
    };
    if matches!(record.state.status, Status::Running | Status::Paused | Status::Restarting) && !options.force {
        let state = record.state.status.name();
        return Err(Error::conflict(format!(
            "container {} is {state}: stop it first, or remove it with -f",
            record.name
        )));
    }
    record.state.stopped_by_user = true;
    let before = record.clone();
    let runs = matches!(before.state.status, Status::Running | Status::Paused);
    record.host_config.auto_remove |= options.volumes;
    // From here on it is removed, be it by the next command.
    record.state.status = Status::Removing;
    lock.save(&record)?;
    if runs {
        events::container(&client.paths, "kill", &record, &[("signal", "9")]);
        if let Ok(shim) = Shim::of(&record).await {
            // It may just have ended.
            let _ = shim.kill("", SIGKILL).await;
            match kill::death(&shim, &record).await {
                Ok(Some(exit)) => {
                    events::container(&client.paths, "die", &record, &[("exitCode", &exit.code.to_string())]);
                }
                Ok(None) => {}
                Err(error) => {
                    lock.save(&before)?;
                    return Err(error);
                }
            }
        }
    }
    destroy(client, lock, record).await
}

/// Removes what there is of a container, and in the end its record, which says that it is being removed.
pub(crate) async fn destroy(client: &Client, lock: Lock, mut record: Container) -> Result<()> {
    let shim = ended::shim_of(client, &record).await;
    if !record.state.shim.is_empty() || client.paths.running(&record.id).is_dir() {
        ended::clean(client, &mut record, shim.as_ref()).await?;
        // On a full disk it goes all the same: that it is clean can be found out again.
        let _ = lock.save(&record);
    }
    if !record.snapshot.is_empty() {
        client.store.remove_snapshot(&record.snapshot).await?;
    }
    if record.host_config.auto_remove {
        volumes::remove_anonymous(client, &record).await?;
    }
    records::free_name(client, &record.name, &record.id)?;
    lock.remove()?;
    events::container(&client.paths, "destroy", &record, &[]);
    if let Some(shim) = shim {
        shim.shutdown().await;
    }
    Ok(())
}

/// Removes a container whose record cannot be read, as far as its id alone leads.
async fn remove_damaged(client: &Client, name: &str, error: Error) -> Result<()> {
    let id = records::find_id(client, name)?;
    let lock = records::lock(client, &id)?;
    if lock.load().is_ok() {
        return Err(error);
    }
    let mut record = Container { id: id.clone(), snapshot: id.clone(), ..Container::default() };
    if client.paths.bundle(&id).is_dir() {
        // Its shim is found by its id, and ends with it.
        record.state.shim = start::NONE_YET.to_owned();
    }
    records::free_names(client, &id)?;
    destroy(client, lock, record).await
}
