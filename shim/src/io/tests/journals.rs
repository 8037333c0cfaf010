//! Logs of records, and clients attached to them.

use std::fs;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::*;
use crate::testing::pty;

/// What is in a log: the text and the stream of each record.
fn records(path: impl AsRef<Path>) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        assert!(text("time").ends_with('Z') && text("time").starts_with("20"), "{line}");
        (text("log"), text("stream"))
    };
    text.lines().map(record).collect()
}

/// A client that is attached.
struct Attached(End);

impl Attached {
    async fn to(path: &Path) -> Self {
        let client = Self(End::of(UnixStream::connect(path).unwrap().into()));
        assert_eq!(client.frame().await, (0, Vec::new()), "the welcome");
        client
    }

    async fn frame(&self) -> (u8, Vec<u8>) {
        let head = self.0.exactly(8).await;
        assert_eq!(head[1..4], [0, 0, 0]);
        let length = u32::from_be_bytes(head[4..].try_into().unwrap());
        (head[0], self.0.exactly(length as usize).await)
    }
}

#[test]
fn lines_become_records_of_their_stream() {
    run(async {
        let client = Client::new();
        let log = client.path("log");
        let uri = format!("json-file://{}", log.display());
        let (mut io, mut child) = open(&Client::outputs(&uri, &uri)).await.unwrap();
        io.start().unwrap();
        let (out, err) = (stdout(&mut child), stderr(&mut child));
        out.write("one\ntwo \"quoted\"\nth").await;
        settle().await;
        err.write(b"bad \xff\n").await;
        settle().await;
        out.write("ree").await;
        drop((out, err));
        io.drained().await;
        io.close().await;
        let expected =
            [("one\n", "stdout"), ("two \"quoted\"\n", "stdout"), ("bad \u{fffd}\n", "stderr"), ("three", "stdout")];
        assert_eq!(records(&log), expected.map(|(text, stream)| (text.to_owned(), stream.to_owned())));
    });
}

#[test]
fn a_line_without_end_is_cut_and_loses_nothing() {
    run(async {
        let client = Client::new();
        let log = client.path("log");
        let (mut io, mut child) = open(&Client::outputs(format!("json-file://{}", log.display()), "")).await.unwrap();
        io.start().unwrap();
        let text = "äöü".repeat(10_000);
        let out = stdout(&mut child);
        out.write(&text).await;
        drop(out);
        io.drained().await;
        io.close().await;
        let pieces: Vec<String> = records(&log).into_iter().map(|(text, _)| text).collect();
        assert!(pieces.len() == 4 && pieces.iter().all(|it| it.len() <= 16 << 10), "{}", pieces.len());
        assert_eq!(pieces.concat(), text);
    });
}

#[test]
fn full_logs_are_put_aside_and_the_oldest_goes() {
    run(async {
        let client = Client::new();
        let log = client.path("log");
        let uri = format!("json-file://{}?max-size=1k&max-file=3", log.display());
        let names = |number: u32| client.path(&if number == 0 { "log".to_owned() } else { format!("log.{number}") });
        // Line by line, or all in one piece, as they come from a process that was faster than we.
        for in_piece in [1, 100] {
            let (mut io, mut child) = open(&Client::outputs(&uri, "")).await.unwrap();
            io.start().unwrap();
            let out = stdout(&mut child);
            let text: Vec<String> = (0..100).map(|number| format!("line {number}\n")).collect();
            for piece in text.chunks(in_piece) {
                out.write(piece.concat()).await;
                settle().await;
            }
            drop(out);
            io.drained().await;
            io.close().await;
            assert!((0..3).all(|it| fs::metadata(names(it)).unwrap().len() <= 1024) && fs::metadata(names(3)).is_err());
            let lines: Vec<_> = (0..3).rev().flat_map(|it| records(names(it))).map(|(text, _)| text).collect();
            assert_eq!(lines, text[100 - lines.len()..]);
        }

        // One file: it begins again.
        let single = client.path("single");
        let uri = format!("json-file://{}?max-size=1k", single.display());
        let (mut io, mut child) = open(&Client::outputs(&uri, "")).await.unwrap();
        io.start().unwrap();
        let out = stdout(&mut child);
        for number in 0..50 {
            out.write(format!("line {number}\n")).await;
            settle().await;
        }
        drop(out);
        io.drained().await;
        io.close().await;
        assert!(fs::metadata(&single).unwrap().len() <= 1024);
        assert_eq!(records(&single).last().unwrap().0, "line 49\n");
    });
}

