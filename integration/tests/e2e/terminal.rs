//! Terminals and the foreground: what a person at a terminal sees, and what a caller with a console socket gets.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use integration::{Bundle, Console, Runtime, wait};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use serde_json::json;

/// A person's terminal: the test sits at the keyboard and the screen.
struct Desk {
    keyboard: File,
    terminal: File,
    before: Termios,
    screen: String,
}

impl Desk {
    fn new(rows: u16, columns: u16) -> Desk {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&slave).unwrap();
        Desk { keyboard: master.into(), terminal: slave.into(), before, screen: String::new() }
    }

    /// Starts a call of the runtime at this terminal.
    fn start(&self, rt: &Runtime, args: &[&str]) -> integration::Running {
        let end = || Stdio::from(self.terminal.try_clone().unwrap());
        rt.spawn(args, |command| {
            command.stdin(end()).stdout(end()).stderr(end());
        })
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads on until the screen shows `text`.
    fn until(&mut self, text: &str) -> &str {
        let deadline = wait::deadline();
        while !self.screen.contains(text) {
            assert!(
                wait::readable(self.keyboard.as_fd(), deadline),
                "the screen shows {:?}, not {text:?}",
                self.screen
            );
            let mut bytes = [0; 4096];
            let length = self.keyboard.read(&mut bytes).unwrap();
            self.screen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        &self.screen
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal)
            .unwrap()
            .local_flags
            .intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before, "the terminal's modes");
    }
}

fn with_terminal(rt: &Runtime, script: &str) -> Bundle {
    rt.bundle(&["/bin/sh", "-c", script]).set("/process/terminal", json!(true))
}

#[test]
fn a_person_at_a_terminal_works_in_the_container() {
    let rt = Runtime::from_env();
    let bundle = with_terminal(
        &rt,
        "stty size; tty; trap 'echo interrupted' INT; trap 'stty size' WINCH; echo ready; \
         while ! read line; do :; done; echo \"got $line\"; exit 9",
    );
    bundle.write();
    let mut desk = Desk::new(24, 80);
    let running = desk.start(&rt, &["run", "--bundle", bundle.path_str(), &rt.fresh_id()]);
    let screen = desk.until("ready\r\n").to_owned();
    assert!(screen.contains("24 80\r\n") && screen.contains("/dev/pts/0\r\n"), "{screen:?}");
    assert!(desk.is_raw());
    // ^C is a byte for the container's terminal, and the runtime lives on.
    desk.press("\x03");
    desk.until("interrupted\r\n");
    integration::sys::set_window_size(&desk.terminal, 50, 132).unwrap();
    running.signal(Signal::SIGWINCH);
    desk.until("50 132\r\n");
    desk.press("hello\r");
    desk.until("got hello\r\n");
    assert_eq!(running.wait().code(), 9);
    desk.is_as_before();
}

#[test]
fn the_terminal_is_restored_on_every_way_out() {
    let rt = Runtime::from_env();
    let run = |desk: &Desk, bundle: &Bundle, id: &str| {
        bundle.write();
        desk.start(&rt, &["run", "--bundle", bundle.path_str(), id])
    };
    // A program that is not there.
    let desk = Desk::new(24, 80);
    let bundle = with_terminal(&rt, "").set("/process/args", json!(["/no/such"]));
    assert_eq!(run(&desk, &bundle, &rt.fresh_id()).wait().code(), 1);
    desk.is_as_before();
    // A container that is killed, and one whose runtime is told to end it.
    for by_runtime in [false, true] {
        let mut desk = Desk::new(24, 80);
        let id = rt.fresh_id();
        let running = run(&desk, &with_terminal(&rt, "trap 'exit 3' TERM; echo ready; while :; do sleep 1; done"), &id);
        desk.until("ready");
        assert!(desk.is_raw());
        if by_runtime {
            running.signal(Signal::SIGTERM);
            assert_eq!(running.wait().code(), 3);
        } else {
            rt.call(&["kill", &id, "KILL"]).ok();
            assert_eq!(running.wait().code(), 137);
        }
        desk.is_as_before();
    }
}

#[test]
fn a_process_that_ends_at_once_hangs_nothing_and_loses_nothing() {
    let rt = Runtime::from_env();
    for _ in 0..20 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let bundle = with_terminal(&rt, "echo first; echo last");
        bundle.write();
        let running = rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |command| {
            command.stdout(writer);
        });
        let mut text = String::new();
        // The command that is kept until wait() holds the other end.
        let output = running.wait().ok();
        drop(output);
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\nlast\n");
    }
}

