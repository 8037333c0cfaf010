//! Debian's docker-registry, run privately: the real protocol.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many were started: each has a directory of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The password of the user `me`, as htpasswd keeps it: `secret`.
const USERS: &str = "me:$2b$04$8xNkFn8WaBqNSUS5xRQRyOENGADKrGvjGqG5S6ZE.VTGoUEs6Tn4y\n";

/// A docker-registry on loopback, with a directory of its own; killed, and removed, when it is dropped.
pub struct Debian {
    child: Child,
    host: String,
    dir: PathBuf,
}

impl Debian {
    /// Open to everybody; nothing if the package docker-registry is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::run("")
    }

    /// For the user `me` with the password `secret`.
    #[must_use]
    pub fn start_with_password() -> Option<Self> {
        Self::run("auth: {htpasswd: {realm: here, path: DIR/users}}\n")
    }

    fn run(more: &str) -> Option<Self> {
        let program = crate::in_path("docker-registry")?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tare-registry-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make the registry's directory");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: DIR/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0', net: tcp}}\nlog: {{accesslog: {{disabled: true}}}}\n{more}"
        );
        std::fs::write(dir.join("users"), USERS).expect("write the registry's users");
        let config = config.replace("DIR", &dir.display().to_string());
        std::fs::write(dir.join("config.yml"), config).expect("write the registry's configuration");
        let mut child = Command::new(program)
            .arg("serve")
            .arg(dir.join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run docker-registry");
        let mut lines = BufReader::new(child.stderr.take().expect("the registry's log")).lines();
        let host = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.split(['"', ' ', ',']).next().unwrap_or_default().to_owned())
        });
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let host = host.expect("docker-registry says where it listens");
        Some(Self { child, host, dir })
    }

    /// Its name in references.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
