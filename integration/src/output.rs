//! What a finished call of the runtime left: its status, what it printed, what it logged.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

/// A finished call. Its `Debug` is made for reading in a failed test.
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
    /// The lines of the JSON log.
    pub log: Vec<Value>,
    /// From start to end.
    pub took: Duration,
}

impl Output {
    /// The exit code; a death by signal counts as 128 + signal, as in a shell.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics unless the call succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "should have succeeded: {self:?}");
        self
    }

    /// Panics unless the call failed by itself: an exit code other than 0, and no signal (a panic of the runtime aborts).
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "should have failed: {self:?}");
        self
    }

    /// The message of the last error line in the log, which is what callers show their users; or else the standard error.
    pub fn error(&self) -> String {
        let last = self.log.iter().rev().find(|line| line["level"] == "error");
        last.and_then(|line| line["msg"].as_str()).unwrap_or(&self.stderr).trim().to_owned()
    }

    /// The messages of the log's warnings.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.log.iter().filter(|line| line["level"] == "warning");
        warnings.filter_map(|line| line["msg"].as_str().map(str::to_owned)).collect()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("standard output is no JSON ({e}): {self:?}"))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  {} after {:?}", self.command, self.status, self.took)?;
        writeln!(f, "  stdout: {}", self.stdout.trim_end())?;
        writeln!(f, "  stderr: {}", self.stderr.trim_end())?;
        for line in &self.log {
            writeln!(f, "  log: {line}")?;
        }
        Ok(())
    }
}
