//! `--change`: instructions of a Dockerfile that change an image's configuration and make no layer.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::record::{Config, Health};
use crate::{beneath, paths, units};

/// Applies instructions as in `CMD ["nginx"]`, in their order.
///
/// # Errors
/// One is none, or is not one of those that can be applied so.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<()> {
    changes.iter().try_for_each(|line| one(config, line))
}

fn one(config: &mut Config, line: &str) -> Result<()> {
    let trimmed = line.trim();
    let (name, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
    let rest = rest.trim();
    let wrong = |why: &str| Error::usage(format!("--change {line:?}: {why}"));
    let name = name.to_ascii_uppercase();
    let known = ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "USER", "VOLUME", "WORKDIR"];
    if !known.contains(&name.as_str()) {
        return Err(wrong(&format!(
            "{} is not a valid change command: there are {}",
            name.to_lowercase(),
            known.join(", ")
        )));
    }
    if rest.is_empty() && name != "CMD" && name != "ENTRYPOINT" {
        return Err(wrong(&format!("{name} requires an argument")));
    }
    match name.as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => {
            config.entrypoint = command(rest);
        }
        "ENV" => {
            for (name, value) in
                pairs(rest).ok_or_else(|| wrong("ENV must have two arguments, as in ENV NAME=VALUE"))?
            {
                config.env.retain(|it| it.split('=').next() != Some(name.as_str()));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => {
            let labels = pairs(rest).ok_or_else(|| wrong("LABEL must have two arguments, as in LABEL NAME=VALUE"))?;
            config.labels.extend(labels);
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let well = number.parse::<u16>().is_ok() && matches!(protocol, "tcp" | "udp" | "sctp");
                if !well {
                    return Err(wrong(&format!("{port:?} is no port: give one as in 80 or 53/udp")));
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), json!({}));
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => {
            let from = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
            config.working_dir = paths::text(&beneath::lexical(&Path::new(from).join(rest)));
        }
        "VOLUME" => {
            let places = list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            if places.is_empty() || places.iter().any(String::is_empty) {
                return Err(wrong("VOLUME specified can not be an empty string"));
            }
            let volumes = config.volumes.get_or_insert_default();
            volumes.extend(places.into_iter().map(|it| (it, json!({}))));
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        _ => config.healthcheck = Some(health(rest).map_err(|error| wrong(&error.message))?),
    }
    Ok(())
}

/// The form in brackets: a list of texts.
fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str::<Vec<String>>(text).ok()
}

/// In brackets as it is, otherwise for the shell.
fn command(text: &str) -> Option<Vec<String>> {
    match list(text) {
        Some(words) => Some(words),
        None if text.is_empty() => Some(Vec::new()),
        None => Some(["/bin/sh", "-c", text].map(str::to_owned).to_vec()),
    }
}

/// `name=value name="a value"`, or the old form `name value`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    words.into_iter().map(pair).collect()
}

/// Words as a shell takes them apart: quotes keep blanks, a backslash keeps the next character.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', Some('"') | None) => word.get_or_insert_default().push(characters.next()?),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, Some(open)) if character == open => quote = None,
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn health(text: &str) -> Result<Health> {
    let mut health = Health::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').ok_or_else(|| Error::usage(format!("--{flag} has no value")))?;
        let span = || {
            let span = units::duration(value)?;
            i64::try_from(span.as_nanos()).map_err(|_| Error::usage(format!("--{flag} is too long")))
        };
        match name {
            "interval" => health.interval = span()?,
            "timeout" => health.timeout = span()?,
            "start-period" => health.start_period = span()?,
            "start-interval" => health.start_interval = span()?,
            "retries" => {
                health.retries =
                    value.parse().map_err(|_| Error::usage(format!("--{flag}: {value:?} is no number")))?;
            }
            _ => return Err(Error::usage(format!("unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    health.test = match (kind.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", command) if !command.is_empty() => match list(command) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(Error::usage("HEALTHCHECK is followed by NONE or CMD and a command")),
    };
    Ok(health)
}

/// What an image's configuration says of how its containers are: the object `config` of the OCI image specification, with docker's
/// additions (`Healthcheck`, `OnBuild`, `Shell`).
#[must_use]
pub fn image_config(config: &Config) -> Value {
    let mut all = json!({ "Env": config.env, "Labels": config.labels });
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Object(object) => object.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !empty {
            all[name] = value;
        }
    };
    put("User", json!(config.user));
    put("ExposedPorts", json!(config.exposed_ports));
    put("Entrypoint", json!(config.entrypoint));
    put("Cmd", json!(config.cmd));
    put("Volumes", json!(config.volumes));
    put("WorkingDir", json!(config.working_dir));
    put("StopSignal", json!(config.stop_signal));
    put("Healthcheck", json!(config.healthcheck));
    put("OnBuild", json!(config.on_build));
    put("Shell", json!(config.shell));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<Config> {
        let mut config = Config { env: vec!["A=old".to_owned(), "B=1".to_owned()], ..Config::default() };
        let lines: Vec<String> = lines.iter().map(|it| (*it).to_owned()).collect();
        apply(&mut config, &lines).map(|()| config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = changed(&[
            "ENV A=b C=\"d e\" F=g\\ h",
            "ENV OLD some words",
            "CMD [\"x\", \"y\"]",
            "entrypoint e -v",
            "USER u:g",
            "WORKDIR /w",
            "WORKDIR sub/../x",
            "EXPOSE 80 53/udp",
            "LABEL a=b c='d e'",
            "VOLUME /v /w",
            "VOLUME [\"/z\"]",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl x",
        ])
        .unwrap();
        assert_eq!(config.env, ["B=1", "A=b", "C=d e", "F=g h", "OLD=some words"]);
        assert_eq!(config.cmd.unwrap(), ["x", "y"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "e -v"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u:g", "/w/x"));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.labels["a"].as_str(), config.labels["c"].as_str()), ("b", "d e"));
        assert_eq!(config.volumes.unwrap().keys().collect::<Vec<_>>(), ["/v", "/w", "/z"]);
        assert_eq!(config.on_build, ["RUN x"]);
        let health = config.healthcheck.unwrap();
        assert_eq!(
            (health.test, health.interval, health.retries),
            (vec!["CMD-SHELL".to_owned(), "curl x".to_owned()], 5_000_000_000, 2)
        );
    }

    #[test]
    fn others_are_refused() {
        for (line, why) in [
            ("RUN x", "run is not a valid change command"),
            ("FOO", "foo is not a valid change command"),
            ("", "is not a valid change command"),
            ("ENV A", "two arguments"),
            ("ENV", "requires an argument"),
            ("ENV A='x", "two arguments"),
            ("LABEL a", "two arguments"),
            ("EXPOSE x", "no port"),
            ("EXPOSE 80/icmp", "no port"),
            ("VOLUME []", "empty string"),
            ("HEALTHCHECK curl", "NONE or CMD"),
            ("HEALTHCHECK --interval=x CMD y", "span of time"),
            ("HEALTHCHECK --foo=1 CMD y", "unknown flag"),
        ] {
            let error = changed(&[line]).expect_err(line);
            assert!(error.message.contains(why), "{line}: {error}");
        }
    }
}