#[test]
fn a_long_output_arrives_whole_and_without_carriage_returns() {
    let rt = Runtime::from_env();
    let bundle = with_terminal(&rt, "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
    let output = rt.run(&bundle).ok();
    let expected: String = (0..20000).map(|n| format!("{n}\n")).collect();
    assert_eq!(output.stdout.len(), expected.len());
    assert_eq!(output.stdout, expected);
}

#[test]
fn the_end_of_the_input_reaches_a_reader_in_the_container() {
    let rt = Runtime::from_env();
    for input in ["", "line\n", "line\nhalf"] {
        let path = rt.fresh_path("input");
        fs::write(&path, input).unwrap();
        let bundle = with_terminal(&rt, "stty -echo; echo ready; cat; echo end");
        let output = rt.run_with(&bundle, &[], |command| {
            command.stdin(File::open(&path).unwrap());
        });
        let text = output.ok().stdout;
        // What came before `stty` was echoed.
        let (_, after) = text.split_once("ready\n").unwrap();
        assert_eq!(after, format!("{input}end\n"));
    }
}

#[test]
fn without_a_terminal_stdio_is_the_caller_s_and_signals_are_forwarded() {
    let rt = Runtime::from_env();
    let output = rt.run_with(&rt.bundle(&["/bin/sh", "-c", "cat; echo err >&2; exit 5"]), &[], |command| {
        let path = rt.fresh_path("input");
        fs::write(&path, "in\n").unwrap();
        command.stdin(File::open(path).unwrap());
    });
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code()), ("in\n", "err\n", 5));

    for (signal, code) in
        [(Signal::SIGUSR1, 10), (Signal::SIGHUP, 1), (Signal::SIGTERM, 15), (Signal::SIGINT, 2), (Signal::SIGCONT, 18)]
    {
        let script = "for s in USR1:10 HUP:1 TERM:15 INT:2 CONT:18; do trap \"exit ${s#*:}\" ${s%:*}; done; \
                      echo ready; while :; do sleep 0.1; done";
        let bundle = rt.bundle(&["/bin/sh", "-c", script]);
        bundle.write();
        let running = rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |_| {});
        wait::file(running.stdout_file(), |text| text.contains("ready"));
        running.signal(signal);
        assert_eq!(running.wait().code(), code, "{signal}");
    }
}

#[test]
fn a_death_by_signal_is_the_status_of_run_and_of_exec() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/probe", "wait"]);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    for signal in ["TERM", "KILL", "SEGV"] {
        let number = Signal::try_from(signal_number(signal)).unwrap() as i32;
        let output = container.exec(&["/bin/sh", "-c", &format!("kill -{signal} $$; sleep 100")]);
        assert_eq!(output.code(), 128 + number, "{signal}");
    }
    assert_eq!(container.exec(&["/bin/sh", "-c", "exit 42"]).code(), 42);
    // Without a pid namespace init is no init, and dies of signals like anybody.
    let bundle = rt.bundle(&["/bin/sh", "-c", "kill -TERM $$; sleep 100"]).without_namespace("pid");
    assert_eq!(rt.run(&bundle).code(), 143);
}

fn signal_number(name: &str) -> i32 {
    match name {
        "TERM" => 15,
        "KILL" => 9,
        _ => 11,
    }
}

#[test]
fn exec_at_a_terminal() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let mut desk = Desk::new(30, 90);
    let script = "stty size; tty; [ -O $(tty) ] && echo mine; read x; echo \"<$x>\"; exit 6";
    let running = desk.start(&rt, &["exec", "--tty", "--user", "1000:1000", container.id(), "/bin/sh", "-c", script]);
    desk.until("mine");
    assert!(desk.is_raw());
    desk.press("keys\r");
    let screen = desk.until("<keys>\r\n").to_owned();
    assert!(screen.contains("30 90\r\n") && screen.contains("/dev/pts/0\r\n"), "{screen:?}");
    assert_eq!(running.wait().code(), 6);
    desk.is_as_before();
}

#[test]
fn a_console_socket_gets_a_terminal_of_the_asked_size() {
    let rt = Runtime::from_env();
    let console = Console::listen(&rt);
    let bundle = with_terminal(
        &rt,
        "stty size; stty -a | tr ' ' '\\n' | grep onlcr; [ -O $(tty) ] && echo mine; echo console >/dev/console; \
         [ /dev/console -ef /proc/self/fd/0 ] && echo same; sleep 1000",
    )
    .set("/process/consoleSize", json!({"height": 11, "width": 22}))
    .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = rt.create(&bundle, &["--console-socket", console.path().to_str().unwrap()]).unwrap();
    let (master, name) = console.accept();
    assert!(!name.is_empty() && name.len() < 4096);
    container.start().ok();
    // As the kernel makes it: docker's client has its own terminal in raw mode, and needs the container's "\r\n".
    let text = Console::read_until(&master, |text| text.contains("console\r\n"));
    assert!(text.starts_with("11 22\r\nonlcr\r\nmine\r\n"), "{text:?}");
    container.kill("KILL").ok();
    container.wait_exit();
}

