//! Programs that log for a process: shell scripts here.

use std::fmt::Write;
use std::fs;

use tokio::select;

use super::super::logger::Patience;
use super::*;
use crate::error::Kind;
use crate::testing::pty;

/// Waits as long as it takes for the logger itself to end.
const PATIENT: Patience = Patience { end_of_file: LONG, terminate: LONG };

/// A logger that runs this script in the client's directory.
fn script(client: &Client, scheme: &str, script: &str) -> String {
    let script = format!("cd '{}'; {script}", client.directory.path().display());
    let mut uri = format!("{scheme}:///bin/sh?-c=");
    for byte in script.bytes() {
        write!(uri, "%{byte:02x}").unwrap();
    }
    uri
}

fn both(uri: &str) -> Stdio {
    Client::outputs(uri, uri)
}

#[test]
fn a_logger_reads_both_streams_to_the_end() {
    run(async {
        let client = Client::new();
        for (scheme, ready) in [("binary", "exec 5>&-"), ("binary-v2", "echo >&5; exec 5>&-")] {
            let uri = script(
                &client,
                scheme,
                &format!(
                    "{ready}; echo $CONTAINER_NAMESPACE/$CONTAINER_ID ${{PATH:+p}} $# >names; cat <&3 >out; cat <&4 >err"
                ),
            );
            let (mut io, mut child) = open(&both(&uri)).await.unwrap();
            assert!(io.logger_pid().is_some());
            io.start().unwrap();
            io.drained().await;
            let (out, err) = (stdout(&mut child), stderr(&mut child));
            out.write("to stdout").await;
            err.write("to stderr").await;
            drop((out, err));
            io.close_with(PATIENT).await;
            let read = |name: &str| fs::read_to_string(client.path(name)).unwrap();
            assert_eq!(read("names"), "the-namespace/the-id p 0\n");
            assert_eq!(read("out"), "to stdout", "{scheme}");
            assert_eq!(read("err"), "to stderr", "{scheme}");
        }
    });
}

#[test]
fn a_logger_gets_its_arguments_and_three_descriptors() {
    run(async {
        let client = Client::new();
        let uri = script(&client, "binary", "echo $0 $1 ${2-unset} >arguments; ls /proc/self/fd >fds");
        let (io, child) = open(&both(&format!("{uri}&a=b&flag"))).await.unwrap();
        drop(child);
        io.close_with(PATIENT).await;
        assert_eq!(fs::read_to_string(client.path("arguments")).unwrap(), "a b flag\n");
        // What the test itself was started with is not ours; the last is the directory that ls reads.
        let inherited = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
        let inherited = String::from_utf8(inherited).unwrap();
        let fds = fs::read_to_string(client.path("fds")).unwrap();
        let allowed = inherited.split_whitespace().chain(["3", "4", "5", "6"]).collect::<Vec<_>>();
        for fd in fds.split_whitespace() {
            assert!(allowed.contains(&fd), "{fds:?}, not only {allowed:?}");
        }
    });
}

#[test]
fn a_stream_that_is_not_logged_has_ended_for_the_logger() {
    run(async {
        let client = Client::new();
        let uri = script(&client, "binary", "exec 5>&-; cat <&4 >err; cat <&3 >out");
        let (mut io, mut child) = open(&Client::outputs(&uri, client.stdio.stderr.as_str())).await.unwrap();
        let err = End::reader(client.path("stderr"));
        io.start().unwrap();
        stdout(&mut child).write("out").await;
        stderr(&mut child).write("err").await;
        io.drained().await;
        assert_eq!(err.text().await, "err");
        io.close_with(PATIENT).await;
        assert_eq!(fs::read_to_string(client.path("out")).unwrap(), "out");
        assert_eq!(fs::read_to_string(client.path("err")).unwrap(), "");
    });
}

#[test]
fn a_logger_that_does_not_start_is_said() {
    run(async {
        let client = Client::new();
        let error = refused(&both("binary:///there/is/none")).await;
        assert_eq!(error.kind, Kind::NotFound);
        assert!(error.message.contains("start the logger /there/is/none"), "{error}");

        let error = refused(&both(&script(&client, "binary-v2", "exit 3"))).await;
        assert!(error.message.contains("did not say that it is ready"), "{error}");
        let error = refused(&both(&script(&client, "binary-v2", "exec 5>&-; cat <&3"))).await;
        assert!(error.message.contains("did not say that it is ready"), "{error}");

        // The older form cannot tell: the process then has nobody who reads.
        let (io, mut child) = open(&both(&script(&client, "binary", "exit 3"))).await.unwrap();
        let out = stdout(&mut child);
        assert_eq!(out.try_write(&vec![0; 1 << 20]).await, Err(Errno::EPIPE));
        io.close_with(PATIENT).await;
    });
}

