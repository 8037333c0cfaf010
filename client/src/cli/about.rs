//! `version` and `info`: what this is, and what there is.

use std::fs;

use serde_json::{Value, json};
use tare_proto::store::{InfoRequest, InfoResponse};

use super::args::Formatted;
use super::output;
use crate::client::Client;
use crate::error::{Context, Result};
use crate::record::Status;
use crate::spec::has_cgroups_2;
use crate::template::Template;
use crate::{truth, units};

/// `version`: of each program; the store tells its own where it runs.
pub(super) async fn version(client: &Client, args: Formatted) -> Result<u8> {
    let own = env!("CARGO_PKG_VERSION");
    let machine = nix::sys::utsname::uname().ok();
    let kernel = machine.as_ref().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default();
    let store = if client.store.is_running().await { store(client).await.ok() } else { None };
    let runtime = first_line(&client.programs.runtime, "--version");
    let shim = first_line(&client.programs.shim, "-v");
    let components = [
        ("tare-store", store.as_ref().map_or("(not running)", |it| it.version.as_str())),
        ("containerd-shim-tare-v2", shim.as_str()),
        ("tare", runtime.as_str()),
    ];
    let value = json!({
        "Client": {"Version": own, "Os": "linux", "Arch": arch()},
        "Server": {
            "Version": own, "Os": "linux", "Arch": arch(), "KernelVersion": kernel,
            "Components": components.iter().map(|(name, version)| json!({"Name": name, "Version": version})).collect::<Vec<_>>(),
        },
    });
    if let Some(text) = formatted(&args.format, &value)? {
        return output::line(&text).map(|()| 0);
    }
    let mut out = format!("Client: tarectl\n Version:           {own}\n OS/Arch:           linux/{}\n\n", arch());
    out.push_str(&format!("Server: none, but these programs\n Kernel:            {kernel}\n"));
    for (name, version) in components {
        out.push_str(&format!(" {name}:\n  Version:          {version}\n"));
    }
    output::text(&out).map(|()| 0)
}

/// `info`: docker's fields, as far as there is something to say.
pub(super) async fn info(client: &Client, args: Formatted) -> Result<u8> {
    let crate::records::Listed { records: containers, damaged } = truth::list(client).await?;
    let code = output::lacking(&damaged);
    let count = |status: Status| containers.iter().filter(|it| it.state.status == status).count();
    let store = store(client).await?;
    let images = crate::image::list::rows(client, &crate::image::list::Options::default()).await?;
    let ids: std::collections::BTreeSet<String> = images.iter().map(|it| it["ID"].to_string()).collect();
    let machine = nix::sys::utsname::uname().context(|| "ask the kernel for its name".to_owned())?;
    let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|it| it.strip_prefix("MemTotal:")).and_then(|it| it.trim().split(' ').next());
    let memory = memory.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) * 1024;
    let (running, paused) = (count(Status::Running), count(Status::Paused));
    let cgroup = if has_cgroups_2() { "2" } else { "1" };
    let value = json!({
        "Containers": containers.len(), "ContainersRunning": running, "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused, "Images": ids.len(),
        "ServerVersion": env!("CARGO_PKG_VERSION"), "Driver": store.default_snapshotter, "DockerRootDir": client.paths.root,
        "StoreRootDir": store.root, "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": cgroup,
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "none"], "Log": ["json-file", "none"]},
        "DefaultRuntime": "tare", "Runtimes": {"tare": {"path": client.programs.runtime}},
        "SecurityOptions": ["name=seccomp,profile=default"], "KernelVersion": text(machine.release()),
        "OperatingSystem": system(), "OSType": "linux", "Architecture": text(machine.machine()),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get), "MemTotal": memory,
        "Name": text(machine.nodename()),
    });
    if let Some(text) = formatted(&args.format, &value)? {
        return output::line(&text).map(|()| code);
    }
    output::text(&lines(&value, memory)).map(|()| code)
}

fn lines(value: &Value, memory: u64) -> String {
    let get = |name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    for (label, field) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        out.push_str(&format!("{label}: {}\n", get(field)));
    }
    out.push_str(&format!("Total Memory: {}\nName: {}\n", units::human_memory(memory), get("Name")));
    out + &format!("Root Dir: {}\nStore Root Dir: {}\n", get("DockerRootDir"), get("StoreRootDir"))
}

/// By `--format`, if there is one.
fn formatted(format: &str, value: &Value) -> Result<Option<String>> {
    match format {
        "" => Ok(None),
        "json" => Ok(Some(value.to_string())),
        template => Template::parse(template)?.run(value).map(Some),
    }
}

async fn store(client: &Client) -> Result<InfoResponse> {
    let answer = client.store.store().await?.info(client.store.context(), &InfoRequest::new()).await;
    answer.context(|| client.store.call("ask the store what it is"))
}

/// What a program says first.
fn first_line(program: &std::path::Path, flag: &str) -> String {
    let Ok(output) = std::process::Command::new(program).arg(flag).output() else { return "(not found)".to_owned() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .flat_map(str::split_whitespace)
        .find(|it| it.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or("(unknown)")
        .to_owned()
}

/// As docker writes it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|it| it.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |it| it.trim_matches('"').to_owned())
}
