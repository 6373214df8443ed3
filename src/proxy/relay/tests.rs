//! What a relay keeps of a connection.

use super::Conn;

/// Thousands of idle ones are the ordinary case.
#[test]
fn an_idle_connection_is_small() {
    println!("{} {}", size_of::<Conn>(), size_of::<super::Session>());
    assert!(size_of::<Conn>() <= 640, "{}", size_of::<Conn>());
}
