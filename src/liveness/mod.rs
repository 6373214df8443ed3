//! The judgement.

pub mod errno;
