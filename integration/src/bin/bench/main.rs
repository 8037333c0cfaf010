//! Times runtimes side by side. `integration/bench` builds and calls it.
//!
//! Every round does the same thing with each contender in turn, so that what else the machine does falls on all alike; a
//! figure is the median of its rounds, and what counts is the ratio. The benchmark is single-threaded and small: its own
//! share in starting a program (a vfork) is the same for all, and counts for the floor too.
#![allow(clippy::disallowed_methods)]

mod clients;
mod contender;
mod measure;
mod shims;
mod stores;
mod table;

use std::process::ExitCode;

use contender::Contender;
use table::Table;

/// The groups by name, in the order of the report, and the rounds each needs for a quiet median.
const GROUPS: &[(&str, Group, usize)] = &[
    ("run", measure::run, 60),
    ("life", measure::life, 40),
    ("many", measure::many, 5),
    ("mounts", measure::mounts, 7),
    ("seccomp", measure::seccomp, 15),
    ("memory", measure::memory, 5),
    ("size", measure::size, 1),
    ("shim-memory", shims::memory, 1),
    ("shim-life", shims::life, 30),
    ("shim-stream", shims::stream, 5),
    ("shim-many", shims::many, 1),
];

/// Those of stores, which have contenders of their own.
const STORE_GROUPS: &[(&str, StoreGroup, usize)] =
    &[("store-pull", stores::pull, 3), ("store-calls", stores::calls, 3)];

/// Those of clients.
const CLIENT_GROUPS: &[(&str, StoreGroup, usize)] =
    &[("client-run", clients::run, 20), ("client-idle", clients::idle, 20)];

type StoreGroup = fn(usize, &mut Table);
type Group = fn(&[Contender], usize, &mut Table);

/// Whether the group is the one wanted, or one of those: `shim` is all of `shim-…`.
fn is_in(group: &str, wanted: &str) -> bool {
    group.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn all_names() -> impl Iterator<Item = &'static str> {
    let whole = STORE_GROUPS.iter().chain(CLIENT_GROUPS).map(|(name, ..)| *name);
    GROUPS.iter().map(|(name, ..)| *name).chain(whole)
}

fn main() -> ExitCode {
    let mut names: Vec<String> = Vec::new();
    let mut json = false;
    let mut rounds = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = true,
            "--runs" => rounds = args.next().and_then(|text| text.parse::<usize>().ok()).filter(|n| *n > 0),
            name if all_names().any(|group| is_in(group, name)) => names.push(arg),
            _ => {
                let known: Vec<_> = all_names().collect();
                eprintln!("bench [{}] [--json] [--runs N]", known.join("|"));
                return ExitCode::from(2);
            }
        }
    }
    contender::prepare();
    let contenders = contender::all();
    let mut table = Table::new(contenders.iter().map(|contender| contender.name.clone()).collect());
    for (name, group, usual) in GROUPS {
        if names.is_empty() || names.iter().any(|wanted| is_in(name, wanted)) {
            eprintln!("measuring {name} …");
            group(&contenders, rounds.unwrap_or(*usual), &mut table);
        }
    }
    let mut stores = Table::new(stores::CONTENDERS.map(str::to_owned).to_vec());
    for (name, group, usual) in STORE_GROUPS {
        if names.is_empty() || names.iter().any(|wanted| is_in(name, wanted)) {
            eprintln!("measuring {name} …");
            group(rounds.unwrap_or(*usual), &mut stores);
        }
    }
    let mut clients = Table::new(clients::CONTENDERS.map(str::to_owned).to_vec());
    for (name, group, usual) in CLIENT_GROUPS {
        if names.is_empty() || names.iter().any(|wanted| is_in(name, wanted)) {
            eprintln!("measuring {name} …");
            group(rounds.unwrap_or(*usual), &mut clients);
        }
    }
    let tables: Vec<&Table> = [&table, &stores, &clients].into_iter().filter(|table| !table.is_empty()).collect();
    if json {
        let rows: Vec<_> = tables.iter().flat_map(|table| table.rows()).collect();
        println!("{}", serde_json::Value::Array(rows));
    } else {
        tables.iter().for_each(|table| print!("{table}"));
    }
    ExitCode::SUCCESS
}
