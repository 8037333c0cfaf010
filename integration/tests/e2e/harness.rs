//! That the harness itself can tell right from wrong, on whatever runtime is under test.

use integration::{Console, Leaks, Runtime};
use serde_json::json;

#[test]
fn a_container_runs_and_its_output_and_status_come_back() {
    let rt = Runtime::from_env();
    assert_eq!(rt.run(&rt.bundle(&["/bin/echo", "hello"])).ok().stdout, "hello\n");
    assert_eq!(rt.run(&rt.bundle(&["/bin/probe", "exit", "7"])).fails().code(), 7);
}

#[test]
fn a_life_from_create_to_delete() {
    let rt = Runtime::from_env();
    let before = Leaks::snapshot(&rt);
    let container = rt.create(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.wait_stdout(|text| text.contains("ready"));
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec(&["echo", "in"]).ok().stdout, "in\n");
    let during = Leaks::snapshot(&rt);
    assert!(!during.cgroups.is_empty() && !during.processes.is_empty() && !during.state.is_empty(), "{during:?}");
    container.kill("TERM").ok();
    container.wait_exit();
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
    before.assert_same(&rt);
}

#[test]
fn the_probe_reports_what_the_configuration_says() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe"]).set("/process/user/uid", json!(1000)).set("/hostname", json!("probed"));
    let report = rt.run(&bundle).ok().json();
    assert_eq!(report["uid"], json!([1000, 1000]));
    assert_eq!(report["hostname"], "probed");
    assert_eq!(report["rlimits"]["NOFILE"], json!([1024, 1024]));
    let targets: Vec<_> = report["mounts"].as_array().unwrap().iter().map(|mount| &mount["target"]).collect();
    assert!(targets.contains(&&json!("/dev/shm")), "{targets:?}");
}

#[test]
fn a_terminal_comes_over_the_console_socket() {
    let rt = Runtime::from_env();
    let console = Console::listen(&rt);
    let bundle = rt.bundle(&["/bin/tty"]).set("/process/terminal", json!(true));
    let container = rt.create(&bundle, &["--console-socket", console.path().to_str().unwrap()]).unwrap();
    let (master, _) = console.accept();
    container.start().ok();
    let text = Console::read_until(&master, |text| text.contains("/dev/"));
    assert!(text.contains("/dev/pts/0") || text.contains("/dev/console"), "{text:?}");
    container.wait_exit();
}
