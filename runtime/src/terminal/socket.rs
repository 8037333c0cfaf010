//! Descriptors for the caller: `--console-socket` gets the master end of the pty, `--pidfd-socket` the pidfd.
//!
//! On the wire: one message on a stream socket that the caller listens on; its text is a name that receivers only show
//! (`/dev/ptmx`), its SCM_RIGHTS the one descriptor.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Kind, Result};

/// Connects to the caller's console socket, before anything is made that would have to be undone.
pub fn connect_console(path: &Path) -> Result<OwnedFd> {
    connect_to("--console-socket", path)
}

/// Sends the master end of a pty.
pub fn send_master(socket: &OwnedFd, master: &OwnedFd) -> Result<()> {
    send(socket.as_fd(), "/dev/ptmx", master.as_fd()).on("send the terminal to", "the console socket")
}

/// Sends the pidfd of a container's process.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = connect_to("--pidfd-socket", path)?;
    send(socket.as_fd(), "pidfd", pidfd).on("send the pidfd to", path.display())
}

fn connect_to(flag: &str, path: &Path) -> Result<OwnedFd> {
    let what = || format!("connect to the {flag} {}", path.display());
    let failed = |errno| Error::sys(what(), errno);
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let connected = match UnixAddr::new(path) {
        Ok(address) => connect(socket.as_raw_fd(), &address),
        // The address of a socket holds 107 bytes; its descriptor's name is short.
        Err(Errno::ENAMETOOLONG) => {
            let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
            let short = format!("/proc/self/fd/{}", file.as_raw_fd());
            UnixAddr::new(short.as_str()).and_then(|address| connect(socket.as_raw_fd(), &address))
        }
        Err(errno) => Err(errno),
    };
    match connected {
        Ok(()) => Ok(socket),
        Err(Errno::ENOENT) => Err(Error::caused(Kind::Invalid, what(), "it does not exist")),
        Err(Errno::ECONNREFUSED) => Err(Error::caused(Kind::Invalid, what(), "nobody listens on it")),
        Err(errno) => Err(failed(errno)),
    }
}

fn send(socket: BorrowedFd<'_>, name: &str, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [IoSlice::new(name.as_bytes())];
    loop {
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::sys::scm::receive;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::current_exe().unwrap().with_file_name(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_receiver_gets_a_name_and_one_descriptor_by_a_path_of_any_length() {
        for name in ["short".to_owned(), "long".repeat(60)] {
            let folder = folder(&format!("socket-{}-{name}", std::process::id()));
            // A listener's address is as short as a caller's.
            let handle = File::open(&folder).unwrap();
            let listener = UnixListener::bind(format!("/proc/self/fd/{}/s", handle.as_raw_fd())).unwrap();
            let connection = connect_console(&folder.join("s")).unwrap();
            let (incoming, _) = listener.accept().unwrap();
            let (reader, writer) = std::io::pipe().unwrap();
            send_master(&connection, &writer.into()).unwrap();
            let mut text = [0; 64];
            let (length, mut fds) = receive(incoming.as_fd(), &mut text).unwrap();
            assert_eq!((&text[..length], fds.len()), (&b"/dev/ptmx"[..], 1));
            File::from(fds.remove(0)).write_all(b"x").unwrap();
            assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_named() {
        let folder = folder(&format!("no-socket-{}", std::process::id()));
        let path = folder.join("s");
        let said = |path: &Path| connect_console(path).unwrap_err().to_string();
        assert_eq!(said(&path), format!("connect to the --console-socket {}: it does not exist", path.display()));
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(said(&path), format!("connect to the --console-socket {}: nobody listens on it", path.display()));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
