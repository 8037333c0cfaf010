//! A daemon inside a [`World`]: started, waited for by what it writes to its log, stopped, its log kept for messages.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::{User, World};
use crate::wait;

/// A running daemon.
pub struct Server {
    name: String,
    child: Child,
    /// As the world counts.
    pid: String,
    log: Arc<Mutex<Vec<String>>>,
    /// One that it needs, and that ends after it, in the same way.
    below: Option<Box<Server>>,
}

impl Server {
    /// Starts `arguments` and waits for a line of the log that contains `ready`.
    ///
    /// # Panics
    /// If the daemon ends before it says so.
    pub fn start(world: &World, arguments: &[&str], ready: &'static str) -> Server {
        let mut child = world
            .command("timeout")
            // No test takes so long: this ends a daemon that does not answer to its end.
            .args(["-k", "5", &(wait::limit() * 10).as_secs().to_string(), "sh", "-c"])
            .args(["exec 2>&1; echo $$; exec \"$@\"", "sh"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("run nsenter");
        let output = child.stdout.take().expect("a pipe was asked for");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let pid = lines.next().expect("the shell says its process id");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (is_ready, wait_ready) = mpsc::channel();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines {
                if line.contains(ready) {
                    let _ = is_ready.send(());
                }
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let server = Server { name: arguments[0].to_owned(), child, pid, log, below: None };
        // The sender goes away with the daemon's output.
        assert!(wait_ready.recv().is_ok(), "{} ended before it was ready\n{}", arguments[0], server.log_tail());
        server
    }

    /// The same, with one that it needs.
    pub fn upon(self, below: Server) -> Server {
        Server { below: Some(Box::new(below)), ..self }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let from = log.len().saturating_sub(40);
        format!("--- {}'s log ends so\n{}", self.name, log[from..].join("\n"))
    }

    /// Kills it, so that it can neither finish nor tidy anything.
    pub fn kill(self, world: &World) -> String {
        self.end(world, "KILL")
    }

    /// Asks it to end, waits for that, and returns the end of its log.
    pub fn stop(self, world: &World) -> String {
        self.end(world, "TERM")
    }

    fn end(mut self, world: &World, signal: &str) -> String {
        world.sh(User::Root, &format!("kill -s {signal} {}", self.pid));
        let _ = self.child.wait();
        if let Some(below) = self.below.take() {
            below.end(world, signal);
        }
        // What it started may still hold its output (that is looked for elsewhere), so the reader is not waited for.
        self.log_tail()
    }
}
