//! The body of a line: the fields of an event for programs, or its sentence for people.
//!
//! A service describes each of its events once, with both. What the format does not show costs next to nothing: a
//! sentence is formatted only for people, and a field is serialized only for programs.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::safe_text::is_unsafe;

/// The body of one line.
#[derive(Debug)]
pub struct Body<'a> {
    out: Out<'a>,
    /// No field was written, so the next one needs no comma before it.
    first: bool,
}

#[derive(Debug)]
enum Out<'a> {
    Json(&'a mut Vec<u8>),
    Human(&'a mut String),
}

impl<'a> Body<'a> {
    /// A body in JSON, behind the first fields of an object.
    pub(super) fn json(out: &'a mut Vec<u8>) -> Body<'a> {
        Body { out: Out::Json(out), first: false }
    }

    /// A body that is a sentence.
    pub(super) fn human(text: &'a mut String) -> Body<'a> {
        Body { out: Out::Human(text), first: true }
    }

    /// Appends to the sentence.
    pub fn text(&mut self, more: fmt::Arguments<'_>) -> &mut Self {
        if let Out::Human(text) = &mut self.out {
            text.write_fmt(more).expect("a String takes every character");
        }
        self
    }

    /// Appends a field.
    pub fn field(&mut self, name: &str, value: impl Serialize) -> &mut Self {
        if let Some(out) = self.begin(name) {
            let mut serializer = serde_json::Serializer::with_formatter(out, SafeStrings);
            value.serialize(&mut serializer).expect("a Vec takes every byte, and every key is a string");
        }
        self
    }

    /// Appends a field, if it has a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl Serialize>) -> &mut Self {
        if let Some(value) = value {
            self.field(name, value);
        }
        self
    }

    /// Appends a field that is an object.
    pub fn object(&mut self, name: &str, fields: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        if let Some(out) = self.begin(name) {
            object(out, fields);
        }
        self
    }

    /// Appends a field that is an array of objects, one for each of `items`.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        fields: impl Fn(T, &mut Body<'_>),
    ) -> &mut Self {
        if let Some(out) = self.begin(name) {
            out.push(b'[');
            for (place, item) in items.enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                object(out, |body| fields(item, body));
            }
            out.push(b']');
        }
        self
    }

    fn begin(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        let Out::Json(out) = &mut self.out else { return None };
        if !std::mem::take(&mut self.first) {
            out.push(b',');
        }
        // Not formatted: a death has 25 names, and formatting them cost a fifth of it.
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        Some(out)
    }
}

fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Body<'_>)) {
    out.push(b'{');
    fields(&mut Body { out: Out::Json(out), first: true });
    out.push(b'}');
}

pub(super) fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

/// Serializes a value as the string that it displays.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The compact format, with unsafe characters escaped.
struct SafeStrings;

impl serde_json::ser::Formatter for SafeStrings {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        // Control characters below 0x20 are escaped before they come here.
        if text.bytes().all(|byte| byte.is_ascii() && byte != 0x7f) {
            return writer.write_all(text.as_bytes());
        }
        let mut written = 0;
        for (place, letter) in text.char_indices().filter(|&(_, letter)| is_unsafe(letter)) {
            writer.write_all(&text.as_bytes()[written..place])?;
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = place + letter.len_utf8();
        }
        writer.write_all(&text.as_bytes()[written..])
    }
}
