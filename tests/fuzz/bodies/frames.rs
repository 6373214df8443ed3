//! The decoder of heartbeat frames against a model that has the whole stream: the same frames and the same fault,
//! however the stream is cut.

use deadpeer::frame::{Decoded, Decoder, Frame, FrameError, Identity, Kind, encode_hello};

use crate::input::Input;

/// The frames of a stream, and its end: the bytes of an incomplete frame, or the fault.
type Stream = (Vec<Decoded>, Result<usize, FrameError>);

/// The rules of docs/PROTOCOL.md, one after the other.
fn model(stream: &[u8]) -> Stream {
    let mut frames = Vec::new();
    let mut rest = stream;
    loop {
        let fault = |error| Err(error);
        let kind = match rest {
            [] => return (frames, Ok(0)),
            _ if matches!(frames.last(), Some(Decoded::Frame(Frame { kind: Kind::Bye, .. }))) => {
                return (frames, fault(FrameError::AfterBye));
            }
            [0xF5] | [0xF5, 0xAD] | [0xF5, 0xAD, 1] => return (frames, Ok(rest.len())),
            [0xF5, 0xAD, 1, kind @ 1..=4, ..] => *kind,
            [0xF5, 0xAD, 1, ..] => return (frames, fault(FrameError::UnknownKind)),
            [0xF5, 0xAD, ..] => return (frames, fault(FrameError::WrongVersion)),
            _ => return (frames, fault(FrameError::BadMagic)),
        };
        if kind == 1 && !frames.is_empty() {
            return (frames, fault(FrameError::LateHello));
        }
        let sequence = rest.get(4..8).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
        let identity = match sequence {
            Some(length) if kind == 1 && length > 64 => return (frames, fault(FrameError::IdentityTooLong)),
            Some(length) if kind == 1 => length as usize,
            _ => 0,
        };
        let Some((frame, behind)) = rest.split_at_checked(16 + identity) else {
            return (frames, Ok(rest.len()));
        };
        rest = behind;
        let timestamp = u64::from_be_bytes(frame[8..16].try_into().unwrap());
        if kind == 1 {
            match std::str::from_utf8(&frame[16..]).ok().and_then(|text| Identity::new(text).ok()) {
                Some(identity) => frames.push(Decoded::Hello { identity, timestamp }),
                None => return (frames, fault(FrameError::IdentityNotText)),
            }
        } else {
            let kind = [Kind::Ping, Kind::Pong, Kind::Bye][usize::from(kind) - 2];
            frames.push(Decoded::Frame(Frame { kind, sequence: sequence.unwrap(), timestamp }));
        }
    }
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Stream {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(&mut &b"\xF5"[..]), Err(error), "a fault is final");
                    return (frames, Err(error));
                }
            }
        }
        assert!(piece.is_empty(), "an incomplete frame leaves nothing");
    }
    (frames, Ok(decoder.partial()))
}

/// Frames, some of them damaged, and plain bytes between.
fn stream(input: &mut Input) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() {
        let kind = [Kind::Ping, Kind::Pong, Kind::Bye];
        match input.byte() % 8 {
            0 => {
                let length = usize::from(input.byte()) % 70;
                let name = String::from_utf8_lossy(input.bytes(length)).into_owned();
                stream.extend(encode_hello(&name, input.number()).unwrap_or_default());
            }
            choice @ 1..=3 => {
                let (sequence, timestamp) = (input.number() as u32, input.number());
                let kind = kind[usize::from(choice) - 1];
                stream.extend(Frame { kind, sequence, timestamp }.encode());
            }
            // A HELLO whose length and identity are anything.
            4 => stream.extend([&b"\xF5\xAD\x01\x01"[..], input.bytes(90)].concat()),
            5 => {
                let length = usize::from(input.byte()) % 20;
                stream.extend(input.bytes(length));
            }
            6 => {
                stream.truncate(stream.len().saturating_sub(usize::from(input.byte())));
            }
            _ => {
                let (place, byte) = (input.number() as usize, input.byte());
                let length = stream.len().max(1);
                if let Some(target) = stream.get_mut(place % length) {
                    *target = byte;
                }
            }
        }
    }
    stream
}

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let step = usize::from(input.byte()) % 100 + 1;
    let stream = stream(&mut input);
    let expected = model(&stream);
    assert_eq!(decode(std::iter::once(&stream[..])), expected);
    assert_eq!(decode(stream.chunks(step)), expected);
    assert_eq!(decode(stream.chunks(1)), expected);
}
