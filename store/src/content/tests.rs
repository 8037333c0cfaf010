use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::descriptor::Descriptor;
use crate::error::Kind;
use crate::fault::fail_at;
use crate::testing::{Parts, labels, on_small_disk};

fn ns() -> Namespace {
    Namespace::default()
}

#[test]
fn what_came_is_resumed_by_the_next_daemon_and_verified() {
    let parts = Parts::new();
    let digest = Digest::of(b"hello world");
    let mut ingest = parts.content.ingest(&ns(), "r", Some(11), Some(&digest)).unwrap();
    ingest.write(b"hello ").unwrap();
    assert_eq!(parts.content.ingest(&ns(), "r", None, None).err().unwrap().kind, Kind::Unavailable);
    assert_eq!(parts.content.abort(&ns(), "r").unwrap_err().kind, Kind::Unavailable);
    drop(ingest);
    let parts = parts.again();
    let status = parts.content.status(&ns(), "r").unwrap();
    assert_eq!((status.offset, status.total, status.expected), (6, Some(11), Some(digest.clone())));
    let mut ingest = parts.content.ingest(&ns(), "r", None, None).unwrap();
    assert_eq!(ingest.offset(), 6);
    let mut follow = ingest.follow().unwrap();
    ingest.write(b"world").unwrap();
    // More than was announced is not taken.
    assert_eq!(ingest.write(b"!").unwrap_err().kind, Kind::DataLoss);
    let done = ingest.commit(Some(11), Some(&digest), &labels(&[("a", "b")]), None).unwrap();
    assert_eq!(done, Committed { digest: digest.clone(), size: 11, existed: false });
    let mut text = String::new();
    follow.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello world");
    let parts = parts.again();
    assert_eq!(parts.content.info(&ns(), &digest).unwrap().unwrap().labels, labels(&[("a", "b")]));
    let mut reader = parts.content.reader(&ns(), &digest).unwrap();
    reader.seek(SeekFrom::Start(6)).unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), reader.size()), ("world", 11));
    assert!(parts.list("content/ingests").is_empty());
    assert_eq!(parts.content.status(&ns(), "r").unwrap_err().kind, Kind::NotFound);
}

#[test]
fn too_few_bytes_stay_and_wrong_ones_go() {
    let parts = Parts::new();
    let begin = |text: &[u8]| {
        let mut ingest = parts.content.ingest(&ns(), "r", None, None).unwrap();
        ingest.truncate(0).unwrap();
        ingest.write(text).unwrap();
        ingest
    };
    let none = labels(&[]);
    let digest = Digest::of(b"1234");
    assert_eq!(begin(b"123").commit(Some(4), Some(&digest), &none, None).unwrap_err().kind, Kind::DataLoss);
    assert_eq!(parts.content.status(&ns(), "r").unwrap().offset, 3);
    for wrong in [&b"12345"[..], b"1235"] {
        let error = begin(wrong).commit(Some(4), Some(&digest), &none, None).unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss);
        assert_eq!(parts.content.status(&ns(), "r").unwrap_err().kind, Kind::NotFound, "{error}");
    }
    let expected = parts.content.ingest(&ns(), "e", None, Some(&digest)).unwrap();
    assert!(expected.commit(None, None, &none, None).unwrap_err().message.contains("should be sha256:"), "as it began");
    assert!(parts.list("content/blobs/sha256").is_empty());
    assert!(parts.list("content/ingests").is_empty());
}

