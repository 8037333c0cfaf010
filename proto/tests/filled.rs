//! Every field of every message has the number, the type and the name it has in containerd's library.
//!
//! `captured/filled.txt` has each message as that library encodes it, with all of its fields set to values that follow from
//! the field's name (see the README beside it). Read by us, printed, and compared line by line, they tell of any field that is
//! missing, swapped or of another type.

use std::fmt::{Debug, Write};

use tare_proto::{
    Message, bootstrap, cgroups_v1, cgroups_v2, content, diff, events, forward, images, leases, namespaces, runc,
    runtimeoptions, sandbox, snapshots, streaming, task_types, task_v3, transfer, types, version,
};

macro_rules! messages {
    ($($package:literal = $module:ident: $($message:ident)*;)*) => {
        /// Each message's name, and how it is printed and written again.
        const MESSAGES: &[(&str, Print)] =
            &[$($((concat!($package, ".", stringify!($message)), print::<$module::$message>),)*)*];
    };
}

type Print = fn(&[u8]) -> (String, Vec<u8>);

messages! {
    "containerd.events" = events: TaskCreate TaskStart TaskDelete TaskIO TaskExit TaskOOM TaskExecAdded TaskExecStarted
        TaskPaused TaskResumed TaskCheckpointed SandboxCreate SandboxStart SandboxExit;
    "containerd.runc.v1" = runc: Options CheckpointOptions ProcessDetails;
    "containerd.runtime.bootstrap.v1" = bootstrap: BootstrapParams Extension BootstrapResult;
    "containerd.runtime.sandbox.v1" = sandbox: CreateSandboxRequest CreateSandboxResponse StartSandboxRequest
        StartSandboxResponse PlatformRequest PlatformResponse StopSandboxRequest StopSandboxResponse WaitSandboxRequest
        WaitSandboxResponse SandboxStatusRequest SandboxStatusResponse PingRequest PingResponse ShutdownSandboxRequest
        ShutdownSandboxResponse SandboxMetricsRequest SandboxMetricsResponse;
    "containerd.services.content.v1" = content: Info InfoRequest InfoResponse UpdateRequest UpdateResponse
        ListContentRequest ListContentResponse DeleteContentRequest ReadContentRequest ReadContentResponse Status
        StatusRequest StatusResponse ListStatusesRequest ListStatusesResponse WriteContentRequest WriteContentResponse
        AbortRequest;
    "containerd.services.diff.v1" = diff: ApplyRequest ApplyResponse DiffRequest DiffResponse;
    "containerd.services.events.ttrpc.v1" = forward: ForwardRequest;
    "containerd.services.images.v1" = images: Image GetImageRequest GetImageResponse CreateImageRequest
        CreateImageResponse UpdateImageRequest UpdateImageResponse ListImagesRequest ListImagesResponse
        DeleteImageRequest;
    "containerd.services.leases.v1" = leases: Lease CreateRequest CreateResponse DeleteRequest ListRequest ListResponse
        Resource AddResourceRequest DeleteResourceRequest ListResourcesRequest ListResourcesResponse;
    "containerd.services.namespaces.v1" = namespaces: Namespace GetNamespaceRequest GetNamespaceResponse
        ListNamespacesRequest ListNamespacesResponse CreateNamespaceRequest CreateNamespaceResponse
        UpdateNamespaceRequest UpdateNamespaceResponse DeleteNamespaceRequest;
    "containerd.services.snapshots.v1" = snapshots: PrepareSnapshotRequest PrepareSnapshotResponse ViewSnapshotRequest
        ViewSnapshotResponse MountsRequest MountsResponse RemoveSnapshotRequest CommitSnapshotRequest
        StatSnapshotRequest Info StatSnapshotResponse UpdateSnapshotRequest UpdateSnapshotResponse ListSnapshotsRequest
        ListSnapshotsResponse UsageRequest UsageResponse CleanupRequest;
    "containerd.services.streaming.v1" = streaming: StreamInit;
    "containerd.services.version.v1" = version: VersionResponse;
    "containerd.task.v3" = task_v3: CreateTaskRequest CreateTaskResponse DeleteRequest DeleteResponse
        ExecProcessRequest ResizePtyRequest StateRequest StateResponse KillRequest CloseIORequest PidsRequest PidsResponse
        CheckpointTaskRequest UpdateTaskRequest StartRequest StartResponse WaitRequest WaitResponse StatsRequest
        StatsResponse ConnectRequest ConnectResponse ShutdownRequest PauseRequest ResumeRequest;
    "containerd.types" = types: Mount Descriptor Platform Metric Envelope Sandbox RuntimeRequest RuntimeVersion RuntimeInfo;
    "containerd.types.transfer" = transfer: Data WindowUpdate;
    "containerd.v1.types" = task_types: Process ProcessInfo;
    "io.containerd.cgroups.v1" = cgroups_v1: Metrics HugetlbStat PidsStat CPUStat CPUUsage Throttle MemoryStat MemoryEntry
        MemoryOomControl BlkIOStat BlkIOEntry RdmaStat RdmaEntry NetworkStat CgroupStats;
    "io.containerd.cgroups.v2" = cgroups_v2: Metrics PSIData PSIStats PidsStat CPUStat MemoryStat MemoryEvents RdmaStat
        RdmaEntry IOStat IOEntry HugeTlbStat NetworkStat;
    "runtimeoptions.v1" = runtimeoptions: Options;
}

