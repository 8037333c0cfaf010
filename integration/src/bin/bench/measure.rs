//! The groups of figures. Each does its rounds over all contenders in turn and adds rows to the table.

use std::fs;
use std::process::Child;
use std::time::Instant;

use integration::default_config;
use serde_json::{Value, json};

use crate::contender::{Contender, reap};
use crate::table::Table;

/// By contender.
pub(crate) type Samples = Vec<Vec<f64>>;

fn empty(contenders: &[Contender]) -> Samples {
    contenders.iter().map(|_| Vec::new()).collect()
}

fn configure(contenders: &[Contender], config: &Value) {
    contenders.iter().for_each(|contender| contender.configure(config));
}

/// One round first that does not count: caches fill, mount points are made.
fn rounds(contenders: &[Contender], count: usize, mut once: impl FnMut(&Contender) -> Option<f64>) -> Samples {
    let mut samples = empty(contenders);
    for round in 0..=count {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let value = once(contender);
            if round > 0 {
                samples.extend(value);
            }
        }
    }
    samples
}

/// `run` of /bin/true in the default bundle: from nothing to deleted.
pub(crate) fn run(contenders: &[Contender], count: usize, table: &mut Table) {
    configure(contenders, &default_config(&["/bin/true"]));
    let mut processor = empty(contenders);
    let samples = rounds(contenders, count, |contender| {
        let finished = contender.finish("run", &["bench-run"]);
        let index = contenders.iter().position(|one| one.name == contender.name)?;
        processor[index].push(finished.usage.processor);
        Some(finished.milliseconds)
    });
    table.add("run and delete /bin/true", "ms", &samples);
    // Much less disturbed by what else the machine does.
    table.add("of that, processor time", "ms", &processor);
}

/// The verbs apart: create, start, exec, delete.
pub(crate) fn life(contenders: &[Contender], count: usize, table: &mut Table) {
    configure(contenders, &default_config(&["/bin/sleep", "1000"]));
    let verbs = ["create", "start", "exec /bin/true", "delete"];
    let mut samples = verbs.map(|_| empty(contenders));
    for round in 0..=count {
        for (index, contender) in contenders.iter().enumerate().filter(|(_, contender)| !contender.is_floor()) {
            let id = "bench-life";
            let create = contender.must("create", &["--pid-file", &contender.pid_file(), id]);
            let start = contender.must("start", &[id]);
            let exec = contender.must("exec", &[id, "/bin/true"]);
            contender.end(id);
            let delete = contender.must("delete", &[id]);
            if round > 0 {
                for (samples, value) in samples.iter_mut().zip([create, start, exec, delete]) {
                    samples[index].push(value);
                }
            }
        }
    }
    verbs.iter().zip(&samples).for_each(|(verb, samples)| table.add(verb, "ms", samples));
}

/// Containers at once: started together, measured to the end of the last.
pub(crate) fn many(contenders: &[Contender], count: usize, table: &mut Table) {
    configure(contenders, &default_config(&["/bin/true"]));
    for at_once in [1, 10, 100] {
        let samples = rounds(contenders, count, |contender| {
            // The floor has one set of cgroups, and so runs one at a time.
            if contender.is_floor() {
                return None;
            }
            let begin = Instant::now();
            let names: Vec<String> = (0..at_once).map(|n| format!("bench-many-{n}")).collect();
            let start = |name: &String| contender.command("run", &[name]).spawn().expect("start");
            let children: Vec<Child> = names.iter().map(start).collect();
            // Each is waited for, whether or not one before it failed.
            let failed = children
                .into_iter()
                .map(|mut child| child.wait())
                .filter(|end| !end.as_ref().is_ok_and(|s| s.success()));
            if failed.count() > 0 {
                contender.give_up(&format!("{}: one of {at_once} at once failed", contender.name));
            }
            Some(begin.elapsed().as_secs_f64() * 1000.0 / f64::from(at_once))
        });
        table.add(&format!("run, {at_once} at once, each"), "ms", &samples);
    }
}

/// The default bundle with so many bind mounts more.
pub(crate) fn mounts(contenders: &[Contender], count: usize, table: &mut Table) {
    for number in [10, 100, 1000] {
        let mut config = default_config(&["/bin/true"]);
        // crun holds a descriptor for each mount while the container's own limit is already in force.
        config["process"]["rlimits"][0] = json!({"type": "RLIMIT_NOFILE", "hard": 8192, "soft": 8192});
        let list = config["mounts"].as_array_mut().expect("mounts");
        for n in 0..number {
            list.push(json!({
                "destination": format!("/mnt/{n}"), "type": "bind", "source": "/etc", "options": ["bind", "ro", "nosuid"],
            }));
        }
        for contender in contenders {
            for n in 0..number {
                fs::create_dir_all(contender.rootfs().join(format!("mnt/{n}"))).expect("make a mount point");
            }
        }
        configure(contenders, &config);
        // Three rounds of a thousand mounts are long enough.
        let count = if number == 1000 { count.min(3) } else { count };
        let samples = rounds(contenders, count, |contender| {
            (!contender.is_floor()).then(|| contender.must("run", &["bench-mounts"]))
        });
        table.add(&format!("run with {number} mounts more"), "ms", &samples);
    }
}

