//! Published ports.

use std::net::UdpSocket;

use super::*;

#[test]
fn published_ports_are_reached_from_the_host_and_from_outside_and_go_with_the_container() {
    in_world(async |client| {
        // Somebody outside, behind a router that is this host.
        output(
            "sh",
            &[
                "-c",
                "ip link add out0 type veth peer name out1 && ip address add 10.99.0.1/24 dev out0 && ip link set out0 up",
            ],
        );
        let far = client.paths.run.join("far");
        namespace::make(&far).unwrap();
        output("ip", &["link", "set", "out1", "netns", far.to_str().unwrap()]);
        let up = || {
            Ok(output(
                "sh",
                &[
                    "-c",
                    "ip address add 10.99.0.2/24 dev out1 && ip link set out1 up && ip route add default via 10.99.0.1",
                ],
            ))
        };
        namespace::inside(&far, up).unwrap();
        let mut web = started(&client, "web", |record| {
            publish_at(record, "80/tcp", "", "8080");
            publish_at(record, "53/udp", "", "5353");
            publish_at(record, "81/tcp", "127.0.0.1", "");
            record.host_config.publish_all_ports = true;
            record.config.exposed_ports.insert("443/tcp".to_owned(), serde_json::json!({}));
        })
        .await;
        let shown: Vec<String> =
            web.ports.iter().map(|(key, it)| format!("{key}={}:{}", it[0].host_ip, it[0].host_port)).collect();
        assert!(
            shown.contains(&"80/tcp=0.0.0.0:8080".to_owned()) && shown.contains(&"53/udp=0.0.0.0:5353".to_owned()),
            "{shown:?}"
        );
        assert_eq!(shown.len(), 4);
        let server = inside(&client, &web, || TcpListener::bind("0.0.0.0:80"));
        assert_eq!(talk(&server, ("127.0.0.1", 8080)), "hello");
        assert_eq!(talk(&server, ("10.99.0.1", 8080)), "hello");
        namespace::inside(&far, || TcpStream::connect_timeout(&"10.99.0.1:8080".parse().unwrap(), PATIENCE)).unwrap();
        assert_eq!(server.accept().unwrap().1.ip().to_string(), "10.99.0.2", "the server sees who asks");
        // The container itself, by the host's address.
        inside(&client, &web, || TcpStream::connect_timeout(&"10.99.0.1:8080".parse().unwrap(), PATIENCE));
        server.accept().unwrap();
        let local: u16 = web.ports["81/tcp"][0].host_port.parse().unwrap();
        let second = inside(&client, &web, || TcpListener::bind("0.0.0.0:81"));
        assert_eq!(talk(&second, ("127.0.0.1", local)), "hello");
        // What is not published is not reached from outside, though this host routes.
        let direct = format!("{}:81", web.networks["bridge"].ip_address).parse().unwrap();
        let refused =
            namespace::inside(&far, || Ok(TcpStream::connect_timeout(&direct, Duration::from_millis(300)).is_err()));
        assert!(refused.unwrap(), "a port that is not published is open to the world");
        let udp = inside(&client, &web, || UdpSocket::bind("0.0.0.0:53"));
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let asker = namespace::inside(&far, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        asker.set_read_timeout(Some(PATIENCE)).unwrap();
        asker.connect("10.99.0.1:5353").unwrap();
        asker.send(b"who").unwrap();
        let mut packet = [0; 16];
        let (length, from) = udp.recv_from(&mut packet).unwrap();
        assert_eq!(&packet[..length], b"who");
        udp.send_to(b"me", from).unwrap();
        let length = asker.recv(&mut packet).unwrap();
        assert_eq!(&packet[..length], b"me");
        // The container gets out, with the host's address.
        let outside = namespace::inside(&far, || TcpListener::bind("0.0.0.0:7")).unwrap();
        inside(&client, &web, || TcpStream::connect_timeout(&"10.99.0.2:7".parse().unwrap(), PATIENCE));
        assert_eq!(outside.accept().unwrap().1.ip().to_string(), "10.99.0.1");
        // Another cannot have the port.
        let mut other =
            made(&client, "other", |record| publish_at(record, "80/tcp", "127.0.0.1", "8080")).await.unwrap();
        let error = attach(&client, &mut other).await.unwrap_err();
        assert!(error.message.contains("already published by the container web"), "{error}");
        assert_eq!(port(&client, "web", Some("80")).await.unwrap()[0].1.host_port, "8080");
        assert!(port(&client, "web", Some("82")).await.unwrap_err().message.contains("not published"));
        // A socket keeps its namespace.
        drop((server, second, udp, asker, outside));
        detach(&client, &mut web).await.unwrap();
        attach(&client, &mut other).await.unwrap();
        detach(&client, &mut other).await.unwrap();
        namespace::remove(&far).unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}