#[test]
fn a_logger_that_stays_is_asked_and_then_killed() {
    run(async {
        let client = Client::new();
        let polite = script(
            &client,
            "binary",
            "sleep 1000 5>&- & nap=$!; trap 'echo asked >end; kill $nap; exit' TERM; exec 5>&-; wait",
        );
        let (io, child) = open(&both(&polite)).await.unwrap();
        drop(child);
        io.close_with(Patience { end_of_file: Duration::from_millis(1), terminate: LONG }).await;
        assert_eq!(fs::read_to_string(client.path("end")).unwrap(), "asked\n");

        let stubborn = script(&client, "binary", "trap '' TERM; echo $$ >pid; exec 5>&-; exec sleep 1000");
        let (io, child) = open(&both(&stubborn)).await.unwrap();
        let pid = fs::read_to_string(client.path("pid")).unwrap();
        assert_eq!(io.logger_pid().unwrap().to_string(), pid.trim());
        drop(child);
        let moment = Duration::from_millis(1);
        io.close_with(Patience { end_of_file: moment, terminate: moment }).await;
        assert!(!Path::new("/proc").join(pid.trim()).try_exists().unwrap(), "killed and reaped");
    });
}

#[test]
fn a_logger_is_reaped_when_it_ends() {
    run(async {
        let client = Client::new();
        let (io, mut child) = open(&both(&script(&client, "binary", "exec 5>&-; read word <&3"))).await.unwrap();
        let pid = io.logger_pid().unwrap();
        stdout(&mut child).write("word\n").await;
        let gone = End::of(stderr(&mut child).0.into_inner());
        // The end of its reader.
        while gone.try_write(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
        while io.logger_pid().is_some() {
            tokio::task::yield_now().await;
        }
        assert!(!Path::new("/proc").join(pid.to_string()).try_exists().unwrap());
        io.close().await;
    });
}

#[test]
fn a_logger_is_killed_when_nobody_waits_any_more() {
    run(async {
        let client = Client::new();
        let alive = End::reader(client.path("stdout"));
        let never_ready = script(&client, "binary-v2", "echo started >stdout; exec 1>stdout; exec sleep 1000");
        let stdio = both(&never_ready);
        let opening = open(&stdio);
        let started = async {
            // No end-of-file while it is not there yet.
            let _writer = End::writer(client.path("stdout"));
            assert_eq!(alive.exactly(8).await, b"started\n");
        };
        select! {
            _ = opening => panic!("it is not ready"),
            () = started => {}
        }
        assert_eq!(alive.text().await, "", "it has gone");

        let (io, child) = open(&both(&script(&client, "binary", "exec 1>stdout 5>&-; exec sleep 1000"))).await.unwrap();
        drop(io);
        assert_eq!(alive.text().await, "");
        drop(child);
    });
}

#[test]
fn a_terminal_is_logged() {
    run(async {
        let mut client = Client::new();
        client.stdio.stdout = script(&client, "binary-v2", "echo >&5; exec 5>&-; cat <&4 >err; cat <&3 >out");
        client.stdio.stderr = "not://used".to_owned();
        client.stdio.terminal = true;
        let (mut io, _child) = client.open().await;
        let (master, slave) = pty();
        io.start_console(master).unwrap();
        nix::unistd::write(&slave, b"logged").unwrap();
        io.exited();
        io.drained().await;
        io.close_with(PATIENT).await;
        assert_eq!(fs::read_to_string(client.path("out")).unwrap(), "logged");
        assert_eq!(fs::read_to_string(client.path("err")).unwrap(), "");
    });
}

#[test]
fn a_terminal_goes_on_when_its_logger_dies() {
    run(async {
        let mut client = Client::new();
        client.stdio.stdout = script(&client, "binary", "exit");
        client.stdio.terminal = true;
        let (mut io, _child) = client.open().await;
        let (master, slave) = pty();
        io.start_console(master).unwrap();
        let process = End::of(slave);
        process.write(vec![b'x'; 1 << 20]).await;
        io.exited();
        io.drained().await;
    });
}
