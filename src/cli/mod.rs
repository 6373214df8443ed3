//! Arguments in, exit codes out.

pub mod beat;
pub mod bench;
pub mod doctor;
pub mod duration;
pub mod proxy;
pub mod report;
pub mod run;
mod serving;