#[test]
fn an_ingest_can_be_cut_and_go_on_and_be_of_another_algorithm() {
    let parts = Parts::new();
    let mut ingest = parts.content.ingest(&ns(), "r", None, None).unwrap();
    ingest.write(b"abXX").unwrap();
    ingest.truncate(2).unwrap();
    assert_eq!(ingest.truncate(3).unwrap_err().kind, Kind::InvalidArgument);
    ingest.write(b"c").unwrap();
    assert_eq!(ingest.digest(), Digest::of(b"abc"));
    let mut sha512 = Algorithm::Sha512.hasher();
    sha512.update(b"abc");
    let sha512 = sha512.finish();
    ingest.commit(Some(3), Some(&sha512), &labels(&[]), None).unwrap();
    assert_eq!(parts.list("content/blobs/sha512"), [sha512.hex()]);
    let descriptor = Descriptor::new("text/plain", sha512, 3);
    assert_eq!(parts.content.read(&ns(), &descriptor, 3).unwrap(), b"abc");
    assert_eq!(parts.content.read(&ns(), &descriptor, 2).unwrap_err().kind, Kind::ResourceExhausted);
    let short = Descriptor { size: 2, ..descriptor };
    assert_eq!(parts.content.read(&ns(), &short, 3).unwrap_err().kind, Kind::DataLoss);
}

#[test]
fn bytes_are_shared_and_sight_is_not() {
    let parts = Parts::new();
    let (one, other): (Namespace, Namespace) = (ns(), "other".parse().unwrap());
    let digest = parts.content.put(&one, b"x", &labels(&[("a", "1")]), None).unwrap();
    assert_eq!(parts.content.info(&other, &digest).unwrap(), None);
    assert_eq!(parts.content.reader(&other, &digest).unwrap_err().kind, Kind::NotFound);
    parts.metadata.create_lease(&other, "l", &labels(&[])).unwrap();
    let held = parts.content.hold(&other, &digest, Some("l")).unwrap().unwrap();
    assert_eq!((held.size, held.labels), (1, labels(&[])));
    assert_eq!(parts.metadata.resources(&other, "l").unwrap()[0].id, digest.to_string());
    assert_eq!(parts.content.hold(&other, &Digest::of(b"y"), Some("l")).unwrap(), None);
    assert_eq!(parts.content.hold(&other, &digest, Some("none")).unwrap_err().kind, Kind::NotFound);
    parts.content.delete(&one, &digest).unwrap();
    assert_eq!(parts.content.delete(&one, &digest).unwrap_err().kind, Kind::NotFound);
    parts.content.reader(&other, &digest).unwrap();
    parts.content.delete(&other, &digest).unwrap();
    assert!(parts.list("content/blobs/sha256").is_empty());
}

#[test]
fn labels_change_by_path_and_lists_by_filter() {
    let parts = Parts::new();
    let one = parts.content.put(&ns(), b"1", &labels(&[("a", "1"), ("b", "2")]), None).unwrap();
    let two = parts.content.put(&ns(), b"22", &labels(&[]), None).unwrap();
    let changed = parts.content.update(&ns(), &one, &labels(&[("a", "3")]), &["labels.a".into()]).unwrap();
    assert_eq!(changed.labels, labels(&[("a", "3"), ("b", "2")]));
    assert_eq!(
        parts.content.update(&ns(), &one, &labels(&[]), &["size".into()]).unwrap_err().kind,
        Kind::InvalidArgument
    );
    parts.content.update_labels(&ns(), &one, &labels(&[("b", ""), ("c", "4")])).unwrap();
    assert_eq!(parts.content.info(&ns(), &one).unwrap().unwrap().labels, labels(&[("a", "3"), ("c", "4")]));
    let list = |filter: &str| -> Vec<Digest> {
        parts.content.list(&ns(), &[filter.into()]).unwrap().into_iter().map(|it| it.digest).collect()
    };
    assert_eq!(list("labels.c"), [one]);
    assert_eq!(list("size==2"), [two]);
}

