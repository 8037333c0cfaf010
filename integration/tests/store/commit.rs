//! A container's changes become an image, by the command line.

use std::process::Command;

use integration::store::Daemon;
use serde_json::Value;

/// Mounts what the command says at `seen`, in the store's directory, and runs a script there; the mounts go with it. What it prints.
fn within(store: &Daemon, mount: &str, script: &str) -> String {
    let seen = store.dir.join("seen");
    std::fs::create_dir_all(&seen).unwrap();
    let script = format!("set -eu; {mount}\ncd {}\n{script}", seen.display());
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("run unshare");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A snapshot of this kind at `seen`, as a mount command.
fn snapshot(store: &Daemon, kind: &str, key: &str, parent: &str) -> String {
    let seen = store.dir.join("seen");
    store.run(&["snapshot", kind, key, parent, "--target", seen.to_str().unwrap()]).ok().stdout
}

fn imported(store: &Daemon) -> (String, String) {
    let layout = super::archives::layout(&store.dir);
    store.run(&["import", layout.to_str().unwrap(), "--name", "example.org/app"]).ok();
    let name = "example.org/app:v1".to_owned();
    let chain = store.json(&["inspect", &name])["chainId"].as_str().unwrap().to_owned();
    (name, chain)
}

/// Everything that can change: what is new, other, gone, gone with all in it, linked, and of another owner.
const CHANGES: &str = "
    echo new >new; ln new hard; ln -s new soft
    rm etc/file1; echo other >etc/file2; mkdir -p deep/below; echo x >deep/below/file
    rm data; mkdir data; echo inside >data/file
    chown 7:8 new; chmod 4755 new; touch -d '2030-01-01 UTC' etc/file2; touch -d '1999-01-01 UTC' deep/below/file
    setfattr -n user.note -v kept deep";

/// What is seen of that.
const SEEN: &str = "
    cat new etc/file2 data/file deep/below/file; readlink soft; ls etc; stat -c '%u:%g %a %h' new
    stat -c %Y deep/below/file; getfattr --only-values -n user.note deep";

const AS_CHANGED: &str = "new\nother\ninside\nx\nnew\nfile2\n7:8 4755 2\n915148800\nkept";

#[test]
fn changes_become_an_image() {
    let store = Daemon::start();
    let (base, chain) = imported(&store);
    within(&store, &snapshot(&store, "prepare", "work", &chain), CHANGES);
    let words =
        ["commit", "work", "example.org/made:1", "--base", &base, "--source-date", "1000000000", "--author", "me"];
    let made = store.json(&words)["result"]["images"][0].clone();

    // It can be stood upon at once, and is what the container was.
    let image = store.json(&["inspect", "example.org/made:1"]);
    assert_eq!((&image["unpacked"], &image["chainId"]), (&Value::Bool(true), &made["chainId"]));
    let made_chain = image["chainId"].as_str().unwrap();
    assert_eq!(within(&store, &snapshot(&store, "view", "made", made_chain), SEEN), AS_CHANGED);
    let late = within(&store, &snapshot(&store, "view", "late", made_chain), "stat -c %Y etc/file2");
    assert_eq!(late.trim(), "1000000000", "no time is later than what was asked for");

    // A second commit has the first one's digest, and so has a third that takes its date from the environment.
    let again =
        store.json(&[&words[..2], &["example.org/made:2"], &words[3..]].concat())["result"]["images"][0].clone();
    assert_eq!(again["target"], made["target"]);
    let mut command = store.command(&["commit", "work", "example.org/made:3", "--base", &base, "--author", "me", "-q"]);
    command.env("SOURCE_DATE_EPOCH", "1000000000");
    integration::store::run(command, None).ok();
    assert_eq!(store.json(&["inspect", "example.org/made:3"])["target"], image["target"]);
    // Another date is another image.
    store.run(&["commit", "work", "example.org/made:4", "--base", &base, "--author", "me", "--source-date", "1"]).ok();
    assert_ne!(store.json(&["inspect", "example.org/made:4"])["target"], image["target"]);

    // Without the base's blobs there is nothing to commit on, and an image that is another's base is refused.
    let wrong = store.run(&["commit", "work", "x", "--base", "example.org/made:1"]).fails();
    assert!(wrong.stderr.contains("name the image that it was prepared from"), "{}", wrong.stderr);
    assert!(store.run(&["fsck"]).ok().stdout.contains("0 problems"));
    store.stop();
}

#[test]
fn differences_are_made_and_applied() {
    let store = Daemon::start();
    let (base, chain) = imported(&store);
    within(&store, &snapshot(&store, "prepare", "work", &chain), CHANGES);
    snapshot(&store, "view", "below", &chain);
    let date = ["--source-date", "1000000000"];
    let made = store.run(&[&["diff", "create", "work", "below"], &date[..]].concat()).ok().stdout;
    let digest = made.trim();
    let again = store.run(&[&["diff", "create", "work", "below"], &date[..]].concat()).ok().stdout;
    assert_eq!(again, made, "the same changes are the same bytes");
    // It is the layer that a commit makes.
    store.run(&[&["commit", "work", "example.org/made", "--base", &base], &date[..]].concat()).ok();
    let manifest = store.json(&["inspect", "example.org/made", "--raw", "manifest"]);
    assert_eq!(manifest["layers"][2]["digest"], digest);

    snapshot(&store, "prepare", "applied", &chain);
    let diff_id = store.run(&["diff", "apply", digest, "applied"]).ok().stdout;
    assert_eq!(store.json(&["content", "info", digest])["labels"]["containerd.io/uncompressed"], diff_id.trim());
    let seen = store.dir.join("seen");
    let mount = store.run(&["snapshot", "mounts", "applied", "--target", seen.to_str().unwrap()]).ok().stdout;
    assert_eq!(within(&store, &mount, SEEN), AS_CHANGED);
    let twice = store.run(&["diff", "apply", digest, "applied"]).fails();
    assert!(twice.stderr.contains("has changes already"), "{}", twice.stderr);
    store.stop();
}
