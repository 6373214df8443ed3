//! Reports: what every format says of believable results, and that no file can break them.

mod browser;
mod document;
mod formats;
mod hostile;
mod html;
mod program;
mod referees;
mod sample;
#[path = "../kernel/skip.rs"]
mod skip;
mod thresholds;