#[test]
fn a_failure_at_any_step_of_a_commit_loses_nothing() {
    for point in [
        "content.commit.verified",
        "content.commit.synced",
        "content.commit.renamed",
        "content.commit.directory_synced",
    ] {
        let parts = Parts::new();
        let digest = Digest::of(b"bytes");
        let mut ingest = parts.content.ingest(&ns(), "r", None, None).unwrap();
        ingest.write(b"bytes").unwrap();
        let armed = fail_at(point);
        ingest.commit(None, Some(&digest), &labels(&[]), None).unwrap_err();
        drop(armed);
        assert_eq!(parts.content.info(&ns(), &digest).unwrap(), None, "{point}");
        let again = parts.content.ingest(&ns(), "r", None, None).unwrap();
        assert_eq!(again.offset(), 5, "{point}");
        again.commit(None, Some(&digest), &labels(&[]), None).unwrap();
    }
}

#[test]
fn what_a_crash_left_is_swept_and_what_is_resumed_is_not() {
    let parts = Parts::new();
    let kept = parts.content.put(&ns(), b"kept", &labels(&[]), None).unwrap();
    parts.content.ingest(&ns(), "coming", None, None).unwrap().write(b"12").unwrap();
    let lost = parts.content.ingest(&ns(), "lost", None, None).unwrap();
    drop(lost);
    // Renamed, and no row; an ingest without a row; a row without its directory.
    fs::write(parts.content.path(&Digest::of(b"unpublished")), "unpublished").unwrap();
    fs::create_dir(parts.path.join("content/ingests/99")).unwrap();
    fs::write(parts.path.join("content/ingests/99/data"), "x").unwrap();
    let dirs = parts.list("content/ingests");
    fs::remove_dir_all(parts.path.join("content/ingests").join(&dirs[1])).unwrap();
    let parts = parts.again();
    assert_eq!(parts.list("content/blobs/sha256"), [kept.hex()]);
    assert_eq!(parts.content.status(&ns(), "coming").unwrap().offset, 2);
    assert_eq!(parts.content.statuses(&ns(), &[]).unwrap().len(), 1);
    assert_eq!(parts.list("content/ingests").len(), 1);
}

#[test]
fn a_damaged_blob_is_said_to_be_and_a_commit_repairs_it() {
    let parts = Parts::new();
    let digest = parts.content.put(&ns(), b"good", &labels(&[]), None).unwrap();
    let descriptor = Descriptor::new("text/plain", digest.clone(), 4);
    let path = parts.content.path(&digest);
    let damage = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    damage(b"evil");
    assert!(parts.content.read(&ns(), &descriptor, 4).unwrap_err().message.contains("damaged on disk"));
    damage(b"short");
    assert!(
        parts.content.reader(&ns(), &digest).unwrap_err().message.contains("has 5 bytes on disk and should have 4")
    );
    fs::remove_file(&path).unwrap();
    assert!(parts.content.reader(&ns(), &digest).unwrap_err().message.contains("its file is gone"));
    damage_and_repair(&parts, &digest);
    assert_eq!(parts.content.read(&ns(), &descriptor, 4).unwrap(), b"good");
}

fn damage_and_repair(parts: &Parts, digest: &Digest) {
    let mut ingest = parts.content.ingest(&ns(), "repair", None, Some(digest)).unwrap();
    ingest.write(b"good").unwrap();
    assert!(ingest.commit(None, Some(digest), &labels(&[]), None).unwrap().existed);
}

#[test]
fn an_ingest_that_nobody_resumes_goes_after_a_day_but_not_while_it_is_written_or_leased() {
    let parts = Parts::new();
    let open = parts.content.ingest(&ns(), "open", None, None).unwrap();
    drop(parts.content.ingest(&ns(), "old", None, None).unwrap());
    drop(parts.content.ingest(&ns(), "leased", None, None).unwrap());
    let kept = HashSet::from([(ns(), "leased".to_owned())]);
    let left =
        || -> Vec<String> { parts.content.statuses(&ns(), &[]).unwrap().into_iter().map(|it| it.reference).collect() };
    parts.content.expire_ingests(SystemTime::now(), &kept, false).unwrap();
    assert_eq!(left(), ["leased", "old", "open"]);
    let later = SystemTime::now() + Duration::from_hours(25);
    assert_eq!(parts.content.expire_ingests(later, &kept, true).unwrap().0, 1);
    assert_eq!(left(), ["leased", "old", "open"]);
    parts.content.expire_ingests(later, &kept, false).unwrap();
    assert_eq!(left(), ["leased", "open"]);
    drop(open);
    // A clock that jumped back ends nothing.
    parts.content.expire_ingests(SystemTime::UNIX_EPOCH, &HashSet::new(), false).unwrap();
    assert_eq!(left(), ["leased", "open"]);
}

