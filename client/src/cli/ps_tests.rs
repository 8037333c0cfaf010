use super::*;
use crate::record::{HealthState, Mount};

fn web() -> Container {
    let mut record =
        Container { id: "ab".repeat(32), name: "web".to_owned(), created: Time::now(), ..Container::default() };
    record.config.image = "debian".to_owned();
    record.image.name = "docker.io/library/debian:latest".to_owned();
    record.image.id = format!("sha256:{}", "cd".repeat(32));
    record.config.cmd = Some(["sh", "-c", "echo a long one"].map(str::to_owned).to_vec());
    record.config.labels.insert("tier".to_owned(), "front".to_owned());
    record.mounts.push(Mount {
        kind: "volume".to_owned(),
        name: "data".to_owned(),
        source: "/v/data".to_owned(),
        ..Mount::default()
    });
    record.state.status = Status::Running;
    record.state.started_at = Time::now();
    record
}

#[test]
fn a_line_has_dockers_fields() {
    let row = row(&web(), false, "0B (virtual 5MB)");
    for (field, expected) in [
        ("ID", "abababababab"),
        ("Image", "debian"),
        ("Command", "\"sh -c 'echo a long …\""),
        ("Status", "Up Less than a second"),
        ("State", "running"),
        ("Names", "web"),
        ("Labels", "tier=front"),
        ("Mounts", "data"),
        ("LocalVolumes", "1"),
        ("Size", "0B (virtual 5MB)"),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    assert!(go_time(Time::since_epoch(0, 5)).ends_with("1970-01-01 00:00:00 +0000 UTC"));
}

#[test]
fn states_are_told_as_docker_tells_them() {
    let mut record = web();
    for (state, expected) in [
        (Status::Created, "Created"),
        (Status::Paused, "Up Less than a second (Paused)"),
        (Status::Exited, "Exited (3) Less than a second ago"),
        (Status::Restarting, "Restarting (3) Less than a second ago"),
        (Status::Removing, "Removal In Progress"),
    ] {
        (record.state.status, record.state.exit_code, record.state.finished_at) = (state, 3, Time::now());
        assert_eq!(status(&record), expected);
    }
    record.state.status = Status::Running;
    record.state.health = Some(HealthState { status: "starting".to_owned(), ..HealthState::default() });
    assert!(status(&record).ends_with("(health: starting)"));
}

#[test]
fn filters_choose() {
    let ps = |filters: &[&str], all: bool| {
        let texts: Vec<String> = filters.iter().map(|it| (*it).to_owned()).collect();
        let args = Ps {
            all,
            filter: texts.clone(),
            format: String::new(),
            last: -1,
            latest: false,
            no_trunc: false,
            quiet: false,
            size: false,
        };
        let mut ended = Container { id: "12".repeat(32), name: "ended".to_owned(), ..Container::default() };
        (ended.state.status, ended.state.exit_code) = (Status::Exited, 3);
        let filters = Filters::parse(&texts, &KNOWN)?;
        chosen(vec![web(), ended], &args, &filters)
            .map(|all| all.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" "))
    };
    for (filters, all, expected) in [
        (&[][..], false, "web"),
        (&[], true, "web ended"),
        (&["status=exited"], false, "ended"),
        (&["status=exited", "status=running"], false, "web ended"),
        (&["exited=3"], false, "ended"),
        (&["exited=0"], false, ""),
        (&["name=we"], true, "web"),
        (&["name=^e"], true, "ended"),
        (&["name=^web$"], true, "web"),
        (&["name=^we$"], true, ""),
        (&["label=tier"], true, "web"),
        (&["label=tier=back"], true, ""),
        (&["ancestor=debian"], true, "web"),
        (&["ancestor=cdcd"], true, "web"),
        (&["ancestor=debian:11"], true, ""),
        (&["volume=data"], true, "web"),
        (&["id=12"], true, "ended"),
        (&["since=ended"], true, "web"),
        (&["health=none"], true, "web ended"),
    ] {
        assert_eq!(ps(filters, all).unwrap(), expected, "{filters:?}");
    }
    for wrong in ["nope=1", "status=well", "before=nobody", "x"] {
        assert!(ps(&[wrong], true).is_err(), "{wrong}");
    }
}
