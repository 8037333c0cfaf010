//! At a terminal, through tmux: what a person sees, types and leaves.

use std::path::Path;
use std::process::Command;

use integration::{in_path, skip, store, wait};

use crate::harness::{BUSYBOX, World, tarectl};

/// A shell in a terminal of 100 by 30.
struct Terminal<'a> {
    world: &'a World,
}

impl<'a> Terminal<'a> {
    fn new(world: &'a World) -> Self {
        let terminal = Self { world };
        let path = tarectl();
        let path = path.parent().unwrap().display();
        let shell = format!("PATH={path}:$PATH PS1='$ ' ENV= exec sh");
        let mut command = world.program(Path::new("tmux"));
        command.args(["-L", &world.tag, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &shell]);
        command.env("TERM", "xterm").env_remove("TMUX");
        let ran = store::run(command, None);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        terminal.until("a prompt", |text| text.contains("$"));
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.world.tag]).args(args).env_remove("TMUX");
        let ran = store::run(command, None);
        assert_eq!(ran.code, Some(0), "tmux {args:?}: {}", ran.stderr);
        ran.stdout
    }

    fn keys(&self, keys: &[&str]) {
        let args: Vec<&str> = ["send-keys"].iter().chain(keys).copied().collect();
        self.tmux(&args);
    }

    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted.
    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let until = wait::deadline();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(std::time::Instant::now() < until, "waiting for {what}: {screen}");
        }
    }

    /// Clears the screen: what was there is not taken for what comes.
    fn clear(&self) {
        self.line("clear");
        self.until("a clear screen", |text| text.trim() == "$");
    }

    /// Waits for our own prompt: what was typed before it would be the container's.
    fn until_left(&self) {
        self.until("our prompt", |text| text.trim_end().ends_with('$'));
    }

    /// The shell here works as a shell does: it shows what is typed, and lines end with a return.
    fn assert_sane(&self, mark: &str) {
        self.line(&format!("stty -a | grep -c -e '-echo ' -e '-icanon' -e '-onlcr'; echo sane-{mark}-$((1+1))"));
        let screen = self.until("the shell to answer", |text| text.contains(&format!("sane-{mark}-2")));
        let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
        let at = lines.iter().position(|line| *line == format!("sane-{mark}-2")).unwrap_or_else(|| panic!("{screen}"));
        assert_eq!(lines[at - 1], "0", "the terminal is not as it was: {screen}");
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whatever comes of it: a panic here would end the whole test program.
            let screen = Command::new("tmux").args(["-L", &self.world.tag, "capture-pane", "-p"]).output();
            eprintln!("{}", screen.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default());
        }
        let _ = Command::new("tmux").args(["-L", &self.world.tag, "kill-server"]).env_remove("TMUX").output();
    }
}

macro_rules! needs_tmux {
    () => {
        if in_path("tmux").is_none() {
            skip!("there is no tmux: install the package tmux")
        }
    };
}

