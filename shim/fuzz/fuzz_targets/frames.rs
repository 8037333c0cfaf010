//! What a client sends to the server: frames of any kind, with the requests of all its services. Whatever comes, the
//! connection ends when the client's half does, and the next client is served.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tare_proto::sandbox_ttrpc::{Sandbox, create_sandbox};
use tare_proto::streaming_ttrpc::{Streaming, create_streaming};
use tare_proto::task_services;
use tare_proto::task_v3_ttrpc::Task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// Decodes every request and does nothing.
struct Deaf;

impl Task for Deaf {}
impl Sandbox for Deaf {}
impl Streaming for Deaf {}

struct Served {
    runtime: Runtime,
    tasks: LocalSet,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut services: HashMap<_, _> = task_services(Arc::new(Deaf));
        services.extend(create_sandbox(Arc::new(Deaf)));
        services.extend(create_streaming(Arc::new(Deaf)));
        let tasks = LocalSet::new();
        tasks.spawn_local(tare_shim::server::serve(listener, services, std::future::pending()));
        Self { runtime, tasks, path, _dir: dir }
    }

    fn feed(&self, bytes: &[u8]) {
        self.tasks.block_on(&self.runtime, async {
            let client = async {
                let (mut reader, mut writer) = UnixStream::connect(&self.path).await.unwrap().into_split();
                // The server may end the connection before it has taken all.
                let written = async {
                    let _ = writer.write_all(bytes).await;
                    let _ = writer.shutdown().await;
                };
                let mut answers = Vec::new();
                let read = reader.read_to_end(&mut answers);
                let _ = tokio::join!(written, read);
            };
            tokio::time::timeout(Duration::from_secs(20), client).await.expect("the connection does not end");
        });
    }
}

thread_local! {
    static SERVED: RefCell<Option<Served>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    SERVED.with_borrow_mut(|served| served.get_or_insert_with(Served::new).feed(bytes));
});
