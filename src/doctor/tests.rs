use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::checks::{capacity, version};
use super::*;

/// A machine on which nothing is to be said.
fn fine() -> Facts {
    Facts {
        kernel: "6.18.44".into(),
        ring: RingFacts::Works { features: vec!["defer_taskrun".into()], lacks: None },
        operations: vec![("POLL_ADD", true)],
        io_uring_disabled: Some(0),
        seccomp: Some(0),
        root: false,
        locks_memory: false,
        memlock: None,
        nofile: 1_048_576,
        nr_open: Some(1_048_576),
        file_max: Some(u64::MAX / 2),
        tick: Duration::from_millis(4),
        cores: 2,
        quota: None,
        memory: Some(64 << 30),
        cgroup_memory: None,
        somaxconn: Some(4_096),
        syn_backlog: Some(4_096),
        syn_cookies: Some(0),
        ports: Some((32_768, 60_999)),
        tcp_mem: Some([1 << 20, 1 << 21, 1 << 22]),
        max_orphans: Some(131_072),
        conntrack: None,
        conntrack_established: None,
        keepalive_time: Some(7_200),
        ..Facts::read_from(Path::new("/nowhere"))
    }
}

fn one(facts: &Facts, name: &str) -> Check {
    examine(facts).into_iter().find(|check| check.name == name).unwrap()
}

#[test]
fn where_nothing_is_to_be_said_nothing_is_said() {
    let checks = examine(&fine());
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok && check.cure.is_none()), "{checks:#?}");
    assert_eq!(exit_code(&fine(), &checks), 0);
    assert!(text(&checks, false).ends_with("\ndeadpeer run would run well here\n"));
}

#[test]
fn each_thing_that_is_wrong_is_said_with_its_cure_and_nothing_else_is() {
    use Verdict::{Bad, Warn};
    let forbidden =
        || RingFacts::Forbidden("cannot set up io_uring: Operation not permitted; allow it".into());
    let missing =
        || RingFacts::Missing("cannot set up io_uring: Function not implemented; run another".into());
    let short =
        || RingFacts::Short("cannot set up io_uring: Cannot allocate memory; raise `ulimit -l`".into());
    let cases: &[(&str, Verdict, &str, u8, Facts)] = &[
        ("kernel", Warn, "6.12", 0, Facts { kernel: "6.1.0-18-amd64".into(), ..fine() }),
        ("kernel", Warn, "6.1", 0, Facts { kernel: "5.15.0".into(), ..fine() }),
        ("kernel", Warn, "6.1", 0, Facts { kernel: "some BSD".into(), ..fine() }),
        ("io_uring", Bad, "epoll", 77, Facts { ring: forbidden(), ..fine() }),
        ("io_uring", Bad, "epoll", 71, Facts { ring: missing(), ..fine() }),
        ("io_uring", Bad, "ulimit -l", 71, Facts { ring: short(), ..fine() }),
        (
            "io_uring",
            Warn,
            "Linux 6.12",
            0,
            Facts {
                ring: RingFacts::Works {
                    features: vec![],
                    lacks: Some("no min_wait: Linux 6.12 has".into()),
                },
                ..fine()
            },
        ),
        (
            "operations",
            Bad,
            "6.1",
            71,
            Facts { operations: vec![("POLL_ADD", true), ("RECV", false)], ..fine() },
        ),
        ("io_uring_disabled", Bad, "sysctl", 71, Facts { io_uring_disabled: Some(2), ..fine() }),
        ("memlock", Bad, "ulimit -l", 71, Facts { memlock: Some(64 << 10), ..fine() }),
        ("memlock", Warn, "LimitMEMLOCK", 0, Facts { memlock: Some(2 << 20), ..fine() }),
        ("descriptors", Bad, "ulimit -n", 71, Facts { nofile: 64, ..fine() }),
        ("descriptors", Warn, "LimitNOFILE", 0, Facts { nofile: 1_024, ..fine() }),
        ("file-max", Warn, "fs.file-max", 0, Facts { file_max: Some(10_000), ..fine() }),
        ("cores", Warn, "cpu.max", 0, Facts { quota: Some(Quota { cores: 0.5 }), ..fine() }),
        ("memory", Warn, "--max-connections", 0, Facts { cgroup_memory: Some(64 << 20), ..fine() }),
        ("somaxconn", Warn, "somaxconn=65535", 0, Facts { somaxconn: Some(128), ..fine() }),
        ("syn-backlog", Warn, "syn_backlog", 0, Facts { syn_backlog: Some(128), ..fine() }),
        ("tcp_mem", Warn, "--unread", 0, Facts { tcp_mem: Some([1, 2, 3]), ..fine() }),
        ("orphans", Warn, "orphans", 0, Facts { max_orphans: Some(16), ..fine() }),
        ("conntrack", Warn, "conntrack_max", 0, Facts { conntrack: Some((900, 1_000)), ..fine() }),
        (
            "conntrack",
            Warn,
            "timeout_established",
            0,
            Facts { conntrack: Some((0, u64::MAX)), conntrack_established: Some(300), ..fine() },
        ),
    ];
    for (name, verdict, cure, code, facts) in cases {
        let checks = examine(facts);
        let wrong: Vec<_> = checks.iter().filter(|check| check.verdict != Verdict::Ok).collect();
        assert_eq!(wrong.len(), 1, "{name}: {wrong:#?}");
        assert_eq!((wrong[0].name, wrong[0].verdict), (*name, *verdict));
        assert!(wrong[0].cure.as_deref().unwrap().contains(cure), "{:?}", wrong[0]);
        assert_eq!(exit_code(facts, &checks), *code, "{name}");
    }
}