#[test]
fn who_is_attached_gets_every_byte_and_the_end() {
    run(async {
        let client = Client::new();
        let (log, socket) = (client.path("log"), client.path("attach"));
        let uri = format!("json-file://{}?attach={}", log.display(), socket.display());
        let (mut io, mut child) = open(&Client::outputs(&uri, &uri)).await.unwrap();
        let (first, second) = (Attached::to(&socket).await, Attached::to(&socket).await);
        io.start().unwrap();
        let (out, err) = (stdout(&mut child), stderr(&mut child));
        out.write(b"no end \xff").await;
        assert_eq!(first.frame().await, (1, b"no end \xff".to_vec()));
        drop(first);
        err.write("err\n").await;
        assert_eq!(second.frame().await, (1, b"no end \xff".to_vec()));
        assert_eq!(second.frame().await, (2, b"err\n".to_vec()));
        drop((out, err));
        io.drained().await;
        io.close().await;
        assert!(second.0.all().await.is_empty(), "the end");
        assert!(fs::metadata(&socket).is_err());
        assert_eq!(records(&log).len(), 2);
    });
}

#[test]
fn what_is_to_be_waited_for_misses_nothing() {
    run(async {
        let client = Client::new();
        let socket = client.path("attach");
        let uri = format!("json-file:///dev/null?attach={}&wait=true", socket.display());
        let (mut io, mut child) = open(&Client::outputs(&uri, &uri)).await.unwrap();
        io.start().unwrap();
        let (out, err) = (stdout(&mut child), stderr(&mut child));
        out.write("early").await;
        err.write("too").await;
        drop((out, err));
        settle().await;
        let attached = Attached::to(&socket).await;
        let mut frames = [attached.frame().await, attached.frame().await];
        frames.sort();
        assert_eq!(frames, [(1, b"early".to_vec()), (2, b"too".to_vec())]);
        io.drained().await;
        io.close().await;
    });
}

#[test]
fn a_client_that_does_not_read_holds_up_and_one_that_goes_does_not() {
    run(async {
        let client = Client::new();
        let (log, socket) = (client.path("log"), client.path("attach"));
        let uri = format!("json-file://{}?attach={}", log.display(), socket.display());
        let (mut io, mut child) = open(&Client::outputs(&uri, "")).await.unwrap();
        io.start().unwrap();
        let lazy = Attached::to(&socket).await;
        let out = stdout(&mut child);
        let (text, writer) = ("x".repeat(99) + "\n", out.again());
        drop(out);
        let all = text.repeat(40_000);
        let written = tokio::task::spawn_local(async move { writer.write(all).await });
        settle().await;
        assert!(!written.is_finished(), "4 MB went somewhere");
        drop(lazy);
        written.await.unwrap();
        io.drained().await;
        io.close().await;
        assert_eq!(records(&log).len(), 40_000);
    });
}

#[test]
fn a_terminal_is_logged_too() {
    run(async {
        let client = Client::new();
        let (log, socket) = (client.path("log"), client.path("attach"));
        let uri = format!("json-file://{}?attach={}", log.display(), socket.display());
        let stdio = Stdio { terminal: true, ..Client::outputs(&uri, "") };
        let (mut io, _) = open(&stdio).await.unwrap();
        let attached = Attached::to(&socket).await;
        let (master, slave) = pty();
        io.start_console(master).unwrap();
        nix::unistd::write(&slave, b"prompt> ").unwrap();
        let (stream, text) = attached.frame().await;
        assert_eq!((stream, &text[..]), (1, &b"prompt> "[..]));
        drop(slave);
        io.exited();
        io.drained().await;
        io.close().await;
        assert_eq!(records(&log), [("prompt> ".to_owned(), "stdout".to_owned())]);
    });
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_process() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = open(&Client::outputs("json-file:///dev/full", "")).await.unwrap();
        io.start().unwrap();
        let out = stdout(&mut child);
        out.write("x\n".repeat(100_000)).await;
        drop(out);
        io.drained().await;
        io.close().await;
        let refused =
            refused(&Client::outputs(format!("json-file://{}/no/log", client.directory.path().display()), "")).await;
        assert!(refused.message.starts_with("open the log "), "{refused}");
    });
}

