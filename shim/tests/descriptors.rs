//! A process's streams give back every descriptor. Alone in its program: another test's would be counted too.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tare_shim::io::{Io, LoggerNames, Stdio};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// What is open now: the names of /proc/self/fd with what they are.
fn descriptors() -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // The directory that is being read is gone by the time it is looked at.
        if let Ok(target) = std::fs::read_link(&path) {
            all.push(format!("{} {}", path.display(), target.display()));
        }
    }
    all.retain(|entry| !entry.ends_with("/fd"));
    all.sort();
    all
}

fn fifo(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Opens these streams, moves some bytes, leaves everything open that a process or a client could, and closes.
async fn use_streams(stdio: &Stdio) {
    let (mut io, mut child) = Io::open(stdio, &LoggerNames::default(), None).await.unwrap();
    let mut client = (!stdio.stdin.is_empty()).then(|| {
        let nonblocking = nix::libc::O_NONBLOCK;
        let stdin = OpenOptions::new().write(true).custom_flags(nonblocking).open(&stdio.stdin).unwrap();
        let stdout = OpenOptions::new().read(true).custom_flags(nonblocking).open(&stdio.stdout).unwrap();
        (stdin, stdout)
    });
    let slave = if stdio.terminal {
        let pty = openpty(None, None).unwrap();
        io.start_console(pty.master).unwrap();
        Some(pty.slave)
    } else {
        io.start().unwrap();
        None
    };
    let process = slave.as_ref().or(child.stdout.as_ref()).unwrap();
    nix::unistd::write(process, b"some bytes\n").unwrap();
    if let Some((stdin, stdout)) = &mut client {
        stdin.write_all(b"some input\n").unwrap();
        let mut buffer = [0; 4];
        while stdout.read_exact(&mut buffer).is_err() {
            tokio::task::yield_now().await;
        }
    }
    // A logger reads its end-of-file then.
    child.stdout = child.stdout.filter(|_| client.is_some());
    child.stderr = child.stderr.filter(|_| client.is_some());
    io.exited();
    let drained = io.drained();
    io.close().await;
    drained.await;
}

#[test]
fn closed_streams_leave_no_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, stdout, stderr) =
        (fifo(directory.path(), "in"), fifo(directory.path(), "out"), fifo(directory.path(), "err"));
    let file = format!("file://{}/log", directory.path().display());
    let logger = "binary:///bin/sh?-c=exec%205%3E%26-%3B%20cat%20%3C%263".to_owned();
    let streams = [
        Stdio { stdin: stdin.clone(), stdout: stdout.clone(), stderr, terminal: false },
        Stdio { stdin, stdout, stderr: String::new(), terminal: true },
        Stdio { stdin: String::new(), stdout: file.clone(), stderr: file, terminal: false },
        Stdio { stdin: String::new(), stdout: logger.clone(), stderr: logger.clone(), terminal: false },
        Stdio { stdin: String::new(), stdout: logger, stderr: String::new(), terminal: true },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let before = descriptors();
        for stdio in &streams {
            use_streams(stdio).await;
            assert_eq!(descriptors(), before, "{stdio:?}");
        }
    };
    LocalSet::new().block_on(&runtime, async { timeout(Duration::from_secs(120), test).await.expect("the test ends") });
}