/// The syscalls a filter of the size of the engines' default allows here: all that a container needs but a few.
fn seccomp_profile() -> Value {
    let (architectures, extra) = match std::env::consts::ARCH {
        "x86_64" => (json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), json!(["arch_prctl"])),
        _ => (json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]), json!([])),
    };
    let names: Vec<Value> = include_str!("syscalls.txt").split_whitespace().map(Value::from).collect();
    let errno = |names: Value| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
    let personality = |value: u64| {
        json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        })
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": architectures,
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": extra, "action": "SCMP_ACT_ALLOW"},
            personality(0), personality(8), personality(0x20000), personality(0x20008), personality(0xffff_ffff),
            {
                "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 2_114_060_288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            },
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            errno(json!(["mount", "umount2", "unshare", "setns", "bpf", "keyctl", "ptrace", "reboot", "swapon", "swapoff"])),
        ],
    })
}

/// What a filter costs: at the start, and at each system call.
pub(crate) fn seccomp(contenders: &[Contender], count: usize, table: &mut Table) {
    let plain = default_config(&["/bin/true"]);
    let mut filtered = plain.clone();
    filtered["linux"]["seccomp"] = seccomp_profile();
    let mut samples = empty(contenders);
    let mut costs = empty(contenders);
    for round in 0..=count {
        for (index, contender) in contenders.iter().enumerate().filter(|(_, contender)| !contender.is_floor()) {
            contender.configure(&plain);
            let without = contender.must("run", &["bench-seccomp"]);
            contender.configure(&filtered);
            let with = contender.must("run", &["bench-seccomp"]);
            if round > 0 {
                samples[index].push(with);
                costs[index].push(with - without);
            }
        }
    }
    table.add("run with a seccomp filter", "ms", &samples);
    table.add("of that, the filter", "ms", &costs);

    for (what, number) in [("getpid", libc::SYS_getpid), ("a denied call", libc::SYS_unshare)] {
        let samples = rounds(contenders, count.min(5), |contender| {
            if contender.is_floor() {
                return None;
            }
            let mut config = default_config(&["/bin/probe", "time", &number.to_string(), "1000000"]);
            config["linux"]["seccomp"] = seccomp_profile();
            contender.configure(&config);
            let output =
                contender.command("run", &["bench-call"]).stdout(std::process::Stdio::piped()).output().expect("run");
            let text = String::from_utf8_lossy(&output.stdout);
            Some(
                text.trim()
                    .parse()
                    .unwrap_or_else(|_| contender.give_up(&format!("{}: probe said {text:?}", contender.name))),
            )
        });
        table.add(&format!("{what} under the filter"), "ns", &samples);
    }
}

/// Peak memory of `create`, and the smallest memory limit under which a container starts.
pub(crate) fn memory(contenders: &[Contender], count: usize, table: &mut Table) {
    configure(contenders, &default_config(&["/bin/sleep", "1000"]));
    let samples = rounds(contenders, count, |contender| {
        if contender.is_floor() {
            return None;
        }
        let id = "bench-memory";
        // What the benchmark itself holds when it starts the program is the least it can see.
        let peak = contender.finish("create", &["--pid-file", &contender.pid_file(), id]).usage.peak as f64 / 1024.0;
        contender.end(id);
        contender.must("delete", &[id]);
        Some(peak)
    });
    table.add("peak memory of create", "MiB", &samples);

    let mut samples = empty(contenders);
    for (contender, samples) in contenders.iter().zip(&mut samples).filter(|(contender, _)| !contender.is_floor()) {
        samples.extend(smallest_limit(contender));
    }
    table.add("smallest memory limit that starts", "MiB", &samples);
}

/// By halving between 0 and 64 MiB, in steps of 128 KiB; three starts each must succeed.
fn smallest_limit(contender: &Contender) -> Option<f64> {
    const STEP: u64 = 128 * 1024;
    let starts = |steps: u64| {
        let mut config = default_config(&["/bin/true"]);
        config["linux"]["resources"]["memory"] = json!({"limit": steps * STEP});
        contender.configure(&config);
        (0..3).all(|_| {
            let good = contender.time("run", &["bench-limit"]).result.is_ok();
            if !good {
                let _ = contender.time("delete", &["--force", "bench-limit"]);
                reap();
            }
            good
        })
    };
    let (mut too_small, mut enough) = (0, 512);
    if !starts(enough) {
        return None;
    }
    while enough - too_small > 1 {
        let middle = (too_small + enough) / 2;
        if starts(middle) { enough = middle } else { too_small = middle }
    }
    Some((enough * STEP) as f64 / (1024.0 * 1024.0))
}

/// The binary's size.
pub(crate) fn size(contenders: &[Contender], _: usize, table: &mut Table) {
    let size =
        |contender: &Contender| vec![fs::metadata(&contender.binary).map_or(0.0, |meta| meta.len() as f64 / 1048576.0)];
    let samples: Samples = contenders.iter().map(size).collect();
    table.add("size of the binary", "MiB", &samples);
}
