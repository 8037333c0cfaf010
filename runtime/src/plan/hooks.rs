//! `hooks` of the configuration: programs to run at moments of the container's life.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook as SpecHook, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The moment of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// After the namespaces are made, before the root changes; seen from the host.
    Prestart,
    /// As `Prestart`, after it.
    CreateRuntime,
    /// After `CreateRuntime`, in the container's namespaces, the program still the host's.
    CreateContainer,
    /// In the container, just before its process.
    StartContainer,
    /// After the container's process has started; seen from the host.
    Poststart,
    /// After the container is deleted; seen from the host.
    Poststop,
}

impl Stage {
    /// Every stage, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The stage as the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// One program: checked, ready to run, and small enough to be kept in the state for later stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments with the name first; never empty.
    pub args: Vec<String>,
    /// Its whole environment, as lowered: nothing is added when it runs.
    pub env: Vec<String>,
    /// Seconds it may take, or as long as it likes.
    pub timeout: Option<u32>,
}

/// The hooks of a container, each list in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks([Vec<Hook>; 6]);

impl Hooks {
    /// The hooks of a stage.
    pub fn of(&self, stage: Stage) -> &[Hook] {
        &self.0[stage as usize]
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }
}

/// Reads `hooks`.
pub fn lower(spec: &Spec) -> Result<Hooks> {
    let mut all = Hooks::default();
    let Some(hooks) = spec.hooks() else { return Ok(all) };
    for stage in Stage::ALL {
        let list = match stage {
            Stage::Prestart => hooks.prestart(),
            Stage::CreateRuntime => hooks.create_runtime(),
            Stage::CreateContainer => hooks.create_container(),
            Stage::StartContainer => hooks.start_container(),
            Stage::Poststart => hooks.poststart(),
            Stage::Poststop => hooks.poststop(),
        };
        for (index, hook) in list.iter().flatten().enumerate() {
            // What runs in the container, as its process, has that one's environment unless it brings its own, as with runc.
            // The others run on the host: the caller's environment is none of theirs.
            let default = match stage {
                Stage::StartContainer => spec.process().as_ref().and_then(|process| process.env().as_ref()),
                _ => None,
            };
            let hook =
                one(hook, default).map_err(|what| Error::invalid(format!("hooks.{}[{index}].{what}", stage.name())))?;
            all.0[stage as usize].push(hook);
        }
    }
    Ok(all)
}

fn one(hook: &SpecHook, default_env: Option<&Vec<String>>) -> Result<Hook, String> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err(format!("path {:?} is not absolute", path.display().to_string()));
    }
    let args = match hook.args() {
        Some(args) if !args.is_empty() => args.clone(),
        _ => vec![path.to_string_lossy().into_owned()],
    };
    let env = hook.env().as_ref().or(default_env).cloned().unwrap_or_default();
    let strings = [("args", &args), ("env", &env)];
    let nul = strings.iter().find(|(_, list)| list.iter().any(|text| text.contains('\0')));
    if let Some((field, _)) = nul {
        return Err(format!("{field} contains a null character"));
    }
    if has_nul(path) {
        return Err("path contains a null character".to_owned());
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u32::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            _ => return Err(format!("timeout {seconds} is not a number of seconds from 1 to {}", u32::MAX)),
        },
    };
    Ok(Hook { path: path.clone(), args, env, timeout })
}

fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hooks: &str) -> Result<Hooks> {
        lower(&serde_json::from_str(&format!(r#"{{"ociVersion": "1.3.0", "hooks": {hooks}}}"#)).unwrap())
    }

    #[test]
    fn each_stage_keeps_its_hooks_in_order() {
        for stage in Stage::ALL {
            let hooks = read(&format!(r#"{{"{}": [{{"path": "/a"}}, {{"path": "/b"}}]}}"#, stage.name())).unwrap();
            let paths: Vec<_> = hooks.of(stage).iter().map(|hook| hook.path.to_str().unwrap()).collect();
            assert_eq!(paths, ["/a", "/b"], "{stage:?}");
            assert!(Stage::ALL.iter().filter(|&&other| other != stage).all(|&other| hooks.of(other).is_empty()));
        }
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn a_hook_has_its_own_arguments_and_environment_or_none() {
        let hooks =
            read(r#"{"poststop": [{"path": "/a"}, {"path": "/b", "args": ["x", "y"], "env": ["A=1"], "timeout": 3}]}"#);
        let hooks = hooks.unwrap();
        assert_eq!(
            hooks.of(Stage::Poststop),
            [
                Hook { path: "/a".into(), args: vec!["/a".into()], env: vec![], timeout: None },
                Hook {
                    path: "/b".into(),
                    args: vec!["x".into(), "y".into()],
                    env: vec!["A=1".into()],
                    timeout: Some(3)
                },
            ]
        );
    }

    #[test]
    fn only_in_the_container_is_the_environment_of_its_process_the_default() {
        let spec = r#"{"ociVersion": "1.3.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["A=1"]}, "hooks": {
            "createContainer": [{"path": "/a"}], "startContainer": [{"path": "/a"}, {"path": "/b", "env": []}]}}"#;
        let hooks = lower(&serde_json::from_str(spec).unwrap()).unwrap();
        assert!(hooks.of(Stage::CreateContainer)[0].env.is_empty());
        assert_eq!(hooks.of(Stage::StartContainer)[0].env, ["A=1"]);
        assert!(hooks.of(Stage::StartContainer)[1].env.is_empty(), "an empty one of its own stays empty");
    }

    #[test]
    fn a_wrong_hook_is_named() {
        for (hooks, expected) in [
            (r#"{"prestart": [{"path": "a"}]}"#, "hooks.prestart[0].path \"a\" is not absolute"),
            (r#"{"poststart": [{"path": "/a"}, {"path": ""}]}"#, "hooks.poststart[1].path \"\" is not absolute"),
            (
                r#"{"createRuntime": [{"path": "/a", "timeout": 0}]}"#,
                "hooks.createRuntime[0].timeout 0 is not a number of seconds from 1 to 4294967295",
            ),
            (
                r#"{"createContainer": [{"path": "/a", "timeout": -1}]}"#,
                "hooks.createContainer[0].timeout -1 is not a number of seconds from 1 to 4294967295",
            ),
            (r#"{"startContainer": [{"path": "/a\u0000"}]}"#, "hooks.startContainer[0].args contains a null character"),
            (r#"{"poststop": [{"path": "/a", "env": ["\u0000"]}]}"#, "hooks.poststop[0].env contains a null character"),
        ] {
            assert_eq!(read(hooks).unwrap_err().to_string(), expected);
        }
    }
}
