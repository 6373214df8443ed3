//! The bodies of the fuzz targets (`tests/fuzz`) on random input: hostile bytes, files and clocks.

use proptest::prelude::*;

#[path = "fuzz/bodies/clock.rs"]
mod clock;
#[path = "fuzz/bodies/frames.rs"]
mod frames;
#[path = "fuzz/bodies/input.rs"]
mod input;
#[path = "fuzz/bodies/latency_log.rs"]
mod latency_log;
#[path = "fuzz/bodies/result.rs"]
mod result;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

proptest! {
    #[test]
    fn the_decoder_agrees_with_its_model_however_a_stream_is_cut(bytes in bytes(600)) {
        frames::check(&bytes);
    }

    #[test]
    fn a_latency_log_that_was_cut_anywhere_is_repaired(bytes in bytes(400)) {
        latency_log::check(&bytes);
    }

    #[test]
    fn a_clock_that_jumps_neither_stops_nor_spins_the_tracker(bytes in bytes(2_000)) {
        clock::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))] // each parses a file

    #[test]
    fn a_damaged_result_file_is_refused_or_read_and_reported(bytes in bytes(12)) {
        result::check(&bytes);
    }
}
