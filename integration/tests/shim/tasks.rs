//! The task service: a container's life, its execs, its signals, what is told of it and when.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Instant;

use integration::shim_client::{Launch, Shim, Streams, block_on, refusal, soon};
use integration::wait;
use serde_json::json;
use tare_proto::task_types::Status;
use tare_proto::ttrpc::Code;
use tare_proto::{Empty, cgroups_v1, cgroups_v2, task_v3};

use super::held::{Fifo, Plan, process, shim_under_test};

#[test]
fn a_life_is_told_in_order() {
    block_on(async {
        let mut held = Plan::of(&["/bin/sh", "-c", "read line; echo got $line; echo bad >&2; exit 7"]).hold().await;
        let [mut stdin, mut stdout, mut stderr] = ["in", "out", "err"].map(|name| Fifo::new(&held.rt, name));
        let streams = Streams { stdin: stdin.text(), stdout: stdout.text(), stderr: stderr.text(), terminal: false };
        let id = held.id.clone();
        let pid = held.create(&streams).await.unwrap();
        let state = held.shim.state(&id, "").await.unwrap();
        assert_eq!((state.status, state.pid), (Status::CREATED.into(), pid));
        assert_eq!((state.stdin, state.stdout, state.terminal), (stdin.text(), stdout.text(), false));
        assert_eq!(state.bundle, held.bundle.path().to_str().unwrap());
        assert_eq!(held.shim.start(&id, "").await.unwrap(), pid);
        assert_eq!(held.shim.state(&id, "").await.unwrap().status, Status::RUNNING.into());
        assert_eq!(held.shim.pids_of_shim_and_task(&id).await.unwrap(), (held.pid, pid));

        stdin.file.write_all(b"it\n").unwrap();
        assert_eq!(held.shim.wait(&id, "").await.unwrap().exit_status, 7);
        assert_eq!((stdout.read(7), stderr.read(4)), ("got it\n".into(), "bad\n".into()));
        let state = held.shim.state(&id, "").await.unwrap();
        assert_eq!((state.status, state.exit_status), (Status::STOPPED.into(), 7));
        assert!(state.exited_at.seconds > 0);
        assert_eq!(held.shim.pids(&id).await.unwrap(), [(pid, None)], "a daemon that starts again would drop the exit");
        let deleted = held.shim.delete(&id, "").await.unwrap();
        assert_eq!((deleted.exit_status, deleted.pid), (7, pid));
        assert_eq!(refusal(&held.shim.state(&id, "").await.unwrap_err()), Some(Code::NOT_FOUND));
        assert_eq!(held.told("delete").await, ["create ID", "start ID", "exit ID 7", "delete ID 7"]);
        held.end().await;
    });
}

#[test]
fn both_versions_of_the_service_are_served() {
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        for version in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
            let request = task_v3::StateRequest { id: held.id.clone(), ..Default::default() };
            let call = tare_proto::ttrpc::Request {
                service: version.into(),
                method: "State".into(),
                payload: tare_proto::Message::write_to_bytes(&request).unwrap(),
                ..Default::default()
            };
            held.shim.client.request(call).await.unwrap();
        }
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn execs_have_their_own_lives() {
    block_on(async {
        let mut held = Plan::idle().hold().await;
        let id = held.id.clone();
        let init = held.run().await;
        let pid = held.exec("nine", &["/bin/sh", "-c", "exit 9"], &Streams::default()).await;
        assert_ne!(pid, init);
        assert_eq!(held.shim.wait(&id, "nine").await.unwrap().exit_status, 9);
        let taken = held.shim.exec(&id, "nine", &process(&["true"]), &Streams::default()).await.unwrap_err();
        assert_eq!(refusal(&taken), Some(Code::ALREADY_EXISTS));
        let gone = held.shim.kill(&id, "nine", libc::SIGTERM).await.unwrap_err();
        assert_eq!(refusal(&gone), Some(Code::NOT_FOUND), "{gone}");
        assert_eq!(held.shim.delete(&id, "nine").await.unwrap().exit_status, 9);

        let pid = held.exec("sleeps", &["/bin/sleep", "1000"], &Streams::default()).await;
        let pids = held.shim.pids(&id).await.unwrap();
        assert!(pids.contains(&(init, None)) && pids.contains(&(pid, Some("sleeps".into()))), "{pids:?}");
        let running = held.shim.delete(&id, "sleeps").await.unwrap_err();
        assert_eq!(refusal(&running), Some(Code::FAILED_PRECONDITION));
        held.shim.kill(&id, "sleeps", libc::SIGKILL).await.unwrap();
        assert_eq!(held.shim.wait(&id, "sleeps").await.unwrap().exit_status, 137);

        let refused = held.shim.exec(&id, "no", &json!("words"), &Streams::default()).await.unwrap_err();
        assert_eq!(refusal(&refused), Some(Code::INVALID_ARGUMENT));
        held.shim.exec(&id, "missing", &process(&["/no/such"]), &Streams::default()).await.unwrap();
        let error = held.shim.start(&id, "missing").await.unwrap_err();
        assert!(error.to_string().contains("no such file or directory"), "{error}");
        held.shim.delete(&id, "missing").await.unwrap();
        held.kill_and_delete().await;
        let told = held.told("delete").await;
        let expected = [
            "create ID",
            "start ID",
            "exec-added ID nine",
            "exec-started ID nine",
            "exit ID nine 9",
            "exec-added ID sleeps",
            "exec-started ID sleeps",
            "exit ID sleeps 137",
            "exec-added ID missing",
            "exit ID 137",
            "delete ID 137",
        ];
        assert_eq!(told, expected);
        held.end().await;
    });
}

