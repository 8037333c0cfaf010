//! The seccomp agent: a program of the host that answers for a container's system calls (`SCMP_ACT_NOTIFY`).
//!
//! On the wire, over a stream socket of its own: the container process state as JSON, with the notification fd in
//! SCM_RIGHTS of the first message; then the connection is closed.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::SPEC_VERSION;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::seccomp::Notify;

/// The container process state of the spec.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a RawValue,
}

/// Connects to the agent that `notify` names, hands it the notification fd `listener` of process `pid`, and closes the
/// connection. `state` is the container's state as JSON.
pub fn send(listener: OwnedFd, notify: &Notify, state: &[u8], pid: i32) -> Result<()> {
    let agent = open(&notify.listener_path)?;
    let odd = |error: serde_json::Error| Error::caused(Kind::System, "write the state for the seccomp agent", error);
    let state: &RawValue = serde_json::from_slice(state).map_err(odd)?;
    let metadata = (!notify.metadata.is_empty()).then_some(notify.metadata.as_str());
    let message = ContainerProcessState { oci_version: SPEC_VERSION, fds: ["seccompFd"], pid, metadata, state };
    let message = serde_json::to_vec(&message).map_err(odd)?;
    let fds = [listener.as_raw_fd()];
    let mut control = Some([ControlMessage::ScmRights(&fds)]);
    let mut rest = &message[..];
    while !rest.is_empty() {
        // A message longer than the socket's buffer takes several; the fd goes with the first.
        let with = control.as_ref().map_or(&[][..], |control| &control[..]);
        let sent = sendmsg::<()>(agent.as_raw_fd(), &[IoSlice::new(rest)], with, MsgFlags::MSG_NOSIGNAL, None)
            .on("send to", "the seccomp agent")?;
        rest = &rest[sent..];
        control = None;
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    let address = UnixAddr::new(path).on("use as the seccomp agent's socket", path.display())?;
    let agent = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).on("make", "a socket")?;
    connect(agent.as_raw_fd(), &address).on("connect to the seccomp agent at", path.display())?;
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::fstat;

    use super::*;

    #[test]
    fn the_agent_gets_the_state_and_the_fd() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("agent-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let notify = Notify { listener_path: path.clone(), metadata: "meta".to_owned() };
        let null = File::open("/dev/null").unwrap();
        send(null.try_clone().unwrap().into(), &notify, br#"{"id": "c1"}"#, 42).unwrap();

        let (mut stream, _) = listener.accept().unwrap();
        let mut first = vec![0; 4];
        let (length, fd) = crate::sys::scm::receive(stream.as_fd(), &mut first).unwrap();
        let mut text = first[..length].to_vec();
        stream.read_to_end(&mut text).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let expected = serde_json::json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 42, "metadata": "meta", "state": {"id": "c1"}
        });
        assert_eq!(value, expected);
        assert_eq!(fstat(&fd[0]).unwrap().st_rdev, fstat(&null).unwrap().st_rdev);

        std::fs::remove_file(&path).unwrap();
        let error = send(null.into(), &notify, b"{}", 42).unwrap_err().to_string();
        let expected = format!("connect to the seccomp agent at {}: no such file or directory", path.display());
        assert_eq!(error, expected);
    }
}
