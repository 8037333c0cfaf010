//! `org.systemd.property.NAME: VALUE` among the annotations: further properties of the container's unit.

use std::collections::HashMap;

use super::{Property, text};
use crate::dbus::Value;
use crate::error::{Error, Result};

/// What such annotations begin with.
const PREFIX: &str = "org.systemd.property.";
/// What `linux.cgroupsPath` and the runtime itself decide.
const OURS: [&str; 2] = ["Slice", "PIDs"];

/// The properties that annotations ask for, in the order of their names.
pub(super) fn lower(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut asked: Vec<(&str, &str, &str)> = annotations
        .iter()
        .filter_map(|(key, value)| Some((key.as_str(), key.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    asked.sort_unstable();
    asked.into_iter().map(|(key, name, value)| one(key, name, value)).collect()
}

fn one(key: &str, name: &str, value: &str) -> Result<Property> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(Error::invalid(format!(
            "the annotation {key:?} names no property of systemd: give a name of three letters or more, such as {PREFIX}CollectMode"
        )));
    }
    if OURS.contains(&name) {
        return Err(Error::invalid(format!(
            "the annotation {key:?} cannot be set: linux.cgroupsPath says which slice and scope, and the runtime which process"
        )));
    }
    let wrong = |why: String| Error::invalid(format!("the annotation {key:?} has the value {value:?}: {why}"));
    let value = text::parse(value).map_err(wrong)?;
    // Unit files have seconds (TimeoutStopSec=), the bus has microseconds (TimeoutStopUSec).
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|letter: char| letter.is_ascii_lowercase())) {
        Some(stem) => {
            let value = microseconds(&value)
                .ok_or_else(|| wrong("give a number of seconds, from 0 on, such as uint64 30".to_owned()))?;
            Ok(Property::new(format!("{stem}USec"), Value::U64(value)))
        }
        None => Ok(Property::new(name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        Value::Byte(number) => u64::from(number),
        Value::I16(number) => u64::try_from(number).ok()?,
        Value::U16(number) => u64::from(number),
        Value::I32(number) => u64::try_from(number).ok()?,
        Value::U32(number) => u64::from(number),
        Value::I64(number) => u64::try_from(number).ok()?,
        Value::U64(number) => number,
        // Beyond 2^53 microseconds, which are 285 years, digits are lost.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::Double(number) => return (0.0..1e12).contains(&number).then(|| (number * 1e6).round() as u64),
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(key: &str, value: &str) -> Result<Vec<Property>> {
        lower(&HashMap::from([(key.to_owned(), value.to_owned()), ("other".to_owned(), "x".to_owned())]))
    }

    #[test]
    fn an_annotation_is_a_property() {
        for (name, text, expected, value) in [
            ("CollectMode", "'inactive'", "CollectMode", Value::text("inactive")),
            ("TimeoutStopSec", "uint64 30", "TimeoutStopUSec", Value::U64(30_000_000)),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::U64(1_500_000)),
            ("TimeoutStopSec", "7", "TimeoutStopUSec", Value::U64(7_000_000)),
            ("TimeoutStopUSec", "uint64 30", "TimeoutStopUSec", Value::U64(30)),
            ("CPUQuotaPerSecUSec", "uint64 5", "CPUQuotaPerSecUSec", Value::U64(5)),
            // No lower-case letter before: nothing to convert.
            ("CPUSec", "uint64 5", "CPUSec", Value::U64(5)),
        ] {
            let properties = lowered(&format!("org.systemd.property.{name}"), text).unwrap();
            assert_eq!(properties, [Property::new(expected.to_owned(), value)], "{name}");
        }
        assert_eq!(lowered("org.systemd.propertyX", "1").unwrap(), []);
    }

    #[test]
    fn a_wrong_one_is_told_by_its_name() {
        for (name, text, part) in [
            ("", "1", "names no property of systemd"),
            ("Ab", "1", "names no property of systemd"),
            ("A.b.c", "1", "names no property of systemd"),
            ("Slice", "'x.slice'", "linux.cgroupsPath says which slice"),
            ("PIDs", "[1]", "which process"),
            ("CollectMode", "inactive", "has the value \"inactive\": \"inactive\" is no value: write text in quotes"),
            ("TimeoutStopSec", "'30'", "give a number of seconds"),
            ("TimeoutStopSec", "-1", "give a number of seconds"),
            ("TimeoutStopSec", "nan", "give a number of seconds"),
            ("TimeoutStopSec", "uint64 18446744073709551615", "give a number of seconds"),
        ] {
            let error = lowered(&format!("org.systemd.property.{name}"), text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(name), "{name}: {error}");
        }
    }
}
