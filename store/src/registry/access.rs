//! What a caller brings along for one call: credentials, and how strict to be.

use std::fmt;
use std::sync::Arc;

/// How a registry is reached in one call, beyond the daemon's own configuration.
#[derive(Clone, Default)]
pub struct Access {
    /// For one registry, and for no other host.
    pub credentials: Option<Credentials>,
    /// Speak HTTP; without it, only loopback addresses are spoken to without TLS.
    pub plain_http: bool,
    /// Believe any certificate.
    pub skip_verify: bool,
    /// The caller's config.json in place of the daemon's.
    pub docker_config: Option<String>,
    /// Takes sentences for a person: a retry, a mirror that failed.
    pub notice: Option<Notice>,
}

/// Takes a sentence for a person.
pub type Notice = Arc<dyn Fn(String) + Send + Sync>;

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("credentials", &self.credentials)
            .field("plain_http", &self.plain_http)
            .field("skip_verify", &self.skip_verify)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Tells the caller.
    pub(super) fn notice(&self, sentence: String) {
        if let Some(notice) = &self.notice {
            notice(sentence);
        }
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The registry they are for; empty: the one of the call's reference.
    pub host: String,
    /// With the password.
    pub username: String,
    /// With the user's name.
    pub password: String,
    /// A refresh token in place of both.
    pub identity_token: String,
    /// A bearer token that is sent as it is.
    pub registry_token: String,
}

impl Credentials {
    /// Whether they say anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.username, &self.password, &self.identity_token, &self.registry_token].iter().all(|it| it.is_empty())
    }
}

impl fmt::Debug for Credentials {
    /// Never the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?} for {:?})", self.username, self.host)
    }
}
