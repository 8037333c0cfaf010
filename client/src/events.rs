//! What happened: `events.log`, a line of JSON for each event, as docker's API has them.
//!
//! ```text
//! {"status":"start","id":"<id>","from":"busybox","Type":"container","Action":"start",
//!  "Actor":{"ID":"<id>","Attributes":{"image":"busybox","name":"web"}},"scope":"local","time":1795940395,"timeNano":1795940395618702834}
//! ```
//!
//! Every process appends whole lines with one write(2), so that no two of them mix. When the file has [`LARGEST`] bytes it becomes
//! `events.log.1`, over the one before: what happened long ago is forgotten, and the disk is bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::paths::Paths;
use crate::record::{Container, Map};
use crate::time::Time;

/// Of one file, in bytes.
const LARGEST: u64 = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Event {
    /// As [`Self::action`]: docker's old form, of containers and images alone.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub status: String,
    /// Whom it happened to, in the old form.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub id: String,
    /// Its image, in the old form.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub from: String,
    /// `container`, `image`, `network` or `volume`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// As `create`, `start`, `die`.
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// In seconds since 1970.
    pub time: i64,
    /// In nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Whom an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Actor {
    /// Of a container or a network its id, of a volume or an image its name.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is known of it: a container's name, image, labels, exit code.
    #[serde(rename = "Attributes")]
    pub attributes: Map,
}

/// Something happened to a container: `create`, `start`, `die` (with `exitCode`), `stop`, `kill` (with `signal`), `restart`, `pause`,
/// `unpause`, `rename` (with `oldName`), `destroy`, `attach`, `detach`, `exec_create: CMD`, `oom`, `health_status: healthy`, `update`, `commit`,
/// `copy`, `export`, `top`.
///
/// What happened has happened: that it could not be written down fails nobody.
pub fn container(paths: &Paths, action: &str, of: &Container, more: &[(&str, &str)]) {
    let mut attributes = of.config.labels.clone();
    attributes.insert("image".to_owned(), of.config.image.clone());
    attributes.insert("name".to_owned(), of.name.clone());
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let event = Event { from: of.config.image.clone(), ..event("container", action, &of.id, attributes) };
    // See above.
    let _ = append(paths, &event);
}

/// Something happened to an image (`pull`, `push`, `tag`, `untag`, `delete`, `import`, `load`, `save`), a network (`create`, `connect`,
/// `disconnect`, `destroy`) or a volume (`create`, `mount`, `unmount`, `destroy`).
pub fn other(paths: &Paths, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // As above.
    let _ = append(paths, &event(kind, action, id, attributes));
}

fn event(kind: &str, action: &str, id: &str, attributes: Map) -> Event {
    let now = i64::try_from(Time::now().nanoseconds().unwrap_or(0)).unwrap_or(i64::MAX);
    let old = kind == "container" || kind == "image";
    let old = |it: &str| if old { it.to_owned() } else { String::new() };
    Event {
        status: old(action),
        id: old(id),
        from: String::new(),
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: Actor { id: id.to_owned(), attributes },
        scope: "local".to_owned(),
        time: now / 1_000_000_000,
        time_nano: now,
    }
}

fn append(paths: &Paths, event: &Event) -> io::Result<()> {
    let path = paths.events();
    fs::create_dir_all(&paths.root)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    if file.metadata()?.len() >= LARGEST {
        put_aside(paths, &file)?;
        file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    }
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Another may have done it while we waited: then what is called so now is new, and the one before it stays.
fn put_aside(paths: &Paths, file: &File) -> io::Result<()> {
    file.lock()?;
    let (full, now) = (file.metadata()?, fs::metadata(paths.events())?);
    if (full.dev(), full.ino()) == (now.dev(), now.ino()) {
        fs::rename(paths.events(), before(paths))?;
    }
    Ok(())
}

/// The file before this one.
fn before(paths: &Paths) -> PathBuf {
    paths.root.join("events.log.1")
}

/// Reads what is there, and later what has come.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// A line that is not whole yet.
    begun: String,
}

