//! `state`: what is known of one container, as JSON on standard output.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::cli::{Global, IdArgs};
use crate::error::{Error, Kind, Result};
use crate::output::print;
use crate::state::{self, OCI_VERSION, State, Status};

/// Runs the command.
pub fn run(global: &Global, args: &IdArgs) -> Result<()> {
    let root = global.root();
    let state = state::load(&root, &args.id)?;
    let report = Report::of(&state, state.status(&root)?, String::new());
    let mut text = serde_json::to_vec_pretty(&report).map_err(|error| unprintable(&args.id, error))?;
    text.push(b'\n');
    print(&text)
}

/// A container as `state` and `list` print it: the spec's state and what runc adds to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    oci_version: &'static str,
    /// Its name.
    pub id: &'a str,
    /// Its first process in the runtime's pid namespace; 0 once that is gone.
    pub pid: i32,
    /// Its status, as a word.
    pub status: &'static str,
    /// Its bundle.
    pub bundle: &'a Path,
    rootfs: &'a Path,
    /// When it was created.
    pub created: &'a str,
    /// Sorted, so that two calls print the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    /// Who created it; only `list` finds the name out, as with runc.
    pub owner: String,
}

impl<'a> Report<'a> {
    /// The container in a state.
    pub fn of(state: &'a State, status: Status, owner: String) -> Self {
        let pid = match (&state.init, status) {
            (Some(init), Status::Creating | Status::Created | Status::Running | Status::Paused) => init.pid,
            _ => 0,
        };
        Self {
            oci_version: OCI_VERSION,
            id: &state.id,
            pid,
            status: status.word(),
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: state.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            owner,
        }
    }
}

/// The error for a state that has no form in JSON: a path that is no UTF-8.
pub fn unprintable(id: &str, error: serde_json::Error) -> Error {
    Error::caused(Kind::System, format!("print the state of container {id:?}"), error)
}
