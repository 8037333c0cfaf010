//! All registries: configuration, connections, and what one call makes of them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::error::{Context, Error, Kind, Result};
use crate::registry::access::{Access, Credentials};
use crate::registry::docker_config::{DockerConfig, same_host};
use crate::registry::exchange::{Ask, Host};
use crate::registry::hosts::{self, Can, Endpoint};
use crate::registry::http::{Http, Patience};
use crate::registry::proxies::{Proxies, Routes};
use crate::registry::reference::Repository;
use crate::registry::retry::Tries;
use crate::registry::{ranges, shortened};

/// How all registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Directories of containerd's form, `<host>/hosts.toml`, and of docker's, `<host>/{ca.crt,client.cert,client.key}`;
    /// of the first that knows a host.
    pub hosts_dirs: Vec<PathBuf>,
    /// Docker's configuration, when a call brings none of its own.
    pub docker_config: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// How long everything may take.
    pub patience: Patience,
    /// How often something is tried at one host.
    pub tries: Tries,
    /// A blob is fetched in so many ranges at once, if it is large; 1: as one. Several help where a registry is slow to each
    /// connection; where it is not they are only more requests.
    pub ranges: usize,
    /// A blob is sent in pieces of this size; nothing: as one, which every registry takes.
    pub chunk: Option<u64>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts_dirs: Vec::new(),
            docker_config: None,
            proxies: Proxies::default(),
            patience: Patience::default(),
            tries: Tries::default(),
            ranges: 1,
            chunk: None,
        }
    }
}

/// All registries. Clones share their connections.
#[derive(Clone)]
pub struct Registry(pub(super) Arc<Shared>);

/// What calls share.
pub(super) struct Shared {
    pub(super) config: RegistryConfig,
    pub(super) http: Http,
    /// Ranges that may wait in memory before their turn, of all blobs together.
    pub(super) ahead: Arc<Semaphore>,
    /// Loopback hosts that turned out not to speak TLS.
    pub(super) plain: Mutex<HashSet<String>>,
}

impl Registry {
    /// Speaks to nobody yet.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        let http = Http::new(config.patience, Routes::new(&config.proxies)?);
        Ok(Self(Arc::new(Shared {
            config,
            http,
            ahead: Arc::new(Semaphore::new(ranges::AHEAD)),
            plain: Mutex::default(),
        })))
    }

    /// A repository, for one call.
    pub async fn remote(&self, repository: &Repository, access: Access) -> Result<Remote> {
        let endpoints = {
            let (dirs, repository, access) = (self.0.config.hosts_dirs.clone(), repository.clone(), access.clone());
            let read = move || hosts::endpoints(&dirs, &repository, &access);
            tokio::task::spawn_blocking(read).await.map_err(|error| Error::internal(error.to_string()))??
        };
        let hosts = endpoints.into_iter().map(Host::new).collect();
        let call = Call {
            shared: Arc::clone(&self.0),
            repository: repository.clone(),
            access,
            hosts,
            docker_config: tokio::sync::OnceCell::new(),
        };
        Ok(Remote(Arc::new(call)))
    }

    /// Tries credentials; gives the identity token that the registry wants to be kept in place of the password, if any.
    pub async fn login(&self, host: &str, access: Access) -> Result<Option<String>> {
        let host = host.strip_prefix("https://").unwrap_or(host).trim_end_matches('/');
        let host = if crate::registry::docker_config::is_hub(host) { "docker.io" } else { host };
        let remote = self.whole(host, "login", access).await?;
        let host = remote.0.hosts.last().ok_or_else(|| Error::internal("the registry has no host"))?;
        let what = "log in".to_owned();
        remote.0.log_in(host, &Ask::ping(what)).await
    }

    /// A registry for what concerns none of its repositories. `name` stands in for one.
    pub(super) async fn whole(&self, host: &str, name: &str, access: Access) -> Result<Remote> {
        // Any name will do: only its registry is spoken to.
        let repository: Repository = format!("{host}/{name}").parse().map_err(|_| {
            Error::invalid(format!(
                "{:?} is not a registry: write its host, and its port if it has one",
                shortened(host)
            ))
        })?;
        if repository.registry() != host {
            return Err(Error::invalid(format!("{:?} is not a registry: write its whole host name", shortened(host))));
        }
        self.remote(&repository, access).await
    }
}

