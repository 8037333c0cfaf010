use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn read(words: &[&str]) -> Result<Asked<(Global, Command)>> {
    let args = std::iter::once("tare").chain(words.iter().copied()).map(OsString::from);
    let line = match globals(args)? {
        Asked::Text(text) => return Ok(Asked::Text(text)),
        Asked::For(line) => line,
    };
    let global = line.global.clone();
    Ok(match line.command()? {
        Asked::Text(text) => Asked::Text(text),
        Asked::For(command) => Asked::For((global, command)),
    })
}

fn good(words: &[&str]) -> (Global, Command) {
    match read(words) {
        Ok(Asked::For(done)) => done,
        other => panic!("{words:?}: {other:?}"),
    }
}

macro_rules! command {
    ($variant:ident, $words:expr) => {
        match good(&$words).1 {
            Command::$variant(args) => args,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn the_definition_is_sound() {
    tree().debug_assert();
}

#[test]
fn help_says_what_a_command_does_and_not_how_its_arguments_are_kept() {
    let help = |words: &[&str]| match read(words) {
        Ok(Asked::Text(text)) => text,
        other => panic!("{other:?}"),
    };
    let all = help(&["--help"]);
    assert!(all.starts_with("an OCI runtime for Linux containers\n"), "{all}");
    for (name, about) in [
        ("create", "create a container"),
        ("pause", "suspend all processes inside the container"),
        ("state", "output the state of a container"),
    ] {
        assert!(all.lines().any(|line| line.trim().strip_prefix(name).map(str::trim) == Some(about)), "{all}");
        for words in [&[name, "--help"][..], &["help", name]] {
            let own = help(words);
            assert!(own.starts_with(&format!("{about}\n")), "{own}");
        }
    }
}

#[test]
fn callers_own_lines_are_read() {
    // As containerd's go-runc calls it.
    let (global, command) = good(&[
        "--root",
        "/run/r",
        "--log",
        "/b/log.json",
        "--log-format",
        "json",
        "--systemd-cgroup",
        "create",
        "--bundle",
        "/b",
        "--pid-file",
        "/b/init.pid",
        "--console-socket",
        "/s",
        "c1",
    ]);
    assert_eq!(global.root(), PathBuf::from("/run/r"));
    assert_eq!((global.log_format, global.cgroup_manager()), (LogFormat::Json, CgroupManager::Systemd));
    let Command::Create(create) = command else { panic!("{command:?}") };
    assert_eq!((create.id.as_str(), create.bundle), ("c1", Some("/b".into())));
    // As conmon calls it.
    let exec = command!(Exec, ["exec", "--pid-file", "/p", "--process", "/q", "--detach", "c1"]);
    assert_eq!((exec.id(), exec.command(), exec.detach), ("c1", &[][..], true));
    // As a person may.
    let exec =
        command!(Exec, ["exec", "-t", "-e", "A=1", "-e", "B=2", "-u", "1:2", "-g", "7", "c1", "ls", "-t", "--", "-la"]);
    assert_eq!((exec.id(), exec.command()), ("c1", &["ls", "-t", "--", "-la"].map(String::from)[..]));
    assert_eq!(
        (exec.env, exec.user, exec.additional_gids),
        (vec!["A=1".into(), "B=2".into()], Some((1, Some(2))), vec![7])
    );
    let kill = command!(Kill, ["kill", "c1", "9", "--all"]);
    assert_eq!((kill.all, kill.signal), (true, 9));
    assert_eq!(command!(Kill, ["kill", "c1"]).signal, 15);
    let update = command!(Update, ["update", "c1", "--memory", "64m", "--memory-swap", "-1", "--cpu-quota", "-1"]);
    assert_eq!((update.memory, update.memory_swap, update.cpu_quota), (Some(64 << 20), Some(-1), Some(-1)));
    let ps = command!(Ps, ["ps", "-f", "json", "c1", "-ef", "--format", "x"]);
    assert_eq!((ps.format, ps.options()), (ListFormat::Json, &["-ef", "--format", "x"].map(String::from)[..]));
    let events = command!(Events, ["events", "--interval", "1m30s", "c1"]);
    assert_eq!(events.interval, Duration::from_secs(90));
    let checkpoint =
        command!(Checkpoint, ["checkpoint", "--link-remap", "--status-fd", "-1", "--empty-ns", "network", "c1"]);
    assert_eq!((checkpoint.link_remap, checkpoint.status_fd), (true, -1));
    let delete = command!(Delete, ["delete", "c1", "--force"]);
    assert!(delete.force);
}

#[test]
fn flags_in_go_style_are_read() {
    let (global, command) = good(&[
        "-root",
        "/r",
        "-debug",
        "--log-format=json",
        "run",
        "-bundle",
        "/b",
        "-detach=false",
        "--keep=true",
        "c1",
    ]);
    assert_eq!((global.root(), global.debug), ("/r".into(), true));
    let Command::Run(run) = command else { panic!("{command:?}") };
    assert_eq!((run.detach, run.keep, run.create.bundle), (false, true, Some("/b".into())));
    for (words, expected) in [
        (&["--rootless", "list"][..], Rootless::True),
        (&["--rootless=auto", "list"][..], Rootless::Auto),
        (&["--rootless", "false", "list"][..], Rootless::False),
        (&["list"][..], Rootless::Auto),
    ] {
        assert_eq!(good(words).0.rootless, expected, "{words:?}");
    }
    // The payload's own words are not touched.
    let exec = command!(Exec, ["exec", "-cwd", "/", "c1", "sh", "-user", "--tty=false"]);
    assert_eq!(exec.command(), ["sh", "-user", "--tty=false"].map(String::from));
}

#[test]
fn a_wrong_line_is_one_sentence() {
    for (words, expected) in [
        (&["bogus"][..], "no such command: bogus (tare --help lists them)"),
        (&["--bogus", "list"], "tare: unknown flag --bogus"),
        (&["--log-format", "xml", "list"], "tare: --log-format <FORMAT>: \"xml\" is not one of text, json"),
        (
            &["--systemd-cgroup", "--cgroup-manager", "cgroupfs", "list"],
            "tare: --systemd-cgroup cannot be used with --cgroup-manager <MANAGER>",
        ),
        (&["--root", "/", "list"], "tare: --root <DIR>: \"/\": the root directory must not be /"),
        (&["--root", "/a/..", "list"], "tare: --root <DIR>: \"/a/..\": the root directory must not be /"),
        (&["--root", "", "list"], "tare: --root <DIR> needs a value"),
        (&["state"], "tare state: <container-id> is missing"),
        (&["state", "a", "b"], "tare state: one argument too many: b"),
        (&["state", "--bogus", "a"], "tare state: unknown flag --bogus"),
        (&["create", "--pid-file"], "tare create: --pid-file <FILE> needs a value"),
        (&["create", "--preserve-fds", "-1", "a"], "tare create: unknown flag -1"),
        (&["create", "--preserve-fds=-1", "a"], "tare create: --preserve-fds <N>: \"-1\": -1 is not in 0..=4294967295"),
        (&["exec"], "tare exec: <container-id> [command]... is missing"),
        (
            &["exec", "--user", "root", "a", "b"],
            "tare exec: --user <UID>: \"root\": the uid is not a number from 0 to 4294967295",
        ),
        (
            &["exec", "--user", "4294967296", "a", "b"],
            "tare exec: --user <UID>: \"4294967296\": the uid is not a number from 0 to 4294967295",
        ),
        (
            &["exec", "--user", "+1", "a", "b"],
            "tare exec: --user <UID>: \"+1\": the uid is not a number from 0 to 4294967295",
        ),
        (&["kill", "a", "BOGUS"], "tare kill: [signal]: \"BOGUS\": no such signal"),
        (&["kill", "a", "65"], "tare kill: [signal]: \"65\": no such signal"),
        (&["list", "--format", "xml"], "tare list: --format <FORMAT>: \"xml\" is not one of table, json"),
        (
            &["update", "--memory", "lots", "a"],
            "tare update: --memory <BYTES>: \"lots\": not a size such as 4096, 64m or 1.5g",
        ),
        (&["update", "--memory", "99999999p", "a"], "tare update: --memory <BYTES>: \"99999999p\": too large"),
        (
            &["events", "--interval", "0s", "a"],
            "tare events: --interval <DURATION>: \"0s\": the interval must be greater than 0",
        ),
        (
            &["events", "--interval", "soon", "a"],
            "tare events: --interval <DURATION>: \"soon\": not a duration such as 5s, 500ms or 1m30s",
        ),
    ] {
        match read(words) {
            Err(error) => {
                assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::Invalid), "{words:?}");
            }
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[test]
fn the_version_reads_as_runcs_does() {
    for words in [&["--version"][..], &["-v"], &["-version"]] {
        let Ok(Asked::Text(text)) = read(words) else { panic!("{words:?}") };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], concat!("tare version ", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: "));
        assert_eq!(lines[2], format!("spec: {SPEC_VERSION}"));
        assert_eq!(lines.len(), 3);
    }
}

#[test]
fn every_command_has_help() {
    for name in NAMES {
        for words in [&["help", name][..], &[name, "--help"], &[name, "-h"]] {
            let Ok(Asked::Text(text)) = read(words) else { panic!("{words:?}") };
            assert!(text.contains(&format!("Usage: tare {name}")), "{words:?}: {text}");
        }
    }
    for words in [&["--help"][..], &["-h"], &["help"], &[]] {
        let Ok(Asked::Text(text)) = read(words) else { panic!("{words:?}") };
        assert!(text.contains("checkpoint") && text.contains("--root"), "{text}");
    }
}

#[test]
fn the_environment_may_name_the_root_and_a_flag_wins() {
    let root = |flags: &[&str], environment: &str| {
        let global = good(&[flags, &["list"]].concat()).0;
        global.or_root_of(Some(environment.into())).map(|global| global.root())
    };
    assert_eq!(root(&[], "/e"), Ok("/e".into()));
    assert_eq!(root(&["--root", "/f"], "/e"), Ok("/f".into()));
    assert_eq!(root(&[], "/"), Err("$TARE_ROOT: the root directory must not be /".to_owned()));
}
