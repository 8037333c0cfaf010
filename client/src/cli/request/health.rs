//! `--health-cmd` and its kin.

use crate::cli::flags::Health as Flags;
use crate::error::{Error, Result};
use crate::record::Health;
use crate::units;

/// What the flags say of checks; none: as the image says.
pub(super) fn check(flags: &Flags) -> Result<Option<Health>> {
    let times =
        [&flags.health_interval, &flags.health_timeout, &flags.health_start_period, &flags.health_start_interval];
    let any = flags.health_cmd.is_some() || flags.health_retries.is_some() || times.iter().any(|it| it.is_some());
    if flags.no_healthcheck {
        if any {
            return Err(Error::usage(
                "--no-healthcheck and the other --health flags exclude each other: leave one out",
            ));
        }
        return Ok(Some(Health { test: vec!["NONE".to_owned()], ..Health::default() }));
    }
    if !any {
        return Ok(None);
    }
    let test = match &flags.health_cmd {
        Some(command) if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.clone()],
        _ => Vec::new(),
    };
    let retries = flags.health_retries.unwrap_or(0);
    if retries < 0 {
        return Err(Error::usage(format!("--health-retries {retries} is less than 0: 3 is usual")));
    }
    Ok(Some(Health {
        test,
        interval: span("--health-interval", flags.health_interval.as_deref())?,
        timeout: span("--health-timeout", flags.health_timeout.as_deref())?,
        start_period: span("--health-start-period", flags.health_start_period.as_deref())?,
        start_interval: span("--health-start-interval", flags.health_start_interval.as_deref())?,
        retries,
    }))
}

/// In nanoseconds: nothing, or a millisecond at least.
fn span(flag: &str, given: Option<&str>) -> Result<i64> {
    let Some(text) = given else { return Ok(0) };
    let span = units::duration(text).map_err(|error| error.within(flag))?;
    let nanoseconds = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    if (1..1_000_000).contains(&nanoseconds) {
        return Err(Error::usage(format!("{flag} {text} is less than a millisecond: give more")));
    }
    Ok(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_docker_reads_them() {
        assert_eq!(check(&Flags::default()).unwrap(), None);
        let flags = Flags {
            health_cmd: Some("curl -f http://localhost".to_owned()),
            health_interval: Some("1m30s".to_owned()),
            health_retries: Some(5),
            ..Flags::default()
        };
        let read = check(&flags).unwrap().unwrap();
        assert_eq!(read.test, ["CMD-SHELL", "curl -f http://localhost"]);
        assert_eq!((read.interval, read.retries, read.timeout), (90_000_000_000, 5, 0));
        let none = check(&Flags { no_healthcheck: true, ..Flags::default() }).unwrap().unwrap();
        assert_eq!(none.test, ["NONE"]);
        for wrong in [
            Flags { no_healthcheck: true, health_retries: Some(1), ..Flags::default() },
            Flags { health_retries: Some(-1), ..Flags::default() },
            Flags { health_timeout: Some("5".to_owned()), ..Flags::default() },
            Flags { health_timeout: Some("5us".to_owned()), ..Flags::default() },
        ] {
            check(&wrong).unwrap_err();
        }
    }
}
