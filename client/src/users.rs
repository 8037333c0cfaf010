//! Who a container's process is: `user[:group]` by the root's own passwd(5) and group(5).
//!
//! Both files are an image's: they are opened beneath the root, only if they are regular files, and read up to a limit. A name that
//! looks like a number but is none that a user can have is an error, never a name and never another number.

use std::os::fd::AsFd;
use std::path::Path;

use crate::beneath;
use crate::error::{Error, Result};

/// More than any system's list of users.
const LIMIT: u64 = 8 << 20;
/// As docker has it: the numbers of 31 bits.
const HIGHEST: u32 = i32::MAX as u32;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All its groups, the first one too, as docker passes them.
    pub groups: Vec<u32>,
    /// The user's directory, if it has an entry.
    pub home: Option<String>,
}

/// A line of passwd(5).
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of group(5).
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Who `user` (`name`, `uid`, `name:group`, `uid:gid`, with either part empty) is in this root; with `added` groups.
///
/// # Errors
/// There is no such user or group, or the root's files cannot be read.
pub fn resolve(root: impl AsFd, user: &str, added: &[String]) -> Result<User> {
    let root = root.as_fd();
    let passwd = beneath::read(root, Path::new("/etc/passwd"), LIMIT)?.unwrap_or_default();
    let group = beneath::read(root, Path::new("/etc/group"), LIMIT)?.unwrap_or_default();
    resolve_in(&String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group), user, added)
}

/// The same by the files' texts. Pure.
fn resolve_in(passwd: &str, group: &str, user: &str, added: &[String]) -> Result<User> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let wanted = number(name)?;
    let entry = entries(passwd).find(|entry| match (name, wanted) {
        ("", _) => entry.uid == 0,
        (_, Some(uid)) => entry.name == name || entry.uid == uid,
        (_, None) => entry.name == name,
    });
    let (uid, first_gid, entry_name, home) = match (entry, wanted) {
        (Some(entry), _) => (entry.uid, entry.gid, Some(entry.name), Some(entry.home)),
        (None, Some(uid)) => (uid, 0, None, None),
        (None, None) if name.is_empty() => (0, 0, None, None),
        (None, None) => {
            return Err(Error::usage(format!(
                "unable to find user {name}: no matching entries in passwd file: give one of the image's /etc/passwd, or a number"
            )));
        }
    };
    let gid = if group_name.is_empty() { first_gid } else { find_group(group, group_name)? };
    let mut all = vec![gid];
    let mut add = |gid: u32| {
        if !all.contains(&gid) {
            all.push(gid);
        }
    };
    // As docker: who names a group gets no others of the user's.
    if group_name.is_empty()
        && let Some(entry_name) = entry_name
    {
        groups(group).filter(|it| it.members.contains(&entry_name)).for_each(|it| add(it.gid));
    }
    for name in added {
        add(find_group(group, name)?);
    }
    Ok(User { uid, gid, groups: all, home })
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    let wanted = number(name)?;
    let found = groups(group).find(|it| it.name == name || wanted == Some(it.gid)).map(|it| it.gid);
    found.or(wanted).ok_or_else(|| {
        Error::usage(format!(
            "unable to find group {name}: no matching entries in group file: give one of the image's /etc/group, or a number"
        ))
    })
}

/// A number as a user or a group has it; none if it is a name.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if number <= HIGHEST => Ok(Some(number)),
        _ => Err(Error::usage(format!("{text:?} is no user or group: uids and gids must be in range 0-{HIGHEST}"))),
    }
}

/// The lines that are well-formed; others are passed over, as by getpwent(3).
fn entries(passwd: &str) -> impl Iterator<Item = Entry> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let _password = fields.next()?;
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default().to_owned();
        Some(Entry { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group> + '_ {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let _password = fields.next()?;
        let gid = id(fields.next()?)?;
        let members = fields.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        Some(Group { name, gid, members })
    })
}

/// A number in one of the files: an entry whose number does not fit is no entry.
fn id(text: &str) -> Option<u32> {
    number(text).ok().flatten()
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
