//! The parts of a pull, each done alone.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Place, Source, milliseconds, sync, with_place};
use crate::table::Table;

/// What a pull is made of, each part alone, with as many threads as there are processors.
pub(super) fn all(source: &Source, rounds: usize, table: &mut Table) {
    let layers = layers(&source.layout);
    let compressed: Vec<Vec<u8>> = layers.iter().map(|path| fs::read(path).expect("read a layer")).collect();
    let mut add = |name: &str, part: &dyn Fn() -> f64| {
        let samples = (0..rounds).map(|_| part()).collect();
        table.add(name, "ms", &[samples]);
    };
    add("part: fetch", &|| {
        let begin = Instant::now();
        in_parallel(&layers, |path| fetch(source.port, path).expect("fetch a blob"));
        milliseconds(begin)
    });
    add("part: sha256 of blobs and tars", &|| {
        let tars: Vec<Vec<u8>> = compressed.iter().map(|it| inflated(it)).collect();
        let begin = Instant::now();
        in_parallel(&tars, |tar| assert_eq!(Sha256::digest(tar).len(), 32));
        in_parallel(&compressed, |blob| assert_eq!(Sha256::digest(blob).len(), 32));
        milliseconds(begin)
    });
    add("part: inflate", &|| {
        let begin = Instant::now();
        in_parallel(&compressed, |blob| {
            io::copy(&mut MultiGzDecoder::new(&blob[..]), &mut io::sink()).expect("inflate a layer");
        });
        milliseconds(begin)
    });
    add("part: zcat of one layer after the other", &|| zcat(&layers, "cat >/dev/null"));
    for (place, name) in [(Place::Memory, "in memory"), (Place::Disk, "on disk")] {
        add(&format!("part: zcat and tar of one layer after the other {name}"), &|| {
            let done = with_place(place, &source.work, |root| {
                let begin = Instant::now();
                zcat(&layers, &format!("tar -x --numeric-owner -C {}", root.display()));
                sync(root);
                Some(milliseconds(begin))
            });
            done.expect("it was measured")
        });
        add(&format!("part: write files and blobs {name}"), &|| {
            let tars: Vec<(usize, Vec<u8>)> = compressed.iter().map(|it| inflated(it)).enumerate().collect();
            let written = with_place(place, &source.work, |root| {
                let begin = Instant::now();
                in_parallel(&tars, |(number, tar)| {
                    let tree = root.join(format!("tree{number}"));
                    fs::create_dir(&tree).expect("make a directory");
                    untar(tar, &tree);
                    fs::write(root.join(format!("blob{number}")), &compressed[*number]).expect("write a blob");
                });
                sync(root);
                Some(milliseconds(begin))
            });
            written.expect("writing was measured")
        });
    }
}

/// By the tools that everybody has.
fn zcat(layers: &[PathBuf], into: &str) -> f64 {
    let begin = Instant::now();
    for layer in layers {
        let line = format!("zcat <{} | {into}", layer.display());
        assert!(Command::new("sh").args(["-c", &line]).status().expect("start a shell").success(), "{line}");
    }
    milliseconds(begin)
}

fn inflated(blob: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    MultiGzDecoder::new(blob).read_to_end(&mut tar).expect("inflate a layer");
    tar
}

/// By GNU tar, from a pipe.
fn untar(tar: &[u8], to: &Path) {
    let mut command = Command::new("tar");
    let mut child = command
        .args(["-x", "--numeric-owner", "--xattrs", "-C"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start tar");
    child.stdin.take().expect("a pipe").write_all(tar).expect("write to tar");
    assert!(child.wait().expect("wait for tar").success());
}

/// One of them after the other by as many threads as there are processors.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// The layers' blobs.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().expect("a digest").replacen(':', "/", 1));
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&fs::read(path).expect("read the image")).expect("JSON of the image")
    };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]["digest"]));
    manifest["layers"].as_array().expect("layers").iter().map(|it| blob(&it["digest"])).collect()
}

/// Reads a blob from the registry and throws it away, by HTTP/1.0: the plainest client there is.
fn fetch(port: u16, blob: &Path) -> io::Result<()> {
    let hex = blob.file_name().unwrap_or_default().to_string_lossy();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET /v2/debian/blobs/sha256:{hex} HTTP/1.0\r\n\r\n")?;
    let expected = blob.metadata()?.len();
    let got = io::copy(&mut stream, &mut io::sink())?;
    if got > expected { Ok(()) } else { Err(io::Error::other(format!("{got} bytes of {expected}"))) }
}
