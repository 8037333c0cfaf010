//! `run`: a container is made and started, and whoever asked for it looks on until it ends.

use crate::client::Client;
use crate::create::{self, Request};
use crate::error::{Kind, Result};
use crate::terminal::DetachKeys;
use crate::{attach, rm, start};

/// How.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Nobody looks on.
    pub detach: bool,
    /// Signals sent to us go to the container's process.
    pub sig_proxy: bool,
    /// The keys that leave it running.
    pub detach_keys: DetachKeys,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The container.
    pub id: String,
    /// Its exit code; 0 if nobody looked on until the end.
    pub code: u8,
}

/// Makes a container and starts it. Which of its streams are shown is in the request's `config.attach_…`.
///
/// # Errors
/// It cannot be made or started. One whose command cannot be run stays, as docker's does, unless it is to be removed at its end; what
/// failed for a fault of the call or of the host leaves nothing.
pub async fn run(client: &Client, request: Request, options: &Options) -> Result<Ran> {
    let create::Made { lock, record, prepared } = create::make(client, request).await?;
    let (id, config) = (record.id.clone(), record.config.clone());
    let ready = match start::begin(client, lock, record, Some(prepared)).await {
        Ok(ready) => ready,
        Err(error) => {
            if !matches!(error.kind, Kind::CannotRun | Kind::CommandNotFound) {
                // What went wrong first is what is told.
                let _ = rm::rm(client, &id, &rm::Options { force: true, volumes: true }).await;
            }
            return Err(error);
        }
    };
    if options.detach || !(config.attach_stdin || config.attach_stdout || config.attach_stderr) {
        ready.go(client).await?;
        return Ok(Ran { id, code: 0 });
    }
    let how = attach::Options {
        no_stdin: !config.attach_stdin,
        no_stdout: !config.attach_stdout,
        no_stderr: !config.attach_stderr,
        sig_proxy: options.sig_proxy,
        detach_keys: options.detach_keys.clone(),
    };
    let code = ready.attached(client, &how).await?;
    Ok(Ran { id, code })
}
