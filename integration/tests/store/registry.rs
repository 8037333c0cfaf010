//! Images to registries and back, by the command line and by Python.

use std::collections::BTreeMap;

use integration::registry::{Auth, Registry};
use integration::store::{Daemon, run, tempdir};

/// A daemon that has the image `v1` of a layout, and a registry that has it too.
fn pushed() -> (Daemon, Registry, String) {
    let store = Daemon::start();
    let layout = super::archives::layout(&store.dir);
    let registry = Registry::start();
    let name = format!("{}/team/app", registry.host());
    store.run(&["import", layout.to_str().unwrap(), "--name", &name, "--no-unpack"]).ok();
    let name = format!("{name}:v1");
    let ran = store.run(&["push", &name]).ok();
    assert!(ran.stdout.contains(&name) && ran.stdout.contains("sent)"), "{}", ran.stdout);
    (store, registry, name)
}

#[test]
fn what_is_pushed_is_pulled_with_its_progress() {
    let (store, registry, name) = pushed();
    let again = store.json(&["push", &name])["result"].clone();
    assert_eq!((again["images"][0]["unchanged"].as_bool(), again["sent"].as_u64()), (Some(true), Some(0)));
    let target = again["images"][0]["target"]["digest"].clone();
    store.run(&["push", &name, &name.replace("team/app:v1", "other:x")]).ok();

    let other = Daemon::start();
    let lines = other.json_lines(&["pull", &name]);
    let result = lines.last().unwrap()["result"].clone();
    assert_eq!(result["images"][0]["target"]["digest"], target);
    assert!(result["fetched"].as_u64().unwrap() > 6_000_000, "{result}");
    let items = lines.iter().flat_map(|line| line["items"].as_array().into_iter().flatten());
    let layers: BTreeMap<&str, &str> = items
        .filter(|item| item["kind"] == "layer")
        .map(|item| (item["id"].as_str().unwrap(), item["phase"].as_str().unwrap()))
        .collect();
    assert_eq!(layers.values().copied().collect::<Vec<_>>(), ["done", "done"], "{layers:?}");
    let again = other.run(&["pull", &name]).ok();
    assert!(again.stdout.ends_with("(unchanged)\n"), "{}", again.stdout);
    other.run(&["rmi", &name, "--sync"]).ok();
    let plain = other.run(&["pull", &name, "--no-unpack"]).ok();
    assert!(plain.stderr.lines().any(|it| it.starts_with("layer ") && it.contains("done")), "{}", plain.stderr);
    assert_eq!(other.run(&["pull", &name, "-q"]).ok().stderr, "");

    registry.faults(|it| it.instead.push_back(integration::registry::Instead::new("GET /v2/team/app/manifests", 503)));
    let missing = other.run(&["pull", &name.replace(":v1", ":v2")]).fails();
    let said: Vec<_> = missing.stderr.lines().collect();
    assert!(
        said.len() == 2 && said[0].contains("503") && said[1].contains(":v2"),
        "what is tried again is told: {said:?}"
    );
    assert!(other.peak_kib() < 64 << 10, "{} KiB", other.peak_kib());
    other.stop();
    store.stop();
}

/// On a terminal there are bars; nothing of them is left when the result is printed.
#[test]
fn a_terminal_gets_bars() {
    let (_first, registry, name) = pushed();
    registry.faults(|it| it.slow = Some((256 << 10, 100)));
    let dir = tempdir();
    let store = Daemon::start_in(&dir, &["--parallel", "1"]);
    // script(1) gives the command a terminal.
    let program = integration::store::under_test();
    let line = format!("{} --socket {} pull {name}", program.display(), store.socket().display());
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("COLUMNS", "120");
    let ran = run(script, None).ok();
    assert!(ran.stdout.contains("fetching") && ran.stdout.contains("█"), "{:?}", ran.stdout);
    assert!(ran.stdout.contains("MiB/s") || ran.stdout.contains("KiB/s"), "{:?}", ran.stdout);
    let last = ran.stdout.trim_end().rsplit('\n').next().unwrap();
    assert!(last.contains(&name) && last.contains("fetched)"), "{last:?}");
    // One blob at a time: what waits is said, and what is unpacked behind its bytes.
    for said in [" waiting ", ", 1 waiting, 0 of 2 done", "fetching, unpacked ", "1 of 2 done"] {
        assert!(ran.stdout.contains(said), "{said:?} is not in {:?}", ran.stdout);
    }
    store.stop();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn credentials_are_the_clients() {
    let (store, registry, name) = pushed();
    registry.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
    let host = registry.host();
    let config = store.dir.join("config.json");
    let file = config.to_str().unwrap();
    store.run(&["rmi", &name, "--sync"]).ok();
    let refused = store.run(&["pull", &name]).fails();
    assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    let login = ["login", &host, "--user", "me", "--password-stdin", "--docker-config", file];
    store.fed(&login, b"wrong\n").fails();
    assert!(!config.exists(), "what was refused is not kept");
    store.fed(&login, b"secret\n").ok();
    store.run(&["pull", &name, "--docker-config", file]).ok();
    store.run(&["logout", &host, "--docker-config", file]).ok();
    store.run(&["rmi", &name, "--sync"]).ok();
    store.run(&["pull", &name, "--docker-config", file]).fails();
    store.fed(&["pull", &name, "--user", "me", "--password-stdin"], b"secret").ok();
    assert!(!store.log().contains("secret"));
    store.stop();
}

/// A client that is killed cancels its call: nothing is left that holds what it was about.
#[test]
fn who_goes_away_cancels() {
    let (store, registry, name) = pushed();
    store.run(&["rmi", &name, "--sync"]).ok();
    registry.faults(|it| it.stall = Some((1000, 99)));
    let mut pull = store.command(&["pull", &name]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It has begun when it says so.
    let mut said = std::io::BufReader::new(pull.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    assert!(!store.json(&["lease", "ls"]).as_array().unwrap().is_empty());
    pull.kill().unwrap();
    integration::wait::child(&mut pull);
    let until = integration::wait::deadline();
    while !store.json(&["lease", "ls"]).as_array().unwrap().is_empty() {
        assert!(std::time::Instant::now() < until, "the call still holds its lease");
    }
    registry.faults(|it| it.stall = None);
    store.run(&["pull", &name]).ok();
    store.stop();
}

#[test]
fn python_pulls() {
    if !super::python::able() {
        integration::skip!("there is no protoc, or no protobuf for Python");
    }
    let (_first, _registry, name) = pushed();
    let store = Daemon::start();
    let said = super::python::python(&store, &["pull", &name], None).ok();
    let (pulled, chain) = said.stdout.trim().split_once(' ').unwrap();
    assert_eq!((pulled, store.json(&["inspect", &name])["chainId"].as_str()), (name.as_str(), Some(chain)));
    assert!(said.stderr.contains("fetching") || said.stderr.contains("done"), "{}", said.stderr);
    let missing = super::python::python(&store, &["pull", &name.replace(":v1", ":v2")], None).fails();
    assert!(missing.stderr.contains("(code 5)"), "{}", missing.stderr);
    store.stop();
}