/// A tmpfs with this much room, in a mount namespace that only the test sees.
fn in_little_room(limits: &str, test: impl AsyncFnOnce(&Path) + Send) {
    crate::testing::in_own_mounts(|directory| {
        let small = directory.join("small");
        fs::create_dir(&small).unwrap();
        nix::mount::mount(Some("test"), &small, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(limits)).unwrap();
        run(test(&small));
    });
}

#[test]
fn logs_stay_when_a_new_one_cannot_be_made() {
    // The directory, three logs and `taken`.
    in_little_room("nr_inodes=5", async |small| {
        let log = |number: u32| small.join(if number == 0 { "log".to_owned() } else { format!("log.{number}") });
        let uri = format!("json-file://{}?max-size=1k&max-file=3", log(0).display());
        let (mut io, mut child) = open(&Client::outputs(&uri, "")).await.unwrap();
        io.start().unwrap();
        let out = stdout(&mut child);
        let fill = async |text: &str| {
            out.write(format!("{}\n", text.repeat(900))).await;
            settle().await;
        };
        fill("1").await;
        fill("2").await;
        fs::write(small.join("taken"), "").unwrap();
        fs::write(small.join("taken too"), "").unwrap();
        for _ in 0..3 {
            fill("x").await;
        }
        let first = |number: u32| records(log(number))[0].0.chars().next().unwrap();
        assert_eq!((first(1), first(0)), ('1', '2'));
        fs::remove_file(small.join("taken")).unwrap();
        fill("3").await;
        assert_eq!((first(2), first(1), first(0)), ('1', '2', '3'));
        drop(out);
        io.drained().await;
        io.close().await;
    });
}

#[test]
fn what_follows_half_a_record_is_whole() {
    in_little_room("size=16k", async |small| {
        let (log, filler) = (small.join("log"), small.join("filler"));
        let (mut io, mut child) = open(&Client::outputs(format!("json-file://{}", log.display()), "")).await.unwrap();
        io.start().unwrap();
        let out = stdout(&mut child);
        fs::write(&filler, [0; 3 * 4096]).unwrap();
        out.write(format!("{}\n", "x".repeat(6000))).await;
        settle().await;
        assert_eq!(fs::metadata(&log).unwrap().len(), 4096, "half of it");
        fs::remove_file(&filler).unwrap();
        out.write("after\n").await;
        drop(out);
        io.drained().await;
        io.close().await;
        let text = fs::read_to_string(&log).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).expect("a record of its own");
        assert_eq!(last["log"], "after\n");
    });
}

#[test]
fn what_is_no_file_is_no_log() {
    run(async {
        let client = Client::new();
        // Whoever opened it for writing would wait for a reader.
        for path in [client.path("stdin"), client.directory.path().to_owned()] {
            let refused = refused(&Client::outputs(format!("json-file://{}", path.display()), "")).await;
            assert!(refused.message.starts_with(&format!("open the log {}: ", path.display())), "{refused}");
        }
    });
}

/// CVE-2026-53489 of containerd: in the place of a container's log lies a link to a file of the host's.
#[test]
fn cve_2026_53489_a_log_that_is_a_link_is_not_followed() {
    run(async {
        let client = Client::new();
        let (log, host, new) = (client.path("log"), client.path("host"), client.path("new"));
        fs::write(&host, "the host's").unwrap();
        for target in [&host, &new] {
            std::os::unix::fs::symlink(target, &log).unwrap();
            let refused = refused(&Client::outputs(format!("json-file://{}", log.display()), "")).await;
            assert!(refused.message.starts_with(&format!("open the log {}: ", log.display())), "{refused}");
            fs::remove_file(&log).unwrap();
        }
        assert_eq!(fs::read(&host).unwrap(), b"the host's");
        assert!(fs::symlink_metadata(&new).is_err(), "nothing is made where it leads");
    });
}
