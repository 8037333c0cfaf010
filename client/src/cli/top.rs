//! `top`: what runs in a container, as the host's ps(1) shows it.

use std::collections::BTreeSet;
use std::process::Command;

use super::args::Top;
use super::output;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::Status;
use crate::shim::Shim;
use crate::{events, table, truth};

/// Prints the lines of ps that are about the container's processes.
pub(super) async fn run(client: &Client, args: Top) -> Result<u8> {
    let (name, options) = args.words.split();
    let record = truth::find(client, name).await?;
    if !matches!(record.state.status, Status::Running | Status::Paused) {
        return Err(Error::failed(format!("container {name} does not run: tarectl start {name} starts it")));
    }
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual[..] } else { options };
    let processes = Shim::of(&record).await?.pids().await?;
    let pids: BTreeSet<u32> = processes.iter().map(|it| it.pid).collect();
    let shown = lines(&ps(options)?, &pids)?;
    events::container(&client.paths, "top", &record, &[]);
    output::text(&shown).map(|()| 0)
}

fn ps(options: &[String]) -> Result<String> {
    let output = Command::new("ps").args(options).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::failed("this host has no ps: install the package procps"),
        _ => Error::failed(format!("run ps: {error}")),
    })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().find(|it| !it.trim().is_empty()).unwrap_or("it says nothing").trim();
        return Err(Error::usage(format!("ps {} fails: {why} (ps(1) lists its options)", options.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines with one of these numbers in the column PID.
fn lines(output: &str, pids: &BTreeSet<u32>) -> Result<String> {
    let mut lines = output.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let column = heading.iter().position(|it| *it == "PID").ok_or_else(|| {
        Error::usage("these options of ps show no column PID, by which the container's processes are known: add it, as in -o pid,cmd")
    })?;
    let mut rows = Vec::new();
    for line in lines {
        // The last column is a command, with spaces of its own.
        let mut cells: Vec<String> = Vec::with_capacity(heading.len());
        let mut rest = line.trim_start();
        while cells.len() + 1 < heading.len() {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            cells.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
        cells.push(rest.trim_end().to_owned());
        if cells.get(column).and_then(|it| it.parse().ok()).is_some_and(|pid| pids.contains(&pid)) {
            rows.push(cells);
        }
    }
    let mut out = Vec::new();
    // Writing to memory cannot fail.
    let _ = table::print_wide(&mut out, &heading, &rows);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let output = "UID          PID    PPID  C STIME TTY          TIME CMD\n\
                      root           1       0  0 08:00 ?        00:00:01 init\n\
                      root         469     448  0 08:20 ?        00:00:00 sleep  1000\n";
        let shown = lines(output, &BTreeSet::from([469, 470])).unwrap();
        assert_eq!(shown.lines().count(), 2);
        let words: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["root", "469", "448", "0", "08:20", "?", "00:00:00", "sleep", "1000"]);
        // As docker: columns of 20 at least.
        assert!(shown.starts_with("UID                 PID                 PPID"), "{shown}");
        assert!(lines("CMD\nsleep\n", &BTreeSet::from([1])).unwrap_err().message.contains("-o pid,cmd"));
    }
}
