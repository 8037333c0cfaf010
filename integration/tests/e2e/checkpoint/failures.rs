//! What cannot be done is refused in words, and whatever fails leaves nothing behind.

use std::ffi::OsStr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

#[test]
fn a_killed_restore_leaves_what_delete_removes() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let before = Leaks::snapshot(&rt);
    // Killed while a hook waits: everything is half made then.
    let there = rt.fresh_path("there");
    let script = format!("echo > {}; exec sleep 1000", text(&there));
    let bundle = bundle.set("/hooks/createRuntime", json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]));
    bundle.write();
    let id = rt.fresh_id();
    let args = ["restore", "--detach", "--bundle", bundle.path_str(), "--image-path", text(&image), &id];
    let running = rt.spawn(&args, no_stdio);
    wait::file(&there, |content| !content.is_empty());
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code(), 128 + 9);
    rt.call(&["delete", "--force", &id]).ok();
    // The hook is nobody's: it was the killed runtime's to end.
    let left = Leaks::snapshot(&rt);
    for (pid, command) in left.processes.iter().filter(|(_, command)| command.contains("sleep 1000")) {
        assert!(command.contains("sleep"));
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    before.assert_same(&rt);
}

#[test]
fn a_terminal_needs_a_console_socket_to_be_restored_detached() {
    need_criu!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh"]).set("/process/terminal", json!(true));
    let image = rt.fresh_path("image");
    fs::create_dir(&image).unwrap();
    let error = restore(&rt, &bundle, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains("console socket") || error.contains("console-socket"), "{error}");
}

#[test]
fn a_pid_file_that_cannot_be_written_undoes_a_restore() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let before = Leaks::snapshot(&rt);
    let pid_file = rt.work().join("missing/pid");
    let id = rt.fresh_id();
    let args = [
        "restore",
        "--detach",
        "--bundle",
        bundle.path_str(),
        "--image-path",
        text(&image),
        "--pid-file",
        text(&pid_file),
        &id,
    ];
    let error = rt.spawn(&args, no_stdio).wait().fails().error();
    assert!(error.contains(text(&pid_file)), "{error}");
    before.assert_same(&rt);
}

#[test]
fn a_failing_hook_undoes_a_restore() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let before = Leaks::snapshot(&rt);
    let failing = bundle.set("/hooks/createRuntime", json!([{"path": "/bin/false", "args": ["false"]}]));
    let error = restore(&rt, &failing, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains("/bin/false"), "{error}");
    before.assert_same(&rt);
}

#[test]
fn a_failed_restore_leaves_nothing() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let before = Leaks::snapshot(&rt);

    // No image, an empty image, a damaged image, a bundle without the mount's source.
    let missing = rt.fresh_path("missing");
    let error = restore(&rt, &bundle, &missing, &[]).unwrap_err().fails().error();
    assert!(error.contains(text(&missing)), "{error}");
    before.assert_same(&rt);

    let empty = rt.fresh_path("empty");
    fs::create_dir(&empty).unwrap();
    restore(&rt, &bundle, &empty, &[]).unwrap_err().fails();
    before.assert_same(&rt);

    let damaged = rt.fresh_path("damaged");
    fs::create_dir(&damaged).unwrap();
    for entry in fs::read_dir(&image).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), damaged.join(entry.file_name())).unwrap();
    }
    fs::write(damaged.join("pstree.img"), "no image").unwrap();
    let error = restore(&rt, &bundle, &damaged, &[]).unwrap_err().fails().error();
    assert!(error.contains("criu failed") && error.contains(text(&damaged.join("restore.log"))), "{error}");
    before.assert_same(&rt);

    fs::remove_dir_all(count.parent().unwrap()).unwrap();
    let error = restore(&rt, &bundle, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains(text(count.parent().unwrap())), "{error}");
    before.assert_same(&rt);
}

#[test]
fn what_cannot_be_saved_is_refused_in_words() {
    need_criu!();
    let rt = Runtime::from_env();
    let image = rt.fresh_path("image");
    let created = rt.bring_up("create", &rt.bundle(&["/bin/true"]), &[], no_stdio).unwrap();
    let error = checkpoint(&created, &image, &[]).fails().error();
    assert!(error.contains("created"), "{error}");
    created.start().ok();
    created.wait_exit();
    let error = checkpoint(&created, &image, &[]).fails().error();
    assert!(error.contains("stopped"), "{error}");

    let (count, bundle) = counting(&rt);
    let running = run(&rt, &bundle);
    counts_on(&count);
    for (flags, word) in [
        (&["--parent-path", "/absolute"][..], "relative"),
        (&["--parent-path", "missing"][..], "missing"),
        (&["--page-server", "nonsense"][..], "ADDRESS:PORT"),
        (&["--page-server", "127.0.0.1:x"][..], "port"),
        (&["--manage-cgroups-mode", "odd"][..], "odd"),
        (&["--empty-ns", "mount"][..], "empty-ns"),
        (&["--lazy-pages", "--page-server", "127.0.0.1:1", "--status-fd", "987"][..], "status-fd"),
    ] {
        let error = checkpoint(&running, &image, flags).fails().error();
        assert!(error.to_lowercase().contains(&word.to_lowercase()), "{flags:?}: {error}");
    }
    counts_on(&count);
}

#[test]
fn a_missing_criu_is_said_with_the_remedy() {
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let container = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    let without = |command: &mut Command| {
        command.env("PATH", "/nonexistent");
    };
    let args = ["checkpoint", "--image-path", text(&image), container.id()];
    let error = rt.spawn(&args, without).wait().fails().error();
    assert!(error.contains("criu") && error.contains("package"), "{error}");
    assert_eq!(container.status(), "running");

    fs::create_dir_all(&image).unwrap();
    let before = Leaks::snapshot(&rt);
    let id = rt.fresh_id();
    let args: [&OsStr; 6] = [
        "restore".as_ref(),
        "--bundle".as_ref(),
        bundle.path().as_ref(),
        "--image-path".as_ref(),
        image.as_ref(),
        id.as_ref(),
    ];
    let error = rt.spawn(&args, without).wait().fails().error();
    assert!(error.contains("criu") && error.contains("package"), "{error}");
    before.assert_same(&rt);
}

#[test]
fn the_end_of_criu_undoes_a_restore() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let (_first, image) = saved(&rt, &bundle, &count);
    let before = Leaks::snapshot(&rt);
    // The hook kills its sister: of the runtime's children the one in the middle of a restore.
    let script = "for pid in $(cat /proc/$PPID/task/$PPID/children); do \
        case $(tr '\\0' ' ' < /proc/$pid/cmdline) in *criu*|restore*) kill -9 $pid;; esac; done";
    let bundle = bundle.set(
        "/hooks/createRuntime",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]),
    );
    let error = restore(&rt, &bundle, &image, &[]).unwrap_err().fails().error();
    assert!(error.contains("criu ended without an answer: killed by signal 9"), "{error}");
    before.assert_same(&rt);
}
