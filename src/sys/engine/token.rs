//! What a completion belongs to.

use crate::limits::GENERATION_BITS;

/// The `user_data` of an operation: kind 8 | generation 24 | index 32. There are no special values:
/// a kind says what the index means, and the generation tells lives in the same place apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The token of these parts.
    ///
    /// # Panics
    ///
    /// When `generation` does not fit 24 bits.
    #[must_use]
    pub const fn new(kind: u8, generation: u32, index: u32) -> Token {
        assert!(generation < 1 << GENERATION_BITS);
        Token((kind as u64) << 56 | (generation as u64) << 32 | index as u64)
    }

    /// What kind of operation.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The generation: it tells the lives of one place apart.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & ((1 << GENERATION_BITS) - 1)
    }

    /// The place in the slab.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    pub(in crate::sys) const fn from_user_data(user_data: u64) -> Token {
        Token(user_data)
    }

    pub(in crate::sys) const fn user_data(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_back_and_do_not_touch_each_other() {
        for (kind, generation, index) in [(0, 0, 0), (255, (1 << 24) - 1, u32::MAX), (7, 1 << 23, 1)] {
            let token = Token::from_user_data(Token::new(kind, generation, index).user_data());
            assert_eq!((token.kind(), token.generation(), token.index()), (kind, generation, index));
        }
    }
}
