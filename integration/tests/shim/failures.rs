//! What breaks shims: runtimes that hang, die, babble or lie; streams that nobody reads; clients that give up.

use std::fs;
use std::time::Duration;

use integration::shim_client::{Streams, block_on, refusal, wait_gone};
use tare_proto::any::pack;
use tare_proto::task_types::Status;
use tare_proto::task_v3::{CreateTaskRequest, CreateTaskResponse};
use tare_proto::ttrpc::{Code, context};
use tare_proto::{Any, runc};

use super::held::{Fifo, Held, Plan, plan_of_faults};

/// The request of a create with the launch's options.
fn create_request(held: &Held) -> CreateTaskRequest {
    CreateTaskRequest {
        id: held.id.clone(),
        bundle: held.bundle.path().to_str().unwrap().into(),
        options: held.launch.options.clone().into(),
        ..Default::default()
    }
}

/// What a failed create leaves: no container, and a name that is free.
async fn nothing_is_left(held: &Held) {
    let state = held.shim.state(&held.id, "").await.unwrap_err();
    assert_eq!(refusal(&state), Some(Code::NOT_FOUND), "{state}");
    assert!(!held.rt.root().join("default").join(&held.id).try_exists().unwrap(), "the runtime still has it");
}

#[test]
fn a_runtime_that_fails_is_quoted() {
    for (faults, code, said) in [
        ("create error the disk is on fire", Code::INTERNAL, "the disk is on fire"),
        ("create exit 3", Code::INTERNAL, "the runtime's create ended with status 3 and said nothing"),
        ("create signal 9", Code::INTERNAL, "the runtime's create was killed by signal 9"),
        ("create after-signal 9", Code::INTERNAL, "the runtime's create was killed by signal 9"),
        ("create no-pid", Code::INTERNAL, "the runtime wrote no process id into"),
        ("create wrong-pid", Code::INTERNAL, "watch the process 4194305 that the runtime started"),
        ("create garbage", Code::INTERNAL, "the runtime's create ended with status 1 and said nothing"),
    ] {
        block_on(async {
            let held = Plan::idle().faults(faults).hold().await;
            let error = held.create(&Streams::default()).await.unwrap_err();
            assert_eq!(refusal(&error), Some(code), "{faults}: {error}");
            assert!(error.to_string().contains(said), "{faults}: {error}");
            nothing_is_left(&held).await;
            held.end().await;
        });
    }
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    block_on(async {
        let held = Plan::idle().hold().await;
        let options = runc::Options { binary_name: "/no/such/runtime".into(), ..Default::default() };
        let mut request = create_request(&held);
        request.options = Some(pack(&options).unwrap()).into();
        let error = held.shim.create_from(request).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Code::INTERNAL));
        assert!(error.to_string().contains("start the runtime /no/such/runtime: No such file or directory"), "{error}");
        held.end().await;
    });
}

