//! Limits: `--memory`, `--cpus` and so on, for `run`, `create` and `update`.

use crate::cli::flags::Resources;
use crate::error::{Error, Result};
use crate::record::{HostConfig, Ulimit};
use crate::spec::ULIMITS;
use crate::units;

/// The least memory that docker lets a container have.
const LEAST_MEMORY: i64 = 6 << 20;

/// Puts what was said over what is there, and looks whether the whole makes sense.
pub(in crate::cli) fn apply(flags: &Resources, to: &mut HostConfig) -> Result<()> {
    memory(flags, to)?;
    cpus(flags, to)?;
    if let Some(weight) = flags.blkio_weight {
        if weight != 0 && !(10..=1000).contains(&weight) {
            return Err(Error::usage(format!("--blkio-weight {weight} is not from 10 to 1000, nor 0 for none")));
        }
        to.blkio_weight = weight;
    }
    if let Some(limit) = flags.pids_limit {
        if limit < -1 {
            return Err(Error::usage(format!("--pids-limit {limit} is no number of processes: -1 is no limit")));
        }
        to.pids_limit = limit;
    }
    Ok(())
}

fn memory(flags: &Resources, to: &mut HostConfig) -> Result<()> {
    let size = |name: &str, text: &str| units::bytes(text).map_err(|error| error.within(name));
    if let Some(text) = &flags.memory {
        to.memory = size("--memory", text)?;
        if to.memory > 0 && to.memory < LEAST_MEMORY {
            return Err(Error::usage(format!("--memory {text} is less than 6m, with which nothing runs: give more")));
        }
    }
    if let Some(text) = &flags.memory_swap {
        to.memory_swap = if text == "-1" { -1 } else { size("--memory-swap", text)? };
    }
    if let Some(text) = &flags.memory_reservation {
        to.memory_reservation = size("--memory-reservation", text)?;
        if to.memory_reservation > 0 && to.memory_reservation < LEAST_MEMORY {
            return Err(Error::usage(format!("--memory-reservation {text} is less than 6m: give more")));
        }
    }
    if to.memory_swap > 0 && to.memory == 0 {
        return Err(Error::usage("--memory-swap is memory and swap together, and needs --memory too"));
    }
    if to.memory > 0 && to.memory_swap == 0 {
        // As docker: as much swap as memory.
        to.memory_swap = to.memory.saturating_mul(2);
    }
    if to.memory_swap > 0 && to.memory_swap < to.memory {
        return Err(Error::usage(format!(
            "the limit of memory and swap together ({}) is less than that of memory ({}): give --memory-swap as well, at least as much",
            units::human_memory(to.memory_swap.unsigned_abs()),
            units::human_memory(to.memory.unsigned_abs())
        )));
    }
    if to.memory > 0 && to.memory_reservation > to.memory {
        return Err(Error::usage("--memory-reservation is more than --memory: give less"));
    }
    Ok(())
}

fn cpus(flags: &Resources, to: &mut HostConfig) -> Result<()> {
    if let Some(text) = &flags.cpus {
        let nano = nano_cpus(text)?;
        let have = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
        if nano != 0 && !(10_000_000..=have * 1_000_000_000).contains(&nano) {
            return Err(Error::usage(format!(
                "--cpus {text} is not from 0.01 to {have}.00: this host has {have} CPUs"
            )));
        }
        to.nano_cpus = nano;
    }
    if let Some(period) = flags.cpu_period {
        if period != 0 && !(1000..=1_000_000).contains(&period) {
            return Err(Error::usage(format!("--cpu-period {period} is not from 1000 to 1000000 microseconds")));
        }
        to.cpu_period = period;
    }
    if let Some(quota) = flags.cpu_quota {
        if quota > 0 && quota < 1000 {
            return Err(Error::usage(format!(
                "--cpu-quota {quota} is less than 1000 microseconds: give more, or -1 for no limit"
            )));
        }
        to.cpu_quota = quota;
    }
    if to.nano_cpus > 0 && (to.cpu_period > 0 || to.cpu_quota > 0) {
        return Err(Error::usage("--cpus says the same as --cpu-period and --cpu-quota: leave it or them out"));
    }
    if let Some(shares) = flags.cpu_shares {
        if shares < 0 {
            return Err(Error::usage(format!("--cpu-shares {shares} is less than 0: 1024 is usual")));
        }
        to.cpu_shares = shares;
    }
    for (name, given, to) in [
        ("--cpuset-cpus", &flags.cpuset_cpus, &mut to.cpuset_cpus),
        ("--cpuset-mems", &flags.cpuset_mems, &mut to.cpuset_mems),
    ] {
        if let Some(text) = given {
            if !is_list(text) {
                return Err(Error::usage(format!("{name} {text:?} is no list of numbers, as in 0-3 or 0,2")));
            }
            to.clone_from(text);
        }
    }
    Ok(())
}

