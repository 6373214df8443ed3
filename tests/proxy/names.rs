//! Upstreams by name: all their addresses, also new ones.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::outcome::{Outcome, deadpeer};
use crate::peer::Peer;
use crate::program::{Proxy, assert_told, engines};
use crate::skip::skip;
use crate::upstream::answer;

/// A table of hosts that only the programs of a test see.
struct Hosts {
    table: PathBuf,
    servers: PathBuf,
}

impl Hosts {
    fn new(io: &str) -> Option<Hosts> {
        if !Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|out| out.status.success()) {
            skip("a namespace of mounts needs root, and `unshare`");
            return None;
        }
        let file = |name: &str, text: &str| {
            let path = PathBuf::from(format!("{}/{name}-{io}", env!("CARGO_TARGET_TMPDIR")));
            fs::write(&path, text).unwrap();
            path
        };
        // No name server answers at this address.
        Some(Hosts { table: file("hosts", ""), servers: file("resolv.conf", "nameserver 127.0.0.1\n") })
    }

    /// `app.test` has these addresses from now on.
    fn set(&self, hosts: &[u8]) {
        let lines: Vec<_> = hosts.iter().map(|host| format!("127.0.0.{host} app.test\n")).collect();
        // At one go and always as long: nobody is to read a part of it.
        let table = fs::File::options().write(true).open(&self.table).unwrap();
        table.write_all_at(format!("{:\n<200}", lines.concat()).as_bytes(), 0).unwrap();
    }

    /// `deadpeer` with these arguments, where the table holds.
    fn command(&self, line: &str) -> Command {
        let script = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            self.table.display(),
            self.servers.display()
        );
        let program = deadpeer(line);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(program.get_program());
        command.args(program.get_args());
        command
    }
}

/// Servers on 127.0.0.2 to 127.0.0.5, at the same port, that answer with their last digit.
fn servers() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for host in 2..=5 {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut request = [0; 4_096];
                    while stream.read(&mut request).is_ok_and(|count| count > 0) {
                        stream.write_all(answer(&host.to_string()).as_bytes()).unwrap();
                    }
                });
            }
        });
    }
    port
}

/// Which servers answer these clients.
fn answering(clients: &mut [Peer]) -> Vec<u8> {
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut hosts: Vec<_> = clients.iter_mut().map(|client| client.message().1[0] - b'0').collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

#[test]
fn a_name_is_all_its_addresses_and_those_that_it_gets_and_keeps_them_while_it_cannot_be_resolved() {
    for (io, pool) in engines().into_iter().flat_map(|io| [(io, "--pool 0"), (io, "")]) {
        let Some(hosts) = Hosts::new(io) else { return };
        let port = servers();
        let addresses = |hosts: &[u8]| -> Value {
            hosts.iter().map(|host| format!("127.0.0.{host}:{port}")).collect::<Vec<_>>().into()
        };
        hosts.set(&[2, 3]);
        let mut proxy = Proxy::of(
            io,
            hosts.command(&format!(
                "proxy --io {io} --threads 2 --listen 127.0.0.1:{port} --events - --drain 0s \
                 --upstream http://app.test:{port}/ --upstream 127.0.0.5:{port} --resolve-every 20ms {pool}"
            )),
        );
        let name = format!("app.test:{port}");
        let listening = proxy.daemon.wait_for("listening");
        assert_told(&listening, &json!({ "upstreams": [name, format!("127.0.0.5:{port}")] }));
        let told = |proxy: &mut Proxy, event: &str, hosts: &[u8]| {
            let addresses = addresses(hosts);
            proxy.daemon.wait(|value| value["event"] == event && value["addresses"] == addresses)
        };
        told(&mut proxy, "resolved", &[2, 3]);
        let mut clients: Vec<_> = (0..12).map(|_| Peer::connect(proxy.address)).collect();
        assert_eq!(answering(&mut clients), [2, 3, 5], "{io}");
        hosts.set(&[3, 4]);
        told(&mut proxy, "resolved", &[3, 4]);
        assert_eq!(answering(&mut clients), [3, 4, 5], "{io}");
        hosts.set(&[]);
        let failed = told(&mut proxy, "not_resolved", &[3, 4]);
        assert_eq!(failed["name"], name, "{io}");
        assert!(failed["error"].as_str().unwrap().contains("resolution"), "{io}: {failed}");
        assert_eq!(answering(&mut clients), [3, 4, 5], "{io}");
        hosts.set(&[2]);
        told(&mut proxy, "resolved", &[2]);
        assert_eq!(answering(&mut clients), [2, 5], "{io}");
        // It would be its own server.
        hosts.set(&[1, 2]);
        proxy.daemon.wait(|value| value["event"] == "not_resolved" && value["addresses"] == addresses(&[2]));
        assert_eq!(answering(&mut clients), [2, 5], "{io}");
        let tellings = |proxy: &Proxy, event: &str| {
            proxy.daemon.seen.iter().filter(|value| value["event"] == event).count()
        };
        assert_eq!(tellings(&proxy, "not_resolved"), 2, "{io}: told once");
        assert_eq!(tellings(&proxy, "resolved"), 3, "{io}: {:#?}", proxy.daemon.seen);
        drop(clients);
        proxy.finish_undisturbed(60);
    }
}

#[test]
fn a_name_without_an_address_is_refused_at_the_start() {
    let Some(hosts) = Hosts::new("none") else { return };
    Outcome::of(&mut hosts.command("proxy --upstream app.test:80"))
        .assert_refusal(1, &["cannot resolve the upstream app.test:80", "name server"]);
    hosts.set(&[1]);
    Outcome::of(&mut hosts.command("proxy --upstream app.test:18081 --listen 127.0.0.1:18081"))
        .assert_refusal(2, &["the upstream 127.0.0.1:18081", "connect to itself"]);
}
