//! Ordered device rules → the final set of devices a container may use.
//!
//! The rules of a specification are a history: each allows or denies, and `a` resets all. The kernel's version 1
//! controller keeps only its outcome, a default and exceptions of the opposite kind; so does [`Access`], and both the
//! version 1 writes and the version 2 program are made from it. So both versions allow the same.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::error::{Error, Result};

/// The sort of a device node. Ordered as the kernel's letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeType {
    /// A block device, `b`.
    Block,
    /// A character device, `c`.
    Char,
}

/// Which nodes an exception concerns; no number means every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
    /// The sort.
    pub typ: NodeType,
}

/// A set of ways to use a device, in the bits of the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses(u8);

/// What holds for a device that no exception names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It may be used.
    Allow,
    /// It may not be used.
    Deny,
}

/// Which devices may be used: a default and the exceptions from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    default: Effect,
    exceptions: BTreeMap<Node, Uses>,
}

/// A line for `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it goes to `devices.allow`.
    pub effect: Effect,
    /// The line, such as `c 1:3 rwm`.
    pub line: String,
}

/// The line that stands for every device.
const EVERYTHING: &str = "a *:* rwm";

impl Uses {
    const MKNOD: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    /// Every use.
    pub const ALL: Self = Self(7);
    const NONE: Self = Self(0);

    /// The kernel's bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self::NONE, |uses, letter| match letter {
            'r' => Some(uses.with(Self::READ)),
            'w' => Some(uses.with(Self::WRITE)),
            'm' => Some(uses.with(Self::MKNOD)),
            _ => None,
        })
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")];
        letters.iter().filter(|(uses, _)| self.overlaps(*uses)).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.typ {
            NodeType::Block => 'b',
            NodeType::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{letter} {}:{}", number(self.major), number(self.minor))
    }
}

impl Access {
    /// Every device.
    pub fn all() -> Self {
        Self { default: Effect::Allow, exceptions: BTreeMap::new() }
    }

    /// No device.
    pub fn none() -> Self {
        Self { default: Effect::Deny, exceptions: BTreeMap::new() }
    }

    /// What holds for a device that no exception names.
    pub fn default(&self) -> Effect {
        self.default
    }

    /// The exceptions, in a fixed order.
    pub fn exceptions(&self) -> impl Iterator<Item = (Node, Uses)> {
        self.exceptions.iter().map(|(node, uses)| (*node, *uses))
    }

    /// The state that `devices.list` tells. A controller that allows by default does not tell its exceptions.
    pub fn from_list(list: &str) -> Option<Self> {
        let mut access = Self::none();
        for line in list.lines() {
            let mut fields = line.split([' ', ':']);
            let (typ, major, minor, uses) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let number = |text: &str| match text {
                "*" => Some(None),
                _ => text.parse().ok().map(Some),
            };
            let typ = match typ {
                "a" => return Some(Self::all()),
                "b" => NodeType::Block,
                "c" => NodeType::Char,
                _ => return None,
            };
            access.add(Node { major: number(major)?, minor: number(minor)?, typ }, Uses::parse(uses)?);
        }
        Some(access)
    }

    /// The writes that turn a fresh or unknown controller state into this one: one reset, then the exceptions.
    pub fn changes(&self) -> Vec<Change> {
        let reset = Change { effect: self.default, line: EVERYTHING.to_owned() };
        let rest = self.exceptions.iter().map(|(node, uses)| self.exception(node, *uses));
        std::iter::once(reset).chain(rest).collect()
    }

    /// The writes that turn the state `from` into this one, with no reset where one can be avoided: a reset is refused
    /// where the cgroup has children, and takes every device away for a moment.
    pub fn changes_from(&self, from: &Self) -> Vec<Change> {
        // The exceptions of a controller that allows by default are not known, so such a one is always reset.
        if from.default == Effect::Allow || from.default != self.default {
            return match *self == Self::all() && *from == Self::all() {
                true => Vec::new(),
                false => self.changes(),
            };
        }
        let mut changes = Vec::new();
        for (node, old) in &from.exceptions {
            let lost = old.without(self.exceptions.get(node).copied().unwrap_or(Uses::NONE));
            if lost != Uses::NONE {
                changes.push(Change { effect: self.default, line: format!("{node} {lost}") });
            }
        }
        for (node, new) in &self.exceptions {
            let gained = new.without(from.exceptions.get(node).copied().unwrap_or(Uses::NONE));
            if gained != Uses::NONE {
                changes.push(self.exception(node, gained));
            }
        }
        changes
    }

    fn exception(&self, node: &Node, uses: Uses) -> Change {
        let effect = match self.default {
            Effect::Allow => Effect::Deny,
            Effect::Deny => Effect::Allow,
        };
        Change { effect, line: format!("{node} {uses}") }
    }

    fn add(&mut self, node: Node, uses: Uses) {
        let known = self.exceptions.entry(node).or_insert(Uses::NONE);
        *known = known.with(uses);
    }

