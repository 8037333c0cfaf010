use std::os::unix::fs::PermissionsExt;

use protobuf::EnumOrUnknown;
use tare_proto::MessageField;
use tare_proto::any::pack;
use tare_proto::bootstrap::{Extension, LogLevel};

use super::*;

fn args() -> Args {
    Args {
        namespace: "ns".into(),
        id: "id".into(),
        address: "/run/flag.sock".into(),
        publish_binary: "/bin/flag".into(),
        ..Args::default()
    }
}

fn options(cgroup: &str) -> Any {
    pack(&runc::Options { shim_cgroup: cgroup.into(), ..Default::default() }).unwrap()
}

fn params() -> BootstrapParams {
    BootstrapParams { instance_id: "id".into(), namespace: "ns".into(), ..Default::default() }
}

fn asked(input: &impl Message) -> Result<Request> {
    request(&args(), &Environment::default(), &input.write_to_bytes().unwrap())
}

#[test]
fn what_is_on_stdin_decides() {
    let foreign = Any { type_url: "x.y/Other".into(), value: b"\xff".to_vec(), ..Default::default() };
    // As BootstrapParams this has an id and a namespace too: those of nobody.
    let alike = Any { type_url: "other".into(), value: b"ns".to_vec(), ..Default::default() };
    let cases: [(&str, Vec<u8>, Form, &str); 7] = [
        ("nothing", vec![], Form::Address, ""),
        ("options", options("/c").write_to_bytes().unwrap(), Form::Address, "/c"),
        ("other options", foreign.write_to_bytes().unwrap(), Form::Address, ""),
        ("alike", alike.write_to_bytes().unwrap(), Form::Address, ""),
        ("params", params().write_to_bytes().unwrap(), Form::Protobuf, ""),
        (
            "params of another container",
            BootstrapParams { instance_id: "other".into(), ..params() }.write_to_bytes().unwrap(),
            Form::Address,
            "",
        ),
        (
            "params of another namespace",
            BootstrapParams { namespace: "other".into(), ..params() }.write_to_bytes().unwrap(),
            Form::Address,
            "",
        ),
    ];
    for (name, input, form, cgroup) in cases {
        let request = request(&args(), &Environment::default(), &input).unwrap();
        assert_eq!((request.form, request.shim_cgroup.unwrap_or_default().as_str()), (form, cgroup), "{name}");
        let versioned = Environment { versioned: true, ..Environment::default() };
        let request = self::request(&args(), &versioned, &input).unwrap();
        assert_eq!(request.form, if form == Form::Protobuf { form } else { Form::Json }, "{name}");
    }
}

#[test]
fn what_no_daemon_sends_is_refused() {
    for input in [&b"\xff\xff\xff"[..], b"{\"version\":3}", b"\x0a\xff"] {
        let error = request(&args(), &Environment::default(), input).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument, "{input:?}");
    }
    // What only the runtime needs to understand is no reason not to start.
    let broken = Any { value: vec![0xff], ..options("") };
    assert!(asked(&broken).unwrap().shim_cgroup.is_err());
    let relative = BootstrapParams { socket_dir: Some("s".into()), ..params() };
    assert_eq!(asked(&relative).unwrap_err().message, "socket_dir s is not an absolute path");
    for nameless in [Args { id: String::new(), ..args() }, Args { namespace: String::new(), ..args() }] {
        assert!(request(&nameless, &Environment::default(), b"").is_err());
    }
}

#[test]
fn params_win_over_flags_and_environment() {
    let extension = |any| Extension { value: MessageField::some(any), ..Default::default() };
    let params = BootstrapParams {
        log_level: EnumOrUnknown::new(LogLevel::LOG_LEVEL_DEBUG),
        containerd_grpc_address: "/run/c.sock".into(),
        containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
        containerd_binary: "/bin/c".into(),
        extensions: vec![extension(Any::default()), extension(options("/c"))],
        socket_dir: Some("/run/s".into()),
        ..params()
    };
    assert_eq!(
        asked(&params).unwrap(),
        Request {
            namespace: "ns".into(),
            id: "id".into(),
            address: "/run/c.sock".into(),
            ttrpc_address: "/run/c.sock.ttrpc".into(),
            publish_binary: "/bin/c".into(),
            debug: true,
            socket_dir: Some("/run/s".into()),
            shim_cgroup: Ok("/c".into()),
            form: Form::Protobuf,
        }
    );
    let empty = BootstrapParams { socket_dir: Some(String::new()), ..self::params() };
    let environment = Environment { ttrpc_address: "/env".into(), ..Environment::default() };
    let request = request(&args(), &environment, &empty.write_to_bytes().unwrap()).unwrap();
    assert_eq!((request.address.as_str(), request.ttrpc_address.as_str()), ("/run/flag.sock", "/env"));
    assert_eq!((request.publish_binary, request.socket_dir, request.debug), ("/bin/flag".into(), None, false));
}

