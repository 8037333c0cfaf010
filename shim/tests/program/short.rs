//! What answers and is gone: versions, mistakes, `-info`.

use std::path::Path;
use std::process::{Command, Stdio};

use protobuf::Message;
use tare_proto::any::pack;
use tare_proto::runc;
use tare_proto::types::RuntimeInfo;

use crate::bundle::{Bundle, SHIM, fed, runtime, succeeded};

#[test]
fn versions_and_mistakes() {
    let run = |words: &[&str]| Command::new(SHIM).args(words).stdin(Stdio::null()).output().unwrap();
    for flag in ["-v", "--version"] {
        let said = String::from_utf8(succeeded(&run(&[flag]))).unwrap();
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    }
    let cases: [(&[&str], i32, &str); 5] = [
        (&["-nope"], 2, "flag provided but not defined: -nope"),
        (&["-id"], 2, "flag needs an argument: -id"),
        (&["-id", "x", "start"], 1, "start needs -namespace"),
        (&["-namespace", "n", "-id", "x"], 1, "say what to do: start, delete, or -socket PATH to serve there"),
        (&["-namespace", "n", "-id", "x", "stop"], 1, "there is no action \"stop\": say start or delete"),
    ];
    for (words, status, sentence) in cases {
        let output = run(words);
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("containerd-shim-tare-v2: {sentence}\n"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn info() {
    let bundle = Bundle::new();
    let path = runtime(&bundle, r#"echo '{"ociVersionMax":"1.3.0","annotations":{"k":"v"}}'"#);
    let ask = |binary: &Path| {
        let options = runc::Options { binary_name: binary.display().to_string(), ..Default::default() };
        let mut command = Command::new(SHIM);
        command.arg("-info");
        fed(command, &pack(&options).unwrap().write_to_bytes().unwrap())
    };
    let info = RuntimeInfo::parse_from_bytes(&succeeded(&ask(&path))).unwrap();
    assert_eq!((info.name.as_str(), info.annotations["k"].as_str()), ("io.containerd.tare.v2", "v"));
    let output = ask(Path::new("/no/such/runtime"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(words, "containerd-shim-tare-v2: find the runtime /no/such/runtime: there is no such program\n");
}
