//! What a container's options say, in any of the messages in which daemons send them.
//!
//! `containerd.runc.v1.Options` names each setting, and so does the older `containerd.linux.runc.CreateOptions`, which ctr of
//! containerd 1.x sends to runtimes with names of their own. `runtimeoptions.v1.Options` is what containerd's CRI plugin sends to a
//! runtime that it does not know: TOML with the same settings, either the text itself or (all that containerd 1.6 can) the
//! path of a file:
//!
//! ```toml
//! BinaryName = "/usr/local/bin/tare"
//! SystemdCgroup = true
//! ```
//!
//! They are kept in the bundle as `options.json`, and the runtime's name as `runtime` beside it, for the clean-up after a
//! shim that died.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tare_proto::any::unpack;
use tare_proto::{Any, linux_runc, runc, runtimeoptions};

use crate::error::{Context, Error, Result};
use crate::runtime::Settings;

/// The file of the options in a bundle.
pub const OPTIONS_FILE: &str = "options.json";
/// The file of the runtime's name in a bundle.
pub const RUNTIME_FILE: &str = "runtime";
/// More is no configuration.
const CONFIG_LIMIT: usize = 1024 * 1024;

/// The settings of a container, named in JSON as containerd's shim writes them and in TOML as its configuration does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Leave the old root mounted beneath (for a root on a ramdisk).
    #[serde(alias = "NoPivotRoot", skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// Use the caller's session keyring.
    #[serde(alias = "NoNewKeyring", skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// The cgroup that the shim joins.
    #[serde(alias = "ShimCgroup", skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the container's standard streams.
    #[serde(alias = "IoUid", skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Group of the container's standard streams.
    #[serde(alias = "IoGid", skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// The runtime.
    #[serde(alias = "BinaryName", skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// The directory of its states.
    #[serde(alias = "Root", skip_serializing_if = "is_default")]
    pub root: String,
    /// Whether cgroups are made by systemd.
    #[serde(alias = "SystemdCgroup", skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    /// criu's directory for its log, at a restore.
    #[serde(alias = "CriuWorkPath", skip_serializing_if = "is_default")]
    pub criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Options {
    /// What a request carries; an empty one is none.
    pub fn from_any(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Self::default()) };
        let malformed = |error| Error::invalid(format!("the options are no {}: {error}", any.type_url));
        if let Some(options) = unpack::<runc::Options>(any).map_err(malformed)? {
            return Ok(Self::from_runc(options));
        }
        if let Some(options) = unpack::<runtimeoptions::Options>(any).map_err(malformed)? {
            return Self::from_configuration(&options);
        }
        if let Some(options) = unpack::<linux_runc::CreateOptions>(any).map_err(malformed)? {
            return Ok(Self::from_linux_runc(options));
        }
        Err(Error::invalid(format!(
            "options of type {} are not known: send containerd.runc.v1.Options or runtimeoptions.v1.Options",
            any.type_url
        )))
    }

    fn from_runc(options: runc::Options) -> Self {
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            criu_work_path: options.criu_work_path,
        }
    }

    fn from_linux_runc(options: linux_runc::CreateOptions) -> Self {
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            criu_work_path: options.criu_work_path,
            ..Self::default()
        }
    }

    fn from_configuration(options: &runtimeoptions::Options) -> Result<Self> {
        let read;
        let (text, place) = if options.config_path.is_empty() {
            (options.config_body.as_slice(), "config_body")
        } else {
            let mut text = Vec::new();
            read = fs::File::open(&options.config_path)
                .and_then(|file| file.take(CONFIG_LIMIT as u64 + 1).read_to_end(&mut text))
                .map(|_| text)
                .context(|| format!("read the runtime's options {}", options.config_path));
            // That file is the administrator's: its absence is a wrong request, not a container that is gone.
            let read = read.as_ref().map_err(|error| Error::invalid(error.message.clone()))?;
            (read.as_slice(), options.config_path.as_str())
        };
        if text.len() > CONFIG_LIMIT {
            return Err(Error::invalid(format!(
                "the runtime's options in {place} are longer than {CONFIG_LIMIT} bytes"
            )));
        }
        let text = std::str::from_utf8(text)
            .map_err(|error| Error::invalid(format!("the runtime's options in {place} are no text: {error}")))?;
        toml::from_str(text).map_err(|error| {
            Error::invalid(format!("the runtime's options in {place} are not as expected: {}", error.message()))
        })
    }

    /// What concerns the runtime's calls.
    pub fn settings(&self) -> Settings {
        Settings { binary: self.binary_name.clone(), root: self.root.clone(), systemd_cgroup: self.systemd_cgroup }
    }

    /// Who is to own the standard streams, if the options say.
    pub fn owner(&self) -> Option<(u32, u32)> {
        (self.io_uid != 0 || self.io_gid != 0).then_some((self.io_uid, self.io_gid))
    }

    /// Writes both files into the bundle.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::internal(format!("write the options: {error}")))?;
        for (name, content) in [(OPTIONS_FILE, text.as_slice()), (RUNTIME_FILE, self.binary_name.as_bytes())] {
            write_private(&bundle.join(name), content)?;
        }
        Ok(())
    }

    /// What was saved; a bundle without is one of a create that never came, or of an earlier shim.
    pub fn load(bundle: &Path) -> Result<Self> {
        let path = bundle.join(OPTIONS_FILE);
        let mut options = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::internal(format!("{} is not as it was written: {error}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        if options.binary_name.is_empty() {
            options.binary_name = fs::read_to_string(bundle.join(RUNTIME_FILE)).unwrap_or_default();
        }
        Ok(options)
    }
}

