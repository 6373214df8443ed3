//! Tests that need what not every machine has.

/// A test that cannot run here says so; where it must run, that is a failure.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    println!("SKIPPED: {name}: {reason}");
    assert!(std::env::var_os("DEADPEER_REQUIRE_ALL").is_none(), "{name} must run here: {reason}");
}
