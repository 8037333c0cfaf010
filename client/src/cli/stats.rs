//! `stats`: what containers use, as docker's table has it; live, or once.

mod sample;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use self::sample::Sample;
use super::args::Stats;
use super::output::{self, Format};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::record::{Container, Status};
use crate::records::{self, Listed};
use crate::shim::Shim;
use crate::{truth, units};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

const COLUMNS: &[(&str, &str)] = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// Prints it, until it is interrupted.
pub(super) async fn run(client: &Client, args: Stats) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    for name in &args.containers {
        truth::find(client, name).await?;
    }
    let (mut before, damaged) = look(client, &args).await?;
    // Once: what is shown is shown anew each time.
    let code = output::lacking(&damaged);
    let clears = !args.no_stream && matches!(format, Format::Table | Format::TableOf(..));
    loop {
        // Shares of CPU time are of the time between two looks.
        tokio::time::sleep(INTERVAL).await;
        let (now, _) = look(client, &args).await?;
        let rows: Vec<Value> = now
            .iter()
            .map(|it| row(it, before.iter().find(|old| old.record.id == it.record.id), args.no_trunc))
            .collect();
        let table = format.list(COLUMNS, &[("CONTAINER", "Container")], &rows)?;
        // Home, each line to its end, and what was below: nothing flickers.
        let clear = |text: &str| format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
        output::text(&if clears { clear(&table) } else { table })?;
        if args.no_stream {
            return Ok(code);
        }
        before = now;
    }
}

/// A container with what it uses; nothing if it does not run.
struct Seen {
    record: Container,
    sample: Option<Sample>,
}

/// Those that are asked for, and what is wrong with those that may be among them.
async fn look(client: &Client, args: &Stats) -> Result<(Vec<Seen>, Vec<(String, Error)>)> {
    let (mut wanted, mut damaged) = (Vec::new(), Vec::new());
    for name in &args.containers {
        match truth::find(client, name).await {
            Ok(record) => wanted.push(record),
            // It went away while it was looked at.
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if args.containers.is_empty() {
        Listed { records: wanted, damaged } = truth::list(client).await?;
        wanted.reverse();
        wanted.retain(|it| args.all || it.state.pid > 0);
    }
    // All shims are asked at once.
    let tasks: HashMap<String, _> = wanted
        .iter()
        .filter(|it| matches!(it.state.status, Status::Running | Status::Paused))
        .map(|record| (record.id.clone(), tokio::task::spawn_local(sample_of(record.clone()))))
        .collect();
    let mut tasks = tasks;
    let mut all = Vec::with_capacity(wanted.len());
    for record in wanted {
        let sample = match tasks.remove(&record.id) {
            None => None,
            // One that has just ended has nothing to show.
            Some(task) => {
                task.await.map_err(|error| Error::failed(format!("count for {}: {error}", record.name)))?.ok()
            }
        };
        all.push(Seen { record, sample });
    }
    Ok((all, damaged))
}

async fn sample_of(record: Container) -> Result<Sample> {
    let shim = Shim::of(&record).await?;
    let metrics = shim.stats().await?;
    sample::of(&metrics, record.state.pid)
}

fn row(seen: &Seen, before: Option<&Seen>, whole: bool) -> Value {
    let record = &seen.record;
    let id = if whole { record.id.clone() } else { records::short(&record.id).to_owned() };
    let Some(now) = &seen.sample else {
        return json!({
            "ID": id, "Container": id, "Name": record.name, "CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--",
            "NetIO": "--", "BlockIO": "--", "PIDs": "--",
        });
    };
    let cpu = before.and_then(|it| it.sample.as_ref()).map_or(0.0, |before| now.cpu_since(before));
    let limit = now.limit(record.host_config.memory);
    #[allow(clippy::cast_precision_loss)]
    let share = if limit == 0 { 0.0 } else { now.memory as f64 / limit as f64 * 100.0 };
    json!({
        "ID": id,
        "Container": id,
        "Name": record.name,
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": format!("{} / {}", units::human_memory(now.memory), units::human_memory(limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": pair(now.received, now.sent),
        "BlockIO": pair(now.read, now.written),
        "PIDs": now.pids.to_string(),
    })
}

fn pair(one: u64, other: u64) -> String {
    format!("{} / {}", units::human_size_short(one), units::human_size_short(other))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_line_has_dockers_fields() {
        let record = Container { id: "ab".repeat(32), name: "web".to_owned(), ..Container::default() };
        let at = Instant::now();
        let sample = |seconds: u64, cpu: u64| Sample {
            at: at + Duration::from_secs(seconds),
            cpu,
            memory: 2 << 20,
            received: 1040,
            pids: 3,
            ..Sample::empty(at)
        };
        let mut limited = record.clone();
        limited.host_config.memory = 64 << 20;
        let before = Seen { record: limited.clone(), sample: Some(sample(0, 0)) };
        let now = Seen { record: limited, sample: Some(sample(2, 1_000_000_000)) };
        let row = row(&now, Some(&before), false);
        for (field, expected) in [
            ("ID", "abababababab"),
            ("CPUPerc", "50.00%"),
            ("MemUsage", "2MiB / 64MiB"),
            ("MemPerc", "3.12%"),
            ("NetIO", "1.04kB / 0B"),
            ("BlockIO", "0B / 0B"),
            ("PIDs", "3"),
        ] {
            assert_eq!(row[field], expected, "{field}");
        }
        let stopped = super::row(&Seen { record, sample: None }, None, true);
        assert_eq!((stopped["CPUPerc"].as_str(), stopped["MemUsage"].as_str()), (Some("--"), Some("-- / --")));
    }
}
