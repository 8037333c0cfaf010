//! For every call that a profile can tell apart, the decision is libseccomp's.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use tare::plan::seccomp::lower;

use crate::bpf::{Call, run};
use crate::libseccomp::{ARCHS, Library, skipped};
use crate::random::{self, Actions, Random};
use crate::{DEFAULT, docker, profile, with_rules};

/// Compares all decisions; returns how many there were and for how many libseccomp's program contradicts its rules.
fn compare(library: &mut Library, profile: &LinuxSeccomp, calls: &[Call], what: &str) -> (usize, usize) {
    let theirs = library.runc(profile).unwrap_or_else(|error| panic!("{what}: libseccomp refuses it: {error}"));
    let ours = lower(profile).unwrap_or_else(|error| panic!("{what}: {error}"));
    for call in calls {
        let (theirs, (ours, _)) = (theirs.decide(call), run(&ours.program, call));
        if theirs != ours {
            let call = *call;
            let small = shrink(library, profile, |library, profile| {
                let Ok(ours) = lower(profile) else { return false };
                library.runc(profile).is_ok_and(|theirs| theirs.decide(&call) != run(&ours.program, &call).0)
            });
            let small = serde_json::to_string(&small).unwrap();
            panic!("{what}: {call:x?}: {ours:#x} instead of {theirs:#x}; a profile for it: {small}");
        }
    }
    (calls.len(), calls.iter().filter(|call| theirs.contradicts_itself(call)).count())
}

/// Leaves out of a profile what is not needed for `wrong` to hold.
fn shrink(
    library: &mut Library,
    profile: &LinuxSeccomp,
    mut wrong: impl FnMut(&mut Library, &LinuxSeccomp) -> bool,
) -> LinuxSeccomp {
    let mut small = profile.clone();
    for at in (0..small.syscalls().as_ref().map_or(0, Vec::len)).rev() {
        let mut fewer = small.clone();
        let mut calls = fewer.syscalls().clone().unwrap();
        calls.remove(at);
        fewer.set_syscalls(Some(calls));
        if wrong(library, &fewer) {
            small = fewer;
        }
    }
    small
}

/// Every number up to `limit` on every architecture, and what follows the marks of x32 and arm, without arguments.
fn sweep(limit: u32) -> Vec<Call> {
    let mut calls = Vec::new();
    for audit in ARCHS.iter().map(|(_, audit)| *audit).chain([0, 0x8000_0016]) {
        for base in [0, 0x000f_0000, 0x4000_0000, 0x8000_0000, 0xc000_0000, 0xffff_ffff - limit] {
            calls.extend((0..=limit).map(|number| Call { number: base + number, audit, args: [0; 6] }));
        }
    }
    calls
}

#[test]
fn each_name_has_its_number_everywhere() {
    let Some(mut library) = Library::open("names") else { return };
    let mut names = library.names();
    // libseccomp 2.5 has it for x86_64 alone, 2.6 for all, as Linux has.
    names.retain(|name| name != "map_shadow_stack");
    assert!(names.len() > 400, "{} names", names.len());
    let archs: Vec<String> = ARCHS.iter().map(|(arch, _)| arch.to_string()).collect();
    // An errno of its own for each name.
    let rules: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": at + 100}))
        .collect();
    // Not all at once: that takes libseccomp seconds.
    for some in rules.chunks(80) {
        let some = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": archs, "syscalls": some}));
        compare(&mut library, &some, &sweep(500), "some names");
    }
}

#[test]
fn the_default_profile() {
    let Some(mut library) = Library::open("default") else { return };
    everywhere(&mut library, DEFAULT, "the default profile");
}

#[test]
fn docker_s_own_profile() {
    let Some(mut library) = Library::open("docker") else { return };
    match docker::profile() {
        Ok(profile) => everywhere(&mut library, &profile, "Docker's default profile"),
        Err(why) => skipped(&format!("docker_s_own_profile: {why}")),
    }
}