#[test]
fn the_first_process_s_exit_is_told_after_all_others() {
    block_on(async {
        let mut held = Plan::idle().hold().await;
        held.run().await;
        for number in 0..8 {
            held.exec(&format!("e{number}"), &["/bin/sleep", "1000"], &Streams::default()).await;
        }
        held.shim.kill(&held.id, "", libc::SIGKILL).await.unwrap();
        held.shim.wait(&held.id, "").await.unwrap();
        let told = held.told("exit ID 137").await;
        let exits = told.iter().filter(|it| it.starts_with("exit ID e")).count();
        assert_eq!(exits, 8, "{told:?}");
        held.shim.delete(&held.id, "").await.unwrap();
        held.end().await;
    });
}

#[test]
fn what_a_state_forbids_is_refused_by_kind() {
    block_on(async {
        let held = Plan::idle().hold().await;
        let (id, shim) = (held.id.as_str(), &held.shim);
        let no = Streams::default();
        assert_eq!(refusal(&shim.start(id, "").await.unwrap_err()), Some(Code::NOT_FOUND));
        held.create(&no).await.unwrap();
        let again = held.create(&no).await.unwrap_err();
        assert_eq!(refusal(&again), Some(Code::ALREADY_EXISTS));
        assert_eq!(refusal(&shim.pause(id).await.unwrap_err()), Some(Code::FAILED_PRECONDITION));
        shim.start(id, "").await.unwrap();
        let precondition = Some(Code::FAILED_PRECONDITION);
        assert_eq!(refusal(&shim.start(id, "").await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.delete(id, "").await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.resume(id).await.unwrap_err()), precondition);
        shim.pause(id).await.unwrap();
        assert_eq!(shim.state(id, "").await.unwrap().status, Status::PAUSED.into());
        assert_eq!(refusal(&shim.exec(id, "e", &process(&["true"]), &no).await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.pause(id).await.unwrap_err()), precondition);
        shim.resume(id).await.unwrap();
        shim.kill(id, "", libc::SIGKILL).await.unwrap();
        shim.wait(id, "").await.unwrap();
        assert_eq!(refusal(&shim.kill(id, "", libc::SIGTERM).await.unwrap_err()), Some(Code::NOT_FOUND));
        assert_eq!(refusal(&shim.start(id, "").await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.exec(id, "e", &process(&["true"]), &no).await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.update(id, &json!({})).await.unwrap_err()), precondition);
        assert_eq!(refusal(&shim.wait(id, "none").await.unwrap_err()), Some(Code::NOT_FOUND));
        shim.delete(id, "").await.unwrap();
        for bad in ["", "..", "a/b", ".x"] {
            let error = shim.create(bad, held.bundle.path(), &no).await.unwrap_err();
            assert_eq!(refusal(&error), Some(Code::INVALID_ARGUMENT), "{bad:?}: {error}");
        }
        held.end().await;
    });
}

#[test]
fn a_created_container_can_be_deleted_or_killed_before_its_start() {
    block_on(async {
        let mut held = Plan::idle().hold().await;
        let id = held.id.clone();
        held.create(&Streams::default()).await.unwrap();
        held.shim.delete(&id, "").await.unwrap();
        assert_eq!(held.told("delete").await, ["create ID", "exit ID 137", "delete ID 137"]);
        held.create(&Streams::default()).await.unwrap();
        held.shim.kill(&id, "", libc::SIGKILL).await.unwrap();
        assert_eq!(held.shim.wait(&id, "").await.unwrap().exit_status, 137);
        held.shim.delete(&id, "").await.unwrap();
        assert_eq!(held.told("delete").await, ["create ID", "exit ID 137", "delete ID 137"]);
        held.end().await;
    });
}

