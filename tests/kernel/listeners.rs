//! Listeners that are destroyed from outside, and addresses that go away and come back.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use crate::daemon::{Daemon, beat, program};
use crate::path::{Net, OURS};
use crate::watch::skip;

fn within(namespace: &str, command: &[&str]) -> Output {
    Command::new("ip").args(["netns", "exec", namespace]).args(command).output().unwrap()
}

/// Destroys the listener at `address`; whether that is allowed here.
fn destroy(namespace: &str, address: SocketAddr) -> bool {
    let port = format!(":{}", address.port());
    let killed = within(namespace, &["ss", "-K", "-ltn", "sport", "=", &port]);
    let destroyed = killed.status.success() && String::from_utf8_lossy(&killed.stdout).contains(&port);
    if !destroyed {
        skip(&format!("`ss -K` is not allowed: {}", String::from_utf8_lossy(&killed.stderr)));
    }
    destroyed
}

fn address_of_ours(net: &Net, action: &str) {
    let output = within(&net.ours, &["ip", "address", action, &format!("{OURS}/24"), "dev", "dp0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const PATIENT: &[&str] = &["--idle", "10s", "--interval", "2s", "--probes", "5"];

#[test]
fn a_listener_that_was_destroyed_is_replaced() {
    let Some(net) = Net::new() else { return };
    let mut daemon = Daemon::start(Some(&net.ours), &format!("{OURS}:0"), PATIENT);
    if !destroy(&net.ours, daemon.address) {
        return;
    }
    daemon.wait(|event| event["event"] == "saturated" && event["limit"] == "accept");
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms", "--reconnect"]);
    daemon.wait_for("up");
    daemon.wait_for("resumed");
    daemon.listen_for(Duration::from_millis(500));
    assert_eq!((daemon.count("up"), daemon.count("died")), (1, 0), "{:#?}", daemon.seen);
}

#[test]
fn a_listener_that_was_destroyed_is_replaced_when_its_address_is_back() {
    let Some(net) = Net::new() else { return };
    let mut daemon = Daemon::start(Some(&net.ours), &format!("{OURS}:0"), PATIENT);
    address_of_ours(&net, "del");
    if !destroy(&net.ours, daemon.address) {
        return;
    }
    daemon.wait(|event| event["event"] == "saturated" && event["limit"] == "accept");
    daemon.listen_for(Duration::from_millis(300));
    address_of_ours(&net, "add");
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms", "--reconnect"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(500));
    assert_eq!((daemon.count("up"), daemon.count("died")), (1, 0), "{:#?}", daemon.seen);
}

#[test]
fn a_proxy_whose_listener_was_destroyed_serves_again() {
    let Some(net) = Net::new() else { return };
    let mut command = program(Some(&net.ours));
    let listen = format!("{OURS}:0");
    command.args(["proxy", "--threads", "1", "--events", "-", "--listen", &listen]);
    command.args(["--upstream", "127.0.0.1:9", "--io", crate::IO_NAME]);
    let mut daemon = Daemon::of(command);
    if !destroy(&net.ours, daemon.address) {
        return;
    }
    daemon.wait(|event| event["event"] == "saturated" && event["limit"] == "accept");
    let url = format!("http://{}/", daemon.address);
    // There is no upstream, and the proxy says so: what the destroyed listener accepted was closed without an answer.
    let answer = within(&net.theirs, &["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "502", "{answer:?} {:#?}", daemon.seen);
}
