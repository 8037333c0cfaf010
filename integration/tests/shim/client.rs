//! That the client does to a shim what the daemon does, judged on containerd's own shim.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use integration::shim_client::{Bootstrap, EventSink, Launch, Shim, Streams, block_on, refusal, wait_gone};
use integration::{Runtime, in_path, skip, under_test};
use nix::sys::stat::Mode;
use serde_json::json;
use tare_proto::any::pack;
use tare_proto::task_types::Status;
use tare_proto::ttrpc::Code;
use tare_proto::{cgroups_v1, cgroups_v2, runc};

#[test]
fn a_life_under_containerds_own_shim() {
    let Some(program) = in_path("containerd-shim-runc-v2") else { skip!("containerd-shim-runc-v2 is not installed") };
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/sh", "-c", "read line; echo got $line; exit 7"]);
    bundle.write();
    let id = rt.fresh_id();
    let id = id.as_str();
    let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(|name| {
        let path = rt.fresh_path(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    });
    let streams = Streams {
        stdin: stdin.to_str().unwrap().into(),
        stdout: stdout.to_str().unwrap().into(),
        stderr: stderr.to_str().unwrap().into(),
        ..Streams::default()
    };
    block_on(async {
        let mut events = EventSink::bind(&rt.fresh_path("events")).await;
        let mut launch = Launch::new(&program, id, bundle.path());
        launch.bootstrap = bootstrap(&program);
        if launch.bootstrap == Bootstrap::Params {
            launch.socket_dir = Some(rt.work().to_owned());
        }
        launch.events = Some(events.path().to_owned());
        let options = runc::Options {
            binary_name: under_test().to_str().unwrap().into(),
            root: rt.root().to_str().unwrap().into(),
            ..Default::default()
        };
        launch.options = Some(pack(&options).unwrap());
        launch.environment.push(("TARE_TEST_TAG".into(), rt.tag().into()));
        let started = launch.start().unwrap();
        let shim = Shim::connect(&started).await.unwrap();
        let gone = shim.state("another", "").await.unwrap_err();
        assert_eq!(refusal(&gone), Some(Code::NOT_FOUND), "{gone}");

        // Both ends of each, so that no open waits for the other.
        let output = OpenOptions::new().read(true).write(true).open(&stdout).unwrap();
        let _errors = OpenOptions::new().read(true).write(true).open(&stderr).unwrap();
        let mut input = OpenOptions::new().read(true).write(true).open(&stdin).unwrap();
        let pid = shim.create_with(id, bundle.path(), &streams, vec![], launch.options.clone()).await.unwrap();
        assert_eq!(shim.start(id, "").await.unwrap(), pid);
        let (shim_pid, task_pid) = shim.pids_of_shim_and_task(id).await.unwrap();
        assert_eq!(task_pid, pid);
        assert_eq!(shim.state(id, "").await.unwrap().status, Status::RUNNING.into());

        let process = json!({"args": ["/bin/sh", "-c", "exit 9"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        shim.exec(id, "e", &process, &Streams::default()).await.unwrap();
        assert!(shim.start(id, "e").await.unwrap() != pid);
        assert_eq!(shim.wait(id, "e").await.unwrap().exit_status, 9);
        assert_eq!(shim.delete(id, "e").await.unwrap().exit_status, 9);

        assert_eq!(shim.pids(id).await.unwrap(), [(pid, None)]);
        let v1 = shim.stats::<cgroups_v1::Metrics>(id).await.unwrap().map(|it| it.pids.current);
        let v2 = shim.stats::<cgroups_v2::Metrics>(id).await.unwrap().map(|it| it.pids.current);
        assert_eq!(v1.or(v2), Some(1));
        shim.pause(id).await.unwrap();
        assert_eq!(shim.state(id, "").await.unwrap().status, Status::PAUSED.into());
        shim.resume(id).await.unwrap();
        shim.update(id, &json!({"pids": {"limit": 99}})).await.unwrap();

        input.write_all(b"it\n").unwrap();
        assert_eq!(shim.wait(id, "").await.unwrap().exit_status, 7);
        assert_eq!(shim.delete(id, "").await.unwrap().exit_status, 7);
        let mut said = [0; 7];
        std::io::Read::read_exact(&mut &output, &mut said).unwrap();
        assert_eq!(&said, b"got it\n");

        let lines = events.until(&format!("delete {id}")).await;
        let expected = [
            format!("create {id}"),
            format!("start {id}"),
            format!("exec-added {id} e"),
            format!("exec-started {id} e"),
            format!("exit {id} e 9"),
            format!("paused {id}"),
            format!("resumed {id}"),
            format!("exit {id} 7"),
            format!("delete {id} 7"),
        ];
        assert_eq!(lines, expected);
        // It may be gone before its answer.
        let _ = shim.shutdown(id).await;
        wait_gone(shim_pid);
    });
}

/// The form that this shim was made for, by its version.
pub(super) fn bootstrap(program: &Path) -> Bootstrap {
    let said = Command::new(program).arg("-v").output().expect("run the shim");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.lines().find_map(|line| line.trim().strip_prefix("Version:")).expect("a version").trim();
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|it| it.parse::<u32>().ok());
    let version = (numbers.next().expect("a number"), numbers.next().expect("two numbers"));
    if version >= (2, 3) { Bootstrap::Params } else { Bootstrap::Options }
}