/// A repository, for one call. Clones share its tokens.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Call>);

/// What one call knows.
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) repository: Repository,
    pub(super) access: Access,
    /// Mirrors first, the registry itself last.
    pub(super) hosts: Vec<Host>,
    docker_config: tokio::sync::OnceCell<DockerConfig>,
}

impl Remote {
    /// Which repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }

    /// What a host sent was not what it should be: ask it for nothing more in this call. False if no other is left.
    #[must_use]
    pub fn avoid(&self, host: &str) -> bool {
        for it in self.0.hosts.iter().filter(|it| it.endpoint.authority == host) {
            it.avoid();
        }
        self.0.hosts.iter().any(|it| !it.is_avoided() && it.endpoint.can.pull)
    }
}

impl Call {
    /// The hosts that are asked for this, in their order, and whether it is the last one.
    pub(super) fn hosts(&self, can: impl Fn(&Can) -> bool) -> Result<Vec<(&Host, bool)>> {
        let found: Vec<&Host> = self.hosts.iter().filter(|it| can(&it.endpoint.can) && !it.is_avoided()).collect();
        if found.is_empty() {
            return Err(Error::new(
                Kind::FailedPrecondition,
                format!("no host of {} is left that may be asked; see its hosts.toml", self.repository),
            ));
        }
        let last = found.len() - 1;
        Ok(found.into_iter().enumerate().map(|(at, host)| (host, at == last)).collect())
    }

    /// How often a host is tried: one behind which another stands, not for long.
    pub(super) fn tries(&self, is_last: bool) -> Tries {
        let tries = self.shared.config.tries;
        if is_last { tries } else { Tries { most: tries.most.min(2), ..tries } }
    }

    /// Tells of a host that failed where another is asked now.
    pub(super) fn passed_over(&self, error: &Error) {
        self.access.notice(format!("{}; the next host is asked", error.message));
    }

    /// The credentials for a host: those of the call, if they are for it, or else those of docker's configuration.
    pub(super) async fn credentials(&self, endpoint: &Endpoint) -> Result<Option<Credentials>> {
        let host = endpoint.authority.as_str();
        if let Some(given) = self.access.credentials.as_ref().filter(|it| !it.is_empty()) {
            let meant = if given.host.is_empty() { self.repository.registry() } else { &given.host };
            if same_host(meant, host) {
                return Ok(Some(given.clone()));
            }
        }
        let config = self.docker_config.get_or_try_init(|| self.read_docker_config()).await?;
        config.credentials(host, self.repository.path()).await
    }

    async fn read_docker_config(&self) -> Result<DockerConfig> {
        if let Some(text) = self.access.docker_config.as_ref().filter(|it| !it.is_empty()) {
            return DockerConfig::parse(text.as_bytes());
        }
        let Some(path) = self.shared.config.docker_config.clone() else { return Ok(DockerConfig::default()) };
        let read = move || match std::fs::read(&path) {
            Ok(bytes) => DockerConfig::parse(&bytes).map_err(|error| error.within(path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DockerConfig::default()),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| Error::internal(error.to_string()))?
    }

    /// Whether this host is spoken to without TLS.
    pub(super) fn is_known_plain(&self, authority: &str) -> bool {
        self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(authority)
    }

    /// Remembers that this host, which is on loopback, speaks no TLS.
    pub(super) fn set_plain(&self, authority: &str) {
        self.shared.plain.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.to_owned());
    }
}
