//! Where a process's output goes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use tokio::time::timeout;

use super::super::copy::Turn;
use super::*;
use crate::error::Kind;
use crate::testing::{pty, skip};

#[test]
fn fifos_get_what_is_written_and_its_end() {
    run(async {
        let client = Client::new();
        for scheme in ["", "fifo://"] {
            let stdio =
                Client::outputs(format!("{scheme}{}", client.stdio.stdout), format!("{scheme}{}", client.stdio.stderr));
            let (mut io, mut child) = open(&stdio).await.unwrap();
            assert!(child.stdin.is_none());
            let (out, err) = (End::reader(client.path("stdout")), End::reader(client.path("stderr")));
            io.start().unwrap();
            stdout(&mut child).write("out").await;
            assert_eq!(out.text().await, "out");
            assert!(pending(io.drained()).await, "stderr is still open");
            stderr(&mut child).write("err").await;
            assert_eq!(err.text().await, "err");
            io.drained().await;
            io.close().await;
        }
    });
}

#[test]
fn no_stream_is_null() {
    run(async {
        let (mut io, child) = open(&Stdio::default()).await.unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        io.start().unwrap();
        io.drained().await;
        io.close_stdin();
        io.resize(1, 1).unwrap();
        assert_eq!(io.logger_pid(), None);
        io.close().await;
    });
}

#[test]
fn a_file_is_made_with_its_parents_and_shared() {
    run(async {
        let client = Client::new();
        let uri = format!("file://{}/a%20b/c/log", client.directory.path().display());
        for _ in 0..2 {
            let (mut io, mut child) = open(&Client::outputs(&uri, &uri)).await.unwrap();
            io.start().unwrap();
            let (out, err) = (stdout(&mut child), stderr(&mut child));
            out.write("out ").await;
            drop(out);
            err.write("err ").await;
            drop(err);
            io.drained().await;
            io.close().await;
        }
        let log = client.path("a b/c/log");
        let mut words = fs::read_to_string(&log).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        words.sort();
        assert_eq!(words, ["err", "err", "out", "out"], "appended to");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&log) & !0o644, 0);
        assert_eq!(mode(log.parent().unwrap()) & !0o755, 0);
    });
}

#[test]
fn a_file_that_is_there_is_appended_to_in_order() {
    run(async {
        let client = Client::new();
        fs::write(client.path("log"), "before ").unwrap();
        let (mut io, mut child) = open(&Client::outputs(client.path("log").to_str().unwrap(), "")).await.unwrap();
        assert!(child.stderr.is_none());
        io.start().unwrap();
        let out = stdout(&mut child);
        let text = (0..100_000).map(|number| format!("{number}\n")).collect::<String>();
        out.write(&text).await;
        drop(out);
        io.drained().await;
        assert!(fs::read_to_string(client.path("log")).unwrap() == format!("before {text}"));
    });
}

#[test]
fn what_cannot_be_opened_is_said() {
    run(async {
        let client = Client::new();
        fs::write(client.path("file"), "").unwrap();
        let path = |name: &str| client.path(name).to_str().unwrap().to_owned();
        let output = |value: String| Client::outputs(value, "");
        let input = |value: String| Stdio { stdin: value, ..Stdio::default() };
        let table = [
            (output(path("none")), Kind::NotFound, "none for stdout"),
            (output(format!("fifo://{}", path("none"))), Kind::NotFound, "none for stdout"),
            (output(format!("fifo://{}", path("file"))), Kind::InvalidArgument, "file is not a fifo"),
            (output(path("")), Kind::InvalidArgument, "is a directory"),
            (output("https://example.org/".to_owned()), Kind::InvalidArgument, "\"https\""),
            (Client::outputs("", "tcp://localhost/"), Kind::InvalidArgument, "\"tcp\" of the stderr URI"),
            (input(path("none")), Kind::NotFound, "none for stdin"),
            (input(path("file")), Kind::InvalidArgument, "file is not a fifo"),
            (input(format!("file://{}", path("file"))), Kind::InvalidArgument, "stdin is a fifo"),
            (Client::outputs("binary:///a", "binary:///b"), Kind::InvalidArgument, "two different loggers"),
        ];
        for (stdio, kind, message) in table {
            let error = refused(&stdio).await;
            assert_eq!(error.kind, kind, "{stdio:?}: {error}");
            assert!(error.message.contains(message), "{stdio:?}: {error}");
        }
        let stdio = Client::outputs(format!("file://{}", path("new/log")), "what://ever");
        refused(&stdio).await;
        assert!(!client.path("new").try_exists().unwrap(), "what is wrong with one is found before another is made");
    });
}