#[test]
fn exec_sends_its_terminal_to_a_console_socket() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let console = Console::listen(&rt);
    let flags = ["--tty", "--console-socket", console.path().to_str().unwrap()];
    let _orphan = container.exec_detached(&flags, &["/bin/sh", "-c", "tty; read x; echo \"<$x>\""]).unwrap();
    let (master, _) = console.accept();
    Console::read_until(&master, |text| text.contains("/dev/pts/0"));
    write_all(&master, b"word\n");
    Console::read_until(&master, |text| text.contains("<word>"));
}

fn write_all(fd: &OwnedFd, bytes: &[u8]) {
    File::from(fd.try_clone().unwrap()).write_all(bytes).unwrap();
}

#[test]
fn terminals_and_sockets_must_fit_each_other() {
    let rt = Runtime::from_env();
    let bundle = with_terminal(&rt, "true");
    let error = rt.create(&bundle, &[]).expect_err("no socket").error();
    assert!(error.contains("--console-socket"), "{error}");
    let error = rt.run_detached(&bundle, &[]).expect_err("no socket").error();
    assert!(error.contains("--console-socket"), "{error}");
    let error =
        rt.create(&rt.bundle(&["/bin/true"]), &["--console-socket", "/no/such"]).expect_err("no terminal").error();
    assert!(error.contains("process.terminal is false"), "{error}");
    let error = rt.create(&bundle, &["--console-socket", "/no/such"]).expect_err("no such socket").error();
    assert!(error.contains("connect to the --console-socket /no/such: it does not exist"), "{error}");
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_container() {
    let rt = Runtime::from_env();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let bundle = with_terminal(&rt, "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exit 8");
    bundle.write();
    let running = rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |command| {
        command.stdout(writer);
    });
    assert_eq!(running.wait().code(), 8);
}

#[test]
fn what_is_left_to_the_foreground_is_reaped() {
    let rt = Runtime::from_env();
    // Without a pid namespace the orphan comes to the runtime, which is its subreaper, and ends before init does.
    let script =
        "(sh -c 'exit 0' &) ; sleep 0.2; grep -l \"^PPid:[[:space:]]*$PPID$\" /proc/[0-9]*/status 2>/dev/null | wc -l";
    let bundle = rt.bundle(&["/bin/sh", "-c", script]).without_namespace("pid");
    // Init itself is the only child.
    assert_eq!(rt.run(&bundle).ok().stdout.trim(), "1");
}

/// Who becomes the parent of what the container's processes leave behind, without a pid namespace.
#[test]
fn no_subreaper_leaves_orphans_to_the_caller() {
    let rt = Runtime::from_env();
    let script = "orphan=$(sh -c 'sleep 1000 >/dev/null & echo $!'); cat /proc/$orphan/stat; kill $orphan; echo $PPID";
    let bundle = rt.bundle(&["/bin/sh", "-c", script]).without_namespace("pid");
    for (flags, reaps) in [(&[][..], true), (&["--no-subreaper"], false)] {
        let output = rt.run_with(&bundle, flags, |_| {}).ok();
        let (stat, runtime) = output.stdout.trim().rsplit_once('\n').unwrap();
        let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
        assert_eq!(parent == runtime, reaps, "{flags:?}: {output:?}");
    }
}

#[test]
fn a_terminal_in_a_user_namespace_is_the_user_s() {
    let rt = Runtime::from_env();
    let console = Console::listen(&rt);
    let bundle = with_terminal(&rt, "[ -O $(tty) ] && tty; echo console >/dev/console; sleep 1000")
        .with_user_namespace()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = rt.create(&bundle, &["--console-socket", console.path().to_str().unwrap()]).unwrap();
    let (master, _) = console.accept();
    container.start().ok();
    let text = Console::read_until(&master, |text| text.contains("console\r\n"));
    assert_eq!(text, "/dev/pts/0\r\nconsole\r\n");
    let mut desk = Desk::new(30, 90);
    let running = desk.start(&rt, &["exec", "--tty", container.id(), "/bin/sh", "-c", "[ -O $(tty) ] && tty; exit 4"]);
    desk.until("/dev/pts/1\r\n");
    assert_eq!(running.wait().code(), 4);
    container.kill("KILL").ok();
    container.wait_exit();
}