impl Reader {
    /// All that is there, in order, and a reader that goes on behind it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(paths: &Paths) -> Result<(Vec<Event>, Self)> {
        let mut events = Vec::new();
        let mut old = Self { path: before(paths), file: None, begun: String::new() };
        old.more(&mut events)?;
        let mut reader = Self { path: paths.events(), file: None, begun: String::new() };
        reader.more(&mut events)?;
        Ok((events, reader))
    }

    /// Appends what has come since.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn more(&mut self, events: &mut Vec<Event>) -> Result<()> {
        self.rest(events)?;
        if self.replaced() {
            // What was written between the last look and the renaming.
            self.rest(events)?;
            self.file = None;
            self.begun.clear();
            self.rest(events)?;
        }
        Ok(())
    }

    fn rest(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let what = || format!("read {}", self.path.display());
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(BufReader::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error).context(what),
            };
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        loop {
            // A line is no longer than a file.
            let mut bytes = Vec::new();
            file.by_ref().take(LARGEST).read_until(b'\n', &mut bytes).context(what)?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.begun.push_str(&String::from_utf8_lossy(&bytes));
            if self.begun.ends_with('\n') {
                // A line that nobody can read says nothing to anybody.
                events.extend(serde_json::from_str::<Event>(&self.begun));
                self.begun.clear();
            }
        }
    }

    /// Whether another file has the name now.
    fn replaced(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &self.file else { return false };
        match (file.get_ref().metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => open.ino() != named.ino(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(directory: &tempfile::TempDir) -> Paths {
        let root = directory.path().to_owned();
        Paths { run: root.join("run"), store: root.join("store"), root }
    }

    #[test]
    fn events_are_read_in_order_and_as_they_come() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let mut of = Container { id: "ab".repeat(32), name: "web".to_owned(), ..Container::default() };
        of.config.labels.insert("tier".to_owned(), "front".to_owned());
        container(&paths, "create", &of, &[]);
        other(&paths, "volume", "create", "data", &[("driver", "local")]);
        let (events, mut reader) = Reader::open(&paths).unwrap();
        let actions: Vec<_> = events.iter().map(|it| (it.kind.as_str(), it.action.as_str())).collect();
        assert_eq!(actions, [("container", "create"), ("volume", "create")]);
        assert_eq!((events[0].status.as_str(), events[1].status.as_str()), ("create", ""));
        assert_eq!(events[0].actor.attributes["tier"], "front");

        container(&paths, "die", &of, &[("exitCode", "3")]);
        let mut more = Vec::new();
        reader.more(&mut more).unwrap();
        assert_eq!((more.len(), more[0].actor.attributes["exitCode"].as_str()), (1, "3"));
        assert!(more[0].time_nano >= events[0].time_nano);
    }

    #[test]
    fn the_file_is_bounded_and_nothing_is_lost_at_the_change() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        other(&paths, "volume", "first", "a", &[]);
        let (_, mut reader) = Reader::open(&paths).unwrap();
        other(&paths, "volume", "second", "a", &[]);
        let mut file = OpenOptions::new().append(true).open(paths.events()).unwrap();
        file.write_all(format!("{}\n", " ".repeat(LARGEST as usize)).as_bytes()).unwrap();
        other(&paths, "volume", "third", "a", &[]);
        let mut events = Vec::new();
        reader.more(&mut events).unwrap();
        let actions: Vec<_> = events.iter().map(|it| it.action.as_str()).collect();
        assert_eq!(actions, ["second", "third"]);
        assert!(fs::metadata(paths.events()).unwrap().len() < 1000);
        assert_eq!(Reader::open(&paths).unwrap().0.len(), 3);
    }

    #[test]
    fn a_file_that_another_put_aside_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        other(&paths, "volume", "first", "a", &[]);
        let ours = File::open(paths.events()).unwrap();
        put_aside(&paths, &File::open(paths.events()).unwrap()).unwrap();
        other(&paths, "volume", "second", "a", &[]);
        put_aside(&paths, &ours).unwrap();
        assert_eq!(Reader::open(&paths).unwrap().0.len(), 2);
    }
}