#[test]
fn output_goes_on_where_a_file_is_full() {
    run(async {
        let client = Client::new();
        let stdio = Client::outputs("/dev/full", client.stdio.stderr.as_str());
        let (mut io, mut child) = open(&stdio).await.unwrap();
        io.start().unwrap();
        let (out, err) = (stdout(&mut child), stderr(&mut child));
        out.write(vec![0; 1 << 20]).await;
        drop((out, err));
        io.drained().await;
    });
}

#[test]
fn a_reader_that_never_reads_stops_only_its_stream() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let err = End::reader(client.path("stderr"));
        io.start().unwrap();
        let (to_out, to_err) = (stdout(&mut child), stderr(&mut child));
        let text = vec![b'e'; 1 << 20];
        tokio::select! {
            () = to_out.write(&text) => panic!("a fifo does not hold that much"),
            ((), read) = async { tokio::join!(to_err.write(&text), err.exactly(text.len())) } => assert!(read == text),
        }
        drop((to_out, to_err));
        assert_eq!(err.all().await, b"", "its end too");
        assert!(pending(io.drained()).await, "what is in the pipe has not been copied");
        let drained = io.drained();
        io.close().await;
        drained.await;
    });
}

#[test]
fn a_new_reader_goes_on_where_the_old_one_stopped() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        io.start().unwrap();
        let out = stdout(&mut child);
        let text = (0..200_000).map(|number| format!("{number}\n")).collect::<String>().into_bytes();
        let writing = async {
            out.write(&text).await;
            drop(out);
        };
        let reading = async {
            let mut read = End::reader(client.path("stdout")).exactly(5000).await;
            // Nobody reads now.
            settle().await;
            read.extend(End::reader(client.path("stdout")).exactly(300_000).await);
            read.extend(End::reader(client.path("stdout")).all().await);
            read
        };
        let ((), read) = tokio::join!(writing, reading);
        assert!(read == text);
        drop(child);
        io.drained().await;
    });
}

#[test]
fn what_no_reader_has_read_stays_for_the_next_after_the_end() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        io.start().unwrap();
        let out = stdout(&mut child);
        out.write("the last words").await;
        drop((out, child));
        io.drained().await;
        assert_eq!(End::reader(client.path("stdout")).text().await, "the last words");

        let (mut io, mut child) = client.open().await;
        io.start().unwrap();
        stdout(&mut child).write("forgotten").await;
        drop(child);
        io.drained().await;
        io.close().await;
        assert_eq!(End::reader(client.path("stdout")).text().await, "", "but not for longer than the streams are kept");
    });
}

/// The byte at each position of a long stream; the period is a prime, so that no page looks like another.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 65_537;

    fn new(seed: u32) -> Self {
        let mut state = seed;
        let period = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let period = period.take(Self::PERIOD).collect::<Vec<_>>();
        Self(period.repeat(3))
    }

    fn at(&self, position: usize, length: usize) -> &[u8] {
        let start = position % Self::PERIOD;
        &self.0[start..start + length]
    }
}

#[test]
fn a_lot_passes_both_fifos_intact() {
    const LENGTH: usize = 256 << 20;
    const CHUNK: usize = 64 << 10;
    async fn produce(end: End, pattern: &Pattern) {
        for position in (0..LENGTH).step_by(CHUNK) {
            end.write(pattern.at(position, CHUNK)).await;
        }
    }
    async fn check(end: End, pattern: &Pattern) {
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        loop {
            let length = end.some(&mut buffer).await;
            if length == 0 {
                break;
            }
            assert!(buffer[..length] == *pattern.at(position, length), "after {position} bytes");
            position += length;
        }
        assert_eq!(position, LENGTH);
    }
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let (out, err) = (End::reader(client.path("stdout")), End::reader(client.path("stderr")));
        io.start().unwrap();
        let (one, other) = (Pattern::new(1), Pattern::new(2));
        tokio::join!(
            produce(stdout(&mut child), &one),
            produce(stderr(&mut child), &other),
            check(out, &one),
            check(err, &other),
        );
        drop(child);
        io.drained().await;
    });
}

