//! The codec against every way of cutting a stream, garbage, and the document.

use proptest::prelude::*;

use super::layout::header;
use super::*;
use crate::limits::MAX_IDENTITY;

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

/// The frames of a stream in these pieces, and its end: the bytes of an incomplete frame, or the fault.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Decoded>, Result<usize, FrameError>) {
    let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(decoded)) => seen.push(decoded),
                Ok(None) => break,
                Err(error) => return (seen, Err(error)),
            }
        }
        assert!(piece.is_empty(), "`None` means that everything was taken");
    }
    (seen, Ok(decoder.partial()))
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let kind = prop_oneof![Just(Kind::Ping), Just(Kind::Pong)];
    let frame = (kind, any::<u32>(), any::<u64>());
    prop::collection::vec(
        frame.prop_map(|(kind, sequence, timestamp)| Frame { kind, sequence, timestamp }),
        0..20,
    )
}

/// Cuts `bytes` at the given places, taken modulo its length.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_segmentation_gives_the_same_frames(
        identity in prop::option::of("[a-zA-Z0-9é☃.-]{0,20}"),
        frames in frames(),
        leaves in any::<bool>(),
        tail in 0..FRAME_BYTES,
        places in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        if let Some(text) = &identity {
            wire.extend(encode_hello(text, 5).unwrap());
            expected.push(Decoded::Hello { identity: Identity::new(text).unwrap(), timestamp: 5 });
        }
        for frame in &frames {
            wire.extend(frame.encode());
            expected.push(Decoded::Frame(*frame));
        }
        let tail = if leaves {
            wire.extend(Frame::bye(9).encode());
            expected.push(Decoded::Frame(Frame::bye(9)));
            0
        } else {
            wire.extend(&Frame::beat(9).encode()[..tail]);
            tail
        };
        prop_assert_eq!(decode(cut(&wire, &places)), (expected.clone(), Ok(tail)));
        prop_assert_eq!(decode(wire.chunks(1)), (expected, Ok(tail)));
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        prefix in 0..FRAME_BYTES,
        identity_length in 0..200_u32,
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        places in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        // The first bytes of a real HELLO let the garbage reach every later check.
        let mut wire = header(Kind::Hello, identity_length, 0)[..prefix].to_vec();
        wire.extend(garbage);
        prop_assert_eq!(decode(cut(&wire, &places)), decode([wire.as_slice()]));
    }

    #[test]
    fn garbage_is_refused_within_sixteen_bytes(garbage in any::<[u8; 16]>()) {
        prop_assume!(garbage[..2] != MAGIC || garbage[2] != VERSION || Kind::from_byte(garbage[3]).is_none());
        let (seen, end) = decode([garbage.as_slice()]);
        prop_assert!(seen.is_empty() && end.is_err());
    }

    #[test]
    fn a_partial_frame_is_no_frame(sequence: u32, timestamp: u64, held in 0..FRAME_BYTES) {
        let wire = Frame { kind: Kind::Ping, sequence, timestamp }.encode();
        prop_assert_eq!(decode([&wire[..held]]), (vec![], Ok(held)));
    }
}

#[test]
fn every_length_of_identity_up_to_the_limit_arrives() {
    for length in 0..=MAX_IDENTITY {
        let text = "x".repeat(length);
        let wire = encode_hello(&text, 1).unwrap();
        assert_eq!(wire.len(), FRAME_BYTES + length);
        let (seen, end) = decode([wire.as_slice()]);
        assert_eq!(seen, [Decoded::Hello { identity: Identity::new(&text).unwrap(), timestamp: 1 }]);
        assert_eq!(end, Ok(0));
    }
}

#[test]
fn each_fault_has_its_own_name_and_is_final() {
    let beat = Frame::beat(0).encode();
    let hello = encode_hello("", 0).unwrap();
    let changed = |at: usize, to: u8| {
        let mut bytes = beat;
        bytes[at] = to;
        bytes.to_vec()
    };
    let named =
        |identity: &[u8]| [header(Kind::Hello, identity.len() as u32, 0).as_slice(), identity].concat();
    for (wire, error) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), FrameError::BadMagic),
        (vec![0x16, 0x03, 0x01], FrameError::BadMagic),
        (changed(1, 0xF5), FrameError::BadMagic),
        (changed(2, 2), FrameError::WrongVersion),
        (changed(3, 0), FrameError::UnknownKind),
        (changed(3, 5), FrameError::UnknownKind),
        ([beat.as_slice(), &hello].concat(), FrameError::LateHello),
        ([hello.as_slice(), &hello].concat(), FrameError::LateHello),
        (named(&[b'x'; MAX_IDENTITY + 1]), FrameError::IdentityTooLong),
        (header(Kind::Hello, u32::MAX, 0).to_vec(), FrameError::IdentityTooLong),
        (named(&[0xC3]), FrameError::IdentityNotText),
        (named(b"\x1b[2J"), FrameError::IdentityNotText),
        ([Frame::bye(1).encode(), beat].concat(), FrameError::AfterBye),
    ] {
        let mut decoder = Decoder::new();
        let mut bytes = wire.as_slice();
        let met = loop {
            match decoder.next(&mut bytes) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{wire:02x?} was accepted"),
                Err(met) => break met,
            }
        };
        assert_eq!(met, error, "{wire:02x?}");
        assert_eq!(decoder.next(&mut beat.as_slice()), Err(error), "an error stays");
        assert_eq!(decoder.next(&mut [].as_slice()), Err(error), "also when nothing comes");
        assert_eq!(decoder.partial(), 0);
    }
}

