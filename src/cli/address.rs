//! Addresses on the command line: `127.0.0.1:8080`, `[::]:8080`, `:8080`, `app:8080`, `http://app:8080/`, `unix:/run/app.sock`.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use crate::proxy::Target;
use crate::reactor::Address;
use crate::sys::describe;

/// Bytes of a path that the address of a Unix socket has room for, and the NUL behind it.
const PATH_ROOM: usize = 108;

/// The path of a Unix socket, if the text is one.
fn unix(text: &str) -> Option<Result<Address, String>> {
    let path = text.strip_prefix("unix:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    Some(match path.len() {
        PATH_ROOM.. => {
            Err(format!("the path of a Unix socket has at most {} bytes: take a shorter one", PATH_ROOM - 1))
        }
        _ if path.starts_with('/') => Ok(Address::Unix(Path::new(path).into())),
        _ => Err("a Unix socket needs its whole path: write it like unix:/run/app.sock".to_owned()),
    })
}

/// A host, none if only a port was given, and its port.
fn parse(text: &str) -> Result<(Option<&str>, u16), String> {
    let (rest, default) = match text.split_once("://") {
        None => (text, None),
        Some(("http", rest)) => (rest.strip_suffix('/').unwrap_or(rest), Some("80")),
        Some(("https", _)) => {
            return Err("deadpeer speaks no TLS: put nginx, Caddy or HAProxy in front of it for clients of \
                        https, and take the port of the server that speaks http"
                .to_owned());
        }
        Some((scheme, _)) => {
            return Err(format!("`{scheme}` is not a scheme that deadpeer knows: take http://"));
        }
    };
    if rest.is_empty() {
        return Err("the address is empty: write it like 127.0.0.1:8080".to_owned());
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err(format!("`{text}` is more than a host and a port: leave its path and user out"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        _ if rest.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address stands in brackets: write [{rest}]:8080"));
        }
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => match default {
            Some(port) => (rest, port),
            None if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(format!(
                    "`{rest}` is a port without an address: write :{rest} for every address of this machine, or \
                     127.0.0.1:{rest}"
                ));
            }
            None => return Err(format!("`{text}` has no port: write it like {rest}:8080")),
        },
    };
    let port = port.parse().map_err(|_| format!("`{port}` is not a port: there are 0 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        if host.bytes().filter(|&byte| byte == b':').count() == 1 {
            return Err(format!("`{text}` has two ports: write it like {host}"));
        }
        return Err(format!("an IPv6 address stands in brackets: write [{host}]:{port}"));
    }
    Ok((Some(bare.unwrap_or(host)).filter(|host| !host.is_empty()), port))
}

/// An address to listen on. A port alone is every address of this machine.
pub(super) fn to_listen(text: &str) -> Result<Address, String> {
    unix(text).unwrap_or_else(|| to_listen_by_tcp(text))
}

/// As [`to_listen`], for a listener that needs TCP.
pub(super) fn to_listen_by_tcp(text: &str) -> Result<Address, String> {
    if unix(text).is_some() {
        return Err("a Unix socket has no silence to judge: its kernel tells every end at once".to_owned());
    }
    let (host, port) = parse(text)?;
    let every: SocketAddr = match takes_ipv4() && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        true => (Ipv6Addr::UNSPECIFIED, port).into(),
        false => (Ipv4Addr::UNSPECIFIED, port).into(),
    };
    host.map_or(Ok(every), |host| resolve(host, port)).map(Address::Ip)
}

/// What is to be connected to. A port alone is one of this machine.
pub(super) fn to_connect(text: &str) -> Result<Target, String> {
    if let Some(path) = unix(text) {
        return path.map(Target::Address);
    }
    match parse(text)? {
        (_, 0) => Err("port 0 is none to connect to: give the port of the server".to_owned()),
        (host, port) => {
            let host = host.unwrap_or("127.0.0.1");
            let address = host.parse().map(|ip| Target::Address(Address::Ip(SocketAddr::new(ip, port))));
            Ok(address.unwrap_or_else(|_| Target::Name(host.into(), port)))
        }
    }
}

/// The first address of a host.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut found = (host, port).to_socket_addrs().map_err(|error| {
        format!("{}; give an address and a port, as 127.0.0.1:7400 or [::1]:7400", describe(&error))
    })?;
    found.next().ok_or_else(|| format!("`{host}` has no address"))
}

/// Whether `[::]` takes IPv4 connections, too.
pub(super) fn takes_ipv4() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        let every = if takes_ipv4() { "[::]:8080" } else { "0.0.0.0:8080" };
        for (text, listened, connected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080", "[::1]:8080"),
            ("[::]:8080", "[::]:8080", "[::]:8080"),
            (":8080", every, "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1:80"),
            ("http://[::1]/", "[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(to_listen(text), Ok(Address::Ip(listened.parse().unwrap())), "{text}");
            let connected = Target::Address(Address::Ip(connected.parse().unwrap()));
            assert_eq!(to_connect(text), Ok(connected), "{text}");
        }
        assert_eq!(to_listen("127.0.0.1:0").unwrap().to_string(), "127.0.0.1:0");
        for text in ["unix:/run/a:b.sock", "unix:///run/a:b.sock"] {
            assert_eq!(to_listen(text).unwrap().to_string(), "unix:/run/a:b.sock");
            assert_eq!(to_connect(text), to_listen(text).map(Target::Address));
            assert!(to_listen_by_tcp(text).unwrap_err().contains("no silence to judge"));
        }
    }

    #[test]
    fn a_refusal_names_the_cure() {
        for (text, cure) in [
            ("https://app:8443", "nginx, Caddy or HAProxy in front"),
            ("ftp://app:21", "take http://"),
            ("http://app:80/api", "leave its path"),
            ("http://me@app:80", "leave its path and user"),
            ("8080", "write :8080 for every address of this machine, or 127.0.0.1:8080"),
            ("app", "write it like app:8080"),
            ("", "the address is empty: write it like 127.0.0.1:8080"),
            ("127.0.0.1:80:90", "has two ports: write it like 127.0.0.1:80"),
            ("::1", "write [::1]:8080"),
            ("fe80::1:2:3:4:5:6:7:8080", "write [fe80::1:2:3:4:5:6:7]:8080"),
            ("[::1]", "write it like [::1]:8080"),
            ("app:http", "there are 0 to 65535"),
            ("app:65536", "there are 0 to 65535"),
            ("unix:app.sock", "write it like unix:/run/app.sock"),
            ("unix:", "write it like unix:/run/app.sock"),
            (&format!("unix:/{}", "a".repeat(107)), "at most 107 bytes"),
        ] {
            for refusal in [to_listen(text).unwrap_err(), to_connect(text).unwrap_err()] {
                assert!(refusal.contains(cure), "{text}: {refusal}");
            }
        }
        assert!(to_listen("no such host:1").unwrap_err().contains("give an address and a port"));
        assert_eq!(to_connect("http://app/").unwrap().to_string(), "app:80");
        assert!(to_connect("127.0.0.1:0").unwrap_err().contains("the port of the server"));
    }
}
