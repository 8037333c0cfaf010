//! What containerd's daemons and shims say to each other is read completely, and written back to the same bytes.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use protobuf::Message;
use tare_proto::any::{self, unpack};
use tare_proto::{
    Any, Empty, bootstrap, cgroups_v1, events, forward, forward_ttrpc, runc, sandbox, sandbox_ttrpc, task_services,
    task_types, task_v3, task_v3_ttrpc, ttrpc, types,
};

const VERSIONS: [&str; 3] = ["containerd-1.6.20", "containerd-1.7.24", "containerd-2.3.4"];

/// One line of a file of `tests/captured`.
struct Captured {
    what: String,
    name: String,
    bytes: Vec<u8>,
}

#[test]
fn every_captured_message_survives() {
    for version in VERSIONS.into_iter().chain(["sandbox"]) {
        for it in captured(version) {
            println!("{version}: {} {}", it.what, it.name);
            let service = it.name.rsplit_once('.').map(|(_, call)| call);
            match (it.what.as_str(), it.name.as_str()) {
                ("frame", _) => frame(&it),
                ("error", _) => check::<ttrpc::Status>(&it.bytes, |_| vec![]),
                ("stdin", "start") if version.starts_with("containerd-1") => {
                    check::<Any>(&it.bytes, |it| vec![it.clone()])
                }
                ("stdin", "start") => check::<bootstrap::BootstrapParams>(&it.bytes, |it| {
                    it.extensions.iter().map(|it| it.value.clone().unwrap()).collect()
                }),
                // An address: text.
                ("stdout", "start") if version.starts_with("containerd-1") => {
                    assert!(it.bytes.starts_with(b"unix:///"))
                }
                ("stdout", "start") => check::<bootstrap::BootstrapResult>(&it.bytes, |_| vec![]),
                ("stdin", "delete") => assert!(it.bytes.is_empty()),
                ("stdout", "delete") => check::<task_v3::DeleteResponse>(&it.bytes, |_| vec![]),
                ("stdin", "info") => check::<Any>(&it.bytes, |it| vec![it.clone()]),
                ("stdout", "info") => check::<types::RuntimeInfo>(&it.bytes, |it| {
                    vec![it.options.clone().unwrap(), it.features.clone().unwrap()]
                }),
                (what, _) => call(what, service.expect("a call's name"), &it.bytes),
            }
        }
    }
}