/// Writes a file that only its owner reads, whatever the umask is.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(content)).context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use tare_proto::any::{Packed, pack};

    use super::*;

    fn configuration(body: &str) -> Any {
        let options = runtimeoptions::Options { config_body: body.as_bytes().to_vec(), ..Default::default() };
        pack(&options).unwrap()
    }

    #[test]
    fn none_are_the_defaults() {
        assert_eq!(Options::from_any(None).unwrap(), Options::default());
        assert_eq!(Options::from_any(Some(&Any::default())).unwrap(), Options::default());
    }

    #[test]
    fn both_messages_say_the_same() {
        let runc = runc::Options {
            binary_name: "/bin/tare".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            io_uid: 7,
            ..Default::default()
        };
        let toml = "BinaryName = \"/bin/tare\"\nRoot = \"/r\"\nSystemdCgroup = true\nIoUid = 7\n";
        let expected = Options::from_any(Some(&pack(&runc).unwrap())).unwrap();
        assert_eq!(expected.owner(), Some((7, 0)));
        assert!(expected.systemd_cgroup);
        assert_eq!(Options::from_any(Some(&configuration(toml))).unwrap(), expected);
    }

    #[test]
    fn the_older_message_is_understood() {
        let older = linux_runc::CreateOptions { io_uid: 7, io_gid: 8, no_new_keyring: true, ..Default::default() };
        let options = Options::from_any(Some(&pack(&older).unwrap())).unwrap();
        assert_eq!((options.owner(), options.no_new_keyring), (Some((7, 8)), true));
    }

    #[test]
    fn a_file_of_configuration_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("options.toml");
        fs::write(&path, "NoPivotRoot = true\n").unwrap();
        let options =
            runtimeoptions::Options { config_path: path.to_string_lossy().into_owned(), ..Default::default() };
        assert!(Options::from_any(Some(&pack(&options).unwrap())).unwrap().no_pivot_root);
        fs::remove_file(&path).unwrap();
        // Without end: it is not read to there.
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = Options::from_any(Some(&pack(&options).unwrap())).unwrap_err();
        assert!(error.message.contains("longer than 1048576 bytes"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = Options::from_any(Some(&pack(&options).unwrap())).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::InvalidArgument);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let unknown = Any { type_url: "some.Thing".into(), ..Default::default() };
        let garbage = Any { type_url: runc::Options::TYPE_URL.into(), value: vec![0xff], ..Default::default() };
        for (any, sign) in [
            (unknown, "options of type some.Thing are not known"),
            (garbage, "the options are no containerd.runc.v1.Options"),
            (configuration("SystemdCgroup = 3"), "the runtime's options in config_body are not as expected"),
        ] {
            let error = Options::from_any(Some(&any)).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::InvalidArgument);
            assert!(error.message.starts_with(sign), "{error}");
        }
    }

    #[test]
    fn a_bundle_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Options::load(dir.path()).unwrap(), Options::default());
        let options = Options { root: "/r".into(), binary_name: "crun".into(), ..Default::default() };
        options.save(dir.path()).unwrap();
        assert_eq!(Options::load(dir.path()).unwrap(), options);
        assert_eq!(fs::read_to_string(dir.path().join(OPTIONS_FILE)).unwrap(), r#"{"binary_name":"crun","root":"/r"}"#);
        assert_eq!(fs::read_to_string(dir.path().join(RUNTIME_FILE)).unwrap(), "crun");
    }
}
