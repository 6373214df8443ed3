//! Text within a page: whatever a file holds stays text.

use std::fmt::{self, Write};

use crate::safe_text::is_unsafe;

/// Escapes what has a meaning in HTML, in content and in quoted attributes. [Unsafe letters](is_unsafe) are shown as
/// U+FFFD.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\t' => out.write_char(' ')?,
                character if is_unsafe(character) => out.write_char('\u{fffd}')?,
                character => out.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_browser_means_nothing() {
        let hostile = "</td><script>alert(\"1\")</script>&amp;'\u{0}\u{202e}x\ny";
        let expected =
            "&lt;/td&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;&#39;\u{fffd}\u{fffd}x y";
        assert_eq!(Escaped(hostile).to_string(), expected);
    }
}
