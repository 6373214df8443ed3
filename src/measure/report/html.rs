//! The page. One line for now.

use super::figures::Figures;

/// One self-contained page of one result, or of two side by side.
#[must_use]
pub fn render(_results: &[Figures]) -> String {
    "<!doctype html><title>deadpeer</title>\n".to_owned()
}
