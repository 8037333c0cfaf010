//! What each running container has of the host's network, written before it is taken: whoever is killed in between, the next
//! command finds here what is to be given back.
//!
//! ```text
//! RUN/network/  networks.lock            who changes what is here, or which networks there are, holds it
//!               <id>.json                one running container
//!               <id>.busy                whoever changes what that one has holds its lock
//!               addresses/<network>/     the plugin host-local's: a file for each address that is taken
//!               rules                    the filter rules that are set
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Stdio;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ports::Published;
use crate::disk::{make_private, replace};
use crate::error::{Context, Error, Result};
use crate::paths::Paths;
use crate::records::is_id;

/// More is none of ours.
const LIMIT: u64 = 16 << 20;

/// Of one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Journal {
    pub(super) id: String,
    pub(super) name: String,
    /// What /etc/hosts calls it: the whole name and, if there is a domain, the first part alone.
    pub(super) hostname: String,
    /// It uses this container's namespace and has nothing of its own.
    pub(super) shares: Option<String>,
    /// Processes of it may outlive its first one: it has no process namespace of its own.
    pub(super) lingers: bool,
    /// In the order in which they were made.
    pub(super) attachments: Vec<Attachment>,
    pub(super) ports: Vec<Published>,
    /// What the plugin portmap was told, and for which interface, once it is told.
    pub(super) portmap: Option<Portmap>,
    /// By alias, the id of whom it is linked to.
    pub(super) links: BTreeMap<String, String>,
    /// The lines of its hosts file that tell of itself and others.
    pub(super) hosts: Vec<String>,
}

/// An interface in a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attachment {
    pub(super) network: String,
    pub(super) network_id: String,
    pub(super) interface: String,
    pub(super) internal: bool,
    /// Whether everybody in the network finds everybody by name: in all but the default one.
    pub(super) names: bool,
    pub(super) aliases: Vec<String>,
    /// What the plugin bridge was told.
    pub(super) configuration: Value,
    /// What it answered, once it has.
    pub(super) result: Option<Value>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) gateway: Option<Ipv4Addr>,
}

/// What the plugin portmap was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Portmap {
    pub(super) network: String,
    pub(super) interface: String,
    pub(super) configuration: Value,
}

impl Journal {
    /// That of a container, if it has one.
    pub(super) fn load(paths: &Paths, id: &str) -> Result<Option<Self>> {
        let path = file(paths, id);
        let mut text = Vec::new();
        match fs::File::open(&path).and_then(|file| file.take(LIMIT).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.context(|| format!("read {}", path.display()))?,
        };
        let journal = serde_json::from_slice(&text)
            .map_err(|error| Error::failed(format!("read {}: {error}: it is damaged; remove it", path.display())))?;
        Ok(Some(journal))
    }

    pub(super) fn save(&self, paths: &Paths) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::failed(format!("write a journal: {error}")))?;
        replace(&file(paths, &self.id), &text, 0o600)
    }

    /// The last step of giving back.
    pub(super) fn remove(paths: &Paths, id: &str) -> Result<()> {
        let path = file(paths, id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Its attachment to a network.
    pub(super) fn attachment(&self, network: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|it| it.network == network)
    }
}

/// The right to change what a container has of networks, shared with the plugins that are started meanwhile: if their caller is
/// killed they go on, and nobody may start others before they have ended.
#[derive(Debug)]
pub(super) struct Busy {
    path: PathBuf,
    file: Flock<fs::File>,
}

impl Busy {
    /// Takes it, when whoever has it lets it go.
    pub(super) fn take(paths: &Paths, id: &str) -> Result<Self> {
        make_private(&super::directory(paths))?;
        let path = super::directory(paths).join(format!("{id}.busy"));
        let what = || format!("lock {}", path.display());
        loop {
            let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).context(what)?;
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(what)?;
            // Whoever had it may have removed it, and another made it anew.
            let ours = file.metadata().context(what)?;
            if fs::metadata(&path).is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { path, file });
            }
        }
    }

    /// What a program holds it by.
    pub(super) fn held_by(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // One that stays is taken by the next all the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where one lies.
pub(super) fn file(paths: &Paths, id: &str) -> PathBuf {
    super::directory(paths).join(format!("{id}.json"))
}

/// The ids of all that have one.
pub(super) fn ids(paths: &Paths) -> Result<Vec<String>> {
    let directory = super::directory(paths);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("list {}", directory.display()))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).filter(|id| is_id(id)).collect();
    ids.sort();
    Ok(ids)
}

/// All of them. One that goes away meanwhile is left out.
pub(super) fn all(paths: &Paths) -> Result<Vec<Journal>> {
    let mut all = Vec::new();
    for id in ids(paths)? {
        all.extend(Journal::load(paths, &id)?);
    }
    Ok(all)
}
