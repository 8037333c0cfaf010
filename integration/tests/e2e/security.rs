//! Attacks on the runtime itself, played from inside a container. Those on mounts stand in `security_mounts`, those on the
//! process's identity and directories in `process`.

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use integration::{Runtime, wait};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::json;

/// A container that has all that helps an attacker: ptrace, and root.
const CAPABILITIES: &[&str] = &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_KILL"];

/// The container makes the runtime execute itself inside, holds its binary open by /proc/PID/exe, and writes to it once it
/// no longer runs (a running program is protected by ETXTBSY, which is no protection).
#[test]
fn cve_2019_5736_the_runtimes_binary_is_written_from_inside() {
    let original = Runtime::from_env();
    // Its own copy: what a success would destroy.
    let copy = original.work().join("tare");
    fs::copy(original.binary(), &copy).expect("copy the runtime");
    let before = fs::read(&copy).expect("read the copy");
    let rt = Runtime::of_binary(&copy);
    let mut bundle = rt.bundle(&["/bin/probe", "wait"]).set("/process/noNewPrivileges", json!(false));
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.set(&format!("/process/capabilities/{set}"), json!(CAPABILITIES));
    }
    let container = rt.run_detached(&bundle, &[]).unwrap();
    // What is not of the container's own /bin is the runtime.
    // A victim that lasts: its output goes into a pipe that is full.
    let (mut reader, writer) = pipe().expect("make a pipe");
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("make the pipe non-blocking");
    while (&writer).write(&[b'.'; 512]).is_ok() {}
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).expect("make the pipe blocking");
    let victim = rt.spawn(&["exec", container.id(), "/proc/self/exe", "--help"], |command| {
        command.stdout(writer);
    });
    let attack = "while :; do for exe in /proc/[0-9]*/exe; do
        case $(readlink $exe) in /bin/*|'') ;; *) exec 9<$exe; echo opened; break 2;; esac; done; done
        read go; echo pwned > /proc/self/fd/9 && echo written";
    let mut attacker = rt.spawn(&["exec", container.id(), "sh", "-c", attack], |command| {
        command.stdin(Stdio::piped());
    });
    let output = attacker.stdout_file().to_owned();
    wait::file(&output, |text| text.contains("opened"));
    // The victim may end now; then the attacker writes.
    let drain = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    victim.wait().ok();
    drain.join().expect("the reader of the pipe").expect("read the pipe");
    writeln!(attacker.child().stdin.take().expect("its stdin"), "go").expect("tell the attacker");
    let attacker = attacker.wait();
    assert!(!attacker.stdout.contains("written"), "the binary was written: {attacker:?}");
    assert!(attacker.stderr.contains("Read-only file system"), "refused for another reason: {attacker:?}");
    assert!(fs::read(&copy).expect("read the copy") == before, "the binary has changed");
}

/// The same, seen from the host: neither what a container's init executes nor what it has mapped leads to the runtime's binary
/// where it could be written.
#[test]
fn cve_2019_5736_no_way_from_init_to_the_runtimes_binary_allows_writing() {
    let rt = Runtime::from_env();
    let container = rt.create(&rt.bundle(&["/bin/true"]), &[]).unwrap();
    let process = Path::new("/proc").join(container.pid().to_string());
    let mapped = fs::read_dir(process.join("map_files")).expect("list what init has mapped");
    let ways = mapped.map(|entry| entry.expect("list what init has mapped").path()).chain([process.join("exe")]);
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let binary = identity(rt.binary()).expect("look at the runtime");
    for way in ways.filter(|way| identity(way).expect("look at a file of init") == binary) {
        let mount = statvfs(&way).expect("look at the mount of a file of init");
        assert!(mount.flags().contains(FsFlags::ST_RDONLY), "{} leads to the binary", way.display());
    }
}