/// Compares a profile's decisions for lists of architectures that it may have.
fn everywhere(library: &mut Library, text: &str, what: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let mut random = Random(1);
    let all: Vec<String> = ARCHS.iter().map(|(arch, _)| arch.to_string()).collect();
    // As it is, and with other lists of architectures.
    for archs in [value["architectures"].clone(), json!([]), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), json!(all)] {
        let mut value = value.clone();
        value["architectures"] = archs;
        let profile = profile(value);
        let mut calls = sweep(1100);
        calls.extend(random::calls(&mut random, library, &profile, 20));
        assert_eq!(compare(library, &profile, &calls, what).1, 0);
    }
}

/// Docker's profile as podman installs it, for a container with podman's default capabilities.
#[test]
fn the_installed_profile() {
    let Some(mut library) = Library::open("installed") else { return };
    let path = "/usr/share/containers/seccomp.json";
    let Ok(text) = std::fs::read_to_string(path) else { return skipped(&format!("the_installed_profile: no {path}")) };
    let whole: Value = serde_json::from_str(&text).unwrap();
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"];
    let names =
        |value: &Value| value.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect();
    let any = |condition: &Value, kind: &str, of: &[&str]| {
        let wanted: Vec<String> = names(&condition[kind]);
        (!wanted.is_empty()).then(|| wanted.iter().any(|one| of.contains(&one.as_str())))
    };
    let holds = |rule: &&Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        any(includes, "arches", &["amd64"]) != Some(false)
            && any(includes, "caps", &capabilities) != Some(false)
            && any(excludes, "arches", &["amd64"]) != Some(true)
            && any(excludes, "caps", &capabilities) != Some(true)
    };
    let rules: Vec<Value> = whole["syscalls"].as_array().unwrap().iter().filter(holds).cloned().collect();
    let profile = profile(json!({
        "defaultAction": whole["defaultAction"], "defaultErrnoRet": whole["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules,
    }));
    let mut calls = sweep(1100);
    calls.extend(random::calls(&mut Random(2), &mut library, &profile, 20));
    assert_eq!(compare(&mut library, &profile, &calls, path).1, 0);
}

/// Profiles that once came out wrong, and those that stand for a rule of their own.
#[test]
fn particular_profiles() {
    let Some(mut library) = Library::open("particular") else { return };
    let rule = |name: &str, action: &str, args: Value| json!({"names": [name], "action": action, "args": args});
    let arg =
        |index: u32, op: &str, value: u64| json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value});
    let (allow, errno) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    let cases: &[(&str, &str, Vec<Value>)] = &[
        ("no rule", errno, vec![]),
        ("no rule, all allowed", allow, vec![]),
        (
            "the default repeated: the number is known, nothing else",
            "SCMP_ACT_KILL",
            vec![rule("read", "SCMP_ACT_KILL", json!([]))],
        ),
        ("call 0 only: no number is newer", errno, vec![rule("read", allow, json!([]))]),
        ("multiplexed calls do not make a number known", errno, vec![rule("accept4", allow, json!([]))]),
        (
            "a trace as default leaves newer calls to the tracer",
            "SCMP_ACT_TRACE",
            vec![rule("futex_waitv", allow, json!([]))],
        ),
        ("one argument twice: either", errno, vec![rule("clone", allow, json!([arg(0, "EQ", 1), arg(0, "EQ", 2)]))]),
        ("two arguments: both", errno, vec![rule("clone", allow, json!([arg(1, "EQ", 1), arg(0, "EQ", 2)]))]),
        ("a mask of no bits always holds", errno, vec![rule("clone", allow, json!([arg(0, "MASKED_EQ", 0)]))]),
        (
            "a mask of high bits holds always on 32 bits",
            errno,
            vec![rule("clone", allow, json!([arg(0, "MASKED_EQ", 1 << 32)]))],
        ),
        (
            "the first rule without conditions wins",
            errno,
            vec![
                rule("clone", "SCMP_ACT_LOG", json!([arg(0, "EQ", 1)])),
                rule("clone", allow, json!([])),
                rule("clone", "SCMP_ACT_TRAP", json!([])),
                rule("clone", "SCMP_ACT_TRAP", json!([arg(0, "EQ", 1)])),
            ],
        ),
        (
            "the selector replaces the first argument",
            errno,
            vec![rule("socket", allow, json!([arg(0, "NE", 40), arg(2, "LT", 5)]))],
        ),
        (
            "a rule that looks redundant is dropped",
            errno,
            vec![
                rule("execve", allow, json!([arg(1, "LT", u64::MAX - 1)])),
                rule("execve", allow, json!([arg(0, "GT", 0), arg(1, "GE", u64::MAX - 1)])),
            ],
        ),
        (
            "a later, shorter rule replaces a longer one",
            errno,
            vec![
                rule("execve", allow, json!([arg(0, "EQ", 1), arg(1, "EQ", 2)])),
                rule("execve", allow, json!([arg(1, "EQ", 2)])),
            ],
        ),
        (
            "orders of 64 bits",
            errno,
            vec![
                rule("execve", allow, json!([arg(0, "GT", 0x1_0000_0005)])),
                rule("execve", "SCMP_ACT_LOG", json!([arg(0, "LT", 0x9_0000)])),
            ],
        ),
    ];
    for (what, default, rules) in cases {
        let profile = with_rules(default, rules);
        let mut calls = sweep(600);
        calls.extend(random::calls(&mut Random(3), &mut library, &profile, 100));
        compare(&mut library, &profile, &calls, what);
    }
}

