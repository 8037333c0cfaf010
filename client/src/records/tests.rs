use super::*;

fn instance() -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    let client = crate::testing::client(directory.path());
    (directory, client)
}

fn made(client: &Client, id: &str, name: &str) -> Lock {
    let mut lock = make(client, id).unwrap();
    lock.save(&Container { id: id.into(), name: name.into(), ..Container::default() }).unwrap();
    lock.show(client).unwrap();
    take_name(client, name, id).unwrap();
    lock
}

#[test]
fn a_container_is_found_by_name_id_and_beginning() {
    let (_dir, client) = instance();
    let (one, other) = ("ab".repeat(32), format!("abc{}", "0".repeat(61)));
    drop(made(&client, &one, "web"));
    drop(made(&client, &other, "db"));
    for (word, id) in [("web", &one), ("/web", &one), (one.as_str(), &one), ("aba", &one), ("abc", &other)] {
        assert_eq!(&find(&client, word).unwrap().id, id, "{word}");
    }
    assert!(find(&client, "ab").unwrap_err().message.contains("several"));
    for word in ["", "nobody", "ff", "../web", "a/b"] {
        assert_eq!(find(&client, word).unwrap_err().kind, Kind::NotFound, "{word}");
    }
    assert_eq!(list(&client).unwrap().whole().unwrap().len(), 2);
}

#[test]
fn a_name_is_one_containers_and_free_when_that_is_gone() {
    let (_dir, client) = instance();
    let (one, other) = ("1".repeat(64), "2".repeat(64));
    let lock = made(&client, &one, "web");
    assert_eq!(take_name(&client, "web", &other).unwrap_err().kind, Kind::Conflict);
    take_name(&client, "web", &one).unwrap();
    lock.remove().unwrap();
    assert_eq!(holder(&client, "web").unwrap(), None);
    drop(made(&client, &other, "web"));
    free_name(&client, "web", &one).unwrap();
    assert_eq!(holder(&client, "web").unwrap().unwrap(), other);
}

#[test]
fn one_at_a_time_changes_a_record() {
    let (_dir, client) = instance();
    let id = "3".repeat(64);
    let held = made(&client, &id, "web");
    assert!(try_lock(&client, &id).unwrap().is_none());
    drop(held);
    let lock = try_lock(&client, &id).unwrap().unwrap();
    lock.remove().unwrap();
    assert_eq!(super::lock(&client, &id).unwrap_err().kind, Kind::NotFound);
}

#[test]
fn what_is_not_finished_is_nobodys() {
    let (_dir, client) = instance();
    let lock = make(&client, &"4".repeat(64)).unwrap();
    let place = client.paths.containers().join(format!("{HIDDEN}{}", lock.id()));
    assert!(ids(&client).unwrap().is_empty());
    sweep(&client).unwrap();
    assert!(place.is_dir(), "somebody is at it");
    drop(lock);
    sweep(&client).unwrap();
    assert!(!place.is_dir());
}

#[test]
fn a_record_of_another_time_or_none_is_said() {
    let (_dir, client) = instance();
    let id = "5".repeat(64);
    let lock = made(&client, &id, "web");
    lock.save(&Container { record_version: record::VERSION + 1, id: id.clone(), ..Container::default() }).unwrap();
    assert!(lock.load().unwrap_err().message.contains("newer tarectl"));
    fs::write(client.paths.container(&id).join(FILE), b"{").unwrap();
    assert!(lock.load().unwrap_err().message.contains("damaged"));
}
