//! The name that a peer gives itself.

use std::fmt;

use super::error::FrameError;
use crate::limits::MAX_IDENTITY;

/// The name that a peer gives itself: text of at most [`MAX_IDENTITY`] bytes without control characters, stored inline.
/// It is a claim and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    bytes: [u8; MAX_IDENTITY],
    length: u8,
}

impl Identity {
    /// An identity from text.
    ///
    /// # Errors
    ///
    /// [`FrameError::IdentityTooLong`] and [`FrameError::IdentityNotText`].
    pub fn new(text: &str) -> Result<Identity, FrameError> {
        if text.len() > MAX_IDENTITY {
            return Err(FrameError::IdentityTooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(FrameError::IdentityNotText);
        }
        let mut bytes = [0; MAX_IDENTITY];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Identity { bytes, length: text.len() as u8 })
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Identity, FrameError> {
        Identity::new(std::str::from_utf8(bytes).map_err(|_| FrameError::IdentityNotText)?)
    }

    /// The identity as text, 1 to 64 bytes of UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = std::str::from_utf8(&self.bytes[..usize::from(self.length)]);
        text.expect("`new` copies a whole str")
    }

    /// Whether the text is empty: a HELLO may have no name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
