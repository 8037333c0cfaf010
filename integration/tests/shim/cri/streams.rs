//! Data through exec, attach and portforward: what a client streams to the daemon must reach the process in the shim, and back.

use integration::cri_client::Cri;
use integration::cri_streams::{Channels, ERRORS, INPUT, OUTPUT, exit_status};
use integration::wait;
use integration::world::World;
use tare_proto::cri::*;

use super::{Wanted, same, start, words};

/// Waits for the size that it is told.
const IN_A_TERMINAL: &str =
    "tty; until [ \"$(stty size 2>/dev/null)\" = '33 77' ]; do :; done; echo sized; read line; echo got $line; exit 7";

/// Echoes what it is told.
const TALKS: &str = "echo begins; while read line; do echo got $line; echo lost $line >&2; done; exit 4";

const PORT: i32 = 8080;
/// One connection. The system knows ports in hexadecimal, and 0A is one that listens.
const LISTENS: &str = "nc -l -p 8080 -e sh -c 'read line; echo got $line; exec cat' & \
    until grep -q ':1F90 .* 0A' /proc/net/tcp /proc/net/tcp6; do :; done; echo listens; wait";

/// All of it, in a pod that runs `polite`.
pub(super) async fn streams(
    world: &World,
    cri: &Cri,
    sandbox: &str,
    config: &PodSandboxConfig,
    polite: &str,
) -> Result<(), String> {
    exec(world, cri, polite).await?;
    exec_in_a_terminal(world, cri, polite).await?;
    attach(world, cri, sandbox, config).await?;
    forward(world, cri, sandbox, config).await
}

async fn open_exec(world: &World, cri: &Cri, request: ExecRequest) -> Result<Channels, String> {
    Channels::open(world, &cri.call(request).await?.url)
}

async fn exec(world: &World, cri: &Cri, id: &str) -> Result<(), String> {
    let request = |command: &[&str]| ExecRequest {
        container_id: id.into(),
        cmd: words(command),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let script = "read line; echo got $line; echo bad >&2; read line; exit $line";
    let mut channels = open_exec(world, cri, request(&["sh", "-c", script])).await?;
    channels.send(INPUT, b"it\n")?;
    same("exec's output", channels.until(OUTPUT, "\n")?, "got it\n".to_owned())?;
    same("exec's errors", channels.until(ERRORS, "\n")?, "bad\n".to_owned())?;
    channels.send(INPUT, b"9\n")?;
    let (_, _, status) = channels.finish()?;
    same("exec's status", exit_status(&status), Some(9))?;

    // More than any pipe holds.
    let numbers: String = (1..=100_000).map(|it| format!("{it}\n")).collect();
    let (output, errors, status) = open_exec(world, cri, request(&["seq", "100000"])).await?.finish()?;
    same("the length of much output", output.len(), numbers.len())?;
    same("much output", output == numbers, true)?;
    same("its errors and status", (errors.as_str(), exit_status(&status)), ("", Some(0)))
}

async fn exec_in_a_terminal(world: &World, cri: &Cri, id: &str) -> Result<(), String> {
    let request = ExecRequest {
        container_id: id.into(),
        cmd: words(&["sh", "-c", IN_A_TERMINAL]),
        tty: true,
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let mut channels = open_exec(world, cri, request).await?;
    same("the terminal", channels.until(OUTPUT, "\r\n")?, "/dev/pts/0\r\n".to_owned())?;
    channels.resize(33, 77)?;
    channels.until(OUTPUT, "sized\r\n")?;
    channels.send(INPUT, b"it\n")?;
    let (output, _, status) = channels.finish()?;
    // A terminal shows what is typed.
    same("the terminal's output", output.as_str(), "/dev/pts/0\r\nsized\r\nit\r\ngot it\r\n")?;
    same("the status of an exec in a terminal", exit_status(&status), Some(7))
}

async fn attach(world: &World, cri: &Cri, sandbox: &str, config: &PodSandboxConfig) -> Result<(), String> {
    let wanted = Wanted { name: "talks", command: &["sh", "-c", TALKS], stdin: true };
    let id = start(cri, sandbox, config, wanted).await?;
    wait::file(&world.root().join("run/world/talks.log"), |text| text.contains("begins"));
    let request =
        || AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, ..Default::default() };
    // One goes away and another comes.
    for line in ["first", "second"] {
        let mut channels = Channels::open(world, &cri.call(request()).await?.url)?;
        channels.send(INPUT, format!("{line}\n").as_bytes())?;
        same("attach's output", channels.until(OUTPUT, "\n")?, format!("got {line}\n"))?;
        same("attach's errors", channels.until(ERRORS, "\n")?, format!("lost {line}\n"))?;
    }
    let log = wait::file(&world.root().join("run/world/talks.log"), |text| text.contains("lost second"));
    same("attached output in the log", log.contains("stdout F got first"), true)?;
    remove(cri, id).await
}

async fn forward(world: &World, cri: &Cri, sandbox: &str, config: &PodSandboxConfig) -> Result<(), String> {
    let wanted = Wanted { name: "listens", command: &["sh", "-c", LISTENS], stdin: false };
    let id = start(cri, sandbox, config, wanted).await?;
    wait::file(&world.root().join("run/world/listens.log"), |text| text.contains("listens"));
    let request = PortForwardRequest { pod_sandbox_id: sandbox.into(), port: vec![PORT], ..Default::default() };
    let mut channels = Channels::open(world, &cri.call(request).await?.url)?;
    channels.send(INPUT, b"it\n")?;
    channels.until(INPUT, "got it\n")?;
    channels.send(INPUT, b"and more\n")?;
    let data = channels.until(INPUT, "and more\n")?;
    same("forwarded data", data.ends_with("got it\nand more\n"), true)?;
    drop(channels);
    remove(cri, id).await
}

async fn remove(cri: &Cri, id: String) -> Result<(), String> {
    cri.call(StopContainerRequest { container_id: id.clone(), timeout: 0, ..Default::default() }).await?;
    cri.call(RemoveContainerRequest { container_id: id, ..Default::default() }).await.map(drop)
}