#[test]
fn only_a_busy_stream_gets_a_wider_pipe() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let (out, err) = (End::reader(client.path("stdout")), End::reader(client.path("stderr")));
        io.start().unwrap();
        let (busy, calm) = (stdout(&mut child), stderr(&mut child));
        let size = |end: &End| nix::fcntl::fcntl(end.0.get_ref(), nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap();
        let usual = size(&busy);
        for _ in 0..100 {
            calm.write("a line\n").await;
            assert_eq!(err.exactly(7).await, b"a line\n");
            // Whole pipes, one at a time.
            let whole = vec![b'x'; 64 << 10];
            let ((), read) = tokio::join!(busy.write(&whole), out.exactly(whole.len()));
            assert!(read == whole);
        }
        assert_eq!((size(&calm), size(&err)), (usual, usual));
        assert!(size(&busy) > usual && size(&out) > usual);
    });
}

#[test]
fn a_busy_stream_takes_turns() {
    run(async {
        let mut turn = Turn::default();
        let chunks = async {
            loop {
                turn.chunk().await;
            }
        };
        // Would never come back if it never waited.
        assert!(timeout(Duration::ZERO, chunks).await.is_err());
    });
}

#[test]
fn a_child_left_behind_keeps_output_open_until_close() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let out = End::reader(client.path("stdout"));
        io.start().unwrap();
        let process = stdout(&mut child);
        let left_behind = process.again();
        process.write("first").await;
        drop((process, child));
        assert_eq!(out.exactly(5).await, b"first");
        io.exited();
        assert!(pending(io.drained()).await);
        left_behind.write("second").await;
        assert_eq!(out.exactly(6).await, b"second");
        assert!(pending(io.drained()).await);

        let drained = io.drained();
        io.close().await;
        drained.await;
        assert_eq!(out.text().await, "");
        assert_eq!(left_behind.try_write(b"third").await, Err(Errno::EPIPE));
    });
}

#[test]
fn dropping_it_ends_everything() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let out = End::reader(client.path("stdout"));
        io.start().unwrap();
        let drained = io.drained();
        drop(io);
        drained.await;
        assert_eq!(out.text().await, "");
        assert_eq!(stdin(&mut child).text().await, "");

        let (io, child) = client.open().await;
        drop(io);
        let out = End::reader(client.path("stdout"));
        assert_eq!(out.text().await, "", "before it was started as well");
        drop(child);
    });
}

#[test]
fn only_streams_that_wait_are_started() {
    run(async {
        let client = Client::new();
        let (mut io, _child) = client.open().await;
        assert_eq!(io.start_console(pty().0).unwrap_err().kind, Kind::FailedPrecondition);
        io.start().unwrap();
        assert_eq!(io.start().unwrap_err().kind, Kind::FailedPrecondition);
        io.close().await;
    });
}

#[test]
fn pipes_belong_to_the_user_of_the_process() {
    if !geteuid().is_root() {
        let _: Option<()> = skip("giving pipes away needs root");
        return;
    }
    run(async {
        let client = Client::new();
        let names = LoggerNames::default();
        let (_io, child) = Io::open(&client.stdio, &names, Some((1234, 5678))).await.unwrap();
        for end in [&child.stdin, &child.stdout, &child.stderr] {
            let file = fstat(end.as_ref().unwrap()).unwrap();
            assert_eq!((file.st_uid, file.st_gid), (1234, 5678));
        }
        let before = fs::metadata(client.path("stdout")).unwrap().uid();
        assert_eq!(before, geteuid().as_raw(), "the client's stay the client's");
    });
}
