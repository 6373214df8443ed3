//! Reports: what every format must say of believable results, and what no file may do to them.

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
