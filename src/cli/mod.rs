//! Arguments in, exit codes out.

mod address;
pub mod beat;
#[cfg(feature = "bench")]
pub mod bench;
mod bytes;
pub mod doctor;
pub mod duration;
mod exit;
pub mod io;
mod latency_log;
mod passed;
pub mod proxy;
pub mod report;
pub mod run;
mod serve;
mod values;

pub use exit::survive_file_size_limit;
