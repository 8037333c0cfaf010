//! Names and links, as the others' files and environments have them.

use super::*;

#[test]
fn in_a_named_network_everybody_finds_everybody_by_name() {
    in_world(async |client| {
        let made_network = create(&client, &net("inner", "10.5.0.0/24")).await.unwrap();
        let one = started(&client, "one", in_network("inner")).await;
        let wish = |record: &mut Container| {
            in_network("inner")(record);
            let endpoint = Endpoint {
                requested_ip: "10.5.0.77".to_owned(),
                requested_mac: "02:42:0a:05:00:4d".to_owned(),
                aliases: vec!["db".to_owned()],
                ..Endpoint::default()
            };
            record.networks.insert("inner".to_owned(), endpoint);
        };
        let mut two = started(&client, "two", wish).await;
        assert_eq!(two.networks["inner"].ip_address, "10.5.0.77");
        assert_eq!(two.networks["inner"].mac_address, "02:42:0a:05:00:4d");
        let line = format!("10.5.0.77\ttwo db {}\n", &two.id[..12]);
        assert!(hosts(&client, &one).ends_with(&line), "{}", hosts(&client, &one));
        assert!(hosts(&client, &two).contains("10.5.0.2\tone "), "{}", hosts(&client, &two));
        // A line that the container wrote itself stays.
        let file = files(&client, &one).hosts;
        std::fs::write(&file, format!("{}9.9.9.9\tmine\n", hosts(&client, &one))).unwrap();
        two.name = "three".to_owned();
        renamed(&client, &two).unwrap();
        let now = hosts(&client, &one);
        assert!(
            now.contains("9.9.9.9\tmine\n") && now.contains("10.5.0.77\tthree db ") && !now.contains("two"),
            "{now}"
        );
        let shown = super::inspect(&client, &made_network.id[..8]).unwrap();
        assert_eq!(shown["Containers"][&two.id]["IPv4Address"], "10.5.0.77/24");
        assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "10.5.0.1");
        let mut third = made(&client, "third", wish).await.unwrap();
        let error = attach(&client, &mut third).await.unwrap_err();
        assert!(error.message.contains("10.5.0.77") && error.message.contains("three"), "{error}");
        let error = remove(&client, "inner").await.unwrap_err();
        assert!(error.kind == Kind::Conflict && error.message.contains("in use by"), "{error}");
        detach(&client, &mut two).await.unwrap();
        assert!(!hosts(&client, &one).contains("10.5.0.77"), "{}", hosts(&client, &one));
        let mut one = one;
        detach(&client, &mut one).await.unwrap();
        remove(&client, "inner").await.unwrap();
        assert!(nix::net::if_::if_nametoindex(made_network.device().as_str()).is_err());
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn links_names_and_environment() {
    in_world(async |client| {
        let mut db = started(&client, "db", |record| {
            record.config.env = vec!["MODE=x".to_owned()];
            record.config.exposed_ports.insert("5432/tcp".to_owned(), serde_json::json!({}));
        })
        .await;
        let mut web = started(&client, "web", |record| record.host_config.links = vec!["db:my-db".to_owned()]).await;
        let line = format!("172.17.0.2\tmy-db {} db\n172.17.0.3\t{}\n", &db.id[..12], &web.id[..12]);
        assert!(hosts(&client, &web).ends_with(&line), "{}", hosts(&client, &web));
        let environment = link_environment(&client, &web).unwrap();
        assert!(environment.contains(&"MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432".to_owned()), "{environment:?}");
        assert!(environment.contains(&"MY_DB_ENV_MODE=x".to_owned()), "{environment:?}");
        // It comes again with another address.
        detach(&client, &mut db).await.unwrap();
        assert!(!hosts(&client, &web).contains("my-db"), "{}", hosts(&client, &web));
        attach(&client, &mut db).await.unwrap();
        let again = format!("{}\tmy-db ", db.networks["bridge"].ip_address);
        assert!(hosts(&client, &web).contains(&again), "{}", hosts(&client, &web));
        detach(&client, &mut db).await.unwrap();
        detach(&client, &mut web).await.unwrap();
        let error = attach(&client, &mut web).await.unwrap_err();
        assert!(error.message.contains("linked to db (as my-db), which does not run"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn a_network_whose_removal_failed_can_be_removed_again() {
    in_world(async |client| {
        let made = create(&client, &net("inner", "10.5.0.0/24")).await.unwrap();
        let addresses = plan::addresses(&client.paths).join("inner");
        std::fs::create_dir_all(addresses.parent().unwrap()).unwrap();
        std::fs::write(&addresses, "in the way").unwrap();
        let error = remove(&client, "inner").await.unwrap_err();
        assert!(error.message.starts_with("remove "), "{error}");
        std::fs::remove_file(&addresses).unwrap();
        assert_eq!(remove(&client, "inner").await.unwrap().id, made.id);
    });
}