#[test]
fn random_profiles_with_an_action_for_each_call() {
    random_profiles("random-one", Actions::OnePerCall, 0..150);
}

#[test]
fn random_profiles_with_mixed_actions() {
    random_profiles("random-mixed", Actions::Mixed, 1000..1150);
}

fn random_profiles(name: &str, actions: Actions, seeds: std::ops::Range<u64>) {
    let Some(mut library) = Library::open(name) else { return };
    let (mut compared, mut contradictions, mut refused, mut circles) = (0, 0, 0, 0);
    for seed in seeds {
        let mut random = Random(seed);
        let profile = random::profile(&mut random, actions);
        match (library.filter(&profile), lower(&profile)) {
            (Ok(_), _) => {
                let calls = random::calls(&mut random, &mut library, &profile, 40);
                let (all, contradicting) = compare(&mut library, &profile, &calls, &format!("seed {seed}"));
                compared += all;
                contradictions += contradicting;
            }
            (Err(_), Err(_)) => refused += 1,
            (Err(error), Ok(_)) if error == crate::libseccomp::ENDLESS => circles += 1,
            (Err(error), Ok(_)) => {
                // Rules contradict each other for an architecture that lacks the call: without such calls it must be taken.
                let real = without_missing_calls(&mut library, &profile);
                if library.filter(&real).is_err() {
                    let small = shrink(&mut library, &real, |library, profile| {
                        library.filter(profile).is_err() && lower(profile).is_ok()
                    });
                    let small = serde_json::to_string(&small).unwrap();
                    panic!("seed {seed}: libseccomp says {error}; a profile that is taken: {small}");
                }
                refused += 1;
            }
        }
    }
    println!(
        "{compared} decisions compared; libseccomp's program contradicts its rules in {contradictions}; \
         {refused} profiles refused by both; {circles} without an end in libseccomp"
    );
    assert!(compared > 100_000, "only {compared} decisions were compared");
}

/// The profile without the names that one of its architectures lacks.
fn without_missing_calls(library: &mut Library, profile: &LinuxSeccomp) -> LinuxSeccomp {
    let archs: Vec<bool> = ARCHS
        .iter()
        .enumerate()
        .map(|(at, (arch, _))| at == 0 || profile.architectures().iter().flatten().any(|other| other == arch))
        .collect();
    let mut profile = profile.clone();
    let calls = profile.syscalls().clone().unwrap_or_default();
    let mut real = |name: &String| {
        let numbers = library.resolve(name);
        // On x86 a multiplexed call has a negative number of its own.
        (0..6).all(|at| !archs[at] || (numbers[at] >= 0 || (at == 1 && numbers[at] > -10_000)))
    };
    let calls = calls.into_iter().filter(|call| call.names().iter().all(&mut real)).collect();
    profile.set_syscalls(Some(calls));
    profile
}
