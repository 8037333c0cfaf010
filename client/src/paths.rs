//! Where things lie; every root is a flag and an environment variable.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The longest path of a socket (unix(7)), the final zero not counted.
const LONGEST_SOCKET: usize = 107;

/// The roots of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What outlives a boot.
    pub root: PathBuf,
    /// What does not.
    pub run: PathBuf,
    /// The store's socket.
    pub store: PathBuf,
}

impl Paths {
    /// As the environment says (`TARECTL_ROOT`, `TARECTL_RUN`, `TARE_STORE_SOCKET`), or the usual ones.
    #[must_use]
    pub fn from_env() -> Self {
        let given = |name: &str, usual: &str| {
            std::env::var_os(name).filter(|it| !it.is_empty()).map_or_else(|| PathBuf::from(usual), PathBuf::from)
        };
        Self {
            root: given("TARECTL_ROOT", "/var/lib/tarectl"),
            run: given("TARECTL_RUN", "/run/tarectl"),
            store: given("TARE_STORE_SOCKET", "/run/tare-store/ttrpc.sock"),
        }
    }

    /// Whether all that is made below these roots can be named.
    ///
    /// # Errors
    /// One is not absolute, or too long for a socket's path.
    pub fn check(&self) -> Result<()> {
        for (root, variable) in
            [(&self.root, "TARECTL_ROOT"), (&self.run, "TARECTL_RUN"), (&self.store, "TARE_STORE_SOCKET")]
        {
            if !root.is_absolute() {
                return Err(Error::usage(format!(
                    "{variable} is {}, which is no absolute path: give one",
                    root.display()
                )));
            }
        }
        let longest = self.attach(&"0".repeat(64)).as_os_str().len();
        if longest > LONGEST_SOCKET {
            return Err(Error::usage(format!(
                "{} is too long a path for the sockets below it: set TARECTL_RUN to one that is {} characters shorter",
                self.run.display(),
                longest - LONGEST_SOCKET
            )));
        }
        Ok(())
    }

    /// A container's record, log and files.
    #[must_use]
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// All of them.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Who has which name.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The networks' records.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What happened, a line of JSON each.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.root.join("events.log")
    }

    /// Which snapshots belong to an `import` that runs.
    #[must_use]
    pub fn imports(&self) -> PathBuf {
        self.root.join("imports")
    }

    /// A container's log.
    #[must_use]
    pub fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    /// What there is of a container while it runs.
    #[must_use]
    pub fn running(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// The OCI bundle that its shim works in.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.running(id).join("bundle")
    }

    /// The socket that clients attach to.
    #[must_use]
    pub fn attach(&self, id: &str) -> PathBuf {
        self.running(id).join("attach")
    }

    /// The fifo that clients write its standard input to.
    #[must_use]
    pub fn stdin(&self, id: &str) -> PathBuf {
        self.running(id).join("stdin")
    }

    /// Its /dev/shm, if others may have it.
    #[must_use]
    pub fn shm(&self, id: &str) -> PathBuf {
        self.running(id).join("shm")
    }

    /// Its network namespace, bound.
    #[must_use]
    pub fn netns(&self, id: &str) -> PathBuf {
        self.run.join("netns").join(id)
    }

    /// Where the runtime keeps its states.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// Where shims put their sockets.
    #[must_use]
    pub fn shims(&self) -> PathBuf {
        self.run.join("shims")
    }
}

/// A path as the text that a record or a request holds.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
