//! Paths that break: between two network namespaces of the test's own, joined by a veth pair.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::daemon::{Daemon, beat};
use crate::watch::skip;

/// Two namespaces, `ours` for the daemon and `theirs` for the peers; removed when the test is over.
pub struct Net {
    pub ours: String,
    pub theirs: String,
}

pub const OURS: &str = "10.231.0.1";
const THEIRS: &str = "10.231.0.2";

impl Net {
    /// `None`, and the skip is said, where namespaces cannot be made.
    pub fn new() -> Option<Net> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("dp{}-{number}{side}", std::process::id());
        let net = Net { ours: name("a"), theirs: name("b") };
        for tool in ["ip", "nft"] {
            if Command::new(tool).arg("-V").output().is_err() {
                skip(&format!("no `{tool}`: install iproute2 and nftables"));
                return None;
            }
        }
        let made = ip(&["netns", "add", &net.ours]);
        if !made.status.success() {
            skip(&format!("no network namespaces (root?): {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        must(&["netns", "add", &net.theirs]);
        must(&["-n", &net.ours, "link", "add", "dp0", "type", "veth", "peer", "dp0", "netns", &net.theirs]);
        for (namespace, address) in [(&net.ours, OURS), (&net.theirs, THEIRS)] {
            must(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "dp0"]);
            must(&["-n", namespace, "link", "set", "dp0", "up"]);
            must(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        Some(net)
    }

    fn daemon(&self, options: &[&str]) -> Daemon {
        Daemon::start(Some(&self.ours), &format!("{OURS}:0"), options)
    }

    /// Drops what comes in at one end.
    fn deafen(&self, namespace: &str) {
        for rule in [
            "add table inet deaf",
            "add chain inet deaf in { type filter hook input priority 0; policy drop; }",
        ] {
            let output = ip(&["netns", "exec", namespace, "nft", rule]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    pub fn vanish(&self) {
        must(&["-n", &self.theirs, "link", "set", "dp0", "down"]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.ours]);
        ip(&["netns", "del", &self.theirs]);
    }
}

fn ip(arguments: &[&str]) -> Output {
    Command::new("ip").args(arguments).output().unwrap()
}

fn must(arguments: &[&str]) {
    let output = ip(arguments);
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const SECONDS: &[&str] = &["--idle", "2s", "--interval", "500ms", "--probes", "4"];

#[test]
fn a_machine_that_vanishes_dies_of_its_heartbeat_and_its_kernel_was_silent() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(SECONDS);
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(500));
    net.vanish();
    let died = daemon.wait_for("died");
    assert_eq!(died["cause"], "heartbeat_expired", "{died:#}");
    assert_eq!(died["proof"]["transport"], "silent", "{died:#}");
    assert!(died["silent_ms"].as_u64().unwrap() >= 4_000);
    assert!(died["proof"]["tcp"]["probes"].as_u64().unwrap() > 0, "{died:#}");
}

#[test]
fn a_machine_that_vanishes_dies_of_keepalive_where_only_its_kernel_is_asked() {
    let Some(net) = Net::new() else { return };
    let mut daemon =
        net.daemon(&["--heartbeat", "none", "--idle", "2s", "--interval", "500ms", "--probes", "2"]);
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "10s"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_secs(4)); // longer than the detection time: it answers
    assert_eq!(daemon.count("died"), 0, "{:#?}", daemon.seen);
    net.vanish();
    let died = daemon.wait_for("died");
    assert_eq!(died["cause"], "keepalive_expired", "{died:#}");
    assert_eq!(died["proof"]["transport"], "silent");
    assert!(died["silent_ms"].as_u64().unwrap() >= 3_000);
}

#[test]
fn with_a_probe_unacknowledged_the_policys_deadline_holds_and_no_kernel_timer_is_awaited() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(&[SECONDS, &["--heartbeat", "frames"]].concat());
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(500));
    net.vanish();
    let died = daemon.wait_for("died");
    assert_eq!(died["cause"], "heartbeat_expired", "{died:#}");
    assert!(died["proof"]["tcp"]["unacked"].as_u64().unwrap() > 0, "{died:#}");
    assert_eq!(died["proof"]["transport"], "silent", "{died:#}");
}

#[test]
fn a_user_timeout_that_the_policy_allows_does_not_overtake_its_verdict() {
    let Some(net) = Net::new() else { return };
    let policy = ["--heartbeat", "frames", "--idle", "1s", "--interval", "1s", "--probes", "3"];
    let mut daemon = net.daemon(&[&policy[..], &["--user-timeout", "4s"]].concat());
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(300));
    net.vanish();
    // It counts from our first PING, a second after the last beat; we count from the beat.
    let died = daemon.wait_for("died");
    assert_eq!(died["cause"], "heartbeat_expired", "{died:#}");
    assert!(died["proof"]["tcp"]["unacked"].as_u64().unwrap() > 0, "{died:#}");
}

#[test]
fn when_the_peer_is_heard_no_more_it_dies_by_deadline_whatever_is_sent_to_it() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(&[SECONDS, &["--heartbeat", "frames"]].concat());
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(500));
    net.deafen(&net.ours);
    let died = daemon.wait_for("died");
    assert_eq!(
        (died["cause"].as_str(), died["proof"]["transport"].as_str()),
        (Some("heartbeat_expired"), Some("silent"))
    );
}

#[test]
fn when_only_the_peer_hears_nothing_it_is_suspected() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(&[SECONDS, &["--heartbeat", "frames"]].concat());
    let _peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(500));
    net.deafen(&net.theirs);
    // Its beats are not acknowledged either, so it soon repeats old ones: no new life.
    daemon.wait_for("suspected");
    assert_eq!(daemon.wait_for("died")["cause"], "heartbeat_expired");
}

#[test]
fn a_peer_that_rebooted_answers_the_next_probe_with_a_reset() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(&[SECONDS, &["--heartbeat", "frames"]].concat());
    let peer = beat(Some(&net.theirs), daemon.address, &["--every", "100ms"]);
    daemon.wait_for("up");
    daemon.listen_for(Duration::from_millis(300));
    // The power goes, so nothing is said; then a machine comes up that knows of no connection.
    net.vanish();
    drop(peer);
    must(&["-n", &net.theirs, "address", "flush", "dev", "dp0"]);
    let killed = ip(&["netns", "exec", &net.theirs, "ss", "-K", "-tn", "dst", OURS]);
    assert!(killed.status.success());
    must(&["-n", &net.theirs, "address", "add", &format!("{THEIRS}/24"), "dev", "dp0"]);
    must(&["-n", &net.theirs, "link", "set", "dp0", "up"]);
    let died = daemon.wait_for("died");
    assert_eq!(died["cause"], "aborted", "{died:#}");
    assert_eq!(died["proof"]["errno"], "ECONNRESET");
}

#[test]
fn a_broken_link_of_our_own_is_one_outage_and_every_verdict_is_marked() {
    let Some(net) = Net::new() else { return };
    let mut daemon = net.daemon(SECONDS);
    let _peers = beat(Some(&net.theirs), daemon.address, &["--count", "40", "--every", "100ms"]);
    daemon.wait_for_many("up", 40);
    daemon.listen_for(Duration::from_millis(500));
    must(&["-n", &net.ours, "link", "set", "dp0", "down"]);
    daemon.wait_for_many("died", 40);
    assert_eq!(daemon.count("path_outage"), 1, "{:#?}", daemon.seen.last());
    let marked = daemon.seen.iter().filter(|event| event["proof"]["outage"] == true).count();
    assert!(marked >= 30, "{marked} of 40 are marked");
}