/// A payload of a call.
fn call(what: &str, name: &str, bytes: &[u8]) {
    match (what, name) {
        ("request", "Task/Create") => {
            check::<task_v3::CreateTaskRequest>(bytes, |it| vec![it.options.clone().unwrap()])
        }
        ("response", "Task/Create") => check::<task_v3::CreateTaskResponse>(bytes, |_| vec![]),
        ("request", "Task/Start") => check::<task_v3::StartRequest>(bytes, |_| vec![]),
        ("response", "Task/Start") => check::<task_v3::StartResponse>(bytes, |_| vec![]),
        ("request", "Task/Delete") => check::<task_v3::DeleteRequest>(bytes, |_| vec![]),
        ("response", "Task/Delete") => check::<task_v3::DeleteResponse>(bytes, |_| vec![]),
        ("request", "Task/Connect") => check::<task_v3::ConnectRequest>(bytes, |_| vec![]),
        ("response", "Task/Connect") => check::<task_v3::ConnectResponse>(bytes, |_| vec![]),
        ("request", "Task/State") => check::<task_v3::StateRequest>(bytes, |_| vec![]),
        ("response", "Task/State") => check::<task_v3::StateResponse>(bytes, |_| vec![]),
        ("request", "Task/Wait") => check::<task_v3::WaitRequest>(bytes, |_| vec![]),
        ("response", "Task/Wait") => check::<task_v3::WaitResponse>(bytes, |_| vec![]),
        ("request", "Task/Kill") => check::<task_v3::KillRequest>(bytes, |_| vec![]),
        ("request", "Task/Exec") => check::<task_v3::ExecProcessRequest>(bytes, |it| vec![it.spec.clone().unwrap()]),
        ("request", "Task/ResizePty") => check::<task_v3::ResizePtyRequest>(bytes, |_| vec![]),
        ("request", "Task/CloseIO") => check::<task_v3::CloseIORequest>(bytes, |_| vec![]),
        ("request", "Task/Pause") => check::<task_v3::PauseRequest>(bytes, |_| vec![]),
        ("request", "Task/Resume") => check::<task_v3::ResumeRequest>(bytes, |_| vec![]),
        ("request", "Task/Pids") => check::<task_v3::PidsRequest>(bytes, |_| vec![]),
        ("response", "Task/Pids") => check::<task_v3::PidsResponse>(bytes, |it| {
            it.processes.iter().filter_map(|it| it.info.clone().into_option()).collect()
        }),
        ("request", "Task/Stats") => check::<task_v3::StatsRequest>(bytes, |_| vec![]),
        ("response", "Task/Stats") => check::<task_v3::StatsResponse>(bytes, |it| vec![it.stats.clone().unwrap()]),
        ("request", "Task/Checkpoint") => {
            check::<task_v3::CheckpointTaskRequest>(bytes, |it| vec![it.options.clone().unwrap()]);
        }
        ("request", "Task/Update") => {
            check::<task_v3::UpdateTaskRequest>(bytes, |it| vec![it.resources.clone().unwrap()])
        }
        ("request", "Task/Shutdown") => check::<task_v3::ShutdownRequest>(bytes, |_| vec![]),
        ("request", "Events/Forward") => {
            check::<forward::ForwardRequest>(bytes, |it| vec![it.envelope.event.clone().unwrap()]);
        }
        ("request", "Sandbox/CreateSandbox") => {
            check::<sandbox::CreateSandboxRequest>(bytes, |it| vec![it.options.clone().unwrap()]);
        }
        ("request", "Sandbox/StartSandbox") => check::<sandbox::StartSandboxRequest>(bytes, |_| vec![]),
        ("request", "Sandbox/WaitSandbox") => check::<sandbox::WaitSandboxRequest>(bytes, |_| vec![]),
        ("request", "Sandbox/SandboxStatus") => check::<sandbox::SandboxStatusRequest>(bytes, |_| vec![]),
        ("request", "Sandbox/SandboxMetrics") => check::<sandbox::SandboxMetricsRequest>(bytes, |_| vec![]),
        ("request", "Sandbox/StopSandbox") => check::<sandbox::StopSandboxRequest>(bytes, |_| vec![]),
        ("request", "Sandbox/ShutdownSandbox") => check::<sandbox::ShutdownSandboxRequest>(bytes, |_| vec![]),
        // The other calls answer with nothing.
        ("response", _) => check::<Empty>(bytes, |_| vec![]),
        _ => panic!("no message is known for the {what} of {name}"),
    }
}

/// What is inside an `Any`, by its type URL.
fn packed(it: &Any) {
    fn message<M: any::Packed + Debug>(it: &Any) {
        assert_eq!(it.type_url, M::TYPE_URL);
        check::<M>(&it.value, |_| vec![]);
        assert_eq!(any::pack(&unpack::<M>(it).unwrap().unwrap()).unwrap(), *it);
    }
    match it.type_url.as_str() {
        any::PROCESS | any::LINUX_RESOURCES | any::FEATURES => {
            assert!(it.value.starts_with(b"{") && it.value.ends_with(b"}"));
        }
        "containerd.runc.v1.Options" => message::<runc::Options>(it),
        "containerd.runc.v1.CheckpointOptions" => message::<runc::CheckpointOptions>(it),
        "containerd.runc.v1.ProcessDetails" => message::<runc::ProcessDetails>(it),
        "io.containerd.cgroups.v1.Metrics" => message::<cgroups_v1::Metrics>(it),
        "containerd.events.TaskCreate" => message::<events::TaskCreate>(it),
        "containerd.events.TaskStart" => message::<events::TaskStart>(it),
        "containerd.events.TaskExit" => message::<events::TaskExit>(it),
        "containerd.events.TaskDelete" => message::<events::TaskDelete>(it),
        "containerd.events.TaskOOM" => message::<events::TaskOOM>(it),
        "containerd.events.TaskPaused" => message::<events::TaskPaused>(it),
        "containerd.events.TaskResumed" => message::<events::TaskResumed>(it),
        "containerd.events.TaskExecAdded" => message::<events::TaskExecAdded>(it),
        "containerd.events.TaskExecStarted" => message::<events::TaskExecStarted>(it),
        other => panic!("no message is known for the type {other}"),
    }
}

