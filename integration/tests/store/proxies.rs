//! Proxies, as the daemon's environment names them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use integration::registry::{Ca, Registry};
use integration::store::{Daemon, tempdir};

use crate::harness::{layer, publish};

/// What a proxy forwards to, whatever name it is asked for: without TLS, and by CONNECT.
#[derive(Clone, Copy)]
struct Behind {
    plain: SocketAddr,
    tls: SocketAddr,
}

/// A proxy for as long as the test runs, which writes down the first line of each request.
struct Proxy {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(behind: Behind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let hears = Arc::clone(&hears);
                // Who hangs up has got what he wanted.
                std::thread::spawn(move || drop(serve(client, behind, &hears)));
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn serve(client: TcpStream, behind: Behind, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let mut to = client;
    let (mut first, mut head) = (String::new(), String::new());
    from.read_line(&mut first)?;
    heard.lock().unwrap().push(first.trim_end().to_owned());
    while from.read_line(&mut head)? > 2 {}
    let words: Vec<&str> = first.split_whitespace().collect();
    if words[0] == "CONNECT" {
        let mut there = TcpStream::connect(behind.tls)?;
        to.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        let (mut back, mut into) = (there.try_clone()?, to);
        std::thread::spawn(move || std::io::copy(&mut back, &mut into).and_then(|_| into.shutdown(Shutdown::Write)));
        return std::io::copy(&mut from, &mut there).and_then(|_| there.shutdown(Shutdown::Write));
    }
    let path = words[1].strip_prefix("http://").and_then(|it| it.split_once('/')).expect("a whole address").1;
    let head: String =
        head.lines().filter(|it| !it.to_lowercase().starts_with("connection:")).map(|it| format!("{it}\r\n")).collect();
    let mut there = TcpStream::connect(behind.plain)?;
    // An answer ends with its connection: one for each, and nothing to be counted.
    write!(there, "{} /{path} HTTP/1.1\r\nConnection: close\r\n{head}", words[0])?;
    let mut answer = Vec::new();
    there.read_to_end(&mut answer)?;
    to.write_all(&answer)?;
    to.shutdown(Shutdown::Write)
}

#[test]
fn the_environment_says_who_is_reached_through_a_proxy() {
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    let (plain, secure) = (Registry::start(), Registry::start_at(loopback, Some(Ca::new().server(loopback, false))));
    for registry in [&plain, &secure] {
        publish(registry, "app", "1", &[layer(&[("a", b"a")])]);
    }
    let at = |registry: &Registry| SocketAddr::from(([127, 0, 0, 1], registry.port()));
    let proxy = Proxy::start(Behind { plain: at(&plain), tls: at(&secure) });
    let url = format!("http://{}", proxy.address);
    // It leads to this host, and is not one of the addresses that never need a proxy.
    let here = format!("0.0.0.0:{}/app:1", plain.port());
    let direct = plain.host() + "/app:1";
    let http = "--plain-http";
    for (what, environment, words, told) in [
        (
            "a name that only the proxy knows",
            vec![("HTTP_PROXY", &*url)],
            [http, "registry.test/app:1"],
            Some("http://registry.test/v2/app/"),
        ),
        (
            "in small letters",
            vec![("http_proxy", &*url)],
            [http, "registry.test/app:1"],
            Some("http://registry.test/v2/app/"),
        ),
        ("for all", vec![("ALL_PROXY", &*url)], [http, "registry.test/app:1"], Some("http://registry.test/v2/app/")),
        (
            "with TLS",
            vec![("HTTPS_PROXY", &*url)],
            ["--skip-verify", "registry.test/app:1"],
            Some("registry.test:443 "),
        ),
        ("the one for TLS is for TLS", vec![("HTTPS_PROXY", &*url)], [http, &here], None),
        ("an address", vec![("HTTP_PROXY", &*url)], [http, &here], Some("http://0.0.0.0:")),
        (
            "an address that needs none",
            vec![("HTTP_PROXY", &*url), ("NO_PROXY", "other.test,0.0.0.0")],
            [http, &here],
            None,
        ),
        ("a network that needs none", vec![("HTTP_PROXY", &*url), ("no_proxy", "0.0.0.0/8")], [http, &here], None),
        ("nobody needs one", vec![("HTTP_PROXY", &*url), ("NO_PROXY", "*")], [http, &here], None),
        (
            "another needs none",
            vec![("HTTP_PROXY", &*url), ("NO_PROXY", ".test")],
            [http, &here],
            Some("http://0.0.0.0:"),
        ),
        ("this host", vec![("HTTP_PROXY", &*url), ("ALL_PROXY", &*url)], [http, &direct], None),
    ] {
        let dir = tempdir();
        let store = Daemon::spawn(&dir, &[], |command| {
            for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
                command.env_remove(name).env_remove(name.to_lowercase());
            }
            command.envs(environment);
        });
        store.run(&[&["pull", "-q"], &words[..]].concat()).ok();
        let heard = proxy.heard();
        match told {
            Some(begin) => {
                assert!(
                    !heard.is_empty()
                        && heard.iter().all(|it| it.split_once(' ').is_some_and(|it| it.1.starts_with(begin))),
                    "{what}: {heard:?}"
                )
            }
            None => assert_eq!(heard, [""; 0], "{what}"),
        }
        store.stop();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