#[test]
fn pausing_limits_and_statistics() {
    block_on(async {
        let mut held = Plan::idle().hold().await;
        let id = held.id.clone();
        held.run().await;
        held.shim.pause(&id).await.unwrap();
        held.shim.resume(&id).await.unwrap();
        held.shim.update(&id, &json!({"pids": {"limit": 77}})).await.unwrap();
        let v1 = held.shim.stats::<cgroups_v1::Metrics>(&id).await.unwrap();
        let v2 = held.shim.stats::<cgroups_v2::Metrics>(&id).await.unwrap();
        let pids = v1.map(|it| (it.pids.current, it.pids.limit)).or(v2.map(|it| (it.pids.current, it.pids.limit)));
        assert_eq!(pids, Some((1, 77)));
        let wrong = held.shim.update(&id, &json!({"pids": {"limit": "many"}})).await.unwrap_err();
        assert!(!wrong.to_string().is_empty());
        held.kill_and_delete().await;
        let expected = ["create ID", "start ID", "paused ID", "resumed ID", "exit ID 137", "delete ID 137"];
        assert_eq!(held.told("delete").await, expected);
        held.end().await;
    });
}

#[test]
fn many_clients_wait_for_one_exit() {
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        let mut waiters = Vec::new();
        for _ in 0..10 {
            let shim = Shim::connect(&held.started).await.unwrap();
            let id = held.id.clone();
            waiters.push(tokio::spawn(async move { shim.wait(&id, "").await.unwrap().exit_status }));
        }
        held.shim.kill(&held.id, "", libc::SIGTERM).await.unwrap();
        held.shim.kill(&held.id, "", libc::SIGKILL).await.unwrap();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 137);
        }
        held.shim.delete(&held.id, "").await.unwrap();
        held.end().await;
    });
}

#[test]
fn a_shared_pid_namespace_is_emptied_at_the_first_process_s_end() {
    block_on(async {
        let args = ["/bin/sh", "-c", "/bin/sleep 1000 & exit 3"];
        let plan = Plan::of(&args).edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|it| it["type"] != "pid");
        });
        let held = plan.hold().await;
        let pid = held.run().await;
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 3);
        // The other one has been killed, and may not have died of it yet.
        let deadline = wait::deadline();
        while held.shim.pids(&held.id).await.unwrap() != [(pid, None)] {
            assert!(Instant::now() < deadline, "only the one that ended is left");
        }
        held.shim.delete(&held.id, "").await.unwrap();
        held.end().await;
    });
}

/// The kernel sees to the order where a pid namespace ends with its first process. Here it does not.
#[test]
fn in_a_shared_pid_namespace_too_the_first_process_s_exit_is_told_last() {
    block_on(async {
        let plan = Plan::idle().edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|it| it["type"] != "pid");
        });
        let mut held = plan.hold().await;
        held.run().await;
        for number in 0..8 {
            held.exec(&format!("e{number}"), &["/bin/sleep", "1000"], &Streams::default()).await;
        }
        held.shim.kill(&held.id, "", libc::SIGKILL).await.unwrap();
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 137);
        let told = held.told("exit ID 137").await;
        let exits = told.iter().filter(|it| it.starts_with("exit ID e")).count();
        assert_eq!(exits, 8, "{told:?}");
        held.shim.delete(&held.id, "").await.unwrap();
        held.end().await;
    });
}

#[test]
fn a_shim_holds_several_containers() {
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        let other = held.rt.bundle(&["/bin/sh", "-c", "exit 4"]);
        other.write();
        let id = held.rt.fresh_id();
        let options = held.launch.options.clone();
        held.shim.create_with(&id, other.path(), &Streams::default(), vec![], options).await.unwrap();
        held.shim.start(&id, "").await.unwrap();
        assert_eq!(held.shim.wait(&id, "").await.unwrap().exit_status, 4);
        held.shim.delete(&id, "").await.unwrap();
        // Ignored: a container remains.
        held.shim.shutdown(&id).await.unwrap();
        assert_eq!(held.shim.state(&held.id, "").await.unwrap().status, Status::RUNNING.into());
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn a_shim_without_a_container_ends_by_itself() {
    let rt = integration::Runtime::from_env();
    let bundle = rt.bundle(&["true"]);
    bundle.write();
    let mut launch = Launch::new(&shim_under_test(), &rt.fresh_id(), bundle.path());
    launch.socket_dir = Some(rt.work().to_owned());
    launch.environment.push(("TARE_SHIM_IDLE".into(), "0".into()));
    let mut started = launch.start().unwrap();
    let mut log = String::new();
    while !log.contains("the shim ends") {
        assert!(wait::readable(started.log.as_fd(), wait::deadline()), "it does not end: {log}");
        log += &started.read_log();
    }
}

#[test]
fn an_unknown_method_is_unimplemented() {
    block_on(async {
        let held = Plan::idle().hold().await;
        let answer = held.shim.call::<Empty, Empty>(soon(), "NoSuch", &Empty::default()).await;
        assert_eq!(refusal(&answer.unwrap_err()), Some(Code::UNIMPLEMENTED));
        held.end().await;
    });
}