fn check<M: Message + Debug>(bytes: &[u8], inside: impl Fn(&M) -> Vec<Any>) {
    let message = M::parse_from_bytes(bytes).unwrap();
    let text = format!("{message:?}");
    assert!(!text.contains("UnknownFields { fields: Some"), "not all fields are known: {text}");
    assert_eq!(message.write_to_bytes().unwrap(), bytes, "written back otherwise: {text}");
    inside(&message).iter().for_each(packed);
}

/// All that goes over the socket for one message: ten bytes of header, then ttrpc's own request or response.
fn frame(it: &Captured) {
    let header = ttrpc::MessageHeader::from(&it.bytes[..10]);
    let body = &it.bytes[10..];
    assert_eq!((header.length as usize, header.stream_id % 2, header.flags), (body.len(), 1, 0));
    if header.type_ == ttrpc::proto::MESSAGE_TYPE_REQUEST {
        check::<ttrpc::Request>(body, |_| vec![]);
        let request = ttrpc::Request::parse_from_bytes(body).unwrap();
        assert_eq!(format!("{}/{}", request.service, request.method), it.name);
    } else {
        check::<ttrpc::Response>(body, |_| vec![]);
    }
}

#[test]
fn the_captured_messages_mean_what_was_done() {
    for version in VERSIONS {
        let messages = captured(version);
        let is = |what: &str, name: &str| {
            let found: Vec<_> = messages.iter().filter(|it| it.what == what && it.name.ends_with(name)).collect();
            assert!(!found.is_empty(), "{version} has no {what} of {name}");
            found.into_iter().map(|it| it.bytes.clone()).collect::<Vec<_>>()
        };
        let options = if version == "containerd-2.3.4" {
            let params = bootstrap::BootstrapParams::parse_from_bytes(&is("stdin", "start")[0]).unwrap();
            assert_eq!((params.instance_id.as_str(), params.namespace.as_str()), ("a", "default"));
            assert_eq!(params.containerd_version, "v2.3.4");
            assert_eq!(params.containerd_ttrpc_address, "/run/world/c.sock.ttrpc");
            assert_eq!(params.containerd_grpc_address, "/run/world/c.sock");
            assert_eq!(params.containerd_binary, "/run/world/bin/containerd");
            assert_eq!(params.socket_dir.as_deref(), Some("/run/containerd/s"));
            let result = bootstrap::BootstrapResult::parse_from_bytes(&is("stdout", "start")[0]).unwrap();
            assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
            assert!(result.address.starts_with("unix:///run/containerd/s/"));
            params.extensions[0].value.clone().unwrap()
        } else {
            Any::parse_from_bytes(&is("stdin", "start")[0]).unwrap()
        };
        assert_eq!(unpack::<runc::Options>(&options).unwrap().unwrap().binary_name, "runc");

        let create = task_v3::CreateTaskRequest::parse_from_bytes(&is("request", "Task/Create")[0]).unwrap();
        assert_eq!((create.id.as_str(), create.terminal), ("a", false));
        assert_eq!((create.rootfs[0].type_.as_str(), create.rootfs[0].options.len()), ("overlay", 4));
        assert!(create.stdin.ends_with("/a-stdin") && create.stderr.ends_with("/a-stderr"));

        let exec = task_v3::ExecProcessRequest::parse_from_bytes(&is("request", "Task/Exec")[0]).unwrap();
        assert_eq!((exec.id.as_str(), exec.exec_id.as_str()), ("b", "e1"));

        let resize = task_v3::ResizePtyRequest::parse_from_bytes(&is("request", "Task/ResizePty")[0]).unwrap();
        assert_eq!((resize.width, resize.height), (77, 33));

        let states =
            is("response", "Task/State").into_iter().map(|it| task_v3::StateResponse::parse_from_bytes(&it).unwrap());
        let running = states.into_iter().find(|it| it.status == task_types::Status::RUNNING.into()).unwrap();
        // A process that has not ended: Go's zero time, the first of January of the year 1.
        assert_eq!(running.exited_at.seconds, -62_135_596_800);

        let waits =
            is("response", "Task/Wait").into_iter().map(|it| task_v3::WaitResponse::parse_from_bytes(&it).unwrap());
        assert!(waits.into_iter().any(|it| it.exit_status == 9));

        let kill = task_v3::KillRequest::parse_from_bytes(&is("request", "Task/Kill")[0]).unwrap();
        assert_eq!((kill.exec_id.as_str(), kill.signal, kill.all), ("e2", 15, false));

        let update = task_v3::UpdateTaskRequest::parse_from_bytes(&is("request", "Task/Update")[0]).unwrap();
        assert_eq!(update.resources.type_url, any::LINUX_RESOURCES);
        assert_eq!(update.annotations["a"], "b");

        let stats = task_v3::StatsResponse::parse_from_bytes(&is("response", "Task/Stats")[0]).unwrap();
        assert_eq!(unpack::<cgroups_v1::Metrics>(&stats.stats).unwrap().unwrap().pids.current, 3);

        let forwards = is("request", "Events/Forward");
        let envelopes =
            forwards.iter().map(|it| forward::ForwardRequest::parse_from_bytes(it).unwrap().envelope.unwrap());
        let exit =
            envelopes.filter_map(|it| unpack::<events::TaskExit>(&it.event).unwrap()).find(|it| it.id == "e1").unwrap();
        assert_eq!((exit.container_id.as_str(), exit.exit_status), ("b", 9));

        let frame = &is("frame", "Events/Forward")[0];
        let request = ttrpc::Request::parse_from_bytes(&frame[10..]).unwrap();
        assert_eq!(request.metadata[0].key, "containerd-namespace-ttrpc");
        assert!((1..=5_000_000_000).contains(&request.timeout_nano));

        let refused = ttrpc::Status::parse_from_bytes(&is("error", "Task/Delete")[0]).unwrap();
        assert_eq!(refused.code(), ttrpc::Code::NOT_FOUND);
    }
}

#[test]
fn every_captured_call_is_one_of_our_services() {
    struct Nothing;
    impl task_v3_ttrpc::Task for Nothing {}
    impl sandbox_ttrpc::Sandbox for Nothing {}
    impl forward_ttrpc::Events for Nothing {}
    let mut services = task_services(Arc::new(Nothing));
    services.extend(sandbox_ttrpc::create_sandbox(Arc::new(Nothing)));
    services.extend(forward_ttrpc::create_events(Arc::new(Nothing)));
    for it in VERSIONS.into_iter().chain(["sandbox"]).flat_map(captured).filter(|it| it.what == "request") {
        let (service, method) = it.name.split_once('/').unwrap();
        assert!(services[service].methods.contains_key(method), "{}", it.name);
    }
}

fn captured(file: &str) -> Vec<Captured> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captured/{file}.txt"));
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let [what, name, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("three words: {line}") };
        let digits = if hex == "-" { "" } else { hex };
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        Captured { what: what.into(), name: name.into(), bytes: (0..digits.len()).step_by(2).map(byte).collect() }
    };
    text.lines().map(line).collect()
}
