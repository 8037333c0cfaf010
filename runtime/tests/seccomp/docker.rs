//! Docker's own default profile: what dockerd writes into an ordinary container's configuration on this machine.

use std::process::{Command, Stdio};

/// The profile as JSON, or why it cannot be had.
pub(crate) fn profile() -> Result<String, String> {
    let is_missing = |program: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    if let Some(missing) = ["dockerd", "docker", "containerd", "jq"].iter().find(is_missing) {
        return Err(format!("{missing} is not installed"));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("dockerd needs root".to_owned());
    }
    let output = Command::new("timeout")
        .args(["-s", "KILL", "120", "unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
        .arg(include_str!("docker.sh"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("timeout or unshare: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).expect("JSON"))
}
