//! From a host's name to its addresses, without the C library: a static program must not call its resolver, which loads
//! modules. What is read are the usual files, each time anew: /etc/hosts, /etc/resolv.conf.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use domain::base::Name;
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::{ResolvConf, SearchSuffix, ServerConf, Transport};

/// What of /etc/hosts and /etc/resolv.conf is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The addresses of a host, in the order in which they are to be tried; never none.
pub(super) async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = IpAddr::from_str(host) {
        return Ok(vec![address]);
    }
    if is_localhost(host) {
        // RFC 6761, 6.3: whatever a file or a server says.
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let name = host.to_owned();
    let read = move || -> io::Result<_> {
        let hosts = read(Path::new("/etc/hosts"))?;
        Ok((in_hosts(&hosts, &name), configuration(&read(Path::new("/etc/resolv.conf"))?)))
    };
    let (known, configuration) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
    if !known.is_empty() {
        return Ok(known);
    }
    let found = ask(host, configuration).await?;
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
    }
    Ok(found)
}

/// `localhost` and names below it.
pub(super) fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io::Error::new(error.kind(), format!("read {}: {error}", path.display()))),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What hosts(5) says of a name.
fn in_hosts(text: &str, wanted: &str) -> Vec<IpAddr> {
    let wanted = wanted.trim_end_matches('.');
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(wanted)).then_some(address)
        })
        .collect()
}

/// What resolv.conf(5) says, as far as it matters here.
fn configuration(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::new();
    let mut search: Vec<SearchSuffix> = Vec::new();
    let mut timeout = Duration::from_secs(5);
    let mut servers: Vec<IpAddr> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            // At most three, as for everybody.
            Some("nameserver") if servers.len() < 3 => {
                servers.extend(words.next().and_then(|it| it.parse::<IpAddr>().ok()))
            }
            // The last one counts.
            Some("search" | "domain") => search = words.take(6).filter_map(|it| it.parse().ok()).collect(),
            Some("options") => {
                for (name, value) in words.filter_map(|it| it.split_once(':')) {
                    match (name, value.parse::<u8>()) {
                        ("ndots", Ok(value)) => conf.options.ndots = usize::from(value.min(15)),
                        ("timeout", Ok(value)) => timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
                        ("attempts", Ok(value)) => conf.options.attempts = usize::from(value.clamp(1, 5)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    conf.servers = servers.into_iter().map(|it| ServerConf::new((it, 53).into(), Transport::UdpTcp)).collect();
    for server in &mut conf.servers {
        server.request_timeout = timeout;
    }
    conf.options.timeout = timeout;
    for suffix in search {
        conf.options.search.push(suffix);
    }
    conf
}

/// Asks for the name as it is and with each suffix of the search list; which goes first says `ndots`.
async fn ask(host: &str, conf: ResolvConf) -> io::Result<Vec<IpAddr>> {
    let suffixes: Vec<String> = if host.ends_with('.') {
        Vec::new()
    } else {
        conf.options.search.as_slice().iter().map(|it| format!("{host}.{it}")).collect()
    };
    let whole = std::iter::once(host.to_owned());
    let names: Vec<String> = if host.matches('.').count() >= conf.options.ndots {
        whole.chain(suffixes).collect()
    } else {
        suffixes.into_iter().chain(whole).collect()
    };
    let resolver = StubResolver::from_conf(conf);
    let mut failure = None;
    for name in names {
        let Ok(name) = Name::<Vec<u8>>::from_str(&name) else { continue };
        match resolver.lookup_host(name).await {
            Ok(found) if !found.is_empty() => return Ok(found.iter().collect()),
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(Vec::new()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(what: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
    }

    #[test]
    fn addresses_and_localhost_need_nobody() {
        block_on(async {
            assert_eq!(resolve("192.0.2.7").await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
            assert_eq!(resolve("[2001:db8::1]").await.unwrap().len(), 1);
            for name in ["localhost", "LOCALHOST.", "a.localhost"] {
                assert!(resolve(name).await.unwrap().iter().all(IpAddr::is_loopback), "{name}");
            }
        });
    }

    #[test]
    fn the_files_are_read_as_everybody_reads_them() {
        let hosts = "127.0.0.1 localhost\n192.0.2.1\tregistry.example  r # comment r2\n# 192.0.2.9 r\n::1 r\nx r\n";
        let found = in_hosts(hosts, "R");
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1]), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert!(in_hosts(hosts, "r2").is_empty());

        let conf = configuration(
            "; c\ndomain x.example\nnameserver 192.0.2.53\nnameserver nonsense\nnameserver fe80::1%eth0\n\
             search a.example b.example\noptions ndots:2 timeout:1 attempts:1 rotate\n",
        );
        assert_eq!(conf.servers.len(), 1);
        assert_eq!(conf.servers[0].addr.to_string(), "192.0.2.53:53");
        assert_eq!((conf.options.ndots, conf.options.attempts, conf.options.search.len()), (2, 1, 2));
        assert_eq!(configuration("").servers[0].addr.to_string(), "127.0.0.1:53");
    }

    /// A name server of our own, on loopback, that knows one name behind the search list.
    #[test]
    fn a_name_server_is_asked_with_the_search_list() {
        use domain::base::iana::{Rcode, Rtype};
        use domain::base::{Message, MessageBuilder, Name};
        block_on(async {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            tokio::spawn(async move {
                let mut packet = [0; 2048];
                loop {
                    let (size, peer) = socket.recv_from(&mut packet).await.unwrap();
                    let query = Message::from_octets(packet[..size].to_vec()).unwrap();
                    let question = query.first_question().unwrap();
                    let known = question.qname().to_string() == "registry.a.example";
                    let code = if known { Rcode::NOERROR } else { Rcode::NXDOMAIN };
                    let mut answer = MessageBuilder::new_vec().start_answer(&query, code).unwrap();
                    if known && question.qtype() == Rtype::A {
                        let name: Name<Vec<u8>> = question.qname().to_string().parse().unwrap();
                        answer.push((name, 60, domain::rdata::A::from_octets(192, 0, 2, 44))).unwrap();
                    }
                    socket.send_to(&answer.finish(), peer).await.unwrap();
                }
            });
            let mut conf = configuration("search nowhere.example a.example\noptions timeout:5\n");
            conf.servers = vec![ServerConf::new(address, Transport::UdpTcp)];
            assert_eq!(ask("registry", conf.clone()).await.unwrap(), [IpAddr::from([192, 0, 2, 44])]);
            assert!(ask("other", conf.clone()).await.unwrap().is_empty());
            assert!(ask("registry.", conf).await.unwrap().is_empty());
        });
    }
}