#[test]
fn answers() {
    assert_eq!(reply(Form::Address, "unix:///s/x").unwrap(), b"unix:///s/x");
    let json: serde_json::Value = serde_json::from_slice(&reply(Form::Json, "unix:///s/x").unwrap()).unwrap();
    assert_eq!(json, serde_json::json!({"version": 2, "address": "unix:///s/x", "protocol": "ttrpc"}));
    // Field 1, varint 3; field 2, 11 bytes; field 3, 5 bytes.
    assert_eq!(reply(Form::Protobuf, "unix:///s/x").unwrap(), b"\x08\x03\x12\x0bunix:///s/x\x1a\x05ttrpc");
}

#[test]
fn socket_names() {
    // printf %s /run/containerd/containerd.sock/k8s.io/abc | sha256sum
    let name = "a99a1752d3a0fadfb1f869026f16760475df03a572e20f4ccea9e6c1e5470b72";
    let ours = socket_name("/run/containerd/containerd.sock", "k8s.io", "abc");
    assert_eq!(ours, name);
    assert_eq!(socket_name("/run//containerd/./containerd.sock/", "k8s.io", "x/../abc"), ours);
}

#[test]
fn paths_are_joined_as_go_does() {
    let cases: [(&[&str], &str); 12] = [
        (&["/a", "b", "c"], "/a/b/c"),
        (&["", "", ""], ""),
        (&["", "ns", "id"], "ns/id"),
        (&["/a/", "", "/c/"], "/a/c"),
        (&["/"], "/"),
        (&["/", "..", "..", "x"], "/x"),
        (&["..", "..", "x"], "../../x"),
        (&["a", "..", "..", "b"], "../b"),
        (&["a", ".."], "."),
        (&["."], "."),
        (&["/a", "..", ".."], "/"),
        (&["unix:///run/c.sock", "n", "i"], "unix:/run/c.sock/n/i"),
    ];
    for (parts, joined) in cases {
        assert_eq!(join(parts), joined, "{parts:?}");
    }
}

#[test]
fn groups() {
    let cri = "io.kubernetes.cri.sandbox-id";
    let own = "io.containerd.runc.v2.group";
    let cases = [
        ("{}".to_owned(), "id"),
        (r#"{"annotations":null}"#.to_owned(), "id"),
        (r#"{"annotations":{"a":"b"},"process":{"args":["x"]}}"#.to_owned(), "id"),
        (format!(r#"{{"annotations":{{"{cri}":"pod"}}}}"#), "pod"),
        (format!(r#"{{"annotations":{{"{cri}":"pod","{own}":"group"}}}}"#), "group"),
        (format!(r#"{{"annotations":{{"{own}":""}}}}"#), ""),
    ];
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(group(dir.path(), "id").unwrap(), "id");
    for (text, expected) in cases {
        fs::write(dir.path().join("config.json"), &text).unwrap();
        assert_eq!(group(dir.path(), "id").unwrap(), expected, "{text}");
    }
    for text in ["", "{", "[]", r#"{"annotations":{"io.containerd.runc.v2.group":1}}"#] {
        fs::write(dir.path().join("config.json"), text).unwrap();
        assert_eq!(group(dir.path(), "id").unwrap_err().kind, Kind::InvalidArgument, "{text}");
    }
    File::options().write(true).open(dir.path().join("config.json")).unwrap().set_len(SPEC_LIMIT + 1).unwrap();
    assert!(group(dir.path(), "id").unwrap_err().message.contains("is longer than"));
}

#[test]
fn what_is_left_in_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["unix:///a", "unix:///b"] {
        let left = format!("address.{}~", std::process::id());
        fs::write(dir.path().join(left), "by one that died, of the same pid").unwrap();
        write_address(dir.path(), address).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("address")).unwrap(), address);
    }
    assert_eq!(fs::metadata(dir.path().join("address")).unwrap().permissions().mode() & 0o133, 0);
    let place = |expected: &str| {
        let socket = socket_of(dir.path(), "/a", "ns", "id").unwrap();
        assert_eq!(socket.parent(), Some(Path::new(expected)));
    };
    place("/run/containerd/s");
    for directory in ["/run/one", "/run/two"] {
        remember(dir.path(), Path::new(directory)).unwrap();
        place(directory);
    }
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["address", "s"]);
}
