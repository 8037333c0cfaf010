//! A registry in this process, with switches for what goes wrong at real ones.
//!
//! ```no_run
//! use integration::registry::{Auth, Registry};
//!
//! let registry = Registry::start();
//! let digest = registry.blob("team/app", "bytes");
//! registry.faults(|it| it.cut = Some((100, 2)));          // two answers end after 100 bytes
//! registry.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
//! // … the client under test speaks to registry.host() …
//! assert_eq!(registry.seen("/blobs/").len(), 3);          // requests, with what Authorization each had
//! ```
//!
//! It keeps to the distribution specification where no switch says otherwise. Each has a thread and a port of its own, and ends
//! when it is dropped.

mod answer;
mod auth;
mod debian;
mod serve;
mod tls;
mod upload;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

pub use auth::{Auth, Bearer};
pub use debian::Debian;
pub use tls::{Ca, Tls};

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`, …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Whom it was meant for.
    pub host: String,
    /// Who it said to be.
    pub authorization: Option<String>,
    /// Which bytes it wanted.
    pub range: Option<String>,
    /// What it carried, if that was a form.
    pub form: String,
    /// Any header by its name in lower case.
    pub headers: BTreeMap<String, String>,
}

/// An answer in place of the right one.
#[derive(Debug, Clone)]
pub struct Instead {
    /// For requests whose method and path have this in them: `"GET /v2/a/blobs"`.
    pub to: String,
    /// What is answered.
    pub status: u16,
    /// Headers of it.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

impl Instead {
    /// Without headers and body.
    #[must_use]
    pub fn new(to: &str, status: u16) -> Self {
        Self { to: to.into(), status, headers: Vec::new(), body: String::new() }
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Blobs are cut off after so many bytes, in so many answers.
    pub cut: Option<(usize, u32)>,
    /// Blobs stop after so many bytes, in so many answers, and the connection stays.
    pub stall: Option<(usize, u32)>,
    /// So many bytes at once, with a pause of so many milliseconds behind each.
    pub slow: Option<(usize, u64)>,
    /// The last byte of each blob, or manifest, is another one.
    pub wrong_bytes: bool,
    /// Answers in place of the right ones, each given once, in this order.
    pub instead: VecDeque<Instead>,
    /// Blobs are elsewhere: `http://host:port`, before the same path.
    pub redirect: Option<String>,
    /// Range is not looked at.
    pub no_ranges: bool,
    /// HEAD of a manifest does not say the digest.
    pub no_head_digest: bool,
    /// Who may do what.
    pub auth: Auth,
    /// A PATCH is cut off after so many bytes, so many times; what came is kept.
    pub upload_cut: Option<(usize, u32)>,
    /// A PATCH is not read on after so many bytes, so many times.
    pub upload_stall: Option<(usize, u32)>,
    /// A PATCH may not have more bytes.
    pub largest_patch: Option<u64>,
    /// Uploads are forgotten when they are cut off.
    pub forgets_uploads: bool,
    /// Where uploads go on: `http://host:port`, before the same path.
    pub upload_elsewhere: Option<String>,
    /// Blobs are not taken over from other repositories.
    pub no_mount: bool,
    /// The list of what refers to something is not known here.
    pub no_referrers: bool,
    /// Tags, and referrers, on one page.
    pub page: usize,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            cut: None,
            stall: None,
            slow: None,
            wrong_bytes: false,
            instead: VecDeque::new(),
            redirect: None,
            no_ranges: false,
            no_head_digest: false,
            auth: Auth::Open,
            upload_cut: None,
            upload_stall: None,
            largest_patch: None,
            forgets_uploads: false,
            upload_elsewhere: None,
            no_mount: false,
            no_referrers: false,
            page: 1000,
        }
    }
}

/// A repository's part of what is kept.
#[derive(Default)]
struct Repository {
    blobs: BTreeSet<String>,
    /// By digest: media type and bytes.
    manifests: BTreeMap<String, (String, Bytes)>,
    tags: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    blobs: BTreeMap<String, Bytes>,
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<String, Vec<u8>>,
    tokens: BTreeMap<String, String>,
    counter: u64,
    seen: Vec<Seen>,
    address: String,
}

impl State {
    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

type Shared = Arc<Mutex<State>>;

/// A registry that runs until it is dropped.
pub struct Registry {
    address: SocketAddr,
    secure: bool,
    state: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    /// On loopback, without TLS.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), None)
    }

    /// At this address, with TLS or without it.
    #[must_use]
    pub fn start_at(address: IpAddr, tls: Option<Tls>) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).expect("bind the registry");
        listener.set_nonblocking(true).expect("set the registry's socket up");
        let address = listener.local_addr().expect("ask for the registry's address");
        let secure = tls.is_some();
        let state = Shared::default();
        state.lock().unwrap().address = format!("{}://{address}", if secure { "https" } else { "http" });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serve::serve(listener, tls, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, secure, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Its name in references: `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address: `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Changes what goes wrong, from the next request on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().unwrap().faults);
    }

    /// Keeps a blob; gives its digest.
    pub fn blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let mut state = self.state.lock().unwrap();
        state.blobs.insert(digest.clone(), bytes);
        state.repository(repository).blobs.insert(digest.clone());
        digest
    }

    /// Keeps a manifest or an index, under a tag if there is one; gives its digest.
    pub fn manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let mut state = self.state.lock().unwrap();
        let repository = state.repository(repository);
        repository.manifests.insert(digest.clone(), (media_type.into(), bytes));
        if let Some(tag) = tag {
            repository.tags.insert(tag.into(), digest.clone());
        }
        digest
    }

    /// A blob that is kept, by its repository and digest.
    #[must_use]
    pub fn kept_blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        let state = self.state.lock().unwrap();
        let has = state.repositories.get(repository).is_some_and(|it| it.blobs.contains(digest));
        state.blobs.get(digest).filter(|_| has).cloned()
    }

    /// A manifest that is kept, by its repository and its tag or digest: media type and bytes.
    #[must_use]
    pub fn kept_manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        let state = self.state.lock().unwrap();
        let repository = state.repositories.get(repository)?;
        let digest = repository.tags.get(name).map_or(name, String::as_str);
        repository.manifests.get(digest).cloned()
    }

    /// The requests whose method and path have this in them, in their order.
    #[must_use]
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|it| format!("{} {}", it.method, it.path).contains(part)).cloned().collect()
    }

    /// Forgets the requests that came.
    pub fn forget_seen(&self) {
        self.state.lock().unwrap().seen.clear();
    }

    /// Lets all tokens run out.
    pub fn expire_tokens(&self) {
        self.state.lock().unwrap().tokens.clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `sha256:…` of these bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
