//! What criu's log says about a failure.
//!
//! criu's answer has an error number at best; the reason is in the log it wrote. A line is
//! `(00.012345) Error (criu/files-reg.c:1831): Can't lookup mount=24 for fd=0 path=/dev/null`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// How many error lines a message quotes: the first ones name the cause, and the ones after them who gave up upon it.
const QUOTED: usize = 3;

/// The longest line that is looked at.
const LINE: usize = 4096;

/// The last error lines of a log, oldest first, without their time stamps. No log, no lines: it is only for a message.
pub fn errors(path: &Path) -> Vec<String> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    last_errors(BufReader::new(file))
}

fn last_errors(log: impl BufRead) -> Vec<String> {
    let mut found = std::collections::VecDeque::with_capacity(QUOTED + 1);
    for line in log.split(b'\n') {
        let Ok(line) = line else { break };
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE)]);
        // "Error (file:line): text", after the time stamp and perhaps the process: criu prints nothing else so.
        let Some(at) = text.find("Error (") else { continue };
        found.push_back(text[at..].trim_end().to_owned());
        if found.len() > QUOTED {
            found.pop_front();
        }
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_quoted() {
        let log = "(00.000001) Version: 4.1.1\n\
                   (00.000100) Error (criu/a.c:1): one\n\
                   (00.000200) Warn  (criu/b.c:2): not this\n\
                   (00.000300)      7: Error (criu/c.c:3): two \n\
                   (00.000400) Error (criu/d.c:4): three\n\
                   (00.000500) Error (criu/e.c:5): four\n";
        assert_eq!(
            last_errors(log.as_bytes()),
            ["Error (criu/c.c:3): two", "Error (criu/d.c:4): three", "Error (criu/e.c:5): four"]
        );
    }

    #[test]
    fn a_missing_log_says_nothing() {
        assert!(errors(Path::new("/nonexistent/dump.log")).is_empty());
    }
}
