//! The fields that tell a server who its client is: X-Forwarded-For, X-Forwarded-Proto and Forwarded (RFC 7239).

use std::net::IpAddr;

use super::head::fields;

/// What becomes of the fields of a request that name its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// They are passed on as they came.
    #[default]
    Off,
    /// The client is added behind those that they name.
    Append,
    /// They are removed, and name the client alone.
    Replace,
}

/// What a field says, as servers read its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    For,
    Proto,
    Forwarded,
    /// Another one of the family, such as X-Forwarded-Host.
    Other,
    /// One that a server may read as one of the family: X_Forwarded_For is the same variable of CGI and WSGI.
    Disguised,
}

impl Kind {
    /// Servers read names without regard to case. Those that make variables of them read every mark as `_`.
    fn of(name: &[u8]) -> Option<Kind> {
        let same = |known: &[u8]| {
            let alike = |(&a, &b): (&u8, &u8)| match b {
                b'-' => !a.is_ascii_alphanumeric(),
                _ => a.eq_ignore_ascii_case(&b),
            };
            name.len() >= known.len() && name.iter().zip(known).all(alike)
        };
        let whole = |known: &[u8]| name.len() == known.len() && same(known);
        if !(same(b"x-forwarded") || whole(b"x-real-ip") || whole(b"forwarded")) {
            return None;
        }
        let plain = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
        Some(match () {
            () if !plain => Kind::Disguised,
            () if whole(b"x-forwarded-for") => Kind::For,
            () if whole(b"x-forwarded-proto") => Kind::Proto,
            () if whole(b"forwarded") => Kind::Forwarded,
            () => Kind::Other,
        })
    }
}

/// Appends the head of a request as its upstream is to have it. `head` was read by
/// [`RequestHead::read`](super::RequestHead::read); `client` is none if the client has no IP address.
pub fn rewrite(head: &[u8], how: Forwarded, client: Option<IpAddr>, out: &mut Vec<u8>) {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let end = head.iter().skip(start).position(|&byte| byte == b'\n').map_or(head.len(), |at| start + at + 1);
    out.extend_from_slice(&head[start..end]);
    let head = &head[end..];
    let (mut client_for, mut forwarded) = (Vec::new(), Vec::new());
    let mut proto = false;
    let cleartext_http2 = fields(head).any(|(name, value)| {
        name.eq_ignore_ascii_case(b"upgrade") && tokens(value).any(|token| token.eq_ignore_ascii_case(b"h2c"))
    });
    for (name, value) in fields(head) {
        let into = match Kind::of(name) {
            Some(_) if how == Forwarded::Replace => continue,
            Some(Kind::Disguised) => continue,
            Some(Kind::For) => &mut client_for,
            // In an open quote, what follows would be a part of what the client says.
            Some(Kind::Forwarded) if !is_balanced(value) => continue,
            Some(Kind::Forwarded) => &mut forwarded,
            None if name.eq_ignore_ascii_case(b"connection") => {
                // Its next recipient removes the fields that it names.
                pass_connection(name, value, cleartext_http2, out);
                continue;
            }
            // A server that accepts it reads requests that nobody follows.
            None if cleartext_http2
                && (name.eq_ignore_ascii_case(b"upgrade")
                    || name.eq_ignore_ascii_case(b"http2-settings")) =>
            {
                continue;
            }
            kind => {
                proto |= kind == Some(Kind::Proto);
                pass(name, value, out);
                continue;
            }
        };
        join(value, into);
    }
    if let Some(client) = client {
        join(client.to_string().as_bytes(), &mut client_for);
        let element = match client {
            IpAddr::V4(client) => format!("for={client};proto=http"),
            IpAddr::V6(client) => format!("for=\"[{client}]\";proto=http"),
        };
        join(element.as_bytes(), &mut forwarded);
    }
    let own: [(&[u8], &[u8]); 3] = [
        (b"X-Forwarded-For", &client_for),
        (b"X-Forwarded-Proto", if proto { b"" } else { b"http" }),
        (b"Forwarded", &forwarded),
    ];
    own.into_iter().filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| pass(name, value, out));
    out.extend_from_slice(b"\r\n");
}

