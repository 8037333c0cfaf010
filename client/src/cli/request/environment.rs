//! `-e`, `--env-file`, `--label`, `--label-file`.

use std::fs;
use std::io::Read;

use crate::error::{Context, Error, Result};
use crate::record::Map;

/// No file of variables is larger.
const LARGEST: u64 = 1 << 20;

/// What the variables of the caller are looked up with.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `KEY=VALUE`; a key that the caller has not either stays alone, and takes the image's away.
pub(super) fn environment(files: &[String], given: &[String], lookup: Lookup<'_>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            match line.split_once('=') {
                Some(_) => all.push(line),
                // In a file such a line says nothing where the caller has not the variable.
                None => all.extend(lookup(&line).map(|value| format!("{line}={value}"))),
            }
        }
    }
    for variable in given {
        let name = variable.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::usage(format!(
                "{variable:?} is no environment variable: give NAME=VALUE, or NAME for the caller's value"
            )));
        }
        match variable.contains('=') {
            true => all.push(variable.clone()),
            false => all.push(lookup(name).map_or_else(|| name.to_owned(), |value| format!("{name}={value}"))),
        }
    }
    Ok(all)
}

/// Labels of files and flags; the last of a name counts.
pub(super) fn labels(files: &[String], given: &[String]) -> Result<Map> {
    let mut all = Map::new();
    let mut add = |label: &str| -> Result<()> {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            return Err(Error::usage(format!("{label:?} is no label: give NAME=VALUE")));
        }
        all.insert(name.to_owned(), value.to_owned());
        Ok(())
    };
    for file in files {
        for line in lines(file)? {
            add(&line)?;
        }
    }
    given.iter().try_for_each(|label| add(label))?;
    Ok(all)
}

/// The lines that say something: neither empty nor a remark. What stands before the `=` is one word.
fn lines(file: &str) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|it| it.take(LARGEST + 1).read_to_end(&mut bytes))
        .context(|| format!("read {file}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{file} has more than 1 MiB: that is no list of variables or labels")));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Error::usage(format!("{file} is not UTF-8: write it anew as such")))?;
    let mut all = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        let why = if name.is_empty() {
            "has no name before the ="
        } else if name.contains(char::is_whitespace) {
            "has a space in its name"
        } else {
            all.push(line.to_owned());
            continue;
        };
        return Err(Error::usage(format!("{file}:{}: {line:?} {why}: give NAME=VALUE", number + 1)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn lookup(name: &str) -> Option<String> {
        (name == "HERE").then(|| "of the caller".to_owned())
    }

    #[test]
    fn variables_are_read_as_docker_reads_them() {
        let file = file("\u{feff}# a remark\n\n  A=1\nB= x y \nHERE\nNOT\nC=\n".as_bytes());
        let files = [file.path().to_str().unwrap().to_owned()];
        let given = ["D=a=b", "HERE", "GONE", "E="].map(str::to_owned);
        let all = environment(&files, &given, &lookup).unwrap();
        assert_eq!(all, ["A=1", "B= x y ", "HERE=of the caller", "C=", "D=a=b", "HERE=of the caller", "GONE", "E="]);
        for wrong in ["", "=x"] {
            assert!(environment(&[], &[wrong.to_owned()], &lookup).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_none_are_named_with_the_line() {
        for (content, expected) in [
            (&b"A=1\nB C=2\n"[..], ":2: \"B C=2\" has a space in its name"),
            (b"=x", "has no name"),
            (b"A=\xff", "UTF-8"),
        ] {
            let file = file(content);
            let error = environment(&[file.path().to_str().unwrap().to_owned()], &[], &lookup).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
        // It says that it has no length, and has no end.
        let error = environment(&["/dev/zero".to_owned()], &[], &lookup).unwrap_err();
        assert!(error.message.contains("more than 1 MiB"), "{error}");
        assert!(environment(&["/no/such".to_owned()], &[], &lookup).unwrap_err().message.contains("/no/such"));
    }

    #[test]
    fn the_last_label_of_a_name_counts() {
        let file = file(b"a=1\nb\n");
        let given = ["a=2", "c=x=y"].map(str::to_owned);
        let all = labels(&[file.path().to_str().unwrap().to_owned()], &given).unwrap();
        assert_eq!(
            all.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["a=2", "b=", "c=x=y"]
        );
        assert!(labels(&[], &["=x".to_owned()]).is_err());
    }
}
