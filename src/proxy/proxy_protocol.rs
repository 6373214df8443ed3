//! The PROXY protocol (HAProxy's specification of it, versions 1 and 2): the address of the client that a connection serves.

use std::net::{IpAddr, SocketAddr};

use crate::limits::MAX_PROXY_HEADER;

/// The version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    /// A line of text.
    V1,
    /// The binary header of version 2.
    V2,
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

impl SendProxy {
    /// The header for a client and the address that it connected to. A client of a Unix socket has none.
    pub(super) fn header(self, client: Option<SocketAddr>, local: Option<SocketAddr>) -> Vec<u8> {
        let local = local.map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()));
        let both = client.zip(local).filter(|(client, local)| local.is_ipv4() == client.is_ipv4());
        match self {
            SendProxy::V1 => match both {
                Some((client, local)) => {
                    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                    let [from, to] = [client, local].map(|address| address.ip());
                    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
                }
                None => b"PROXY UNKNOWN\r\n".to_vec(),
            },
            SendProxy::V2 => {
                let mut header = SIGNATURE.to_vec();
                header.push(0x21); // version 2, command PROXY
                let Some((client, local)) = both else {
                    header.extend([0x00, 0, 0]);
                    return header;
                };
                let mut addresses = Vec::with_capacity(36);
                for address in [client, local] {
                    match address.ip() {
                        IpAddr::V4(ip) => addresses.extend(ip.octets()),
                        IpAddr::V6(ip) => addresses.extend(ip.octets()),
                    }
                }
                for address in [client, local] {
                    addresses.extend(address.port().to_be_bytes());
                }
                header.push(if client.is_ipv4() { 0x11 } else { 0x21 });
                header.extend((addresses.len() as u16).to_be_bytes());
                header.extend(addresses);
                header
            }
        }
    }
}

words! {
    /// Why a connection does not begin with a PROXY header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ProxyFault {
        /// Something else came.
        Missing = "missing",
        /// It is not as the specification has it.
        Malformed = "malformed",
        /// It has more than [`MAX_PROXY_HEADER`] bytes.
        TooLong = "too_long",
        /// It did not become whole in time.
        Timeout = "timeout",
        /// The memory for requests is used up.
        RequestMemory = "request_memory",
    }
}

/// The client that a header names, and the address that it had connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the load balancer listens on.
    pub local: SocketAddr,
}

/// A header, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// It is not complete.
    Partial,
    /// It is complete.
    Whole {
        /// Whom it names. None if the load balancer speaks for itself (LOCAL), does not know its client (UNKNOWN), or has it
        /// on a Unix socket.
        named: Option<Named>,
        /// Its length in bytes.
        length: usize,
    },
    /// There is none.
    Not(ProxyFault),
}

/// The most bytes of a line of version 1, with its end.
const MAX_LINE: usize = 107;

impl ProxyHeader {
    /// Reads the header that these bytes begin with. Each call brings the bytes of the call before, and more.
    #[must_use]
    pub fn read(bytes: &[u8]) -> ProxyHeader {
        let begins = |whole: &[u8]| bytes.iter().zip(whole).all(|(byte, expected)| byte == expected);
        match () {
            () if bytes.is_empty() => ProxyHeader::Partial,
            () if begins(b"PROXY ") => read_line(bytes),
            () if begins(&SIGNATURE) => read_binary(bytes),
            () => ProxyHeader::Not(ProxyFault::Missing),
        }
    }
}

fn read_line(bytes: &[u8]) -> ProxyHeader {
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else {
        return if line.len() < MAX_LINE {
            ProxyHeader::Partial
        } else {
            ProxyHeader::Not(ProxyFault::Malformed)
        };
    };
    match line[..end].strip_suffix(b"\r").and_then(|line| parse_line(std::str::from_utf8(line).ok()?)) {
        Some(named) => ProxyHeader::Whole { named, length: end + 1 },
        None => ProxyHeader::Not(ProxyFault::Malformed),
    }
}

/// What a line names, if it is one of the specification.
fn parse_line(line: &str) -> Option<Option<Named>> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None); // whatever follows
    }
    let words: Vec<&str> = words.collect();
    let [from, to, from_port, to_port] = words[..] else { return None };
    let ip = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).ok(),
        "TCP6" => text.parse().map(IpAddr::V6).ok(),
        _ => None,
    };
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    Some(Some(named([(ip(from)?, port(from_port)?), (ip(to)?, port(to_port)?)])))
}

fn named(addresses: [(IpAddr, u16); 2]) -> Named {
    let [client, local] = addresses.map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
    Named { client, local }
}