#[test]
fn a_fault_is_seen_at_its_own_byte() {
    let seen_after = |bytes: &[u8]| decode([bytes]).1;
    let [first, second] = MAGIC;
    assert_eq!(seen_after(b"G"), Err(FrameError::BadMagic));
    assert_eq!(seen_after(&[first, first]), Err(FrameError::BadMagic));
    assert_eq!(seen_after(&[first, second, 9]), Err(FrameError::WrongVersion));
    assert_eq!(seen_after(&[first, second, VERSION, 9]), Err(FrameError::UnknownKind));
    assert_eq!(seen_after(&[first, second, VERSION, 1, 0, 0, 0, 65]), Err(FrameError::IdentityTooLong));
}

#[test]
fn only_a_ping_is_answered_and_with_its_own_count_and_time() {
    let ping = Frame { kind: Kind::Ping, sequence: 3, timestamp: 99 };
    assert_eq!(ping.answer(), Some(Frame { kind: Kind::Pong, sequence: 3, timestamp: 99 }));
    assert_eq!(Frame::beat(3).answer(), None);
    assert_eq!(Frame::bye(3).answer(), None);
}

#[test]
fn an_end_after_a_bye_is_told_from_one_without() {
    let mut decoder = Decoder::new();
    decoder.next(&mut Frame::beat(0).encode().as_slice()).unwrap();
    assert!(!decoder.left());
    decoder.next(&mut Frame::bye(1).encode().as_slice()).unwrap();
    assert!(decoder.left());
    assert_eq!(decoder.next(&mut [].as_slice()), Ok(None), "silence after a BYE is right");
}

/// The examples of the document are in blocks marked `frames`: bytes in hex, a bar, and the frame as
/// `KIND name=value ...`.
#[test]
fn the_examples_in_the_document_are_what_the_encoder_writes() {
    let mut kinds = std::collections::BTreeSet::new();
    for block in PROTOCOL.split("```frames\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for line in block.lines() {
            let (hex, meaning) = line.split_once('|').unwrap_or_else(|| panic!("no bar in {line:?}"));
            let wire: Vec<u8> =
                hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            let mut words = meaning.split_whitespace();
            let kind = words.next().unwrap();
            let values: std::collections::BTreeMap<&str, &str> =
                words.map(|word| word.split_once('=').unwrap()).collect();
            let number = |name: &str| values[name].parse::<u64>().unwrap();
            let frame = |kind| Frame {
                kind,
                sequence: number("sequence").try_into().unwrap(),
                timestamp: number("timestamp"),
            };
            let encoded = match kind {
                "HELLO" => encode_hello(values["identity"], number("timestamp")).unwrap(),
                "PING" => frame(Kind::Ping).encode().to_vec(),
                "PONG" => frame(Kind::Pong).encode().to_vec(),
                "BYE" => frame(Kind::Bye).encode().to_vec(),
                other => panic!("{other} is no kind"),
            };
            assert_eq!(encoded, wire, "{line}");
            assert_eq!(decode([wire.as_slice()]).1, Ok(0));
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds.len(), 4, "the document shows every kind");
}

#[test]
fn the_document_names_every_error_and_the_limits() {
    for error in FrameError::ALL {
        let row = format!("| `{}` |", error.as_str());
        assert!(PROTOCOL.contains(&row), "no row {row}");
    }
    assert!(PROTOCOL.contains(&format!("`{:02X} {:02X}`", MAGIC[0], MAGIC[1])));
    assert!(PROTOCOL.contains(&format!("{MAX_IDENTITY} bytes")));
    assert!(PROTOCOL.contains(&format!("{MAX_FRAME_BYTES} bytes")));
}