#[test]
fn a_full_disk_is_said_so_and_loses_nothing() {
    on_small_disk(8 << 20, fill_and_free);
}

fn fill_and_free(disk: &Path) {
    let parts = Parts::at(&disk.join("root")).unwrap();
    let done = parts.content.put(&ns(), &vec![7; 1 << 20], &labels(&[]), None).unwrap();
    let mut ingest = parts.content.ingest(&ns(), "big", None, None).unwrap();
    let mut random = 1_u64;
    let mut chunk = vec![0_u8; 64 << 10];
    let (error, offset) = loop {
        chunk.iter_mut().for_each(|it| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *it = (random >> 56) as u8;
        });
        let before = ingest.offset();
        if let Err(error) = ingest.write(&chunk) {
            break (error, before);
        }
    };
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert_eq!(ingest.offset(), offset);
    drop(ingest);
    // The last of the room goes, and then SQLite has none either.
    let filler = disk.join("filler");
    let _ = fs::write(&filler, vec![1; 1 << 20]);
    let full = (0..20_000).find_map(|number| {
        let long = labels(&[("long", &"x".repeat(4000))]);
        parts.metadata.create_lease(&ns(), &format!("l{number}"), &long).err()
    });
    let full = full.expect("the database cannot grow for ever");
    assert!(full.kind == Kind::ResourceExhausted && full.message.contains("make room on that disk"), "{full}");
    // What was reported done is there, and what came is there to be resumed.
    let descriptor = Descriptor::new("x", done.clone(), 1 << 20);
    parts.content.read(&ns(), &descriptor, 1 << 20).unwrap();
    assert_eq!(parts.content.status(&ns(), "big").unwrap().offset, offset);
    // On a full disk it is possible to free some.
    parts.content.delete(&ns(), &done).unwrap();
    assert!(!parts.content.path(&done).try_exists().unwrap());
    let parts = parts.again();
    let resumed = parts.content.ingest(&ns(), "big", None, None).unwrap();
    assert_eq!(resumed.offset(), offset);
    resumed.abort().unwrap();
    parts.content.put(&ns(), b"there is room again", &labels(&[]), None).unwrap();
}

#[test]
fn a_read_only_disk_is_said_to_be() {
    on_small_disk(8 << 20, write_to_a_read_only_one);
}

fn write_to_a_read_only_one(disk: &Path) {
    use nix::mount::{MsFlags, mount};
    let root = disk.join("root");
    let parts = Parts::at(&root).unwrap();
    let mut ingest = parts.content.ingest(&ns(), "r", None, None).unwrap();
    ingest.write(b"came before").unwrap();
    let digest = parts.content.put(&ns(), b"x", &labels(&[]), None).unwrap();
    drop(ingest);
    drop(parts);
    let none = None::<&str>;
    let remount = |flags| mount(none, disk, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    remount(MsFlags::MS_RDONLY);
    let error = Parts::at(&root).err().unwrap();
    assert_eq!(error.kind, Kind::FailedPrecondition, "{error}");
    remount(MsFlags::empty());
    let parts = Parts::at(&root).unwrap();
    assert_eq!(parts.content.status(&ns(), "r").unwrap().offset, 11);
    parts.content.reader(&ns(), &digest).unwrap();
}
