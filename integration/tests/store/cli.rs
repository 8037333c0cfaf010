//! The commands for what images are made of.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use integration::registry::{Auth, Registry};
use integration::store::{Daemon, client, run};
use serde_json::{Value, json};

#[test]
fn blobs() {
    let store = Daemon::start();
    let big: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = store.fed(&["content", "put", "big", "--label", "k=v"], &big).ok().stdout.trim().to_owned();
    assert_eq!(store.run(&["content", "get", &digest]).ok().bytes, big);
    let part = store.run(&["content", "get", &digest, "--offset", "4", "--size", "8"]).ok();
    assert_eq!(part.bytes, big[4..12]);
    let again = store.fed(&["content", "put", "other", "--digest", &digest], &big).ok();
    assert_eq!(again.stdout.trim(), digest, "what is here is stored");
    assert_eq!(store.fed(&["content", "put", "third"], &big).ok().stdout.trim(), digest);

    let wrong = format!("sha256:{}", "0".repeat(64));
    let ran = store.fed(&["content", "put", "w", "--digest", &wrong], b"x").fails();
    assert!(ran.stderr.contains(&wrong), "{}", ran.stderr);
    let info = store.json(&["content", "info", &digest]);
    assert_eq!((info["size"].as_u64(), &info["labels"]), (Some(12_000_000), &json!({"k": "v"})));
    store.run(&["content", "label", &digest, "a=b", "k="]).ok();
    assert_eq!(store.json(&["content", "info", &digest])["labels"], json!({"a": "b"}));
    let listed = store.json(&["content", "ls", "labels.a==b"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(store.run(&["content", "ls"]).ok().stdout.contains("11.44 MiB"));
    store.run(&["content", "rm", &digest]).ok();
    let ran = store.run(&["content", "get", &digest]).fails();
    assert!(ran.stderr.contains("there is no blob") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(store.run(&["content", "get", "sha256:x"]).fails().stderr.contains("not a digest"));
    assert!(store.peak_kib() < 64 << 10, "{} KiB", store.peak_kib());
    store.stop();
}

/// As a person's shell would: nobody reads what a command prints to the end.
#[test]
fn a_closed_pipe_is_no_panic() {
    let store = Daemon::start();
    let digest = store.fed(&["content", "put", "big"], &vec![7; 8 << 20]).ok().stdout.trim().to_owned();
    let mut get = store.command(&["content", "get", &digest]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(get.stdout.take());
    assert_eq!(integration::wait::child(&mut get).code(), Some(1));
    store.stop();
}

#[test]
fn a_snapshots_life_is_mounted_and_kept() {
    let store = Daemon::start();
    let target = store.dir.join("mnt");
    std::fs::create_dir(&target).unwrap();
    let mount = |args: &[&str]| {
        let printed = store.run(args).ok().stdout;
        let status = Command::new("/bin/sh").arg("-c").arg(&printed).status().unwrap();
        assert!(status.success(), "{printed}");
        printed
    };
    let umount = || assert!(Command::new("umount").arg(&target).status().unwrap().success());
    let at = target.to_str().unwrap();

    mount(&["snapshot", "prepare", "one", "--target", at, "--label", "k=v"]);
    std::fs::write(target.join("file"), "1").unwrap();
    umount();
    store.run(&["snapshot", "commit", "one", "base"]).ok();
    mount(&["snapshot", "prepare", "two", "base", "--target", at]);
    assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "1");
    std::fs::write(target.join("file"), "2").unwrap();
    umount();
    mount(&["snapshot", "view", "three", "base", "--target", at]);
    assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "1");
    assert!(std::fs::write(target.join("file"), "3").is_err());
    umount();

    assert!(store.run(&["snapshot", "rm", "base"]).fails().stderr.contains("stands on it"));
    let kinds: Vec<_> =
        store.json(&["snapshot", "ls"]).as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["committed", "view", "active"]);
    assert_eq!(store.json(&["snapshot", "info", "two"])["parent"], "base");
    assert!(store.json(&["snapshot", "usage", "two"])["size"].as_u64().unwrap() > 0);
    let mounts = store.json(&["snapshot", "mounts", "three"]);
    assert!(mounts[0]["options"].as_array().unwrap().contains(&json!("ro")), "{mounts}");
    store.run(&["snapshot", "label", "two", "a=b"]).ok();
    assert_eq!(store.json(&["snapshot", "ls", "labels.a==b"])[0]["name"], "two");
    store.run(&["snapshot", "rm", "two", "three", "base"]).ok();
    store.run(&["snapshot", "cleanup"]).ok();
    assert_eq!(leftovers(&store.dir.join("root/snapshots")), 0);
    store.stop();
}

fn leftovers(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn leases_and_namespaces_and_collection() {
    let store = Daemon::start();
    assert_eq!(store.run(&["lease", "create", "l", "--label", "k=v"]).ok().stdout, "l\n");
    let kept = store.fed(&["content", "put", "a", "--lease", "l"], b"kept").ok().stdout;
    store.fed(&["content", "put", "b"], b"not kept").ok();
    assert_eq!(store.json(&["gc", "--dry-run"])["blobs"], 1);
    assert_eq!(store.json(&["gc"])["blobs"], 1);
    assert_eq!(store.json(&["lease", "resources", "l"]), json!([{"type": "content", "id": kept.trim()}]));
    store.run(&["lease", "drop", "l", "content", kept.trim()]).ok();
    store.run(&["lease", "add", "l", "images", "x"]).ok();
    assert_eq!(store.json(&["lease", "ls"])[0]["labels"], json!({"k": "v"}));
    store.run(&["lease", "rm", "l", "--sync"]).ok();
    assert_eq!(store.json(&["content", "ls"]), json!([]), "what only the lease kept has gone");
    assert_eq!(store.run(&["gc", "--older-than", "1d"]).code, Some(2));

    store.run(&["namespace", "create", "other", "k=v"]).ok();
    store.run(&["namespace", "label", "other", "k=w"]).ok();
    let all = store.json(&["namespace", "ls"]);
    assert!(all.as_array().unwrap().contains(&json!({"name": "other", "labels": {"k": "w"}})), "{all}");
    let digest = store.fed(&["-n", "other", "content", "put", "a"], b"there").ok().stdout;
    store.run(&["content", "get", digest.trim()]).fails();
    assert!(store.run(&["namespace", "rm", "other"]).fails().stderr.contains("other"));
    let mut command = store.command(&["content", "ls", "--json"]);
    command.env("CONTAINERD_NAMESPACE", "other");
    assert!(integration::store::run(command, None).ok().stdout.contains(digest.trim()));
    assert!(store.run(&["-n", "a b", "images"]).fails().stderr.contains("a b"));
    store.stop();
}

#[test]
fn what_the_store_is_and_what_it_takes() {
    let store = Daemon::start();
    let info = store.json(&["info"]);
    assert_eq!(info["root"].as_str().unwrap(), store.dir.join("root").to_str().unwrap());
    assert_eq!(info["pid"].as_i64().unwrap(), i64::from(store.pid().as_raw()));
    store.fed(&["content", "put", "a"], &[1; 5000]).ok();
    let usage = store.json(&["df"]);
    assert_eq!(usage["blobs"], 1);
    assert!(
        usage["blobBytes"].as_u64().unwrap() >= 5000 && usage["reclaimableBytes"].as_u64().unwrap() >= 5000,
        "{usage}"
    );
    assert!(store.run(&["df"]).ok().stdout.contains("can be freed"));
    assert!(store.run(&["df", "none"]).fails().stderr.contains("none"));
    let blobs = store.dir.join("root/content/blobs/sha256");
    let blob = std::fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&blob, [2; 5000]).unwrap();
    let found = store.run(&["fsck"]).fails();
    assert!(
        found.stdout.starts_with("blob sha256:") && found.stdout.ends_with("1 problems, 0 repaired\n"),
        "{}",
        found.stdout
    );
    assert_eq!(store.run(&["images"]).ok().stdout, "NAME  DIGEST  KIND  UPDATED\n");
    assert!(store.run(&["inspect", "none"]).fails().stderr.contains("none"));
    store.stop();
}

/// The commands that `--help` lists, with those of groups.
fn commands(within: &[&str]) -> BTreeSet<String> {
    let help = run(client(Path::new("/none"), &[within, &["--help"]].concat()), None).ok().stdout;
    let listed = help.lines().skip_while(|it| *it != "Commands:").skip(1).take_while(|it| !it.is_empty());
    let mut found = BTreeSet::new();
    for name in listed.filter_map(|it| it.split_whitespace().next()).filter(|it| *it != "help") {
        let path = [within, &[name]].concat();
        let below = commands(&path);
        found.extend(if below.is_empty() { BTreeSet::from([path.join(" ")]) } else { below });
    }
    found
}

/// With `--json` every command answers in JSON or says nothing, whatever it does: programs need not know which ones talk to people.
#[test]
fn every_command_answers_in_json() {
    let (store, registry) = (Daemon::start(), Registry::start());
    let layout = super::archives::layout(&store.dir);
    let file = |name: &str| store.dir.join(name).to_str().unwrap().to_owned();
    let (host, config, out, out_dir) = (registry.host(), file("config.json"), file("out.tar"), file("out"));
    let pushed = format!("{host}/team/app:1");
    let repository = format!("{host}/team/app");
    let blob = integration::registry::digest(b"blob");
    let empty = integration::registry::digest(b"");
    let mut left = commands(&[]);
    assert!(left.len() > 40, "{left:?}");
    let mut layer = String::new();
    let mut chain = String::new();
    let rows: &[&[&str]] = &[
        &["info"],
        &["import", layout.to_str().unwrap(), "--name", "app", "--no-unpack"],
        &["unpack", "app:v1"],
        &["images"],
        &["inspect", "app:v1"],
        &["tag", "app:v1", &pushed],
        &["push", &pushed],
        &["pull", &pushed],
        &["tags", &repository],
        &["search", "app", "--host", &host],
        &["referrers", &pushed],
        &["export", "app:v1", "-o", &out],
        &["export", "app:v1", "--directory", &out_dir],
        &["snapshot prepare", "work", "CHAIN"],
        &["snapshot view", "below", "CHAIN"],
        &["snapshot mounts", "work"],
        &["snapshot ls"],
        &["snapshot info", "work"],
        &["snapshot usage", "work"],
        &["snapshot label", "work", "a=b"],
        &["commit", "work", "made", "--base", "app:v1"],
        &["diff create", "work", "below"],
        &["snapshot prepare", "applied", "CHAIN"],
        &["diff apply", "LAYER", "applied"],
        &["snapshot commit", "applied", "kept"],
        &["snapshot rm", "kept", "below", "work"],
        &["snapshot cleanup"],
        &["content put", "ref"],
        &["content ls"],
        &["content info", &blob],
        &["content label", &blob, "a=b"],
        &["content ingests"],
        &["content rm", &blob],
        &["lease create", "l"],
        &["lease create"],
        &["lease add", "l", "content", &empty],
        &["lease resources", "l"],
        &["lease drop", "l", "content", &empty],
        &["lease ls"],
        &["lease rm", "l"],
        &["namespace create", "other", "a=b"],
        &["namespace label", "other", "a=c"],
        &["namespace ls"],
        &["namespace rm", "other"],
        &["df"],
        &["fsck"],
        &["rmi", "app:v1", &pushed],
        &["gc"],
    ];
    let check = |words: &[&str], input: &[u8]| {
        let words: Vec<&str> = words[0].split(' ').chain(words[1..].iter().copied()).chain(["--json"]).collect();
        let ran = store.fed(&words, input).ok();
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}: {line}"));
        ran.stdout.lines().map(parse).fold(Value::Null, |_, it| it)
    };
    for words in rows {
        left.remove(words[0]);
        let words: Vec<&str> = words
            .iter()
            .map(|it| match *it {
                "CHAIN" => chain.as_str(),
                "LAYER" => layer.as_str(),
                other => other,
            })
            .collect();
        let answer = check(&words, b"blob");
        match words[0] {
            "unpack" => chain = answer["result"]["images"][0]["chainId"].as_str().unwrap().to_owned(),
            "diff create" => layer = answer["digest"].as_str().unwrap().to_owned(),
            _ => {}
        }
    }
    registry.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
    check(&["login", &host, "--user", "me", "--password-stdin", "--docker-config", &config], b"secret");
    check(&["logout", &host, "--docker-config", &config], b"");
    left.remove("login");
    left.remove("logout");
    // A blob's bytes are its own; one that is still coming there is not; and the daemon answers nobody here.
    for word in ["content get", "content abort", "serve"] {
        assert!(left.remove(word), "{word}");
    }
    assert_eq!(left, BTreeSet::new(), "no row is for these");
    store.stop();
}
