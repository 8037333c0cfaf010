//! Credentials that programs keep: docker's helpers, each asked for one host, whose answers go there and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use integration::registry::{Auth, Bearer, Registry};
use integration::store::{Daemon, tempdir};
use serde_json::{Value, json};

use crate::harness::{layer, publish};

/// Answers by the server that it is asked for, in docker's protocol, and writes down each question.
const HELPER: &str = r#"#!/bin/sh
read -r server
echo "${0##*-} $1 $server" >>"${0%/*}/asked"
answer="${0%/*}/${0##*-}.$server"
[ -e "$answer" ] || { echo "credentials not found in native keychain"; exit 1; }
broken=$(cat "${0%/*}/broken" 2>/dev/null)
[ "$server" != "$broken" ] || echo "the keychain is locked"
cat "$answer"
[ "$server" != "$broken" ]
"#;

#[test]
fn helpers_are_asked_for_the_host_and_for_no_other() {
    let dir = tempdir();
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["one", "two"] {
        let path = bin.join(format!("docker-credential-{name}"));
        fs::write(&path, HELPER).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = std::env::join_paths(
        std::iter::once(bin.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let store = Daemon::spawn(&dir, &[], |command| {
        command.env("PATH", path.unwrap());
    });
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    let image = publish(&registry, "app", "1", &[layer(&[("a", b"a")])]);
    publish(&elsewhere, "app", "1", &[layer(&[("a", b"a")])]);
    // Where blobs are, nobody is told who we are.
    registry.faults(|it| it.redirect = Some(elsewhere.url()));
    let host = registry.host();
    let known =
        |helper: &str, answer: &Value| fs::write(bin.join(format!("{helper}.{host}")), answer.to_string()).unwrap();
    let (user, token) = (
        json!({"ServerURL": host, "Username": "me", "Secret": "secret"}),
        json!({"Username": "<token>", "Secret": "refresh-1"}),
    );
    let basic = || Auth::Basic("me".into(), "secret".into());
    let bearer = || Auth::Bearer(Bearer { user: Some(("me".into(), "secret".into())), ..Bearer::default() });
    let asked = |helper: &str| format!("{helper} get {host}\n");
    let in_file = json!({&host: {"auth": "bWU6c2VjcmV0"}});
    // Without an answer a helper knows nobody.
    let none = Value::Null;
    for (what, config, answers, auth, questions) in [
        (
            "the host's own",
            json!({"credHelpers": {&host: "one"}, "credsStore": "two"}),
            [&user, &none],
            basic(),
            asked("one"),
        ),
        (
            "that of all hosts",
            json!({"credHelpers": {"other.example": "one"}, "credsStore": "two"}),
            [&none, &user],
            basic(),
            asked("two"),
        ),
        ("for a token", json!({"credsStore": "two"}), [&none, &user], bearer(), asked("two")),
        ("a refresh token", json!({"credsStore": "two"}), [&none, &token], bearer(), asked("two")),
        (
            "of one that knows nobody, the file",
            json!({"credsStore": "two", "auths": in_file}),
            [&none, &none],
            basic(),
            asked("two"),
        ),
        (
            "none for this host",
            json!({"credHelpers": {"other.example": "one"}, "auths": in_file}),
            [&user, &none],
            basic(),
            String::new(),
        ),
    ] {
        for (helper, answer) in ["one", "two"].into_iter().zip(answers) {
            match answer {
                Value::Null => drop(fs::remove_file(bin.join(format!("{helper}.{host}")))),
                answer => known(helper, answer),
            }
        }
        let file = dir.join("config.json");
        fs::write(&file, config.to_string()).unwrap();
        fs::write(bin.join("asked"), "").unwrap();
        registry.faults(|it| it.auth = auth);
        registry.forget_seen();
        let ran = store.run(&["pull", &image, "--docker-config", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{what}: {}", ran.stderr);
        assert_eq!(fs::read_to_string(bin.join("asked")).unwrap(), questions, "{what}");
        let form = registry.seen("POST /token").into_iter().map(|it| it.form).collect::<String>();
        assert_eq!(form.contains("refresh_token=refresh-1"), answers[1] == &token, "{what}: {form}");
        assert!(elsewhere.seen("").iter().all(|it| it.authorization.is_none()), "{what}");
        store.run(&["rmi", "--sync", &image]).ok();
    }

    // One that fails is named, with what it says; what it knows is not.
    known("one", &user);
    fs::write(bin.join("broken"), &host).unwrap();
    fs::write(dir.join("config.json"), json!({"credHelpers": {&host: "one"}}).to_string()).unwrap();
    registry.faults(|it| it.auth = basic());
    let ran = store.run(&["pull", "-q", &image, "--docker-config", dir.join("config.json").to_str().unwrap()]).fails();
    assert!(ran.stderr.contains("docker-credential-one") && ran.stderr.contains(&host), "{}", ran.stderr);
    assert!(!ran.stderr.contains("secret") && !store.log().contains("secret"), "{}", ran.stderr);
    store.stop();
    fs::remove_dir_all(dir).unwrap();
}