    /// Takes an exception back. One that a wider exception covers cannot be taken back: the controller has no way to say
    /// "all but this", and ignores the request in silence.
    fn take_back(&mut self, node: Node, uses: Uses) -> std::result::Result<(), Node> {
        let wider =
            [Node { major: None, ..node }, Node { minor: None, ..node }, Node { major: None, minor: None, ..node }];
        let covers =
            |wide: &&Node| **wide != node && self.exceptions.get(wide).is_some_and(|known| known.overlaps(uses));
        if let Some(wide) = wider.iter().find(covers) {
            return Err(*wide);
        }
        if let Some(known) = self.exceptions.get_mut(&node) {
            *known = known.without(uses);
        }
        self.exceptions.retain(|_, uses| *uses != Uses::NONE);
        Ok(())
    }

    fn apply(&mut self, effect: Effect, node: Option<Node>, uses: Uses) -> std::result::Result<(), Node> {
        match node {
            None => {
                *self = Self { default: effect, exceptions: BTreeMap::new() };
                Ok(())
            }
            Some(node) if effect == self.default => self.take_back(node, uses),
            Some(node) => {
                self.add(node, uses);
                Ok(())
            }
        }
    }
}

/// What every container may use (runtime-spec, "default devices", and what runc allows beside them).
const ALWAYS_ALLOWED: [(Option<&str>, Node, Uses); 11] = {
    const fn char_device(major: u32, minor: Option<u32>) -> Node {
        Node { major: Some(major), minor, typ: NodeType::Char }
    }
    [
        (None, Node { major: None, minor: None, typ: NodeType::Char }, Uses::MKNOD),
        (None, Node { major: None, minor: None, typ: NodeType::Block }, Uses::MKNOD),
        (Some("/dev/null"), char_device(1, Some(3)), Uses::ALL),
        (Some("/dev/random"), char_device(1, Some(8)), Uses::ALL),
        (Some("/dev/full"), char_device(1, Some(7)), Uses::ALL),
        (Some("/dev/tty"), char_device(5, Some(0)), Uses::ALL),
        (Some("/dev/zero"), char_device(1, Some(5)), Uses::ALL),
        (Some("/dev/urandom"), char_device(1, Some(9)), Uses::ALL),
        // Terminals: the slaves of any devpts, and its ptmx.
        (None, char_device(136, None), Uses::ALL),
        (None, char_device(5, Some(2)), Uses::ALL),
        // /dev/net/tun: callers have come to rely on it.
        (None, char_device(10, Some(200)), Uses::ALL),
    ]
};

/// The devices a container may use: its rules in their order, then what every container may use.
pub(super) fn lower(spec: &Spec) -> Result<Access> {
    let linux = spec.linux().as_ref();
    let mut access = Access::none();
    let rules = linux.and_then(|linux| linux.resources().as_ref()).and_then(|resources| resources.devices().as_ref());
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let at = format!("linux.resources.devices[{index}]");
        let (node, uses) = parse(rule, &at)?;
        let effect = match rule.allow() {
            true => Effect::Allow,
            false => Effect::Deny,
        };
        access.apply(effect, node, uses).map_err(|wide| cannot_punch(&at, rule, wide))?;
    }
    // A default device that the specification redefines is no longer a default one.
    let redefined = |path: &str| {
        let devices = linux.and_then(|linux| linux.devices().as_ref());
        devices.into_iter().flatten().any(|device| device.path().to_str() == Some(path))
    };
    for (path, node, uses) in ALWAYS_ALLOWED {
        if !path.is_some_and(redefined) {
            access.apply(Effect::Allow, Some(node), uses).map_err(|wide| {
                Error::invalid(format!(
                    "linux.resources.devices denies {wide}, which covers the device {node} that every container needs: \
                     deny all devices (type a) and allow the wanted ones"
                ))
            })?;
        }
    }
    Ok(access)
}

fn cannot_punch(at: &str, rule: &LinuxDeviceCgroup, wide: Node) -> Error {
    Error::invalid(format!(
        "{at} ({} {rule}) takes a part out of the earlier rule for {wide}, which the device controller cannot express: \
         replace the earlier rule by narrower ones",
        match rule.allow() {
            true => "allow",
            false => "deny",
        }
    ))
}

fn parse(rule: &LinuxDeviceCgroup, at: &str) -> Result<(Option<Node>, Uses)> {
    let access = rule.access().as_deref().unwrap_or_default();
    let uses = Uses::parse(access).filter(|uses| *uses != Uses::NONE).ok_or_else(|| {
        Error::invalid(format!("{at}.access is {access:?}: give one or more of r (read), w (write) and m (mknod)"))
    })?;
    let typ = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => return Ok((None, uses)),
        LinuxDeviceType::B => NodeType::Block,
        LinuxDeviceType::C => NodeType::Char,
        other => {
            return Err(Error::invalid(format!(
                "{at}.type is {:?}: give a (all), b (block) or c (character)",
                other.as_str()
            )));
        }
    };
    let number = |value: Option<i64>, field: &str| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            Error::invalid(format!(
                "{at}.{field} is {value}: give a device number from 0 to {}, or -1 for all",
                u32::MAX
            ))
        }),
    };
    Ok((Some(Node { major: number(rule.major(), "major")?, minor: number(rule.minor(), "minor")?, typ }), uses))
}
