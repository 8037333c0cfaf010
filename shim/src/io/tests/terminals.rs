//! A terminal and its client.

use std::fs;
use std::process::{Command, Stdio as Standard};

use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

use super::*;
use crate::error::Kind;
use crate::testing::pty;

struct Terminal {
    client: Client,
    io: Io,
    process: OwnedFd,
}

impl Terminal {
    /// With all streams, and a pty that changes nothing on its way.
    async fn raw() -> Self {
        let terminal = Self::cooked().await;
        let mut settings = tcgetattr(&terminal.process).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&terminal.process, SetArg::TCSANOW, &settings).unwrap();
        terminal
    }

    async fn cooked() -> Self {
        let mut client = Client::new();
        client.stdio.terminal = true;
        Self::of(client).await
    }

    async fn of(client: Client) -> Self {
        let (mut io, child) = client.open().await;
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        let (master, slave) = pty();
        io.start_console(master).unwrap();
        Self { client, io, process: slave }
    }

    fn reader(&self) -> End {
        End::reader(self.client.path("stdout"))
    }

    fn writer(&self) -> End {
        End::writer(self.client.path("stdin"))
    }
}

#[test]
fn what_is_typed_is_echoed_and_read() {
    run(async {
        let terminal = Terminal::cooked().await;
        let (screen, keyboard) = (terminal.reader(), terminal.writer());
        keyboard.write("hello\n").await;
        assert_eq!(screen.exactly(7).await, b"hello\r\n");
        let process = End::of(terminal.process);
        assert_eq!(process.exactly(6).await, b"hello\n");
        process.write("and back").await;
        assert_eq!(screen.exactly(8).await, b"and back");
    });
}

#[test]
fn its_size_can_be_set() {
    run(async {
        let terminal = Terminal::cooked().await;
        terminal.io.resize(100, 40).unwrap();
        let process = Standard::from(terminal.process.try_clone().unwrap());
        let size = Command::new("stty").arg("size").stdin(process).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&size.stdout), "40 100\n");
        let error = terminal.io.resize(65536, 1).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument);
        assert!(error.message.contains("65536x1"), "{error}");
    });
}

#[test]
fn the_last_words_are_copied_after_the_exit() {
    run(async {
        let Terminal { client, io, process } = Terminal::raw().await;
        let screen = End::reader(client.path("stdout"));
        let process = End::of(process);
        let text = (0..100_000).map(|number| format!("{number}\n")).collect::<String>().into_bytes();
        let working = async {
            process.write(&text).await;
            assert!(pending(io.drained()).await);
            drop(process);
            io.exited();
            io.drained().await;
        };
        let ((), read) = tokio::join!(working, screen.all());
        assert!(read == text);
        io.exited();
        io.close().await;
    });
}

#[test]
fn an_exit_ends_output_although_others_have_the_terminal() {
    run(async {
        let Terminal { client, io, process } = Terminal::raw().await;
        let screen = End::reader(client.path("stdout"));
        let left_behind = End::of(process);
        left_behind.write("bye").await;
        io.exited();
        io.drained().await;
        assert_eq!(screen.text().await, "bye");
        io.close().await;
        assert_eq!(left_behind.text().await, "", "hung up");
    });
}

#[test]
fn nobody_at_the_terminal_is_not_its_end() {
    run(async {
        let Terminal { client, io, process } = Terminal::raw().await;
        let screen = End::reader(client.path("stdout"));
        let path = ttyname(&process).unwrap();
        for word in ["one", "two", "three"] {
            let process = fs::OpenOptions::new().write(true).open(&path).unwrap();
            nix::unistd::write(&process, word.as_bytes()).unwrap();
            assert_eq!(screen.exactly(word.len()).await, word.as_bytes());
            drop(process);
            // The first time round others have it open still.
            assert!(pending(io.drained()).await);
        }
        drop(process);
        assert!(pending(io.drained()).await);
        let process = fs::OpenOptions::new().write(true).open(&path).unwrap();
        nix::unistd::write(&process, b"four").unwrap();
        assert_eq!(screen.exactly(4).await, b"four");
        drop(process);
        io.exited();
        io.drained().await;
        assert_eq!(screen.text().await, "");
    });
}

#[test]
fn closed_input_hangs_the_terminal_up() {
    run(async {
        let Terminal { client, mut io, process } = Terminal::raw().await;
        let (screen, keyboard) = (End::reader(client.path("stdout")), End::writer(client.path("stdin")));
        let process = End::of(process);
        io.close_stdin();
        keyboard.write("last").await;
        assert_eq!(process.exactly(4).await, b"last");
        drop(keyboard);
        assert_eq!(process.text().await, "");
        io.drained().await;
        assert_eq!(screen.text().await, "");
        io.resize(80, 25).unwrap();
        io.exited();
    });
}

#[test]
fn a_client_that_detaches_hangs_nothing_up() {
    run(async {
        let Terminal { client, io: _io, process } = Terminal::raw().await;
        let process = End::of(process);
        for word in ["first", "other"] {
            End::writer(client.path("stdin")).write(word).await;
            assert_eq!(process.exactly(5).await, word.as_bytes());
        }
        let screen = End::reader(client.path("stdout"));
        process.write("still here").await;
        assert_eq!(screen.exactly(10).await, b"still here");
    });
}

#[test]
fn input_waits_for_a_process_that_does_not_read() {
    run(async {
        let Terminal { client, io: _io, process } = Terminal::raw().await;
        let (screen, keyboard) = (End::reader(client.path("stdout")), End::writer(client.path("stdin")));
        let process = End::of(process);
        // Until nothing more is taken, although the shim has had its turns.
        let (mut typed, mut refused) = (0, 0);
        while refused < 3 {
            let filled = keyboard.fill();
            typed += filled;
            refused = if filled == 0 { refused + 1 } else { 0 };
            process.write("x").await;
            assert_eq!(screen.exactly(1).await, b"x", "output goes on");
        }
        let text = (0..100_000).map(|number| format!("{number}\n")).collect::<String>().into_bytes();
        let reading = async {
            assert!(process.exactly(typed).await.iter().all(|byte| *byte == b'x'));
            process.exactly(text.len()).await
        };
        let ((), read) = tokio::join!(keyboard.write(&text), reading);
        assert!(read == text);
    });
}

#[test]
fn output_goes_to_files_and_nowhere_too() {
    run(async {
        let mut client = Client::new();
        let log = client.path("log");
        client.stdio.terminal = true;
        client.stdio.stdout = format!("file://{}", log.display());
        let terminal = Terminal::of(client).await;
        nix::unistd::write(&terminal.process, b"logged").unwrap();
        terminal.io.exited();
        terminal.io.drained().await;
        assert_eq!(fs::read_to_string(log).unwrap(), "logged");

        let mut client = Client::new();
        client.stdio = Stdio { terminal: true, ..Stdio::default() };
        let Terminal { io, process, .. } = Terminal::of(client).await;
        let process = End::of(process);
        process.write(vec![b'x'; 1 << 20]).await;
        io.exited();
        io.drained().await;
    });
}
