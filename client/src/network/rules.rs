//! Who may talk to whom, for all networks at once: set in one transaction when networks come and go, not at each container.
//!
//! The plugins firewall and bridge (`ipMasq`) would do it for each address, and take longer for that than everything else of a
//! container together. The rules are docker's per-network ones: packets out of a network pass and leave with the host's address;
//! into it pass those that belong to a connection from inside, or were sent to a published port; between networks and out of an
//! internal one nothing does. They lie in iptables' chains, since elsewhere they could not overrule a FORWARD policy of DROP.
//!
//! ```text
//! filter FORWARD ──> TARE-FWD-<instance>        nat POSTROUTING ──> TARE-NAT-<instance>
//! ```

use std::fmt::Write as _;
use std::fs;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::record::{self, MASQUERADE, Network};
use crate::disk::{flock, replace};
use crate::error::{Error, Result};
use crate::paths::Paths;

/// Where iptables lies, for a user's short search path too.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sets the rules of all networks, unless they are what was set last.
pub(super) async fn set(paths: &Paths) -> Result<()> {
    let networks = record::list(paths)?;
    let _lock = flock(&super::directory(paths).join("rules.lock"))?;
    let Some(instance) = networks.iter().find(|it| it.name == record::BRIDGE).map(|it| &it.id[..8]) else {
        return Ok(());
    };
    let rules = text(instance, &networks)?;
    let marker = super::directory(paths).join("rules");
    if fs::read_to_string(&marker).is_ok_and(|set| set == rules) {
        return Ok(());
    }
    let mut input = String::new();
    for (table, chain, from) in [("filter", "FWD", "FORWARD"), ("nat", "NAT", "POSTROUTING")] {
        let chain = format!("TARE-{chain}-{instance}");
        // -n: without it all other rules would go.
        let jump = ["-w", "10", "-t", table, "-C", from, "-j", &chain];
        if !run("iptables", &jump, "").await?.status.success() {
            let _ = writeln!(input, "*{table}\n:{chain} - [0:0]\n-I {from} -j {chain}\nCOMMIT");
        }
    }
    input.push_str(&rules);
    let done = run("iptables-restore", &["-n", "-w", "10"], &input).await?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(Error::failed(format!("iptables-restore refused the networks' rules: {}", said.trim_end())));
    }
    replace(&marker, rules.as_bytes(), 0o600)
}

/// As [`set`], where rules are set at all.
pub(super) async fn set_again(paths: &Paths) -> Result<()> {
    match super::directory(paths).join("rules").try_exists() {
        Ok(false) => Ok(()),
        _ => set(paths).await,
    }
}

/// The transaction: naming a chain empties it.
fn text(instance: &str, networks: &[Network]) -> Result<String> {
    let (mut into, mut out, mut nat) = (String::new(), String::new(), String::new());
    let (forward, masquerade) = (format!("TARE-FWD-{instance}"), format!("TARE-NAT-{instance}"));
    for network in networks.iter().filter(|it| it.driver == "bridge") {
        let (device, subnet) = (network.device(), network.pool()?.subnet);
        // Writing to a String does not fail.
        let mut rule = |rule: &str| writeln!(into, "-A {forward} -o {device} {rule}").unwrap_or_default();
        rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        rule(&format!("-i {device} -j ACCEPT"));
        if !network.internal {
            rule("-m conntrack --ctstate DNAT -j ACCEPT");
        }
        rule("-j DROP");
        // All that goes into one of our networks is decided on above.
        let verdict = if network.internal { "DROP" } else { "ACCEPT" };
        let _ = writeln!(out, "-A {forward} -i {device} -j {verdict}");
        if !network.internal && network.enabled(MASQUERADE) {
            let _ = writeln!(nat, "-A {masquerade} -s {subnet} ! -o {device} -j MASQUERADE");
        }
    }
    Ok(format!("*filter\n:{forward} - [0:0]\n{into}{out}COMMIT\n*nat\n:{masquerade} - [0:0]\n{nat}COMMIT\n"))
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::failed(format!(
            "{program} is not installed, which networks need: install Debian's package iptables \
             (apt-get install iptables), or use --network host or --network none"
        )),
        _ => Error::failed(format!("run {program}: {error}")),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It ended before: its error says why.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    child.wait_with_output().await.map_err(failed)
}
