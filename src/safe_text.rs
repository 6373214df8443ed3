//! The definition of text that is safe to show: no character of it moves a terminal's cursor, hides, or turns the
//! direction of what follows.

use std::fmt::{self, Display, Write};

/// Whether a character must be escaped before it is shown: control characters (C0, DEL, C1), line and paragraph
/// separators, invisible marks, the controls of bidirectional text (UAX 9), and tags.
#[must_use]
pub const fn is_unsafe(letter: char) -> bool {
    matches!(
        letter,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Displays a text with every unsafe character as `\u{...}`.
#[derive(Clone, Copy, Debug)]
pub struct Safe<'a>(pub &'a str);

impl Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match is_unsafe(letter) {
            true => write!(f, "{}", letter.escape_unicode()),
            false => f.write_char(letter),
        })
    }
}

/// Displays a text to stand between double quotes: as [`Safe`], and with a backslash before each quote and backslash.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = self.0;
        while let Some(at) = plain.find(['"', '\\']) {
            write!(f, "{}\\{}", Safe(&plain[..at]), &plain[at..=at])?;
            plain = &plain[at + 1..];
        }
        write!(f, "{}", Safe(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_hides_is_escaped_and_words_are_not() {
        for (text, shown) in [
            ("a\u{1b}[2Jb", r"a\u{1b}[2Jb"),
            ("a\r\nb\u{7f}\u{9b}", r"a\u{d}\u{a}b\u{7f}\u{9b}"),
            ("\u{202e}gnp.exe\u{2069}\u{61c}", r"\u{202e}gnp.exe\u{2069}\u{61c}"),
            ("\u{2028}\u{2029}\u{85}", r"\u{2028}\u{2029}\u{85}"),
            ("\u{200b}\u{200f}\u{feff}\u{ad}", r"\u{200b}\u{200f}\u{feff}\u{ad}"),
            ("\u{e0001}\u{e0041}\u{e007f}", r"\u{e0001}\u{e0041}\u{e007f}"),
            ("größe-7 \u{1f980} 日本", "größe-7 \u{1f980} 日本"),
        ] {
            assert_eq!(Safe(text).to_string(), shown);
        }
        assert_eq!(Quoted("a\"b\\\u{1b}\\").to_string(), r#"a\"b\\\u{1b}\\"#);
        assert!((0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_control()).all(is_unsafe));
    }
}