fn read_binary(bytes: &[u8]) -> ProxyHeader {
    let Some(&[version, family, high, low]) = bytes.get(12..16).and_then(|four| four.first_chunk()) else {
        return ProxyHeader::Partial;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    // What the load balancer says beside the addresses comes behind them.
    let addresses = match (version, family) {
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11 | 0x12) => 12,
        (0x21, 0x21 | 0x22) => 36,
        (0x21, 0x31 | 0x32) => 216,
        _ => return ProxyHeader::Not(ProxyFault::Malformed),
    };
    if length > MAX_PROXY_HEADER {
        return ProxyHeader::Not(ProxyFault::TooLong);
    }
    if length < 16 + addresses {
        return ProxyHeader::Not(ProxyFault::Malformed);
    }
    let Some(body) = bytes.get(16..length) else { return ProxyHeader::Partial };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let named = match addresses {
        12 => {
            let ip = |at: usize| IpAddr::from([body[at], body[at + 1], body[at + 2], body[at + 3]]);
            Some(named([(ip(0), port(8)), (ip(4), port(10))]))
        }
        36 => {
            let ip =
                |at: usize| IpAddr::from(<[u8; 16]>::try_from(&body[at..at + 16]).expect("sixteen bytes"));
            Some(named([(ip(0), port(32)), (ip(16), port(34))]))
        }
        _ => None,
    };
    ProxyHeader::Whole { named, length }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TLV: &[u8] = b"\x03\0\x04\xfd\x16\xc7\x04\x20\0\x02hi";

    fn whole(from: &str, to: &str, length: usize) -> ProxyHeader {
        ProxyHeader::Whole { named: Some(Named { client: address(from), local: address(to) }), length }
    }

    /// A header of version 2.
    fn binary(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads what must be the same however it is cut, and whatever comes behind.
    #[track_caller]
    fn read(bytes: &[u8]) -> ProxyHeader {
        let read = ProxyHeader::read(bytes);
        let ends = match read {
            ProxyHeader::Whole { length, .. } => length,
            ProxyHeader::Partial => bytes.len() + 1,
            ProxyHeader::Not(_) => (0..=bytes.len())
                .find(|&cut| ProxyHeader::read(&bytes[..cut]) != ProxyHeader::Partial)
                .unwrap(),
        };
        for cut in 0..=bytes.len() {
            let expected = if cut < ends { ProxyHeader::Partial } else { read };
            assert_eq!(ProxyHeader::read(&bytes[..cut]), expected, "cut at {cut}");
        }
        if read != ProxyHeader::Partial {
            assert_eq!(ProxyHeader::read(&[bytes, b"\r\nGET"].concat()), read, "with more behind it");
        }
        read
    }

    #[test]
    fn headers_that_the_specification_allows_are_read() {
        let [four, six] = ["192.0.2.7:50000", "[2001:db8::7]:1"];
        let [to_four, to_six] = ["192.0.2.1:443", "[2001:db8::1]:2"];
        let nobody = |length| ProxyHeader::Whole { named: None, length };
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n", whole(four, to_four, 42)),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", whole(six, to_six, 40)),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 50000 443\r\n", whole(four, to_four, 56)),
            (
                "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
                whole("0.0.0.0:0", "255.255.255.255:65535", 44),
            ),
            ("PROXY UNKNOWN\r\n", nobody(15)),
            ("PROXY UNKNOWN what ever this is\r\n", nobody(33)),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", nobody(59)),
        ] {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        }
        let addresses4 = [192, 0, 2, 7, 192, 0, 2, 1, 0xC3, 0x50, 1, 0xBB];
        let mut addresses6 = Vec::new();
        for address in [six, to_six] {
            let IpAddr::V6(ip) = self::address(address).ip() else { unreachable!() };
            addresses6.extend(ip.octets());
        }
        addresses6.extend([0, 1, 0, 2]);
        for (family, addresses, from, to) in [
            (0x11, &addresses4[..], four, to_four),
            (0x12, &addresses4, four, to_four),
            (0x21, &addresses6, six, to_six),
            (0x22, &addresses6, six, to_six),
        ] {
            for more in [&b""[..], TLV, &[0; 16_000]] {
                let bytes = binary(0x21, family, &[addresses, more].concat());
                assert_eq!(ProxyHeader::read(&bytes), whole(from, to, bytes.len()));
                if more.len() < 100 {
                    read(&bytes);
                }
            }
        }
        // The load balancer's own checks; a client that it does not know; one on a Unix socket.
        for (version, family, body) in [
            (0x20, 0x00, &b""[..]),
            (0x20, 0x11, &addresses4),
            (0x20, 0xff, TLV),
            (0x21, 0x00, b""),
            (0x21, 0x00, TLV),
            (0x21, 0x31, &[b'/'; 216]),
            (0x21, 0x32, &[b'/'; 230]),
        ] {
            let bytes = binary(version, family, body);
            assert_eq!(read(&bytes), nobody(bytes.len()));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_shows() {
        for bytes in
            ["GET / HTTP/1.1\r\n\r\n", "PROXX", "PROXY\t", "proxy ", "\x16\x03\x01", "\r\n\r\nGET", "\r\nG"]
        {
            assert_eq!(read(bytes.as_bytes()), ProxyHeader::Not(ProxyFault::Missing), "{bytes}");
        }
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 \r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n",
            "PROXY TCP4 192.0.2.007 192.0.2.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP6 fe80::1%lo 2001:db8::1 1 2\r\n",
            "PROXY TCP4 example.com 192.0.2.1 1 2\r\n",
            &format!("PROXY UNKNOWN {}", "x".repeat(100)),
        ] {
            assert_eq!(read(line.as_bytes()), ProxyHeader::Not(ProxyFault::Malformed), "{line}");
        }
        for (version, family, body) in [
            (0x11, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x2f, 0x11, &[0; 12]),
            (0x21, 0x10, &[0; 12]),
            (0x21, 0x13, &[0; 12]),
            (0x21, 0x41, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x31, &[0; 215]),
        ] {
            let bytes = binary(version, family, body);
            assert_eq!(read(&bytes), ProxyHeader::Not(ProxyFault::Malformed), "{version:x} {family:x}");
        }
        let long = binary(0x21, 0x11, &[0; MAX_PROXY_HEADER]);
        assert_eq!(read(&long[..40]), ProxyHeader::Not(ProxyFault::TooLong));
    }

    proptest! {
        /// What is sent is what is read.
        #[test]
        fn a_header_of_our_own_is_read_as_it_was_meant(
            from in any::<(u128, u16)>(), to in any::<(u128, u16)>(), four in any::<bool>(), two in any::<bool>()
        ) {
            let address = |(ip, port): (u128, u16)| match four {
                true => SocketAddr::new(IpAddr::from((ip as u32).to_be_bytes()), port),
                false => SocketAddr::new(IpAddr::from(ip.to_be_bytes()).to_canonical(), port),
            };
            let (client, local) = (address(from), address(to));
            prop_assume!(client.is_ipv4() == local.is_ipv4());
            let version = if two { SendProxy::V2 } else { SendProxy::V1 };
            let header = version.header(Some(client), Some(local));
            let expected = ProxyHeader::Whole { named: Some(Named { client, local }), length: header.len() };
            prop_assert_eq!(read(&header), expected);
        }

        /// Bytes that are nearly a header: nothing panics, and nothing depends on how they are cut.
        #[test]
        fn a_header_that_was_tampered_with_is_read_alike_however_it_comes(
            which in 0_usize..6, places in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4), keep in any::<u16>()
        ) {
            let four = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
            let mut bytes = match which {
                0 => b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n".to_vec(),
                1 => b"PROXY UNKNOWN\r\n".to_vec(),
                2 => binary(0x21, 0x11, &[&four[..], TLV].concat()),
                3 => binary(0x21, 0x21, &[7; 40]),
                4 => binary(0x20, 0, b""),
                _ => binary(0x21, 0x31, &[b'/'; 216]),
            };
            for (place, byte) in places {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            bytes.truncate(usize::from(keep) % (bytes.len() + 1) + 1);
            read(&bytes);
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        let (client, local) = (address("192.0.2.7:50000"), address("192.0.2.1:443"));
        let one = SendProxy::V1.header(Some(client), Some(local));
        assert_eq!(one, b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n");
        let mapped = SendProxy::V1.header(Some(client), Some(address("[::ffff:192.0.2.1]:443")));
        assert_eq!(mapped, one);
        let two = SendProxy::V2.header(Some(client), Some(local));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 192, 0, 2, 1, 0xC3, 0x50, 1, 0xBB]);
        assert_eq!(two, expected);
        let six = SendProxy::V2.header(Some(address("[2001:db8::7]:1")), Some(address("[2001:db8::1]:2")));
        assert_eq!((six.len(), six[13], &six[14..16]), (52, 0x21, &[0, 36][..]));
        assert_eq!(SendProxy::V1.header(Some(client), None), b"PROXY UNKNOWN\r\n");
        assert_eq!(SendProxy::V1.header(None, None), b"PROXY UNKNOWN\r\n");
        assert_eq!(SendProxy::V2.header(Some(client), None)[12..], [0x21, 0, 0, 0]);
    }
}