fn pass(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Adds a member to a list.
fn join(value: &[u8], list: &mut Vec<u8>) {
    if !value.is_empty() {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value);
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Passes on a field Connection without the names of fields that must arrive, and of those that were removed.
fn pass_connection(name: &[u8], value: &[u8], cleartext_http2: bool, out: &mut Vec<u8>) {
    let of_upgrade = |token: &[u8]| {
        token.eq_ignore_ascii_case(b"upgrade") || token.eq_ignore_ascii_case(b"http2-settings")
    };
    let goes = |token: &[u8]| Kind::of(token).is_some() || cleartext_http2 && of_upgrade(token);
    if !tokens(value).any(goes) {
        return pass(name, value, out);
    }
    let mut kept = Vec::new();
    tokens(value).filter(|token| !goes(token)).for_each(|token| join(token, &mut kept));
    if !kept.is_empty() {
        pass(name, &kept, out);
    }
}

/// Whether every quote in it is closed.
fn is_balanced(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::{Head, RequestHead, Scan};

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn rewritten(fields: &str, how: Forwarded, client: Option<IpAddr>) -> String {
        let head = format!("GET /a: HTTP/1.1\r\n{fields}\r\n");
        let mut out = Vec::new();
        rewrite(head.as_bytes(), how, client, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("GET /a: HTTP/1.1\r\n").unwrap().strip_suffix("\r\n").unwrap().to_owned()
    }

    /// The fields that name 192.0.2.7, behind these.
    fn own(client_for: &str, proto: bool, forwarded: &str) -> String {
        let proto = if proto { "X-Forwarded-Proto: http\r\n" } else { "" };
        format!(
            "X-Forwarded-For: {client_for}192.0.2.7\r\n{proto}Forwarded: {forwarded}for=192.0.2.7;proto=http\r\n"
        )
    }

    #[test]
    fn replace_removes_whatever_a_server_could_take_for_one_of_these_fields() {
        for name in [
            "X-Forwarded-For",
            "x-forwarded-for",
            "X_Forwarded_For",
            "X-Forwarded_For",
            "X.Forwarded.For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded",
            "Forwarded",
            "FORWARDED",
            "X-Real-IP",
            "x_real_ip",
        ] {
            let fields = format!("Host: a\r\n{name}: 10.0.0.1\r\nA: b\r\n{name}: 10.0.0.2\r\n");
            let expected = "Host: a\r\nA: b\r\n".to_owned() + &own("", true, "");
            assert_eq!(rewritten(&fields, Forwarded::Replace, Some(V4)), expected, "{name}");
        }
        let others = "Host: a\r\nX-Forward: 1\r\nX-Forwar-ded: 2\r\nForwarded-For: 3\r\nX-Real-IPs: 4\r\n";
        let expected = others.to_owned() + &own("", true, "");
        assert_eq!(rewritten(others, Forwarded::Replace, Some(V4)), expected);
    }

    #[test]
    fn append_names_the_client_behind_those_that_were_named() {
        for (fields, expected) in [
            ("", own("", true, "")),
            ("X-Forwarded-For: 10.0.0.1\r\n", own("10.0.0.1, ", true, "")),
            // A server may read the first of two, or the last.
            ("x-forwarded-for: a\r\nX-Forwarded-For: b, c\r\n", own("a, b, c, ", true, "")),
            ("X_Forwarded_For: a\r\nX_Forwarded_Proto: https\r\n", own("", true, "")),
            ("X-Forwarded-Proto: https\r\n", "X-Forwarded-Proto: https\r\n".to_owned() + &own("", false, "")),
            ("Forwarded: for=a;proto=https\r\n", own("", true, "for=a;proto=https, ")),
            ("Forwarded: for=\"a\\\"\"\r\n", own("", true, "for=\"a\\\"\", ")),
            ("Forwarded: for=\"a\r\nForwarded: for=b\r\n", own("", true, "for=b, ")),
            ("X-Forwarded-Host: h\r\n", "X-Forwarded-Host: h\r\n".to_owned() + &own("", true, "")),
        ] {
            assert_eq!(rewritten(fields, Forwarded::Append, Some(V4)), expected);
        }
    }

    #[test]
    fn a_client_of_ipv6_is_quoted_and_one_without_an_address_is_not_named() {
        let six = Some("2001:db8::7".parse().unwrap());
        assert_eq!(
            rewritten("", Forwarded::Replace, six),
            "X-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: http\r\n\
             Forwarded: for=\"[2001:db8::7]\";proto=http\r\n"
        );
        let fields = "X-Forwarded-For: a\r\nForwarded: for=a\r\n";
        assert_eq!(rewritten(fields, Forwarded::Replace, None), "X-Forwarded-Proto: http\r\n");
        let expected = "X-Forwarded-For: a\r\nX-Forwarded-Proto: http\r\nForwarded: for=a\r\n";
        assert_eq!(rewritten(fields, Forwarded::Append, None), expected);
    }

    #[test]
    fn no_client_has_these_fields_removed_by_the_next_recipient_or_upgrades_past_them() {
        for (fields, kept) in [
            ("Connection: close\r\n", "Connection: close\r\n"),
            ("Connection: X-Forwarded-For\r\n", ""),
            ("Connection: keep-alive, x-forwarded-for , Forwarded\r\n", "Connection: keep-alive\r\n"),
            (
                "Connection: Upgrade\r\nUpgrade: websocket\r\n",
                "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            ),
            (
                "Connection: Upgrade, HTTP2-Settings, a\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
                "Connection: a\r\n",
            ),
        ] {
            for how in [Forwarded::Append, Forwarded::Replace] {
                assert_eq!(rewritten(fields, how, Some(V4)), kept.to_owned() + &own("", true, ""));
            }
        }
    }

    #[test]
    fn empty_lines_before_a_head_are_not_passed_on() {
        let mut out = Vec::new();
        rewrite(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", Forwarded::Append, None, &mut out);
        assert_eq!(out, b"GET / HTTP/1.0\r\nX-Forwarded-Proto: http\r\n\r\n");
    }

    fn name() -> impl Strategy<Value = String> {
        const KNOWN: [&str; 6] =
            ["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "X-Real-IP", "Connection", "Host"];
        (prop::sample::select(&KNOWN[..]), any::<u32>(), prop::sample::select(&["-", "_", ".", "~"][..]))
            .prop_map(|(name, cases, mark)| {
                let cased = name.chars().enumerate().map(|(place, letter)| match cases >> place & 1 {
                    0 => letter.to_ascii_lowercase(),
                    _ => letter.to_ascii_uppercase(),
                });
                cased.collect::<String>().replace('-', mark)
            })
    }

    proptest! {
        /// As CGI, WSGI and PHP name them, each variable has the value of the proxy alone; and the head stays one.
        #[test]
        fn no_server_finds_another_client_in_a_head_that_was_replaced(
            given in prop::collection::vec((name(), "[ -~]{0,20}"), 0..8)
        ) {
            let fields: String = given.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            let mut out = Vec::new();
            rewrite(head.as_bytes(), Forwarded::Replace, Some(V4), &mut out);
            let mut scan = Scan::default();
            let Head::Whole { length, .. } = RequestHead::read(&out, &mut scan) else { panic!("no head") };
            prop_assert_eq!(length, out.len());
            let mut named = Vec::new();
            for (name, value) in super::fields(&out) {
                let variable: String = name
                    .iter()
                    .map(|&byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() as char } else { '_' })
                    .collect();
                if variable.contains("FORWARDED") || variable == "X_REAL_IP" {
                    named.push((variable, value.to_vec()));
                }
            }
            named.sort();
            let expected = [
                ("FORWARDED", "for=192.0.2.7;proto=http"),
                ("X_FORWARDED_FOR", "192.0.2.7"),
                ("X_FORWARDED_PROTO", "http"),
            ];
            prop_assert_eq!(named, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        }
    }
}
