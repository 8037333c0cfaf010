//! CNI plugins (specification 1.0.0): a program is told in its environment what to do, in its input with what, and answers with
//! JSON. See <https://www.cni.dev/docs/spec/>.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::journal::Busy;
use crate::error::{Error, Result};
use crate::paths::Paths;

/// What we speak; Debian's plugins know it since 1.1.
pub(super) const VERSION: &str = "1.0.0";
/// Where Debian has them, and where everybody else.
const PLACES: &str = "/usr/lib/cni:/opt/cni/bin";
/// Plugins run iptables and such.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More is no answer.
const ANSWER_LIMIT: u64 = 1 << 20;
/// A plugin that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where plugins are looked for: `CNI_PATH`, as everywhere with CNI; and what they hold while they run.
#[derive(Debug)]
pub(super) struct Plugins {
    places: String,
    busy: Option<Busy>,
}

/// Which interface of which container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) container: &'a str,
    /// None where the namespace is gone: what is outside of it is taken back alone.
    pub(super) namespace: Option<&'a Path>,
    pub(super) interface: &'a str,
}

/// What a plugin answers when it fails.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    msg: String,
    details: String,
}

impl Plugins {
    /// For looking alone.
    pub(super) fn idle() -> Self {
        Self::at(std::env::var("CNI_PATH").ok().filter(|it| !it.is_empty()).as_deref().unwrap_or(PLACES))
    }

    pub(super) fn at(places: &str) -> Self {
        Self { places: places.to_owned(), busy: None }
    }

    /// For changing what a container has, once nobody else does, not even a plugin whose caller was killed.
    pub(super) fn busy(paths: &Paths, id: &str) -> Result<Self> {
        Ok(Self::idle().holding(Busy::take(paths, id)?))
    }

    pub(super) fn holding(self, busy: Busy) -> Self {
        Self { busy: Some(busy), ..self }
    }

    /// A sentence that names the remedy unless all these are there.
    pub(super) fn need(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.find(name).map(drop))
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        let places = self.places.split(':').filter(|place| !place.is_empty());
        let found = places.map(|place| Path::new(place).join(name)).find(|file| file.is_file());
        found.ok_or_else(|| {
            Error::failed(format!(
                "the CNI plugin {name} is not in {}: install Debian's package containernetworking-plugins \
                 (apt-get install containernetworking-plugins), or use --network host or --network none",
                self.places
            ))
        })
    }

    /// Connects; the answer tells interfaces and addresses.
    pub(super) async fn add(&self, configuration: &Value, target: Target<'_>) -> Result<Value> {
        let answer = self.run("ADD", configuration, target).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            let plugin = plugin(configuration);
            Error::failed(format!("the CNI plugin {plugin} answered what is not its specification's: {error}"))
        })
    }

    /// Takes back what [`Self::add`] did, or a part of it. That there is nothing to take back is as well.
    pub(super) async fn del(&self, configuration: &Value, target: Target<'_>) -> Result<()> {
        self.run("DEL", configuration, target).await.map(drop)
    }

    /// Fails unless what [`Self::add`] made is still so; its answer is the configuration's `prevResult`.
    pub(super) async fn check(&self, configuration: &Value, target: Target<'_>) -> Result<()> {
        self.run("CHECK", configuration, target).await.map(drop)
    }

    async fn run(&self, command: &str, configuration: &Value, target: Target<'_>) -> Result<Vec<u8>> {
        let plugin = plugin(configuration);
        let failed =
            |why: &dyn std::fmt::Display| Error::failed(format!("the CNI plugin {plugin} failed at {command}: {why}"));
        let mut child = Command::new(self.find(plugin)?)
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", &self.places)
            .env("CNI_CONTAINERID", target.container)
            .env("CNI_IFNAME", target.interface)
            .env("CNI_NETNS", target.namespace.unwrap_or(Path::new("")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Nobody reads it: plugins answer on their output. But whoever still has it, holds what it is of.
            .stderr(self.busy.as_ref().map_or(Ok(Stdio::null()), Busy::held_by).map_err(|error| failed(&error))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let talk = async {
            let mut answer = Vec::new();
            // Its answer comes after all of its input is read, and a configuration fits into the pipe.
            if let Some(mut stdin) = stdin {
                match stdin.write_all(configuration.to_string().as_bytes()).await {
                    // It ended before: its answer says why.
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            if let Some(stdout) = stdout {
                stdout.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
            }
            Ok((child.wait().await?, answer))
        };
        let (status, answer) = tokio::time::timeout(PATIENCE, talk)
            .await
            .map_err(|_| failed(&format!("it did not end within {} seconds", PATIENCE.as_secs())))?
            .map_err(|error| failed(&error))?;
        if status.success() {
            return Ok(answer);
        }
        let said: Failure = serde_json::from_slice(&answer).unwrap_or_default();
        Err(match (said.msg.as_str(), said.details.as_str()) {
            ("", _) => failed(&status),
            (what, "") => failed(&what),
            (what, details) => failed(&format!("{what}: {details}")),
        })
    }
}

/// The plugin that a configuration is for: we have written it ourselves.
fn plugin(configuration: &Value) -> &str {
    configuration["type"].as_str().unwrap_or_default()
}
