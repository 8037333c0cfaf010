//! What clap finds wrong, as one sentence with its remedy.

use std::num::{IntErrorKind, ParseIntError};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;

/// `name` is the command's words, empty for what stands before it.
pub(super) fn of(error: &clap::Error, name: &str, usage: &str) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let program = if name.is_empty() { "tarectl".to_owned() } else { format!("tarectl {name}") };
    let flag = flag(&text(ContextKind::InvalidArg));
    let value = text(ContextKind::InvalidValue);
    let lists = format!("{program} --help lists the flags");
    let call = format!("call it as {program} {usage}");
    let what = match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with('-') => match text(ContextKind::SuggestedArg).as_str() {
            "" => format!("{program} has no flag {flag}: {lists}"),
            near => format!("{program} has no flag {flag}, but {}: {lists}", self::flag(near)),
        },
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues => format!("{program} takes no {flag:?} there: {call}"),
        ErrorKind::MissingRequiredArgument => {
            format!("{program} needs {}: {call}", missing(&text(ContextKind::InvalidArg)))
        }
        // Where words of a command are taken as they are: the first of them.
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let first = usage.split_whitespace().find(|it| !it.starts_with('[')).unwrap_or_default();
            format!("{program} needs {}: {call}", missing(first))
        }
        ErrorKind::ArgumentConflict => {
            format!("{flag} and {} exclude each other: leave one out", self::flag(&text(ContextKind::PriorArg)))
        }
        ErrorKind::InvalidValue | ErrorKind::TooFewValues if value.is_empty() => {
            format!("{flag} needs a value: {lists}")
        }
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => format!("{flag} {value:?} is none of {}", valid.join(", ")),
            _ => format!("{flag} cannot be {value:?}: {lists}"),
        },
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            // The standard library's words tell of digits and types.
            Some(cause) if let Some(cause) = cause.downcast_ref::<ParseIntError>() => match cause.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                    format!("{program}: {flag} cannot be {value:?}, which is out of all bounds: give a smaller number")
                }
                _ => format!("{program}: {flag} cannot be {value:?}, which is no whole number: give one, as in 10"),
            },
            Some(cause) => format!("{flag} cannot be {value:?}: {cause}"),
            None => format!("{flag} cannot be {value:?}: {lists}"),
        },
        ErrorKind::WrongNumberOfValues => format!("{flag} is given too often: {call}"),
        ErrorKind::InvalidUtf8 => format!("{program} takes no argument that is not UTF-8: {call}"),
        _ => format!("{program} cannot be called like this: {call}"),
    };
    Error::usage(what)
}

/// `--memory <bytes>` without its value's name.
fn flag(argument: &str) -> String {
    let word = argument.split([' ', '=', '[']).next().unwrap_or_default();
    word.trim_matches(['<', '>']).to_owned()
}

/// `<CONTAINER>... <IMAGE>` as words.
fn missing(arguments: &str) -> String {
    let words: Vec<String> =
        arguments.split_whitespace().map(|it| it.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_owned()).collect();
    let with_article = |word: &String| {
        let word = word.to_lowercase().replace('_', " ");
        format!("{} {word}", if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
    };
    if words.is_empty() { "more".to_owned() } else { words.iter().map(with_article).collect::<Vec<_>>().join(" and ") }
}
