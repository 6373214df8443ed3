//! Tests that need a network of their own: what they set and count is that of no other test.

use std::process::Command;

use crate::skip::skip;

/// Whether the test of this name runs in a network of its own, where `setup` was done. If not, it is run there, and what
/// comes of it is asserted.
#[track_caller]
pub fn is_alone(test: &str, setup: &str) -> bool {
    const MARK: &str = "DEADPEER_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let made = Command::new("unshare").args(["-n", "true"]).output().is_ok_and(|made| made.status.success());
    if !made {
        skip("no network namespaces (root?)");
        return false;
    }
    let script = format!("ip link set lo up && {setup} && exec \"$0\" --exact \"$1\" --nocapture");
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &script])
        .arg(own)
        .arg(test)
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
