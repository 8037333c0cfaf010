//! The relay between two real ptys: the caller's (the test sits at its master) and the container's.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::pty::{OpenptyResult, openpty};

use super::*;
use crate::sys::process::pidfd_open;

fn pty() -> (File, File) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    (master.into(), slave.into())
}

/// A shell on a pty of its own, as a container's process has it: its controlling terminal.
fn shell(script: &str) -> (Child, OwnedFd) {
    on_a_pty(&["setsid", "--ctty", "sh", "-c", script])
}

#[expect(clippy::zombie_processes, reason = "the relay waits for it, by its pidfd")]
fn on_a_pty(words: &[&str]) -> (Child, OwnedFd) {
    let (master, slave) = pty();
    let mut modes = tcgetattr(&slave).unwrap();
    modes.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&slave, SetArg::TCSANOW, &modes).unwrap();
    // As serving does it: before a program runs on it.
    let master = master.into();
    adopt(&master).unwrap();
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let child =
        Command::new(words[0]).args(&words[1..]).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    let pid = child.id() as i32;
    (Child { pid, pidfd: pidfd_open(pid).unwrap() }, master)
}

/// Relays `script` between `input` and `output` to its end.
fn relayed(script: &str, input: impl AsFd, output: impl AsFd) -> Exit {
    // The child inherits the mask of the thread that makes it.
    let (child, master) = shell(script);
    let signals = Signals::hold().unwrap();
    let output = output.as_fd();
    Relay::new(child, master, &signals, input.as_fd(), [output, output]).unwrap().run().unwrap()
}

#[test]
fn output_and_status_of_a_process_that_ends_at_once_arrive_whole() {
    for status in [0, 7] {
        let (reader, writer) = std::io::pipe().unwrap();
        let input = File::open("/dev/null").unwrap();
        let exit = relayed(&format!("echo out; echo err >&2; exit {status}"), &input, &writer);
        drop(writer);
        assert_eq!(exit, Exit::Code(status));
        assert_eq!(std::io::read_to_string(reader).unwrap(), "out\nerr\n");
    }
}

#[test]
fn more_output_than_any_buffer_holds_is_drained_after_the_end() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    let (exit, text) = std::thread::scope(|scope| {
        let text = scope.spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let exit = relayed("seq 1 50000", &input, &writer);
        drop(writer);
        (exit, text.join().unwrap())
    });
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(text.lines().count(), 50_000);
    assert!(text.ends_with("\n50000\n"));
}

#[test]
fn a_signal_that_ends_the_process_is_its_status() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let exit = relayed("kill -TERM $$", File::open("/dev/null").unwrap(), &writer);
    assert_eq!((exit, exit.status()), (Exit::Signal(libc::SIGTERM), 143));
}

#[test]
fn end_of_input_ends_a_reader_at_any_place_of_a_line() {
    for text in ["", "whole\n", "a\nhalf"] {
        let (input, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let (reader, output) = std::io::pipe().unwrap();
        let exit = relayed("cat", &input, &output);
        drop(output);
        assert_eq!(exit, Exit::Code(0), "{text:?}");
        assert_eq!(std::io::read_to_string(reader).unwrap(), text);
    }
}

#[test]
fn an_output_that_nobody_reads_does_not_stop_the_process() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(relayed("seq 1 20000; exit 3", File::open("/dev/null").unwrap(), &writer), Exit::Code(3));
}

#[test]
fn the_caller_s_terminal_is_raw_meanwhile_and_restored_after() {
    let (mut outside, terminal) = pty();
    tty::set_size(&terminal, 33, 101).unwrap();
    let before = tcgetattr(&terminal).unwrap();
    std::thread::scope(|scope| {
        // Keys pass unread: ^C is for the container's terminal, and "\r" is what Enter sends in raw mode.
        let exit = scope
            .spawn(|| relayed("stty size; trap 'echo caught; exit 5' INT; echo ready; read x", &terminal, &terminal));
        let mut text = Vec::new();
        until(&mut outside, &mut text, b"ready");
        assert!(String::from_utf8_lossy(&text).contains("33 101\r\n"), "{text:?}");
        let during = tcgetattr(&terminal).unwrap();
        assert!(!during.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO));
        assert_eq!(during.output_flags, before.output_flags);
        outside.write_all(b"\x03").unwrap();
        until(&mut outside, &mut text, b"caught\r\n");
        assert_eq!(exit.join().unwrap(), Exit::Code(5));
    });
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
}

#[test]
fn the_terminal_is_restored_when_the_process_is_killed() {
    let (mut outside, terminal) = pty();
    let before = tcgetattr(&terminal).unwrap();
    std::thread::scope(|scope| {
        let exit = scope.spawn(|| relayed("echo $$; exec sleep 1000", &terminal, &terminal));
        let mut text = Vec::new();
        until(&mut outside, &mut text, b"\n");
        let pid: i32 = String::from_utf8(text).unwrap().trim().parse().unwrap();
        pidfd_send_signal(pidfd_open(pid).unwrap(), libc::SIGKILL).unwrap();
        assert_eq!(exit.join().unwrap(), Exit::Signal(libc::SIGKILL));
    });
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
}

#[test]
fn a_hung_up_pty_is_left_in_peace_until_the_process_ends() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    let before = cpu_time();
    assert_eq!(relayed("exec </dev/null >/dev/null 2>&1; sleep 1; exit 4", &input, &writer), Exit::Code(4));
    assert!(cpu_time() - before < 0.2, "the relay was busy while there was nothing to do");
}

#[test]
fn a_process_left_behind_with_the_pty_does_not_keep_the_relay() {
    let (reader, writer) = std::io::pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    // Not the leader of a session with this terminal, whose end would hang it up.
    let (child, master) = on_a_pty(&["sh", "-c", "sleep 1000 & echo $!; exit 2"]);
    let signals = Signals::hold().unwrap();
    let exit = Relay::new(child, master, &signals, input.as_fd(), [writer.as_fd(); 2]).unwrap().run().unwrap();
    drop(writer);
    assert_eq!(exit, Exit::Code(2));
    let left: i32 = std::io::read_to_string(reader).unwrap().trim().parse().unwrap();
    pidfd_send_signal(pidfd_open(left).unwrap(), libc::SIGKILL).unwrap();
}

/// Seconds of CPU time of this thread.
fn cpu_time() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn until(source: &mut File, text: &mut Vec<u8>, end: &[u8]) {
    while !text.windows(end.len()).any(|part| part == end) {
        let mut bytes = [0; 256];
        let length = source.read(&mut bytes).unwrap();
        text.extend_from_slice(&bytes[..length]);
    }
}
