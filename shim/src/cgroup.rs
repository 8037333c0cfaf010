//! Where the cgroup of a process lies.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// A cgroup, by the hierarchies that hold the host's controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// A directory in each hierarchy of version 1; a hybrid host counts as this.
    V1(Vec<(String, PathBuf)>),
    /// One directory, of version 2.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroup the process `pid` is in.
    pub fn of(pid: u32) -> Result<Self> {
        Err(Error::new(Kind::Unimplemented, format!("find the cgroup of process {pid}")))
    }

    /// The cgroup `path` below the root of the hierarchies (the option shim_cgroup), which must exist.
    pub fn load(path: &str) -> Result<Self> {
        Err(Error::new(Kind::Unimplemented, format!("find the cgroup {path}")))
    }

    /// Moves the process `pid` into it.
    pub fn add(&self, pid: u32) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, format!("add process {pid} to a cgroup")))
    }

    /// Whether it is still there.
    pub fn exists(&self) -> bool {
        false
    }

    /// Its path for people: the directory of the memory controller (version 1), or the one there is.
    pub fn display(&self) -> String {
        String::new()
    }
}
