//! `ps`: the processes of a container, as a list of pids or as what ps(1) says of them.
//!
//! ps(1) is asked about all processes, for its options may select and sort as they like; of its lines those stay whose
//! PID column names a process of the container.

use std::collections::BTreeSet;
use std::process::Command;

use crate::cgroup::Cgroup;
use crate::cli::{Global, ListFormat, PsArgs};
use crate::error::{Context, Error, Kind, Result};
use crate::output::print;
use crate::state;

/// Runs the command.
pub fn run(global: &Global, args: &PsArgs) -> Result<()> {
    let state = state::load(&global.root(), args.id())?;
    let pids = Cgroup::open(&state.cgroup)?.pids()?;
    match args.format {
        ListFormat::Json => print(json(&pids).as_bytes()),
        ListFormat::Table => print(filter(&ps(args.options())?, &pids.into_iter().collect())?.as_bytes()),
    }
}

/// What runc prints: no process is null, not an empty list.
fn json(pids: &[i32]) -> String {
    match pids {
        [] => "null\n".to_owned(),
        pids => format!("[{}]\n", pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")),
    }
}

fn ps(options: &[String]) -> Result<String> {
    let mut command = Command::new("ps");
    match options {
        [] => command.arg("-ef"),
        options => command.args(options),
    };
    let output = command.output().on("run", "ps (it must be installed; --format json does without)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::caused(Kind::System, format!("ps ended with {}", output.status), said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines of the given processes.
fn filter(table: &str, pids: &BTreeSet<i32>) -> Result<String> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("ps printed no PID column: choose options with which it does"))?;
    let mut kept = format!("{heading}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        let pid: i32 = pid.ok_or_else(|| {
            Error::new(Kind::System, format!("ps printed a line without a pid in its PID column: {line:?}"))
        })?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_container_stay() {
        let table = "UID          PID  CMD\nroot           1  init\nroot          17  sh -c 1\n\nroot         171  x\n";
        assert_eq!(filter(table, &BTreeSet::from([17])).unwrap(), "UID          PID  CMD\nroot          17  sh -c 1\n");
        assert_eq!(filter("PID\n", &BTreeSet::new()).unwrap(), "PID\n");
        for (table, part) in [("CMD\ninit\n", "no PID column"), ("PID CMD\nx y\n", "\"x y\""), ("", "no PID column")] {
            let error = filter(table, &BTreeSet::new()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn pids_are_a_json_list() {
        assert_eq!((json(&[]).as_str(), json(&[4, 12]).as_str()), ("null\n", "[4,12]\n"));
    }
}