#[test]
fn a_filter_is_suspected_where_the_ring_is_not_to_be_had() {
    let ring = RingFacts::Forbidden("cannot set up io_uring: Operation not permitted; allow it".into());
    let filtered = Facts { ring, seccomp: Some(2), ..fine() };
    assert!(one(&filtered, "seccomp").cure.unwrap().contains("docs/seccomp.json"));
    assert_eq!(one(&Facts { seccomp: Some(2), ..fine() }, "seccomp").verdict, Verdict::Ok);
    let cookies = Facts { syn_backlog: Some(1), syn_cookies: Some(1), ..fine() };
    assert_eq!(one(&cookies, "syn-backlog").verdict, Verdict::Ok);
    let older = Facts { kernel: "6.8.0".into(), memlock: Some(0), ..fine() };
    assert_eq!(one(&older, "memlock").verdict, Verdict::Ok);
    let privileged = Facts { memlock: Some(0), locks_memory: true, ..fine() };
    assert_eq!(one(&privileged, "memlock").verdict, Verdict::Ok);
}

struct Root(PathBuf);

impl Root {
    fn new(name: &str, files: &[(&str, &str)]) -> Root {
        let root = std::env::temp_dir().join(format!("deadpeer-doctor-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Root(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn facts_are_read_from_where_they_stand() {
    let root = Root::new(
        "all",
        &[
            ("proc/sys/kernel/osrelease", "6.12.1\n"),
            ("proc/sys/kernel/io_uring_disabled", "1\n"),
            ("proc/self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t0000000000004000\nSeccomp:\t2\n"),
            ("proc/self/uid_map", "         0          0 4294967295\n"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit\nMax locked memory         8388608              8388608              bytes\n",
            ),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1048576\n"),
            ("sys/fs/cgroup/memory.max", "9000000\n"),
            ("sys/fs/cgroup/a/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n"),
            ("proc/meminfo", "MemTotal:       2048 kB\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535\n"),
            ("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "9\n"),
        ],
    );
    let facts = Facts::read_from(&root.0);
    fs::write(root.0.join("proc/self/uid_map"), "0 1000 1\n").unwrap();
    assert!(!Facts::read_from(&root.0).locks_memory, "a namespace's own capability");
    assert_eq!((facts.kernel.as_str(), facts.io_uring_disabled), ("6.12.1", Some(1)));
    assert_eq!((facts.root, facts.locks_memory, facts.seccomp), (true, true, Some(2)));
    assert_eq!(
        (facts.memlock, facts.memory, facts.cgroup_memory),
        (Some(8_388_608), Some(2 << 20), Some(1 << 20))
    );
    assert_eq!(facts.quota, Some(Quota { cores: 0.5 }));
    assert_eq!((facts.ports, facts.tcp_mem), (Some((1_024, 65_535)), Some([1, 2, 3])));
    assert_eq!(facts.conntrack, Some((7, 9)));
}

#[test]
fn this_machine_is_examined_whole() {
    let facts = Facts::read();
    assert!(matches!(facts.ring, RingFacts::Works { .. }), "{:?}", facts.ring);
    assert!(
        facts.operations.len() >= 3 && facts.operations.iter().all(|&(_, has)| has),
        "{:?}",
        facts.operations
    );
    assert!(facts.cores > 0 && facts.nofile > 0 && version(&facts.kernel).is_some());
    assert!(capacity(&facts) > 0 && facts.memory.is_some());
}

#[test]
fn the_text_has_a_line_a_check_and_colours_only_where_they_are_seen() {
    let facts = Facts { somaxconn: Some(128), ..fine() };
    let plain = text(&examine(&facts), false);
    assert!(!plain.contains('\x1b') && text(&examine(&facts), true).contains("\x1b[33mwarn"));
    assert!(
        plain.contains("warn  somaxconn") && plain.contains("-> `sysctl net.core.somaxconn=65535`"),
        "{plain}"
    );
    assert!(plain.ends_with("\ndeadpeer run would run here; 1 of these would limit it\n"), "{plain}");
    let value: serde_json::Value = serde_json::from_str(&json(&examine(&facts))).unwrap();
    assert_eq!((&value["version"], &value["verdict"]), (&1.into(), &"warn".into()));
    assert_eq!(value["checks"].as_array().unwrap().len(), examine(&facts).len());
}

#[test]
fn the_document_lists_every_check() {
    let document = include_str!("../../docs/REFERENCE.md");
    let (_, section) = document.split_once("## `deadpeer doctor`").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for check in examine(&fine()) {
        assert!(section.contains(&format!("| `{}` |", check.name)), "{} has no row", check.name);
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_file_is_read_without_a_panic(text in ".{0,60}", number: u64) {
        let number = number.to_string();
        let root = Root::new("hostile", &[
            ("proc/sys/kernel/osrelease", &text), ("proc/self/status", &text), ("proc/self/limits", &text),
            ("proc/self/cgroup", &format!("0::{text}")), ("proc/meminfo", &format!("MemTotal: {number} kB")),
            ("sys/fs/cgroup/memory.max", &number), ("sys/fs/cgroup/cpu.max", &format!("{number} 0")),
            ("proc/sys/net/ipv4/tcp_mem", &format!("{number} {number} {number}")),
            ("proc/sys/net/ipv4/ip_local_port_range", &format!("{number} {number}")),
            ("proc/sys/net/netfilter/nf_conntrack_count", &number),
            ("proc/sys/net/netfilter/nf_conntrack_max", &text),
        ]);
        let facts = Facts { nofile: u64::MAX, ..Facts::read_from(&root.0) };
        let checks = examine(&facts);
        prop_assert!(text_is_whole(&checks));
    }
}

fn text_is_whole(checks: &[Check]) -> bool {
    text(checks, true).lines().count() > checks.len()
        && serde_json::from_str::<serde_json::Value>(&json(checks)).is_ok()
}
