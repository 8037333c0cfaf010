use clap::FromArgMatches;

use super::*;
use crate::cli::args::Run;
use crate::cli::commands::docker_style;

/// The record that a command line asks for.
fn read(words: &[&str]) -> Result<Container> {
    let definition = docker_style(<Run as clap::Args>::augment_args(clap::Command::new("run")));
    let matches = definition
        .try_get_matches_from(std::iter::once(&"run").chain(words))
        .map_err(|error| crate::cli::sentence::of(&error, "run", "[OPTIONS] IMAGE [COMMAND] [ARG...]"))?;
    let run = Run::from_arg_matches(&matches).unwrap();
    record(&run.container, &run.words, if run.detach { View::Detached } else { View::Attached })
}

fn told(words: &[&str]) -> Container {
    read(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[test]
fn the_talks_command_lines_are_read() {
    let record = told(&["-i", "-t", "ubuntu", "/bin/bash"]);
    assert_eq!(
        (record.config.image.as_str(), record.config.cmd.as_deref()),
        ("ubuntu", Some(&["/bin/bash".to_owned()][..]))
    );
    assert!(record.config.tty && record.config.open_stdin && record.config.attach_stdin && record.config.stdin_once);

    let record = told(&["--rm", "-it", "busybox"]);
    assert!(record.host_config.auto_remove && record.config.tty && record.config.cmd.is_none());

    let words = [
        "-d",
        "--name",
        "N",
        "-p",
        "8099:8080",
        "-p",
        "443:443",
        "-v",
        "/srv:/var/www/",
        "-e",
        "K=V",
        "--link",
        "a:b",
        "img",
        "cmd",
        "-x",
        "--rm",
    ];
    let record = told(&words.map(|it| if it == "N" { "name1" } else { it }));
    assert_eq!(record.name, "name1");
    assert_eq!(record.config.cmd.as_deref().unwrap(), ["cmd", "-x", "--rm"]);
    assert_eq!(record.host_config.port_bindings.keys().cloned().collect::<Vec<_>>(), ["443/tcp", "8080/tcp"]);
    assert_eq!(record.host_config.binds, ["/srv:/var/www"]);
    assert_eq!((record.config.env.join(" "), record.host_config.links.join(" ")), ("K=V".to_owned(), "a:b".to_owned()));
    assert!(!record.config.attach_stdout && !record.host_config.auto_remove);

    let record = told(&["d583c3ac45fd", "nodejs", "--version"]);
    assert_eq!(record.config.cmd.as_deref().unwrap(), ["nodejs", "--version"]);
}

#[test]
fn flags_are_read_as_docker_reads_them() {
    // Together, with = and without, false, twice, with a dash in the value, and behind the image not at all.
    let record =
        told(&["-itd", "-eA=1", "-e=B=2", "--env", "C=3", "--rm=false", "-m64m", "--memory-swap", "-1", "img"]);
    assert_eq!(record.config.env, ["A=1", "B=2", "C=3"]);
    assert!(record.config.tty && !record.config.attach_stdin && !record.host_config.auto_remove);
    assert_eq!((record.host_config.memory, record.host_config.memory_swap), (64 << 20, -1));
    let record = told(&["--name", "one", "--name", "two", "-t=false", "-h", "box", "img", "--", "-v"]);
    assert_eq!((record.name.as_str(), record.config.tty, record.config.hostname.as_str()), ("two", false, "box"));
    assert_eq!(record.config.cmd.as_deref().unwrap(), ["--", "-v"]);
    assert_eq!(told(&["--", "img", "-x"]).config.cmd.as_deref().unwrap(), ["-x"]);
    let record = told(&["-a", "stdout", "-i", "img"]);
    assert_eq!(
        (record.config.attach_stdin, record.config.attach_stdout, record.config.attach_stderr),
        (false, true, false)
    );
    assert!(record.config.open_stdin && !record.config.stdin_once);
}

#[test]
fn what_is_not_said_is_dockers_default() {
    let record = told(&["img"]);
    let host = &record.host_config;
    assert_eq!(
        (host.network_mode.as_str(), host.restart_policy.name.as_str(), host.shm_size),
        ("bridge", "no", 64 << 20)
    );
    assert_eq!((host.log_config.kind.as_str(), host.ipc_mode.as_str(), host.memory), ("json-file", "private", 0));
    assert!(
        record.config.entrypoint.is_none()
            && record.config.healthcheck.is_none()
            && record.config.stop_signal.is_empty()
    );
    assert_eq!(told(&["--entrypoint", "", "img"]).config.entrypoint.as_deref().unwrap(), [""]);
    assert_eq!(told(&["--restart", "on-failure:3", "img"]).host_config.restart_policy.maximum_retry_count, 3);
    assert_eq!(told(&["-v", "/data", "img"]).config.volumes.unwrap().keys().cloned().collect::<Vec<_>>(), ["/data"]);
}

#[test]
fn what_makes_no_sense_is_said_in_one_sentence() {
    for (words, expected) in [
        (&[][..], "tarectl run needs an image"),
        (&["--nope", "img"], "has no flag --nope"),
        (&["--memroy", "1g", "img"], "but --memory"),
        (&["-z", "img"], "has no flag -z"),
        (&["--name"], "--name needs a value"),
        (&["-t=perhaps", "img"], "give true or false"),
        (&["--stop-timeout", "soon", "img"], "--stop-timeout"),
        (&["--name", "a b", "img"], "cannot name a container"),
        (&[""], "the image's name is empty"),
        (&["-w", "here", "img"], "does not begin with /"),
        (&["-a", "stdnull", "img"], "is no stream"),
        (&["-d", "-a", "stdout", "img"], "exclude each other"),
        (&["--rm", "--restart", "always", "img"], "leave one out"),
        (&["--restart", "often", "img"], "--restart \"often\" is none"),
        (&["--restart", "always:3", "img"], "is none"),
        (&["--stop-signal", "NOPE", "img"], "is no signal"),
        (&["--log-driver", "syslog", "img"], "no --log-driver syslog"),
        (&["--log-opt", "nope=1", "img"], "is none"),
        (&["--log-opt", "max-size=x", "img"], "is not a size"),
        (&["--gpus", "all", "img"], "no --gpus"),
        (&["--storage-opt", "size=1g", "img"], "no --storage-opt"),
        (&["--cidfile", "/etc/passwd", "img"], "is there already"),
        (&["--cidfile", "/no/such/x", "img"], "its directory is not there"),
        (&["--env-file", "/no/such", "img"], "/no/such"),
        (&["-v", "/a:/b", "-v", "/c:/b", "img"], "two mounts have the directory /b"),
        (&["--volumes-from", ":ro", "img"], "is none"),
        (&["-h", "a b", "img"], "is no host name"),
        (&["--shm-size", "big", "img"], "--shm-size"),
    ] {
        let error = read(words).expect_err(expected);
        assert!(error.message.contains(expected), "{words:?}: {error}");
        assert!(!error.message.contains('\n'), "{error}");
        assert_eq!(error.exit_code(), 125);
    }
}

#[test]
fn signals_are_names_or_numbers() {
    for (text, number) in [("TERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
        assert_eq!(signal_number(text).unwrap(), number, "{text}");
    }
    for wrong in ["", "NOPE", "0", "65", "RTMIN+99", "-1"] {
        assert!(signal_number(wrong).is_err(), "{wrong}");
    }
}
