//! Reports: what every format must say of believable results, and what no file may do to them.

mod document;
mod formats;
mod hostile;
mod program;
mod referees;
mod sample;
#[path = "../kernel/skip.rs"]
mod skip;
mod thresholds;