/// `1.5` as billionths, exactly.
fn nano_cpus(text: &str) -> Result<i64> {
    let wrong = || Error::usage(format!("--cpus {text:?} is no number of CPUs, as in 1.5"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err(Error::usage(format!("--cpus {text} has more than nine digits behind the point: leave some out")));
    }
    let number = |it: &str| if it.is_empty() { Ok(0) } else { it.parse::<i64>().map_err(|_| wrong()) };
    let billionths = number(&format!("{:0<9.9}", fraction))?;
    number(whole)?.checked_mul(1_000_000_000).and_then(|it| it.checked_add(billionths)).ok_or_else(wrong)
}

fn is_list(text: &str) -> bool {
    text.is_empty()
        || text.split(',').all(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
        })
}

/// `NAME=SOFT[:HARD]`; the last of a name counts.
pub(super) fn ulimits(given: &[String]) -> Result<Vec<Ulimit>> {
    let mut all: Vec<Ulimit> = Vec::new();
    for text in given {
        let wrong =
            |why: &str| Error::usage(format!("--ulimit {text:?} {why}: give NAME=SOFT[:HARD], as in nofile=1024:2048"));
        let (name, values) = text.split_once('=').ok_or_else(|| wrong("has no ="))?;
        if !ULIMITS.contains(&name) {
            return Err(wrong(&format!("names no limit of {}", ULIMITS.join(", "))));
        }
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |it: &str| {
            it.parse::<i64>().ok().filter(|it| *it >= -1).ok_or_else(|| wrong("has no number where one should be"))
        };
        let (soft, hard) = (number(soft)?, number(hard)?);
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(wrong("has a soft limit above the hard one"));
        }
        all.retain(|it| it.name != name);
        all.push(Ulimit { name: name.to_owned(), soft, hard });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(flags: &Resources) -> Result<HostConfig> {
        let mut to = HostConfig::default();
        apply(flags, &mut to).map(|()| to)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let read =
            limits(&Resources { memory: some("64m"), cpus: some("0.5"), pids_limit: Some(-1), ..Resources::default() })
                .unwrap();
        assert_eq!(
            (read.memory, read.memory_swap, read.nano_cpus, read.pids_limit),
            (64 << 20, 128 << 20, 500_000_000, -1)
        );
        let read = limits(&Resources { memory: some("64m"), memory_swap: some("-1"), ..Resources::default() }).unwrap();
        assert_eq!(read.memory_swap, -1);
        for (text, nano) in
            [("1", 1_000_000_000), (".5", 500_000_000), ("1.", 1_000_000_000), ("0.123456789", 123_456_789)]
        {
            assert_eq!(nano_cpus(text).unwrap(), nano, "{text}");
        }
        let read =
            limits(&Resources { cpuset_cpus: some("0-1,3"), cpuset_mems: some("0"), ..Resources::default() }).unwrap();
        assert_eq!((read.cpuset_cpus.as_str(), read.cpuset_mems.as_str()), ("0-1,3", "0"));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let none = Resources::default;
        for (wrong, expected) in [
            (Resources { memory: some("1m"), ..none() }, "less than 6m"),
            (Resources { memory: some("x"), ..none() }, "--memory: \"x\" is not a size"),
            (Resources { memory_swap: some("64m"), ..none() }, "needs --memory too"),
            (Resources { memory: some("64m"), memory_swap: some("32m"), ..none() }, "is less than that of memory"),
            (Resources { memory: some("64m"), memory_reservation: some("65m"), ..none() }, "is more than --memory"),
            (Resources { cpus: some("1e3"), ..none() }, "no number of CPUs"),
            (Resources { cpus: some("-1"), ..none() }, "no number of CPUs"),
            (Resources { cpus: some("0.001"), ..none() }, "this host has"),
            (Resources { cpus: some("4000"), ..none() }, "this host has"),
            (Resources { cpus: some("0.0000000001"), ..none() }, "nine digits"),
            (Resources { cpus: some("0.5"), cpu_quota: Some(5000), ..none() }, "says the same"),
            (Resources { cpu_period: Some(5), ..none() }, "1000 to 1000000"),
            (Resources { cpu_quota: Some(5), ..none() }, "less than 1000"),
            (Resources { cpu_shares: Some(-5), ..none() }, "less than 0"),
            (Resources { cpuset_cpus: some("3-1"), ..none() }, "no list of numbers"),
            (Resources { blkio_weight: Some(5), ..none() }, "10 to 1000"),
            (Resources { pids_limit: Some(-5), ..none() }, "no number of processes"),
        ] {
            let error = limits(&wrong).expect_err(expected);
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[test]
    fn ulimits_have_a_name_and_one_number_or_two() {
        let read = |texts: &[&str]| ulimits(&texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        let all = read(&["nofile=1024:2048", "core=-1", "nofile=5"]).unwrap();
        let all: Vec<_> = all.iter().map(|it| (it.name.as_str(), it.soft, it.hard)).collect();
        assert_eq!(all, [("core", -1, -1), ("nofile", 5, 5)]);
        for wrong in
            ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=a", "nofile=1:2:3", "nofile=-2"]
        {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
    }
}
