//! `inspect`: docker's field names and shape.

mod container;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use super::args::Inspect;
use super::output;
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::template::Template;

/// `inspect NAME…`: of any kind, containers first.
pub(super) async fn any(client: &Client, args: Inspect) -> Result<u8> {
    let kinds: Vec<&str> = match args.kind.as_deref() {
        None => vec!["container", "image", "network", "volume"],
        Some(kind @ ("container" | "image" | "network" | "volume")) => vec![kind],
        Some(other) => {
            return Err(Error::usage(format!(
                "--type {other:?} is none: there are container, image, network and volume"
            )));
        }
    };
    if args.size && !kinds.contains(&"container") {
        return Err(Error::usage("--size is of containers alone: leave it or --type out"));
    }
    show(client, &args.format, &args.names, &kinds, args.size).await
}

/// `container inspect NAME…`.
pub(super) async fn containers(client: &Client, args: Inspect) -> Result<u8> {
    show(client, &args.format, &args.names, &["container"], args.size).await
}

/// What is there is shown, what is not is told of.
pub(super) async fn show(client: &Client, format: &str, names: &[String], kinds: &[&str], size: bool) -> Result<u8> {
    let template = match format {
        "" | "json" => None,
        template => Some(Template::parse(template)?),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for name in names {
        match one(client, name, kinds, size).await {
            Ok(shown) => found.push(shown),
            Err(error) => {
                output::complain(&error);
                code = error.exit_code();
            }
        }
    }
    let text = match template {
        None if format == "json" => {
            format!("[{}]\n", found.iter().map(|it| it.plain.as_str()).collect::<Vec<_>>().join(","))
        }
        None => list(&found),
        Some(template) => {
            let mut lines = String::new();
            for shown in &found {
                lines.push_str(&template.run(&shown.value)?);
                lines.push('\n');
            }
            lines
        }
    };
    output::text(&text).map(|()| code)
}

/// One thing, in the two forms that are needed.
struct Shown {
    /// For templates.
    value: Value,
    /// With docker's order of fields, in one line.
    plain: String,
    /// The same, indented.
    pretty: String,
}

impl Shown {
    fn of(object: &impl Serialize) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::failed(format!("write what is known as JSON: {error}"));
        let mut pretty = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        object.serialize(&mut serde_json::Serializer::with_formatter(&mut pretty, formatter)).map_err(wrong)?;
        Ok(Self {
            value: serde_json::to_value(object).map_err(wrong)?,
            plain: serde_json::to_string(object).map_err(wrong)?,
            pretty: String::from_utf8_lossy(&pretty).into_owned(),
        })
    }
}

/// A list as docker indents it.
fn list(found: &[Shown]) -> String {
    if found.is_empty() {
        return "[]\n".to_owned();
    }
    let items: Vec<String> = found.iter().map(|it| format!("    {}", it.pretty.replace('\n', "\n    "))).collect();
    format!("[\n{}\n]\n", items.join(",\n"))
}

async fn one(client: &Client, name: &str, kinds: &[&str], size: bool) -> Result<Shown> {
    for kind in kinds {
        let shown = match *kind {
            "container" => container::shown(client, name, size).await,
            "image" => crate::image::inspect::document(client, name).await.and_then(|it| Shown::of(&it)),
            "network" => crate::network::inspect(client, name).and_then(|it| Shown::of(&it)),
            _ => crate::volumes::inspect(client, name).await.and_then(|it| Shown::of(&it)),
        };
        match shown {
            Err(error) if error.kind == Kind::NotFound && kinds.len() > 1 => {}
            shown => return shown,
        }
    }
    Err(Error::not_found(format!(
        "there is no container, image, network or volume {name:?}: tarectl ps -a and tarectl images list what there is"
    )))
}
