//! A file that the user names for an archive: it is whole, or it is as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};

/// What is written to.
#[derive(Debug)]
pub struct OutFile {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    /// A new file beside it (0600: roots hold secrets), which goes with this if it does not take its place.
    Beside(NamedTempFile),
    /// What is no file is written to as it is: a pipe, /dev/null.
    Itself(File),
}

impl OutFile {
    /// Nothing is changed yet.
    ///
    /// # Errors
    /// Its directory is not there, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("write {}", path.display());
        if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
            let file = OpenOptions::new().write(true).open(path).context(what)?;
            return Ok(Self { path: path.to_owned(), to: To::Itself(file) });
        }
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.is_dir() {
            return Err(Error::usage(format!("{} is not a directory: make it first", directory.display())));
        }
        let to = To::Beside(NamedTempFile::new_in(directory).context(what)?);
        Ok(Self { path: path.to_owned(), to })
    }

    /// All of it is written: the file takes its place.
    ///
    /// # Errors
    /// It cannot.
    pub fn finish(self) -> Result<()> {
        match self.to {
            To::Beside(file) => file.persist(&self.path).map(drop).map_err(|failed| failed.error),
            To::Itself(_) => Ok(()),
        }
        .context(|| format!("write {}", self.path.display()))
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::Beside(file) => file.write(bytes),
            To::Itself(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was_and_a_pipe_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let names = || fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect::<Vec<_>>();
        let mut half = OutFile::open(&path).unwrap();
        half.write_all(b"half").unwrap();
        drop(half);
        assert!(names().is_empty(), "{:?}", names());
        for text in ["whole", "again"] {
            let mut out = OutFile::open(&path).unwrap();
            out.write_all(text.as_bytes()).unwrap();
            out.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(), ["out.tar"]);
        let fifo = dir.path().join("fifo");
        crate::testing::fifo(&fifo);
        let reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let mut out = OutFile::open(&fifo).unwrap();
        out.write_all(b"x").unwrap();
        out.finish().unwrap();
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
        drop(reader);
        let error = OutFile::open(&dir.path().join("none/out.tar")).unwrap_err();
        assert!(error.message.contains("none is not a directory: make it first"), "{error}");
    }
}
