//! `events`: what happened, and what happens.

use std::time::Duration;

use super::args::Events;
use super::filter::Filters;
use super::output;
use crate::client::Client;
use crate::error::Result;
use crate::events::{Event, Reader};
use crate::template::Template;
use crate::time::Time;
use crate::watch::Watch;

const KNOWN: [&str; 9] = ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

/// How an event is printed.
enum Shape {
    Line,
    Json,
    Template(Template),
}

/// Prints them. Without --until it ends with its caller.
pub(super) async fn run(client: &Client, args: Events) -> Result<u8> {
    let shape = match args.format.as_str() {
        "" => Shape::Line,
        "json" | "{{json .}}" => Shape::Json,
        template => Shape::Template(Template::parse(template)?),
    };
    let filters = Filters::parse(&args.filter, &KNOWN)?;
    let bound = |text: &Option<String>| text.as_deref().map(Time::parse).transpose();
    let (since, until) = (bound(&args.since)?, bound(&args.until)?);
    // Watched before it is read: nothing comes between.
    crate::disk::make_private(&client.paths.root)?;
    let mut watch = Watch::new(&client.paths.root)?;
    let (past, mut reader) = Reader::open(&client.paths)?;
    let print = |events: &[Event]| -> Result<()> {
        let wanted = events.iter().filter(|it| until.is_none_or(|until| moment(it) <= until) && matches(it, &filters));
        output::text(&wanted.map(|it| shape.text(it)).collect::<Result<String>>()?)
    };
    // Without --since only what comes is of interest, but with --until alone: then all up to it.
    let from = since.or_else(|| until.map(|_| Time::since_epoch(0, 0)));
    if let Some(from) = from {
        let past: Vec<Event> = past.into_iter().filter(|it| moment(it) >= from).collect();
        print(&past)?;
    }
    let mut coming = Vec::new();
    loop {
        let left = until.map(left_until);
        if left == Some(Duration::ZERO) {
            return Ok(0);
        }
        let more = async {
            match left {
                Some(left) => tokio::time::timeout(left, watch.changed()).await.unwrap_or(Ok(())),
                None => watch.changed().await,
            }
        };
        more.await?;
        coming.clear();
        reader.more(&mut coming)?;
        print(&coming)?;
    }
}

fn moment(event: &Event) -> Time {
    let (seconds, rest) = (event.time_nano.div_euclid(1_000_000_000), event.time_nano.rem_euclid(1_000_000_000));
    Time::since_epoch(seconds, u32::try_from(rest).unwrap_or(0))
}

fn left_until(until: Time) -> Duration {
    let nanoseconds = |it: Time| it.nanoseconds().unwrap_or(0);
    let left = nanoseconds(until) - nanoseconds(Time::now());
    Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let names = |kind: &str, wanted: &str| {
        let name = event.actor.attributes.get("name").map_or("", String::as_str);
        let about = event.kind == kind && (event.actor.id == wanted || name == wanted)
            || event.kind == kind
                && wanted.len() >= 4
                && event.actor.id.trim_start_matches("sha256:").starts_with(wanted);
        about || event.actor.attributes.get(kind).is_some_and(|it| it == wanted)
    };
    filters.matches("type", |it| it == event.kind)
        && filters.matches("event", |it| event.action == it || event.action.split(':').next() == Some(it))
        && filters.matches("scope", |it| it == event.scope)
        && filters.matches("daemon", |_| false)
        && filters.labels(&event.actor.attributes)
        && ["container", "image", "network", "volume"].iter().all(|kind| filters.matches(kind, |it| names(kind, it)))
}

impl Shape {
    fn text(&self, event: &Event) -> Result<String> {
        let json = || serde_json::to_value(event).unwrap_or_default();
        Ok(match self {
            Self::Line => line(event),
            Self::Json => format!("{}\n", serde_json::to_string(event).unwrap_or_default()),
            Self::Template(template) => {
                let mut value = json();
                // Docker's templates know these by other names.
                for (name, alias) in [
                    ("status", "Status"),
                    ("id", "ID"),
                    ("from", "From"),
                    ("scope", "Scope"),
                    ("time", "Time"),
                    ("timeNano", "TimeNano"),
                ] {
                    let have = value.get(name).cloned().unwrap_or_else(|| "".into());
                    value[alias] = have;
                }
                format!("{}\n", template.run(&value)?)
            }
        })
    }
}

/// `2026-11-29T08:20:05.9986Z container start <id> (image=box, name=two)`.
fn line(event: &Event) -> String {
    let at = moment(event);
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{at} {} {} {}{attributes}\n", event.kind, event.action, event.actor.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Actor;

    fn event() -> Event {
        let attributes = [("image", "box"), ("name", "two"), ("exitCode", "3")];
        Event {
            status: "die".to_owned(),
            id: "ab12".repeat(16),
            kind: "container".to_owned(),
            action: "die".to_owned(),
            actor: Actor {
                id: "ab12".repeat(16),
                attributes: attributes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            },
            scope: "local".to_owned(),
            time: 1_795_940_405,
            time_nano: 1_795_940_405_998_618_894,
            ..Event::default()
        }
    }

    #[test]
    fn events_are_printed_as_docker_prints_them() {
        let expected = format!(
            "2026-11-29T08:20:05.998618894Z container die {} (exitCode=3, image=box, name=two)\n",
            "ab12".repeat(16)
        );
        assert_eq!(Shape::Line.text(&event()).unwrap(), expected);
        let template = Template::parse("{{.Type}} {{.Action}} {{.Status}} {{.Actor.Attributes.exitCode}}").unwrap();
        assert_eq!(Shape::Template(template).text(&event()).unwrap(), "container die die 3\n");
        assert!(Shape::Json.text(&event()).unwrap().contains("\"timeNano\":1795940405998618894"));
    }

    #[test]
    fn filters_choose() {
        for (filters, expected) in [
            (&["type=container"][..], true),
            (&["type=volume"], false),
            (&["event=die", "event=start"], true),
            (&["container=two"], true),
            (&["container=ab12"], true),
            (&["container=three"], false),
            (&["image=box"], true),
            (&["volume=data"], false),
            (&["label=name=two"], true),
        ] {
            let texts: Vec<String> = filters.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(matches(&event(), &Filters::parse(&texts, &KNOWN).unwrap()), expected, "{filters:?}");
        }
    }
}
