//! Text within a page: whatever a file holds, it stays text.

use std::fmt::{self, Write};

use super::super::show;

/// Escapes what means something in HTML, in element content and in quoted attributes. Control
/// characters, and those that turn the direction of what stands around them, are shown as U+FFFD.
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
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.write_char('\u{fffd}')?,
                character if character.is_control() => out.write_char('\u{fffd}')?,
                character => out.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Nanoseconds for people; the unit stays on the line of its number.
pub(super) fn time(nanos: u64) -> String {
    show::nanos(Some(nanos)).replace(' ', "\u{a0}")
}

/// `1 death`, `2 deaths`.
pub(super) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", show::count(count), if count == 1 { one } else { more })
}

/// Words in a row: `a`, `a and b`, `a, b and c`.
pub(super) fn listed<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// A command line as a POSIX shell reads it.
pub(super) fn shell(words: &[String]) -> String {
    let plain = |word: &str| {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,+@%".contains(&byte);
        !word.is_empty() && word.bytes().all(harmless)
    };
    let quoted = |word: &String| match plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
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

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["deadpeer", "bench", "--fail-if", "p99>2ms", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&words), r"deadpeer bench --fail-if 'p99>2ms' 'it'\''s' ''");
    }

    #[test]
    fn lists_read_as_sentences_do() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a and b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(counted(1, "death", "deaths"), "1 death");
        assert_eq!(counted(1_000, "death", "deaths"), "1,000 deaths");
    }
}
