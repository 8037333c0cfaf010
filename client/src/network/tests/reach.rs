//! Who reaches whom: the default network, networks apart, those without plugins, and one that is connected later.

use super::*;

#[test]
fn the_default_network_connects_containers_with_each_other_and_the_world() {
    in_world(async |client| {
        let mut one = started(&client, "one", |record| record.config.hostname = "web.example.com".to_owned()).await;
        let mut two = started(&client, "two", |_| {}).await;
        let (first, second) = (one.networks["bridge"].clone(), two.networks["bridge"].clone());
        assert_eq!((first.ip_address.as_str(), second.ip_address.as_str()), ("172.17.0.2", "172.17.0.3"));
        assert_eq!((first.gateway.as_str(), first.ip_prefix_len, first.interface.as_str()), ("172.17.0.1", 16, "eth0"));
        assert_eq!(first.network_id, list(&client).unwrap()[0].id);
        let route = inside(&client, &one, || Ok(output("ip", &["route", "show", "default"])));
        assert!(route.contains("via 172.17.0.1 dev eth0"), "{route}");
        let mac = inside(&client, &one, || Ok(output("ip", &["-o", "link", "show", "eth0"])));
        assert!(mac.contains(&first.mac_address), "{mac}");
        // From one to the other, and from the host.
        let server = inside(&client, &two, || TcpListener::bind("0.0.0.0:80"));
        inside(&client, &one, || TcpStream::connect("172.17.0.3:80"));
        server.accept().unwrap();
        assert_eq!(talk(&server, ("172.17.0.3", 80)), "hello");
        // docker's files, to the letter.
        assert_eq!(
            hosts(&client, &one),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n172.17.0.2\tweb.example.com web\n"
        );
        assert!(hosts(&client, &two).ends_with(&format!("\n172.17.0.3\t{}\n", &two.id[..12])));
        assert_eq!(std::fs::read_to_string(files(&client, &one).hostname).unwrap(), "web.example.com\n");
        // What docker sets.
        let read = |file: &'static str| inside(&client, &one, move || std::fs::read_to_string(file));
        assert_eq!(read("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
        assert_eq!(read("/proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
        assert_eq!(problems(&client, "bridge").await.unwrap(), []);
        // What somebody took away is missed, and the rest given back all the same.
        inside(&client, &two, || Ok(output("ip", &["address", "flush", "dev", "eth0"])));
        let missed = problems(&client, "bridge").await.unwrap();
        assert!(missed.len() == 1 && missed[0].message.contains("the container two: "), "{missed:?}");
        drop(server);
        detach(&client, &mut one).await.unwrap();
        detach(&client, &mut one).await.unwrap();
        assert_eq!(one.networks["bridge"].ip_address, "");
        detach(&client, &mut two).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn networks_are_apart_and_an_internal_one_has_no_way_out() {
    in_world(async |client| {
        create(&client, &net("left", "10.6.0.0/24")).await.unwrap();
        create(&client, &Create { internal: true, ..net("inner", "10.7.0.0/24") }).await.unwrap();
        let (mut one, mut two) =
            (started(&client, "one", |_| {}).await, started(&client, "two", in_network("left")).await);
        let mut three = started(&client, "three", in_network("inner")).await;
        let server = inside(&client, &two, || TcpListener::bind("0.0.0.0:80"));
        let reaches = |from: &Container, at: &str| {
            let at = at.parse().unwrap();
            inside(&client, from, move || Ok(TcpStream::connect_timeout(&at, Duration::from_millis(300)).is_ok()))
        };
        assert!(!reaches(&one, "10.6.0.2:80"), "another network's container is reached");
        assert_eq!(inside(&client, &three, || Ok(output("ip", &["route", "show", "default"]))), "");
        assert_eq!(three.networks["inner"].gateway, "");
        assert!(!reaches(&three, "10.6.0.2:80"));
        // A socket keeps its namespace.
        drop(server);
        for record in [&mut one, &mut two, &mut three] {
            detach(&client, record).await.unwrap();
        }
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    in_world(async |client| {
        create(&client, &net("side", "10.8.0.0/24")).await.unwrap();
        let web = started(&client, "web", |record| publish_at(record, "80/tcp", "", "8080")).await;
        let peer = started(&client, "peer", in_network("side")).await;
        let wishes = Connect { ip: "10.8.0.9".to_owned(), aliases: vec!["www".to_owned()] };
        connect(&client, "side", "web", &wishes).await.unwrap();
        let saved = records::load(&client, &web.id).unwrap();
        assert_eq!(
            (saved.networks["side"].ip_address.as_str(), saved.networks["side"].interface.as_str()),
            ("10.8.0.9", "eth1")
        );
        assert!(hosts(&client, &peer).contains("10.8.0.9\tweb www "), "{}", hosts(&client, &peer));
        assert!(hosts(&client, &web).contains("10.8.0.2\tpeer "), "{}", hosts(&client, &web));
        let route = || inside(&client, &web, || Ok(output("ip", &["route", "show", "default"])));
        assert!(route().contains("172.17.0.1"), "{}", route());
        let error = connect(&client, "side", "web", &Connect::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        // The way out and the port go over the network that stays.
        disconnect(&client, "bridge", "web", false).await.unwrap();
        assert!(route().contains("10.8.0.1 dev eth1"), "{}", route());
        let server = inside(&client, &web, || TcpListener::bind("0.0.0.0:80"));
        assert_eq!(talk(&server, ("127.0.0.1", 8080)), "hello");
        disconnect(&client, "side", "web", false).await.unwrap();
        assert!(!hosts(&client, &peer).contains("www"), "{}", hosts(&client, &peer));
        let mut saved = records::load(&client, &web.id).unwrap();
        assert!(saved.networks.is_empty() && saved.ports.is_empty());
        assert_eq!(disconnect(&client, "side", "web", false).await.unwrap_err().kind, Kind::NotFound);
        drop(server);
        detach(&client, &mut saved).await.unwrap();
        // One that does not run is only written down.
        connect(&client, "side", "web", &wishes).await.unwrap();
        let mut saved = records::load(&client, &web.id).unwrap();
        attach(&client, &mut saved).await.unwrap();
        assert_eq!(saved.networks["side"].ip_address, "10.8.0.9");
        let mut peer = peer;
        detach(&client, &mut peer).await.unwrap();
        detach(&client, &mut saved).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn host_none_and_anothers_network_need_no_plugin() {
    bare_world(async |client| {
        let mut host = made(&client, "host", in_network("host")).await.unwrap();
        attach(&client, &mut host).await.unwrap();
        assert_eq!((namespace(&client, &host).unwrap(), attached(&client, &host.id)), (None, false));
        assert_eq!(hosts(&client, &host), std::fs::read_to_string("/etc/hosts").unwrap());
        assert_eq!(host.config.hostname, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
        let mut alone = started(&client, "alone", in_network("none")).await;
        let links = inside(&client, &alone, || Ok(output("ip", &["-o", "link"])));
        assert!(links.lines().count() == 1 && links.contains("LOOPBACK,UP"), "{links}");
        let mut guest = started(&client, "guest", in_network("container:alone")).await;
        assert_eq!(guest.host_config.network_mode, format!("container:{}", alone.id));
        assert_eq!(namespace(&client, &guest).unwrap(), namespace(&client, &alone).unwrap());
        assert_eq!((files(&client, &guest), &guest.config.hostname), (files(&client, &alone), &alone.config.hostname));
        detach(&client, &mut guest).await.unwrap();
        detach(&client, &mut alone).await.unwrap();
        let error = attach(&client, &mut guest).await.unwrap_err();
        assert!(error.message.contains("alone does not run"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
    });
}
