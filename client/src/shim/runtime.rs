//! Which runtime a container's shim calls.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::paths;
use crate::record::Container;

/// Where programs are looked for without a PATH (execvp(3)).
const USUAL_PATH: &str = "/bin:/usr/bin";

/// The runtime's program for this container.
pub(super) fn of(client: &Client, record: &Container) -> String {
    if is_ours(record) { paths::text(&client.programs.runtime) } else { record.host_config.runtime.clone() }
}

fn is_ours(record: &Container) -> bool {
    matches!(record.host_config.runtime.as_str(), "" | "tare")
}

/// Whether there is such a program: the shim could tell only that it was told of one that is not there, and when much is made already.
///
/// # Errors
/// There is none, or it cannot be executed.
pub(crate) fn check(client: &Client, record: &Container) -> Result<()> {
    let search = std::env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned());
    let (asked, remedy) = if is_ours(record) {
        (String::new(), "install tare, or give its path in TARECTL_RUNTIME_PROGRAM")
    } else {
        (format!("--runtime {}: ", record.host_config.runtime), "install it, or give the path of one that is there")
    };
    find(&of(client, record), &search)
        .map_err(|why| Error::usage(format!("{asked}there is no such runtime: {why}: {remedy}")))
}

/// Finds a program as execvp(3) does; why not, if there is none.
fn find(program: &str, search: &str) -> Result<(), String> {
    let is_program = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if !program.contains('/') {
        let mut places = std::env::split_paths(search).filter(|it| it.is_absolute());
        return match places.any(|place| is_program(&place.join(program))) {
            true => Ok(()),
            false => Err(format!("{program} is in no directory of PATH, which is {search}")),
        };
    }
    let path = PathBuf::from(program);
    if !path.is_absolute() {
        return Err(format!("{program} is no absolute path, and no name"));
    }
    match path.metadata() {
        Err(error) => Err(format!("{program}: {error}")),
        Ok(_) if is_program(&path) => Ok(()),
        Ok(_) => Err(format!("{program} is no file that can be executed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_looked_for_as_it_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        crate::testing::program(&directory.path().join("runtime"), "");
        std::fs::write(directory.path().join("text"), "").unwrap();
        let search = format!("relative:/none:{place}");
        for (program, why) in [
            ("runtime", None),
            (&format!("{place}/runtime"), None),
            ("text", Some("is in no directory of PATH, which is relative:/none:")),
            ("", Some("is in no directory of PATH")),
            ("./runtime", Some("./runtime is no absolute path, and no name")),
            ("/none/runtime", Some("/none/runtime: No such file or directory")),
            (&format!("{place}/text"), Some("is no file that can be executed")),
            (place, Some("is no file that can be executed")),
        ] {
            match (find(program, &search), why) {
                (Ok(()), None) => {}
                (Err(said), Some(why)) => assert!(said.contains(why), "{program}: {said}"),
                (found, _) => panic!("{program}: {found:?}"),
            }
        }
    }
}