#[test]
fn a_shell_in_a_container_is_a_shell() {
    needs_tmux!();
    let world = World::new();
    let terminal = Terminal::new(&world);
    terminal.line("tarectl run --rm -it --name shell busybox sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("stty size; tty; echo A$((40+2))");
    terminal
        .until("its answers", |text| text.contains("30 100") && text.contains("/dev/pts/0") && text.contains("A42"));
    // ^C is the program's, not ours.
    terminal.line("echo go$((1+1)); sleep 1000");
    terminal.until("the program", |text| text.contains("go2"));
    terminal.keys(&["C-c"]);
    terminal.until("the prompt after ^C", |text| text.trim_end().ends_with("~ #"));
    terminal.line("echo code $?");
    terminal.until("the prompt after ^C", |text| text.contains("code 130"));
    // It follows the terminal's size.
    terminal.tmux(&["resize-window", "-x", "80", "-y", "25"]);
    terminal.line("while [ \"$(stty size)\" != '25 80' ]; do :; done; echo resized");
    terminal.until("the new size", |text| text.lines().any(|line| line.trim() == "resized"));
    terminal.line("exit 3");
    terminal.until_left();
    terminal.line("echo ended $?");
    terminal.until("the exit code", |text| text.contains("ended 3"));
    terminal.assert_sane("run");
}

#[test]
fn a_person_leaves_and_comes_back() {
    needs_tmux!();
    let world = World::new();
    let terminal = Terminal::new(&world);
    terminal.line("tarectl run -it --name stays busybox sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    // A shell at its prompt asks the terminal where the cursor is, and the answer would come to whoever is there by then.
    terminal.line("x=kept; echo s$((1+1)); read y");
    terminal.until("the shell to read", |text| text.contains("s2"));
    terminal.keys(&["C-p", "C-q"]);
    terminal.until_left();
    terminal.line("echo left $?");
    terminal.until("our prompt", |text| text.contains("left 0"));
    terminal.assert_sane("detach");
    assert_eq!(world.field("stays", ".State.Running"), "true");
    terminal.clear();
    terminal.line("tarectl attach --detach-keys ctrl-a,d stays");
    // It reads a line, and shows its prompt.
    terminal.keys(&["Enter"]);
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("echo $x; read y");
    terminal.until("what was kept", |text| text.lines().any(|line| line.trim() == "kept"));
    terminal.keys(&["C-a", "d"]);
    terminal.until_left();
    terminal.line("echo away $?");
    terminal.until("our prompt", |text| text.contains("away 0"));
    terminal.assert_sane("attach");
    // By attach until it ends, and by start -ai.
    terminal.clear();
    terminal.line("tarectl attach stays");
    terminal.keys(&["Enter"]);
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("exit 5");
    terminal.until_left();
    terminal.line("echo out $?");
    terminal.until("the exit code", |text| text.contains("out 5"));
    terminal.clear();
    terminal.line("tarectl start -ai --detach-keys ctrl-e,x stays");
    terminal.until("a new prompt", |text| text.contains("~ #"));
    terminal.line("echo u$((1+1)); read y");
    terminal.until("the shell to read", |text| text.contains("u2"));
    terminal.keys(&["C-e", "x"]);
    terminal.until_left();
    terminal.line("echo gone $?");
    terminal.until("our prompt", |text| text.contains("gone 0"));
    terminal.assert_sane("detach from start");
    assert_eq!(world.field("stays", ".State.Running"), "true");
    terminal.clear();
    terminal.line("tarectl attach stays");
    terminal.keys(&["Enter"]);
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("exit 7");
    terminal.until_left();
    terminal.line("echo over $?");
    terminal.until("our prompt", |text| text.contains("over 7"));
    terminal.assert_sane("start");
}

#[test]
fn a_person_leaves_an_exec_by_keys_of_its_own() {
    needs_tmux!();
    let world = World::new();
    world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    let terminal = Terminal::new(&world);
    terminal.line("tarectl exec -it --detach-keys ctrl-e,x web sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("echo s$((1+1)); read y; touch /it-goes-on; sleep 1000");
    terminal.until("the shell to read", |text| text.contains("s2"));
    // The usual keys are the program's then: a line with them ends its read.
    terminal.keys(&["C-p", "C-q", "Enter"]);
    wait::until("it went on", || world.run(&["exec", "web", "ls", "/it-goes-on"]).code == Some(0));
    terminal.keys(&["C-e", "x"]);
    terminal.until_left();
    terminal.line("echo left $?");
    terminal.until("our prompt", |text| text.contains("left 0"));
    terminal.assert_sane("exec");
    assert!(world.ok(&["top", "web"]).contains("sleep 1000"));
}

#[test]
fn exec_has_a_terminal_too() {
    needs_tmux!();
    let world = World::new();
    world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    let terminal = Terminal::new(&world);
    terminal.line("tarectl exec -it web sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    terminal.line("stty size; echo $TERM");
    terminal.until("its size", |text| text.contains("30 100") && text.contains("xterm"));
    terminal.line("vi /file");
    terminal.until("vi's screen", |text| text.contains('~'));
    terminal.keys(&["i"]);
    terminal.line("written by vi");
    terminal.keys(&["Escape"]);
    // What follows at once would be one key with it.
    terminal.until("vi's other mode", |text| text.contains("- /file"));
    terminal.line(":wq");
    terminal.until("the prompt after vi", |text| text.contains("~ #") && !text.contains("~\n~"));
    terminal.line("clear; top");
    terminal.until("top's table", |text| text.contains("CPU") && text.contains("COMMAND"));
    terminal.keys(&["q"]);
    terminal.line("clear; cat /file; exit 6");
    terminal.until_left();
    terminal.line("echo ended $?");
    terminal.until("the exit code", |text| text.contains("written by vi") && text.contains("ended 6"));
    terminal.assert_sane("exec");
    terminal.line("tarectl exec -it web sh -c 'echo s$((1+1)); read y'");
    terminal.until("the shell to read", |text| text.contains("s2"));
    terminal.keys(&["C-p", "C-q"]);
    terminal.until_left();
    terminal.line("echo left $?");
    terminal.until("our prompt", |text| text.contains("left 0"));
    terminal.assert_sane("leave");
}

#[test]
fn whatever_ends_us_leaves_the_terminal_as_it_was() {
    needs_tmux!();
    let world = World::new();
    let terminal = Terminal::new(&world);
    // The shim is killed under us.
    terminal.line("tarectl run -it --name gone busybox sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    let id = world.ok(&["inspect", "-f", "{{.Id}}", "gone"]);
    nix::sys::signal::kill(world.shim(&id), nix::sys::signal::Signal::SIGKILL).unwrap();
    terminal.until_left();
    terminal.line("echo code $?");
    terminal.until("our prompt", |text| text.contains("code 137"));
    terminal.assert_sane("shim");
    // The container is stopped by another.
    terminal.clear();
    terminal.line("tarectl run -it --name other busybox sh");
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    world.ok(&["stop", "-t", "0", "other"]);
    terminal.until_left();
    terminal.line("echo code $?");
    terminal.until("our prompt", |text| text.contains("code 137"));
    terminal.assert_sane("stop");
    // We are asked to end while attached.
    terminal.clear();
    terminal.line("tarectl run -dit --name third busybox sh; tarectl attach third");
    terminal.keys(&["Enter"]);
    terminal.until("the container's prompt", |text| text.contains("~ #"));
    let ours = world.processes_with(&["tarectl attach third"]);
    nix::sys::signal::kill(ours[0], nix::sys::signal::Signal::SIGTERM).unwrap();
    terminal.until_left();
    terminal.line("echo code $?");
    terminal.until("our prompt", |text| text.contains("code 143"));
    terminal.assert_sane("term");
    assert_eq!(world.field("third", ".State.Running"), "true");
    // What cannot be run never touches the terminal.
    terminal.clear();
    terminal.line("tarectl run --rm -it busybox nope; echo code $?");
    terminal.until("the exit code", |text| text.contains("code 127"));
    terminal.assert_sane("nope");
}
