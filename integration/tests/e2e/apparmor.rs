//! AppArmor: the profile of a container and of an exec, on a host that runs the module.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use integration::{Bundle, Runtime, in_path, skip};
use serde_json::json;

/// Why profiles cannot be tested here, if they cannot.
fn lacking() -> Option<&'static str> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    match enabled.starts_with('Y') {
        false => Some("AppArmor is not enabled on this host"),
        true if in_path("apparmor_parser").is_none() => Some("apparmor_parser is not installed"),
        true => None,
    }
}

/// A profile in the kernel, until it is dropped.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    /// Loads one that allows all but writing to `/tmp/WORD`.
    fn against(rt: &Runtime, word: &str) -> Profile {
        let name = format!("{}-{word}", rt.tag());
        let rules =
            "file,\n  capability,\n  network,\n  mount,\n  umount,\n  pivot_root,\n  signal,\n  ptrace,\n  unix,";
        let text = format!("profile {name} flags=(attach_disconnected) {{\n  {rules}\n  deny /tmp/{word} w,\n}}\n");
        let profile = Profile { name, text };
        assert!(profile.told("--replace"), "apparmor_parser did not take:\n{}", profile.text);
        profile
    }

    fn told(&self, verb: &str) -> bool {
        let mut parser = Command::new("apparmor_parser")
            .args([verb, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start apparmor_parser");
        parser.stdin.take().expect("a pipe").write_all(self.text.as_bytes()).expect("write the profile");
        parser.wait().expect("wait for apparmor_parser").success()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.told("--remove");
    }
}

/// Says its profile, and which of two files it may write.
const TRY: &str = "cat /proc/self/attr/current; for word in one two; do (echo >/tmp/$word) 2>/dev/null && echo wrote $word; done; true";

fn bundle(rt: &Runtime, args: &[&str]) -> Bundle {
    rt.bundle(args).push("/mounts", json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
}

#[test]
fn a_profile_holds_for_the_container_and_an_exec_in_it() {
    if let Some(reason) = lacking() {
        skip!("{reason}");
    }
    let rt = Runtime::from_env();
    let (one, two) = (Profile::against(&rt, "one"), Profile::against(&rt, "two"));
    for no_new_privileges in [true, false] {
        let confined = |args: &[&str]| {
            bundle(&rt, args)
                .set("/process/apparmorProfile", json!(one.name))
                .set("/process/noNewPrivileges", json!(no_new_privileges))
        };
        let out = rt.run(&confined(&["/bin/sh", "-c", TRY])).ok().stdout;
        assert_eq!(out, format!("{} (enforce)\nwrote two\n", one.name));

        let container = rt.run_detached(&confined(&["/bin/probe", "wait"]), &[]).unwrap();
        let seen = |flags: &[&str]| container.exec_with(flags, &["sh", "-c", TRY]).ok().stdout;
        assert_eq!(seen(&[]), format!("{} (enforce)\nwrote two\n", one.name), "an exec has the container's");
        assert_eq!(seen(&["--apparmor", &two.name]), format!("{} (enforce)\nwrote one\n", two.name));
        assert_eq!(seen(&["--apparmor", "unconfined"]), "unconfined\nwrote one\nwrote two\n");
    }
}

#[test]
fn in_a_user_namespace_the_profile_holds_too() {
    if let Some(reason) = lacking() {
        skip!("{reason}");
    }
    let rt = Runtime::from_env();
    let one = Profile::against(&rt, "one");
    let confined =
        bundle(&rt, &["/bin/sh", "-c", TRY]).with_user_namespace().set("/process/apparmorProfile", json!(one.name));
    assert_eq!(rt.run(&confined).ok().stdout, format!("{} (enforce)\nwrote two\n", one.name));
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error_that_says_so() {
    if let Some(reason) = lacking() {
        skip!("{reason}");
    }
    let rt = Runtime::from_env();
    let absent = format!("{}-absent", rt.tag());
    let error = rt.run(&bundle(&rt, &["/bin/true"]).set("/process/apparmorProfile", json!(absent))).fails().error();
    assert!(error.contains(&absent) && error.contains("is not loaded on this host"), "{error}");

    let container = rt.run_detached(&bundle(&rt, &["/bin/probe", "wait"]), &[]).unwrap();
    let error = container.exec_with(&["--apparmor", &absent], &["true"]).fails().error();
    assert!(error.contains(&absent) && error.contains("is not loaded on this host"), "{error}");
    assert_eq!(container.status(), "running");
}

#[test]
fn without_a_profile_the_container_is_unconfined() {
    if let Some(reason) = lacking() {
        skip!("{reason}");
    }
    let rt = Runtime::from_env();
    for profile in [None, Some(""), Some("unconfined")] {
        let plain = bundle(&rt, &["/bin/cat", "/proc/self/attr/current"]);
        let plain = match profile {
            Some(profile) => plain.set("/process/apparmorProfile", json!(profile)),
            None => plain,
        };
        assert_eq!(rt.run(&plain).ok().stdout, "unconfined\n", "{profile:?}");
    }
}
