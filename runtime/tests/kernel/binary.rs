//! The program's own binary: moved onto a read-only mount while it runs.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::statvfs::{FsFlags, statvfs};
use tare::selfexe::protect;

use crate::{Case, skip};

pub(crate) const CASES: &[Case] =
    &[("the_program_moves_onto_a_read_only_mount_and_goes_on", the_program_moves_onto_a_read_only_mount_and_goes_on)];

const SELF: &str = "/proc/self/exe";

/// Lies in a page that comes from the binary, and differs from it once it is written to.
static WRITTEN: AtomicU32 = AtomicU32::new(1);

fn is_read_only(path: &Path) -> bool {
    statvfs(path).expect("look at the mount").flags().contains(FsFlags::ST_RDONLY)
}

fn of_self(file: &str) -> Vec<u8> {
    fs::read(Path::new("/proc/self").join(file)).expect("read a file of this process")
}

/// All that the program has mapped of files.
fn mapped() -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir("/proc/self/map_files").expect("list what is mapped").map(|entry| entry.expect("an entry").path())
}

fn the_program_moves_onto_a_read_only_mount_and_goes_on() {
    // Only a kernel that lets processes be restored has it.
    if fs::metadata("/proc/sys/kernel/ns_last_pid").is_err() {
        skip!("the kernel is built without CONFIG_CHECKPOINT_RESTORE");
    }
    if is_read_only(Path::new(SELF)) {
        assert_ne!(fs::read_link(SELF).expect("read a link").as_os_str(), "/", "it was executed again");
        skip!("this program lies on a read-only file system");
    }
    WRITTEN.store(7, Ordering::Relaxed);
    let (arguments, environment) = (of_self("cmdline"), of_self("environ"));
    let text = String::from("on the heap");
    let mount = protect().expect("move onto a read-only mount");
    assert!(is_read_only(Path::new(SELF)));
    assert!(mapped().count() > 0 && mapped().all(|way| is_read_only(&way)), "something of the old file is mapped");
    assert_eq!(WRITTEN.load(Ordering::Relaxed), 7, "what was written is lost");
    assert_eq!((of_self("cmdline"), of_self("environ")), (arguments, environment));
    // Code that has not run yet is there, and the heap still grows.
    assert_eq!(format!("{text}{}", "x".repeat(1 << 20)).len(), text.len() + (1 << 20));
    mount.close();
    assert!(is_read_only(Path::new(SELF)), "the binary must not depend on the descriptor");
}
