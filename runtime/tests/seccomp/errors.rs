//! What a profile may not say, and what else comes out of it than decisions.

use serde_json::{Value, json};
use tare::plan::seccomp::{LOG, NEW_LISTENER, Notify, SPEC_ALLOW, Seccomp, WAIT_KILLABLE_RECV, features, lower};

use crate::{DEFAULT, profile};

fn rule(name: &str, action: &str) -> Value {
    json!({"names": [name], "action": action})
}

#[test]
fn errors_name_the_field() {
    let notify = rule("mkdir", "SCMP_ACT_NOTIFY");
    let with_arg = |arg: Value| json!({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": [arg]});
    let cases = [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY cannot be used as default action"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "syscalls": [rule("write", "SCMP_ACT_NOTIFY")]}),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [notify]}), "listenerPath is not set"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095}), "errnoRet 4095 is not below 4095"),
        (json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}), "is not below 65536"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("", "SCMP_ACT_ERRNO")]}),
            "an empty string for a name",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                with_arg(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}))]}),
            "argument index 6 is not below 6",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "WAIT_KILLABLE_RECV, but no rule has SCMP_ACT_NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["mkdir"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "rules for the system call mkdir",
        ),
    ];
    for (value, expected) in cases {
        let error = lower(&profile(value.clone())).expect_err(&value.to_string()).to_string();
        assert!(error.starts_with("linux.seccomp") && error.contains(expected), "{value}: {error}");
    }
}

#[test]
fn flags_and_listener() {
    let notify = || Notify { listener_path: "/run/agent.sock".into(), metadata: "m".into() };
    let asks = json!([rule("mkdir", "SCMP_ACT_NOTIFY")]);
    let cases = [
        (json!({}), SPEC_ALLOW, None),
        (json!({"flags": []}), 0, None),
        // With a listener's path but nothing to ask.
        (json!({"flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "listenerPath": "/run/agent.sock"}), 0, None),
        (json!({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}), LOG | SPEC_ALLOW, None),
        (
            json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "syscalls": asks,
                "listenerPath": "/run/agent.sock", "listenerMetadata": "m"}),
            WAIT_KILLABLE_RECV | NEW_LISTENER,
            Some(notify()),
        ),
    ];
    for (mut value, flags, notify) in cases {
        value["defaultAction"] = json!("SCMP_ACT_ALLOW");
        let seccomp = lower(&profile(value.clone())).unwrap();
        assert_eq!((seccomp.flags, &seccomp.notify), (flags, &notify), "{value}");
        assert_eq!(Seccomp::from_bytes(&seccomp.to_bytes()).unwrap(), seccomp);
    }
}

#[test]
fn every_word_of_features_can_be_used() {
    let features = features();
    for action in features.actions.iter().filter(|action| **action != "SCMP_ACT_NOTIFY") {
        for operator in features.operators {
            let arg = json!({"index": 0, "value": 1, "valueTwo": 1, "op": operator});
            let rule = json!({"names": ["mkdir"], "action": action, "args": [arg]});
            let value = json!({"defaultAction": action, "architectures": features.archs, "syscalls": [rule]});
            lower(&profile(value)).unwrap();
        }
    }
    for flag in features.known_flags {
        assert!(tare::plan::seccomp::flag_value(flag).is_some(), "{flag}");
    }
}

/// An architecture of other machines changes nothing.
#[test]
fn foreign_architectures_are_skipped() {
    let rules = json!([rule("read", "SCMP_ACT_ALLOW")]);
    let with = |archs: Value| {
        lower(&profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": rules})))
    };
    assert_eq!(with(json!(["SCMP_ARCH_S390X", "SCMP_ARCH_MIPS64"])).unwrap(), with(json!([])).unwrap());
}

#[test]
fn a_program_has_an_end() {
    // Conditions that nothing shares: thousands of instructions, with jumps longer than a byte.
    let many = |count: u64| {
        let args = |at: u64| {
            json!([
            {"index": 0, "value": at << 32 | at, "op": "SCMP_CMP_GT"}, {"index": 1, "value": at, "op": "SCMP_CMP_NE"}])
        };
        let rules: Vec<Value> =
            (0..count).map(|at| json!({"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args(at)})).collect();
        lower(&profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})))
    };
    let fits = many(400).unwrap().program.len();
    assert!((2000..=4096).contains(&fits), "{fits} instructions");
    let error = many(1000).unwrap_err().to_string();
    assert!(error.contains("4096 instructions"), "{error}");
}

#[test]
fn the_default_profile_is_short() {
    let program = lower(&profile(serde_json::from_str(DEFAULT).unwrap())).unwrap().program;
    assert!(program.len() < 500, "{} instructions", program.len());
}
