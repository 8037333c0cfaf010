//! `descriptors.json` of an image: what init's standard descriptors were.
//!
//! A JSON list of three texts as /proc/PID/fd shows them (proc_pid_fd(5)). A pipe to the outside has no name by which it
//! could be opened again: at the restore, the standard descriptor of the same number takes its place.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::bundle::read_limited;
use crate::criu::rpc::InheritFd;
use crate::error::{Context, Error, Kind, Result};

const NAME: &str = "descriptors.json";
/// How a pipe is shown, before its number.
const PIPE: &str = "pipe:";

/// Bits of a link's mode in /proc/PID/fd: whether the descriptor is open for reading, for writing.
const READS: u32 = 0o400;
const WRITES: u32 = 0o200;

/// Writes down the descriptors of `init`; `all` are the processes of the container.
pub fn write(images: &Path, init: i32, all: &[i32]) -> Result<()> {
    let mut list = Vec::new();
    for number in 0..=2 {
        list.push(describe(init, number, all));
    }
    let path = images.join(NAME);
    let bytes = serde_json::to_vec(&list)
        .map_err(|error| Error::caused(Kind::System, format!("encode {}", path.display()), error))?;
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&path).on("make", path.display())?;
    file.write_all(&bytes).on("write", path.display())
}

fn describe(init: i32, number: u32, all: &[i32]) -> String {
    let Ok(target) = fs::read_link(format!("/proc/{init}/fd/{number}")) else { return String::new() };
    let target = target.to_string_lossy().into_owned();
    if target.starts_with(PIPE) && is_inside(&target, all) {
        // Both ends are saved with the container: nothing of ours may replace one.
        return "inside".to_owned();
    }
    target
}

/// Whether processes of the container have both ends of a pipe.
fn is_inside(pipe: &str, all: &[i32]) -> bool {
    let mut ends = 0;
    for pid in all {
        // One that ends meanwhile has none any more.
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == pipe)
                && let Ok(link) = entry.path().symlink_metadata()
            {
                ends |= link.mode() & (READS | WRITES);
            }
        }
    }
    ends == READS | WRITES
}

/// Which of our standard descriptors stand for pipes of the image.
pub fn inherited(images: &Path) -> Result<Vec<InheritFd>> {
    let path = images.join(NAME);
    pipes(&read_limited(&path)?).map_err(|error| error.within(path.display()))
}

fn pipes(list: &[u8]) -> Result<Vec<InheritFd>> {
    let list: Vec<String> = serde_json::from_slice(list)
        .map_err(|error| Error::caused(Kind::Invalid, "not a list of descriptors", error))?;
    let pipes = list.into_iter().take(3).enumerate().filter(|(_, name)| name.starts_with(PIPE));
    Ok(pipes.map(|(number, key)| InheritFd { key, fd: number as i32 }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_pipes_are_inherited_by_their_number() {
        let found = pipes(br#"["/dev/null","pipe:[7]","inside","pipe:[8]"]"#).unwrap();
        assert_eq!(found, [InheritFd { key: "pipe:[7]".into(), fd: 1 }]);
        for wrong in ["", "{", "{}", "[1]"] {
            assert_eq!(pipes(wrong.as_bytes()).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_pipe_with_both_ends_inside_is_not_one_to_the_outside() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
        let me = [std::process::id() as i32];
        assert!(is_inside(name.to_str().unwrap(), &me));
        drop(writer);
        assert!(!is_inside(name.to_str().unwrap(), &me));
        assert!(!is_inside(name.to_str().unwrap(), &[]));
    }
}
