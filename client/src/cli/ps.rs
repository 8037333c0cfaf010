//! `ps`: docker's columns, filters and formats. It asks no store and no shim, but for `-s`.

use serde_json::{Value, json};

use super::args::Ps;
use super::filter::Filters;
use super::output::{self, Format};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::{Container, Map, Status};
use crate::table::shortened;
use crate::time::Time;
use crate::{records, truth, units};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "isolation",
];

const HEADINGS: &[(&str, &str)] = &[
    ("CREATED AT", "CreatedAt"),
    ("STATE", "State"),
    ("LABELS", "Labels"),
    ("MOUNTS", "Mounts"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("NETWORKS", "Networks"),
    ("SIZE", "Size"),
];

/// Lists containers; what cannot be read is told of, and makes the status.
pub(super) async fn run(client: &Client, args: Ps) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    let filters = Filters::parse(&args.filter, &KNOWN)?;
    let records::Listed { records: mut all, damaged } = truth::list(client).await?;
    let code = output::lacking(&damaged);
    all.reverse();
    let chosen = chosen(all, &args, &filters)?;
    if args.quiet {
        let ids: String = chosen.iter().map(|it| format!("{}\n", id(it, args.no_trunc))).collect();
        return output::text(&ids).map(|()| code);
    }
    let mut rows = Vec::with_capacity(chosen.len());
    for record in &chosen {
        let size = if args.size { super::size::of(client, record).await?.to_string() } else { String::new() };
        rows.push(row(record, args.no_trunc, &size));
    }
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
        ("NAMES", "Names"),
    ];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    output::text(&format.list(&columns, HEADINGS, &rows)?).map(|()| code)
}

/// Those that are asked for; the newest first.
fn chosen(all: Vec<Container>, args: &Ps, filters: &Filters) -> Result<Vec<Container>> {
    let last = if args.latest { 1 } else { args.last };
    // Who asks for a state asks also for those that do not run.
    let any_state = args.all || last >= 0 || filters.has("status") || filters.has("exited");
    let bounds = Bounds::of(&all, filters)?;
    for status in filters.values("status") {
        if !["created", "running", "paused", "restarting", "removing", "exited", "dead"].contains(&status.as_str()) {
            return Err(Error::usage(format!(
                "--filter status={status} is no state: there are created, running, paused, restarting, removing, exited and dead"
            )));
        }
    }
    let mut chosen: Vec<Container> =
        all.into_iter().filter(|it| (any_state || is_up(it)) && bounds.hold(it) && matches(it, filters)).collect();
    if let Ok(last) = usize::try_from(last) {
        chosen.truncate(if last == 0 { usize::MAX } else { last });
    }
    Ok(chosen)
}

fn is_up(record: &Container) -> bool {
    matches!(record.state.status, Status::Running | Status::Paused | Status::Restarting)
}

/// `before=` and `since=` another container.
struct Bounds {
    before: Option<Time>,
    since: Option<Time>,
}

impl Bounds {
    fn of(all: &[Container], filters: &Filters) -> Result<Self> {
        let created = |name: &str| match filters.values(name).last() {
            None => Ok(None),
            Some(wanted) => all
                .iter()
                .find(|it| it.name == *wanted || (!wanted.is_empty() && it.id.starts_with(wanted)))
                .map(|it| Some(it.created))
                .ok_or_else(|| records::missing(wanted)),
        };
        Ok(Self { before: created("before")?, since: created("since")? })
    }

    fn hold(&self, record: &Container) -> bool {
        self.before.is_none_or(|it| record.created < it) && self.since.is_none_or(|it| record.created > it)
    }
}