#[test]
fn wrong_requests_are_sentences() {
    block_on(async {
        let held = Plan::idle().hold().await;
        type Change = fn(&mut CreateTaskRequest);
        let table: [(Change, &str); 5] = [
            (|it| it.bundle = "/no/such".into(), "open the bundle /no/such: it has no config.json"),
            (|it| it.stdout = "gopher://x".into(), "gopher"),
            (|it| it.stdout = "/no/such/fifo".into(), "/no/such/fifo"),
            (|it| it.options = Some(Any { type_url: "a.B".into(), ..Any::default() }).into(), "options of type a.B"),
            (|it| it.stdout = "ttrpc+unix:///x".into(), "has no streaming_id"),
        ];
        for (change, said) in table {
            let mut request = create_request(&held);
            change(&mut request);
            let error = held.shim.create_from(request).await.unwrap_err();
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
        nothing_is_left(&held).await;
        held.end().await;
    });
}

#[test]
fn much_text_is_no_obstacle() {
    for (faults, fails) in [("create chatter 4194304", false), ("create chatter-error 300000", true)] {
        block_on(async {
            let held = Plan::idle().faults(faults).hold().await;
            let created = held.create(&Streams::default()).await;
            assert_eq!(created.is_err(), fails, "{faults}: {created:?}");
            if !fails {
                held.shim.start(&held.id, "").await.unwrap();
                held.kill_and_delete().await;
            }
            held.end().await;
        });
    }
    block_on(async {
        let held = Plan::idle().faults("start chatter 1048576\nkill chatter-error 200000").hold().await;
        held.run().await;
        let error = held.shim.kill(&held.id, "", libc::SIGTERM).await.unwrap_err();
        assert!(error.to_string().contains("very very very"));
        fs::remove_file(plan_of_faults(&held.rt)).unwrap();
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn while_a_runtime_hangs_others_are_served_and_the_client_may_give_up() {
    block_on(async {
        let held = Plan::idle().faults("create hang").hold().await;
        let short = context::with_duration(Duration::from_millis(300));
        let request = create_request(&held);
        let error = held.shim.call::<_, CreateTaskResponse>(short, "Create", &request).await.unwrap_err();
        // By the client's clock or by the shim's, whichever is first.
        let texts = ["Request deadline elapsed", "timeout"];
        assert!(texts.iter().any(|it| error.to_string().contains(it)), "{error}");
        // The name is free again once the runtime is gone; until then it is taken, and everything else is answered.
        held.shim.pids_of_shim_and_task(&held.id).await.unwrap();
        fs::remove_file(plan_of_faults(&held.rt)).unwrap();
        while let Err(error) = held.create(&Streams::default()).await {
            assert_eq!(refusal(&error), Some(Code::ALREADY_EXISTS), "{error}");
        }
        held.shim.start(&held.id, "").await.unwrap();
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn a_start_that_returns_long_after_the_end_starts_nothing() {
    block_on(async {
        // The fault is read when the runtime is called; until then only that there is one matters.
        let mut held = Plan::of(&["/bin/sh", "-c", "exit 5"]).faults("start late").hold().await;
        let told_of = held.rt.fresh_path("told");
        fs::write(plan_of_faults(&held.rt), format!("start late {}", told_of.display())).unwrap();
        held.create(&Streams::default()).await.unwrap();
        let (shim, id) = (held.shim.clone(), held.id.clone());
        let starting = tokio::spawn(async move { shim.start(&id, "").await });
        assert_eq!(held.told("exit").await, ["create ID", "exit ID 5"]);
        fs::write(told_of, "").unwrap();
        starting.await.unwrap().unwrap();
        assert_eq!(held.shim.state(&held.id, "").await.unwrap().status, Status::STOPPED.into());
        assert_eq!(held.shim.delete(&held.id, "").await.unwrap().exit_status, 5);
        assert_eq!(held.told("delete").await.len(), 1, "nothing between the exit and the deletion");
        held.end().await;
    });
}

#[test]
fn a_kill_is_served_while_a_start_hangs() {
    block_on(async {
        let mut held = Plan::idle().faults("pause hang").hold().await;
        held.run().await;
        let (shim, id) = (held.shim.clone(), held.id.clone());
        let pausing = tokio::spawn(async move { shim.pause(&id).await });
        while held.shim.state(&held.id, "").await.unwrap().status != Status::PAUSING.into() {}
        assert!(!held.shim.pids(&held.id).await.unwrap().is_empty());
        held.shim.kill(&held.id, "", libc::SIGKILL).await.unwrap();
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 137);
        assert_eq!(held.told("exit").await.last().unwrap(), "exit ID 137");
        pausing.abort();
        // The runtime hangs still; it dies with the shim, and the rest is what `delete` is for.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(held.pid as i32), nix::sys::signal::SIGKILL).unwrap();
        wait_gone(held.pid);
        assert_eq!(held.launch.delete().unwrap().exit_status, 137);
    });
}

#[test]
fn an_exec_whose_child_keeps_its_output_open_ends() {
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        let out = Fifo::new(&held.rt, "out");
        let streams = Streams { stdout: out.text(), ..Streams::default() };
        held.exec("leaves", &["/bin/sh", "-c", "/bin/sleep 1000 & exit 5"], &streams).await;
        assert_eq!(held.shim.wait(&held.id, "leaves").await.unwrap().exit_status, 5);
        assert_eq!(held.shim.delete(&held.id, "leaves").await.unwrap().exit_status, 5);
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn output_that_nobody_reads_holds_up_nothing_but_itself() {
    block_on(async {
        let held = Plan::of(&["/bin/sh", "-c", "yes & exec sleep 1000"]).hold().await;
        let out = Fifo::new(&held.rt, "out");
        let streams = Streams { stdout: out.text(), ..Streams::default() };
        held.create(&streams).await.unwrap();
        held.shim.start(&held.id, "").await.unwrap();
        held.exec("works", &["/bin/true"], &Streams::default()).await;
        assert_eq!(held.shim.wait(&held.id, "works").await.unwrap().exit_status, 0);
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn a_shim_killed_with_a_container_is_cleaned_up_after() {
    for faults in ["", "create after-signal 9"] {
        block_on(async {
            let held = Plan::idle().faults(faults).hold().await;
            let created = held.create(&Streams::default()).await;
            assert_eq!(created.is_ok(), faults.is_empty());
            if created.is_ok() {
                held.shim.start(&held.id, "").await.unwrap();
            }
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(held.pid as i32), nix::sys::signal::SIGKILL).unwrap();
            wait_gone(held.pid);
            for _ in 0..2 {
                assert_eq!(held.launch.delete().unwrap().exit_status, 137);
            }
            assert!(!held.rt.root().join("default").join(&held.id).try_exists().unwrap());
        });
    }
}

#[test]
fn events_wait_for_a_daemon_that_is_away() {
    block_on(async {
        let mut held = Plan::idle().hold().await;
        held.run().await;
        assert_eq!(held.told("start").await, ["create ID", "start ID"]);
        let path = held.events.path().to_owned();
        held.events = integration::shim_client::EventSink::bind(&held.rt.fresh_path("elsewhere")).await;
        held.exec("e", &["/bin/true"], &Streams::default()).await;
        held.shim.wait(&held.id, "e").await.unwrap();
        held.shim.delete(&held.id, "e").await.unwrap();
        held.kill_and_delete().await;
        held.events = integration::shim_client::EventSink::bind(&path).await;
        let expected = ["exec-added ID e", "exec-started ID e", "exit ID e 0", "exit ID 137", "delete ID 137"];
        assert_eq!(held.told("delete").await, expected);
        held.end().await;
    });
}

/// 1,000, or so many as `TARE_EXECS` says. What it costs the shim in memory is the benchmark to say.
#[test]
fn many_execs_leave_nothing() {
    let count = std::env::var("TARE_EXECS").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000);
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        let fds = || fs::read_dir(format!("/proc/{}/fd", held.pid)).unwrap().count();
        let one = async |number: usize| {
            let name = format!("e{number}");
            held.exec(&name, &["/bin/true"], &Streams::default()).await;
            assert_eq!(held.shim.wait(&held.id, &name).await.unwrap().exit_status, 0);
            held.shim.delete(&held.id, &name).await.unwrap();
        };
        one(0).await;
        let before = fds();
        for number in 1..count {
            one(number).await;
        }
        assert_eq!(fds(), before);
        held.kill_and_delete().await;
        held.end().await;
    });
}
