//! The PROXY protocol (HAProxy's specification of it, versions 1 and 2): the address of the client that a connection serves.

use std::net::{IpAddr, SocketAddr};

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

#[cfg(test)]
mod tests {
    use super::*;

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
