//! Help in docker's manner.

use std::fmt::Write;

use clap::{Arg, ArgAction};

use super::commands::{self, Entry, GROUPS};
use super::{globals, output};
use crate::error::{Error, Result};

/// What the program is.
pub(super) const ABOUT: &str = "Containers in docker's words, without docker's daemon";

/// Descriptions are wrapped at this column.
const WIDTH: usize = 100;

/// Prints the help of the program, of a management word, or of a command.
pub(super) fn print(words: &[String]) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).take_while(|it| !it.starts_with('-')).collect();
    let text = match words[..] {
        [] => program(),
        [group] if GROUPS.iter().any(|(name, _)| *name == group) => self::group(group),
        _ => match commands::find(&words.iter().map(Into::into).collect::<Vec<_>>())? {
            commands::Found::Entry(entry, name) => command(entry, name),
            commands::Found::Group(name) => self::group(name),
        },
    };
    output::text(&text).map(|()| 0)
}

fn program() -> String {
    let mut out = format!("Usage:  tarectl [OPTIONS] COMMAND\n\n{ABOUT}\n\nCommands:\n");
    let names = commands::ENTRIES
        .iter()
        .filter(|it| !it.hidden)
        .flat_map(|entry| entry.words.iter().map(move |it| (*it, entry.about)));
    let mut names: Vec<(&str, &str)> = names.filter(|(name, _)| !name.contains(' ')).collect();
    names.sort_unstable();
    names_in(&mut out, &names);
    out.push_str("\nManagement Commands:\n");
    names_in(&mut out, GROUPS);
    options(&mut out, &globals::definition(), "Global Options:");
    out.push_str("\nRun 'tarectl COMMAND --help' for more of a command.\n");
    out
}

fn group(group: &str) -> String {
    let about = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, about)| about);
    let mut out = format!("Usage:  tarectl {group} COMMAND\n\n{about}\n\nCommands:\n");
    let mut names: Vec<(&str, &str)> = commands::of_group(group).map(|(name, _, entry)| (name, entry.about)).collect();
    names.sort_unstable();
    names_in(&mut out, &names);
    let _ = write!(out, "\nRun 'tarectl {group} COMMAND --help' for more of a command.\n");
    out
}

/// The help of one command, under the name it was called by.
pub(super) fn command(entry: &Entry, name: &'static str) -> String {
    let mut out = format!("Usage:  tarectl {name} {}\n\n{}\n", entry.usage, entry.about);
    if entry.words.len() > 1 {
        let words: Vec<String> = entry.words.iter().map(|it| format!("tarectl {it}")).collect();
        let _ = write!(out, "\nAliases:\n  {}\n", words.join(", "));
    }
    options(&mut out, &entry.definition(name), "Options:");
    out
}

fn names_in(out: &mut String, names: &[(&str, &str)]) {
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in names {
        let _ = writeln!(out, "  {name:width$}  {about}");
    }
}

fn options(out: &mut String, definition: &clap::Command, title: &str) {
    let mut all: Vec<(String, String)> = definition
        .get_arguments()
        .filter(|it| !it.is_positional() && !it.is_hide_set())
        .map(|it| (flag(it), about(it)))
        .collect();
    if all.is_empty() {
        return;
    }
    all.sort_by(|(one, _), (other, _)| one[6..].cmp(&other[6..]));
    let width = all.iter().map(|(flag, _)| flag.chars().count()).max().unwrap_or(0);
    let _ = write!(out, "\n{title}\n");
    for (flag, about) in &all {
        let mut lines = wrapped(about, WIDTH.saturating_sub(width + 5).max(30)).into_iter();
        let _ = writeln!(out, "  {flag:width$}   {}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "  {:width$}   {line}", "");
        }
    }
}

/// `-e, --env list`.
fn flag(arg: &Arg) -> String {
    let short = arg.get_short().map_or_else(|| "    ".to_owned(), |it| format!("-{it}, "));
    let value = arg.get_value_names().and_then(<[_]>::first).map_or("", |it| it.as_str());
    // A switch's value is not named: it is true without.
    let value =
        if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Help) || is_switch(arg) { "" } else { value };
    let long = arg.get_long().unwrap_or_default();
    format!("{short}--{long} {value}").trim_end().to_owned()
}

fn is_switch(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|it| it.min_values() == 0)
}

fn about(arg: &Arg) -> String {
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = arg.get_default_values().first().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    match default.as_str() {
        "" | "false" | "-1" => text,
        "true" => format!("{text} (default true)"),
        other => format!("{text} (default {other:?})"),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one at least");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// The help that is asked for as `help WORDS`.
pub(super) fn none(words: &str) -> Error {
    Error::usage(format!("there is no command {words:?}: tarectl --help lists them"))
}
