//! Classes of service (Intel RDT), over a directory that stands in for the resctrl file system.
//!
//! What the kernel does by itself (the files of a new class, their removal with the directory) the test does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Bundle, Runtime};
use serde_json::{Value, json};

/// A tree with one class that somebody else made.
fn tree(rt: &Runtime) -> PathBuf {
    let tree = rt.fresh_path("resctrl");
    fs::create_dir_all(tree.join("info")).unwrap();
    fs::create_dir_all(tree.join("shared/mon_groups")).unwrap();
    fs::write(tree.join("shared/schemata"), "    L3:0=00f;1=ff\n    MB:0=  20\n").unwrap();
    tree
}

fn bundle(rt: &Runtime, class: Value) -> Bundle {
    rt.bundle(&["/bin/probe", "wait"]).set("/linux/intelRdt", class)
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// Removes the files of a class, as rmdir(2) of the real one does.
fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}

fn with<'a>(tree: &'a Path) -> impl FnOnce(&mut Command) + 'a {
    move |command| {
        command.env("TARE_RESCTRL", tree);
    }
}

#[test]
fn a_class_of_its_own_comes_and_goes_with_the_container() {
    let rt = Runtime::from_env();
    let tree = tree(&rt);
    let bundle = bundle(&rt, json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1"]}));
    let container = rt.bring_up("run", &bundle, &["--detach"], with(&tree)).unwrap();
    let class = tree.join(container.id());
    assert_eq!(read(class.join("schemata")), "L3:0=f\nMB:0=20\nL2:0=1");
    assert_eq!(read(class.join("tasks")), container.pid().to_string());

    container.wait_stdout(|text| text.contains("ready"));
    let pid_file = rt.fresh_path("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    container.exec_with(&flags, &["sleep", "1000"]).ok();
    assert_eq!(read(class.join("tasks")), read(pid_file), "an exec joins the class");

    container.call("update", &["--l3-cache-schema", "L3:0=3"], &[] as &[&str]).ok();
    assert_eq!(read(class.join("schemata")), "L3:0=3");
    container.call("update", &["--mem-bw-schema", "MB:0=30"], &[] as &[&str]).ok();
    assert_eq!(read(class.join("schemata")), "MB:0=30");

    container.kill("KILL").ok();
    container.wait_exit();
    empty(&class);
    container.delete().ok();
    assert!(!class.exists());
    assert!(tree.join("shared").exists());
}

#[test]
fn a_shared_class_is_compared_used_and_left() {
    let rt = Runtime::from_env();
    let tree = tree(&rt);
    for class in [
        json!({"closID": "shared"}),
        json!({"closID": "shared", "l3CacheSchema": "L3:0=f", "enableMonitoring": true}),
        json!({"closID": "/"}),
    ] {
        let monitored = class["enableMonitoring"] == true;
        let dir = if class["closID"] == "/" { tree.clone() } else { tree.join("shared") };
        let before = fs::read_to_string(tree.join("shared/schemata")).unwrap();
        let container = rt.bring_up("create", &bundle(&rt, class), &[], with(&tree)).unwrap();
        assert_eq!(read(dir.join("tasks")), container.pid().to_string());
        let monitor = dir.join("mon_groups").join(container.id());
        assert_eq!(monitor.exists(), monitored);
        if monitored {
            assert_eq!(read(monitor.join("tasks")), container.pid().to_string());
            empty(&monitor);
        }
        container.delete().ok();
        assert!(dir.exists() && !monitor.exists());
        fs::write(tree.join("shared/schemata"), before).unwrap();
    }
}

#[test]
fn what_cannot_be_given_fails_and_leaves_nothing() {
    let rt = Runtime::from_env();
    let tree = tree(&rt);
    for (class, expected) in [
        (
            json!({"closID": "nowhere"}),
            "linux.intelRdt.closID \"nowhere\": there is no such class of service, and no schema to make it with",
        ),
        (
            json!({"closID": "shared", "l3CacheSchema": "L3:0=1"}),
            "the class of service exists with another schema than \"L3:0=1\"",
        ),
        // A stand-in makes no mon_groups with a class.
        (json!({"enableMonitoring": true}), "no such file or directory"),
    ] {
        let output = rt.bring_up("create", &bundle(&rt, class), &[], with(&tree)).map(drop).unwrap_err().fails();
        assert!(output.error().ends_with(expected), "{output:?}");
        let mut left: Vec<_> = fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["info", "shared"]);
    }
}
