//! WebSocket frames (RFC 6455 section 5.2), as far as it takes to know whether a side has sent its closing frame.

/// The opcode of the closing frame.
const CLOSE: u8 = 8;

/// Follows the frames that one side of a WebSocket sends. Payloads are skipped and not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// The bytes of the present header that have come.
    header: [u8; 10],
    have: usize,
    /// Bytes that are still to come of the masking key and the payload.
    left: u64,
    closing: bool,
}

impl Frames {
    /// Takes the next bytes of the connection.
    ///
    /// ```
    /// let mut frames = deadpeer::http::Frames::default();
    /// frames.feed(b"\x81\x85\0\0\0\0hello");
    /// assert!(!frames.has_closed());
    /// frames.feed(b"\x88\x80\0\0\0\0"); // a closing frame without a reason
    /// assert!(frames.has_closed());
    /// ```
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first()
            && !self.closing
        {
            if self.left > 0 {
                let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.have] = first;
            self.have += 1;
            bytes = rest;
            self.closing = self.header[0] & 0x0f == CLOSE;
            if let Some(left) = self.payload() {
                self.left = left;
                self.have = 0;
            }
        }
    }

    /// Whether the closing frame has begun.
    #[must_use]
    pub const fn has_closed(&self) -> bool {
        self.closing
    }

    /// The bytes behind the header, if it is complete but for the masking key.
    fn payload(&self) -> Option<u64> {
        let second = *self.header[..self.have].get(1)?;
        let digits = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let long = self.header[..self.have].get(2..2 + digits)?;
        let long = long.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let length = if digits == 0 { u64::from(second & 0x7f) } else { long };
        let key = if second & 0x80 == 0 { 0 } else { 4 };
        // A length beyond 2^63 is forbidden; whatever follows it is nothing that could be followed.
        Some(length.saturating_add(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // Payload and key look like closing frames.
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0x88);
        frame
    }

    #[test]
    fn a_closing_frame_is_found_behind_frames_of_every_length_however_they_are_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
                let before =
                    [frame(1, masked, length), frame(9, masked, 3), frame(0, masked, length)].concat();
                for piece in [1, 2, 3, 7, 1_000, usize::MAX] {
                    let mut frames = Frames::default();
                    before.chunks(piece.min(before.len())).for_each(|bytes| frames.feed(bytes));
                    assert!(!frames.has_closed(), "{masked} {length} {piece}");
                    frames.feed(&frame(8, masked, 2));
                    assert!(frames.has_closed(), "{masked} {length} {piece}");
                }
            }
        }
    }

    #[test]
    fn a_closing_frame_that_is_announced_inside_a_payload_is_none() {
        let mut frames = Frames::default();
        frames.feed(&frame(2, true, 5_000)[..4_000]);
        frames.feed(&frame(8, true, 2));
        assert!(!frames.has_closed());
    }

    #[test]
    fn the_greatest_length_is_followed_and_ends_nothing() {
        let mut frames = Frames::default();
        frames.feed(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.feed(&frame(8, true, 2));
        assert!(!frames.has_closed());
    }
}
