//! Wrong wishes end in one sentence.

use super::*;

#[test]
fn wrong_wishes_end_in_one_sentence_before_anything_is_made() {
    bare_world(async |client| {
        made(&client, "there", |_| {}).await.unwrap();
        create(&client, &net("mine", "10.4.0.0/24")).await.unwrap();
        type Wish = fn(&mut Container);
        fn endpoint(record: &mut Container, network: &str, wish: fn(&mut Endpoint)) {
            network.clone_into(&mut record.host_config.network_mode);
            wish(record.networks.entry(network.to_owned()).or_default());
        }
        let wishes: [(Wish, &str); 29] = [
            (|it| it.host_config.network_mode = "nonet".to_owned(), "there is no network \"nonet\""),
            (|it| it.host_config.network_mode = "../../etc/x".to_owned(), "there is no network"),
            (|it| it.host_config.network_mode = "container:zz".to_owned(), "there is no container \"zz\""),
            (|it| endpoint(it, "bridge", |it| it.requested_ip = "172.17.0.9".to_owned()), "network create only"),
            (|it| endpoint(it, "bridge", |it| it.aliases = vec!["a".to_owned()]), "network create only"),
            (|it| endpoint(it, "host", |it| it.requested_ip = "1.2.3.4".to_owned()), "this one is host"),
            (|it| endpoint(it, "none", |it| it.requested_mac = "02:42:ac:11:00:02".to_owned()), "this one is none"),
            (
                |it| endpoint(it, "mine", |it| it.requested_ip = "9.9.9.9".to_owned()),
                "no host's address in the subnet 10.4.0.0/24",
            ),
            (|it| endpoint(it, "mine", |it| it.requested_ip = "10.4.0.1".to_owned()), "the gateway's"),
            (|it| endpoint(it, "mine", |it| it.requested_ip = "x".to_owned()), "is not an address"),
            (|it| endpoint(it, "mine", |it| it.requested_mac = "zz".to_owned()), "no MAC address"),
            (
                |it| endpoint(it, "mine", |it| it.aliases = vec!["a\n6.6.6.6 bank.example".to_owned()]),
                "cannot be an alias",
            ),
            (|it| it.host_config.extra_hosts = vec!["foo".to_owned()], "give name:address"),
            (|it| it.host_config.extra_hosts = vec!["foo:bar".to_owned()], "is no address"),
            (|it| it.host_config.extra_hosts = vec!["a\nb:1.2.3.4".to_owned()], "cannot be a host's name"),
            (|it| it.host_config.dns = vec!["x".to_owned()], "no address of a name server"),
            (|it| it.host_config.dns_search = vec!["a\nnameserver 6.6.6.6".to_owned()], "cannot be a search domain"),
            (|it| it.host_config.dns_options = vec!["a b".to_owned()], "no option of resolv.conf"),
            (|it| it.config.hostname = "a b".to_owned(), "cannot be the container's host name"),
            (|it| it.config.hostname = "x".repeat(65), "the kernel takes 64"),
            (|it| it.config.domainname = "a\nb".to_owned(), "cannot be the container's domain name"),
            (|it| it.host_config.links = vec!["zz:x".to_owned()], "there is no container \"zz\""),
            (|it| it.host_config.links = vec!["there:a\nb".to_owned()], "cannot be a link's alias"),
            (|it| publish_at(it, "80/tcp", "", "99999"), "1 to 65535"),
            (
                |it| {
                    it.host_config.network_mode = "host".to_owned();
                    it.host_config.links = vec!["there:x".to_owned()];
                },
                "--link and --network host exclude each other",
            ),
            (
                |it| {
                    it.host_config.network_mode = "container:there".to_owned();
                    publish_at(it, "80/tcp", "", "80");
                },
                "publishing ports and --network container:there exclude each other",
            ),
            (
                |it| {
                    it.host_config.network_mode = "container:there".to_owned();
                    it.config.hostname = "x".to_owned();
                },
                "--hostname and --network container:there",
            ),
            (
                |it| {
                    it.host_config.network_mode = "mine".to_owned();
                    it.host_config.links = vec!["there:x".to_owned()];
                },
                "there is in none of the container's networks",
            ),
            (
                |it| {
                    it.host_config.network_mode = "bridge".to_owned();
                    it.networks.insert("host".to_owned(), Endpoint::default());
                },
                "can only be had alone",
            ),
        ];
        for (wish, said) in wishes {
            let error = made(&client, "wrong", wish).await.expect_err(said);
            assert!(error.message.contains(said) && !error.message.contains('\n'), "{said}: {error}");
            assert_eq!(error.exit_code(), 125);
        }
        let bad = |wish: fn(&mut Create)| {
            let mut wishes = Create { name: "fine".to_owned(), ..Create::default() };
            wish(&mut wishes);
            wishes
        };
        for (wishes, said) in [
            (bad(|it| it.name = "a/b".to_owned()), "cannot name a network"),
            (bad(|it| it.name = "host".to_owned()), "predefined"),
            (bad(|it| it.name = "mine".to_owned()), "already a network mine"),
            (bad(|it| it.driver = "zz".to_owned()), "no network driver \"zz\""),
            (bad(|it| it.ipv6 = true), "IPv4 only"),
            (bad(|it| it.subnets = vec!["10.4.0.0/16".to_owned()]), "overlaps with that of the network mine"),
            (bad(|it| it.subnets = vec!["10.0.0.1".to_owned()]), "is not a subnet"),
            (bad(|it| it.subnets = vec!["10.1.0.0/24".to_owned(), "10.2.0.0/24".to_owned()]), "give --subnet once"),
            (bad(|it| it.gateways = vec!["10.0.0.1".to_owned()]), "give it with --subnet"),
            (
                bad(|it| {
                    it.subnets = vec!["10.1.0.0/24".to_owned()];
                    it.gateways = vec!["10.2.0.1".to_owned()];
                }),
                "the gateway 10.2.0.1 is no host's address",
            ),
            (
                bad(|it| {
                    it.subnets = vec!["10.1.0.0/24".to_owned()];
                    it.ip_ranges = vec!["10.2.0.0/24".to_owned()];
                }),
                "no part of the subnet",
            ),
            (bad(|it| drop(it.options.insert(record::BRIDGE_NAME.to_owned(), "x; reboot".to_owned()))), "cannot name"),
            (bad(|it| drop(it.options.insert(record::BRIDGE_NAME.to_owned(), "sixteen-letters-".to_owned()))), "15"),
            (bad(|it| drop(it.options.insert(record::MTU.to_owned(), "big".to_owned()))), "number of bytes"),
        ] {
            let error = create(&client, &wishes).await.expect_err(said);
            assert!(error.message.contains(said), "{said}: {error}");
        }
        for (name, said) in [("bridge", "predefined"), ("zz", "there is no network")] {
            assert!(remove(&client, name).await.unwrap_err().message.contains(said));
        }
        assert_eq!(list(&client).unwrap().len(), 4);
        assert!(!client.paths.run.join("netns").try_exists().unwrap() && ids_are_none(&client));
    });
}

fn ids_are_none(client: &Client) -> bool {
    journal::ids(&client.paths).unwrap().is_empty()
}

#[test]
fn without_plugins_a_sentence_names_the_package() {
    let error = cni::Plugins::at("/nowhere:/nor-here").need(&["bridge"]).unwrap_err();
    assert!(
        error.message.contains("containernetworking-plugins") && error.message.contains("--network host"),
        "{error}"
    );
}
