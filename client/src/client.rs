//! What every command works with: where things lie, the store, the programs.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::paths::Paths;
use crate::store::Store;

/// One instance, as its environment describes it. No command changes it.
#[derive(Debug)]
pub struct Client {
    /// Where things lie.
    pub paths: Paths,
    /// The way to the store; connected when it is first needed.
    pub store: Store,
    /// What is executed.
    pub programs: Programs,
}

/// The programs beside this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// `tare-store`.
    pub store: PathBuf,
    /// `containerd-shim-tare-v2`.
    pub shim: PathBuf,
    /// `tare`, or the runtime that takes its place.
    pub runtime: PathBuf,
    /// This one: what shims call at events, and what waits and checks in the background.
    pub tarectl: PathBuf,
}

impl Programs {
    /// As the environment says; otherwise those beside this program, or else what the search path has.
    ///
    /// # Errors
    /// This program cannot tell where it is.
    pub fn from_env() -> Result<Self> {
        let tarectl = std::env::current_exe()
            .map_err(|error| Error::failed(format!("find the file of this program in /proc/self/exe: {error}")))?;
        let beside = |variable: &str, name: &str| {
            let given = std::env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from);
            given.unwrap_or_else(|| {
                let file = tarectl.parent().unwrap_or(Path::new("/")).join(name);
                if file.is_file() { file } else { PathBuf::from(name) }
            })
        };
        Ok(Self {
            store: beside("TARECTL_STORE_PROGRAM", "tare-store"),
            shim: beside("TARECTL_SHIM_PROGRAM", "containerd-shim-tare-v2"),
            runtime: beside("TARECTL_RUNTIME_PROGRAM", "tare"),
            tarectl,
        })
    }
}

impl Client {
    /// With these roots and programs.
    #[must_use]
    pub fn new(paths: Paths, programs: Programs) -> Self {
        let store = Store::new(paths.store.clone(), programs.store.clone(), paths.run.clone());
        Self { paths, store, programs }
    }

    /// As the environment says.
    ///
    /// # Errors
    /// This is not root, or a root is too long for the sockets below it.
    pub fn from_env() -> Result<Self> {
        Self::at(Paths::from_env())
    }

    /// With these roots, and the programs that the environment says.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn at(paths: Paths) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::failed("tarectl makes containers, which only root can: run it with sudo"));
        }
        paths.check()?;
        Ok(Self::new(paths, Programs::from_env()?))
    }

    /// What another process of this instance needs in its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &Path); 6] {
        [
            ("TARECTL_ROOT", &self.paths.root),
            ("TARECTL_RUN", &self.paths.run),
            ("TARE_STORE_SOCKET", &self.paths.store),
            ("TARECTL_STORE_PROGRAM", &self.programs.store),
            ("TARECTL_SHIM_PROGRAM", &self.programs.shim),
            ("TARECTL_RUNTIME_PROGRAM", &self.programs.runtime),
        ]
    }
}