#[test]
fn every_field_is_where_containerd_has_it() {
    let mut left: Vec<&str> = MESSAGES.iter().map(|(name, _)| *name).collect();
    for line in include_str!("captured/filled.txt").lines() {
        let [_, name, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("three words: {line}") };
        // A message inside another's definition: the other contains it.
        if name == "containerd.types.Sandbox.Runtime" {
            continue;
        }
        // One set of types serves both.
        let ours = name.replace("containerd.task.v2.", "containerd.task.v3.");
        let (_, print) = MESSAGES.iter().find(|(name, _)| *name == ours).expect(name);
        left.retain(|it| *it != ours);
        let digits = if hex == "-" { "" } else { hex };
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let (text, again) = print(&bytes);
        assert_eq!(again, bytes, "{name} is written back otherwise: {text}");
        let wrong = wrong_fields(&text);
        assert!(wrong.is_empty(), "{name}\n{wrong}in {text}");
    }
    assert!(left.is_empty(), "not in the file: {left:?}");
}

fn print<M: Message + Debug>(bytes: &[u8]) -> (String, Vec<u8>) {
    let message = M::parse_from_bytes(bytes).unwrap();
    (format!("{message:#?}"), message.write_to_bytes().unwrap())
}

/// The lines of a printed message that are not what its fields' names make them.
fn wrong_fields(text: &str) -> String {
    let mut wrong = String::new();
    let mut field = String::new();
    let mut listed: Vec<u8> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let token = line.trim().trim_end_matches(',');
        // What protobuf keeps beside the fields: unknown ones, of which there must be none.
        if token == "special_fields: SpecialFields {" {
            let closed = format!("{}}}", " ".repeat(indent));
            let inside: Vec<_> = lines.by_ref().take_while(|it| it.trim_end_matches(',') != closed).collect();
            if !inside.iter().any(|it| it.trim() == "fields: None,") {
                writeln!(wrong, "unknown fields beside {field}").unwrap();
            }
            continue;
        }
        let value = match token.split_once(": ") {
            Some((name, value)) => {
                field = name.trim_matches('"').trim_end_matches('_').to_owned();
                value
            }
            None => token,
        };
        let right = match value.as_bytes() {
            [] | [b'{' | b'}' | b'[' | b']' | b')', ..] | [.., b'{' | b'(' | b'['] => true,
            // Fields that only other versions have, one until 1.7, the others since 2.4.
            b"\"\"" => ["criu_path", "parent_path"].contains(&field.as_str()),
            b"0" => ["refault_anon", "refault_file", "activate_anon", "activate_file"]
                .iter()
                .any(|it| field.strip_prefix("workingset_") == Some(it)),
            [b'"', ..] => value.trim_matches('"') == field,
            // An element of a list: its only one, or a byte, all of which are looked at together.
            [b'0'..=b'9', ..] if token == value => {
                let number: u32 = value.parse().unwrap();
                listed.extend(u8::try_from(number));
                number == hash(&field) || listed.len() <= field.len() && field.as_bytes().starts_with(&listed)
            }
            [b'0'..=b'9', ..] if value.contains('.') => value == format!("{}.5", hash(&field)),
            [b'0'..=b'9', ..] => value == hash(&field).to_string(),
            _ => value != "false" && value != "None" && value != "MessageField(None)",
        };
        if token == "]" {
            listed.clear();
        }
        if !right {
            writeln!(wrong, "{field}: {value}").unwrap();
        }
    }
    wrong
}

/// FNV-1a, without the two highest bits.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) & 0x3fff_ffff
}