fn matches(record: &Container, filters: &Filters) -> bool {
    let port = |wanted: &str, ports: Vec<&String>| {
        let wanted = if wanted.contains('/') { wanted.to_owned() } else { format!("{wanted}/tcp") };
        ports.into_iter().any(|it| *it == wanted)
    };
    let image = |wanted: &str| {
        let with_tag = if wanted.rsplit('/').next().is_some_and(|it| it.contains([':', '@'])) {
            wanted.to_owned()
        } else {
            format!("{wanted}:latest")
        };
        let id = record.image.id.trim_start_matches("sha256:");
        record.image.reference == wanted
            || record.image.name == with_tag
            || record.image.name.strip_prefix("docker.io/").is_some_and(|it| it == with_tag)
            || record.image.name.strip_prefix("docker.io/library/").is_some_and(|it| it == with_tag)
            || (!wanted.is_empty() && id.starts_with(wanted.trim_start_matches("sha256:")))
    };
    let health = record.state.health.as_ref().map_or("none", |it| it.status.as_str());
    filters.labels(&record.config.labels)
        && filters.matches("id", |it| record.id.starts_with(it))
        && filters.matches("name", |it| {
            record.name.contains(it.trim_start_matches('^').trim_end_matches('$').trim_start_matches('/'))
                && anchored(it, &record.name)
        })
        && filters.matches("status", |it| record.state.status.name() == it)
        && filters
            .matches("exited", |it| record.state.status == Status::Exited && it.parse() == Ok(record.state.exit_code))
        && filters.matches("ancestor", image)
        && filters.matches("health", |it| it == health)
        && filters.matches("network", |it| {
            record.host_config.network_mode == it
                || record
                    .networks
                    .iter()
                    .any(|(name, endpoint)| name == it || (!it.is_empty() && endpoint.network_id.starts_with(it)))
        })
        && filters.matches("volume", |it| {
            record
                .mounts
                .iter()
                .any(|mount| [&mount.name, &mount.source, &mount.destination].iter().any(|have| *have == it))
        })
        && filters.matches("publish", |it| {
            port(it, record.ports.iter().filter(|(_, to)| !to.is_empty()).map(|(port, _)| port).collect())
        })
        && filters.matches("expose", |it| port(it, record.config.exposed_ports.keys().collect()))
        && filters.matches("is-task", |it| it == "false" || it == "0")
}

/// `^` and `$` in a name's filter, which docker's users write.
fn anchored(pattern: &str, name: &str) -> bool {
    let plain = pattern.trim_start_matches('^').trim_end_matches('$').trim_start_matches('/');
    (!pattern.starts_with('^') || name.starts_with(plain)) && (!pattern.ends_with('$') || name.ends_with(plain))
}

fn id(record: &Container, whole: bool) -> &str {
    if whole { &record.id } else { records::short(&record.id) }
}

/// One line, all fields.
pub(super) fn row(record: &Container, whole: bool, size: &str) -> Value {
    let command = command(record);
    let command = format!("\"{}\"", if whole { command } else { shortened(&command, 20) });
    let mounts: Vec<&str> =
        record.mounts.iter().map(|it| if it.name.is_empty() { it.source.as_str() } else { it.name.as_str() }).collect();
    let mounts: Vec<String> =
        mounts.iter().map(|it| if whole { (*it).to_owned() } else { shortened(it, 15) }).collect();
    let networks: Vec<&str> = if record.networks.is_empty() {
        vec![record.host_config.network_mode.as_str()]
    } else {
        record.networks.keys().map(String::as_str).collect()
    };
    let volumes = record.mounts.iter().filter(|it| it.kind == "volume").count();
    json!({
        "ID": id(record, whole),
        "Image": record.config.image,
        "Command": command,
        "CreatedAt": go_time(record.created),
        "RunningFor": format!("{} ago", units::human_duration(record.created.ago())),
        "State": record.state.status.name(),
        "Status": status(record),
        "Ports": super::ports::displayed(record),
        "Names": record.name,
        "Labels": joined(&record.config.labels),
        "LocalVolumes": volumes.to_string(),
        "Mounts": mounts.join(","),
        "Networks": networks.join(","),
        "Size": size,
    })
}

/// What it runs, in one line.
fn command(record: &Container) -> String {
    let words = record.config.entrypoint.iter().flatten().chain(record.config.cmd.iter().flatten());
    let quoted = |word: &String| if word.contains([' ', '\t', '\n']) { format!("'{word}'") } else { word.clone() };
    words.map(quoted).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 hours ago`.
pub(super) fn status(record: &Container) -> String {
    let state = &record.state;
    let ago = |since: Time| units::human_duration(since.ago());
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match state.health.as_ref().map(|it| it.status.as_str()) {
            Some("starting") => format!("Up {} (health: starting)", ago(state.started_at)),
            Some(health @ ("healthy" | "unhealthy")) => format!("Up {} ({health})", ago(state.started_at)),
            _ => format!("Up {}", ago(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ago(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished_at)),
        Status::Dead => "Dead".to_owned(),
    }
}

/// As Go prints a time in UTC: `2026-11-29 08:20:05 +0000 UTC`.
pub(super) fn go_time(time: Time) -> String {
    let text = time.to_string();
    let (date, clock) = text.split_once('T').unwrap_or((&text, ""));
    let clock = clock.trim_end_matches('Z').split('.').next().unwrap_or_default();
    format!("{date} {clock} +0000 UTC")
}

/// As [`go_time`], to the nanosecond.
pub(super) fn go_time_exact(time: Time) -> String {
    let text = time.to_string();
    let (date, clock) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} +0000 UTC", clock.trim_end_matches('Z'))
}

/// `a=1,b=2`.
pub(super) fn joined(labels: &Map) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[path = "ps_tests.rs"]
mod tests;
