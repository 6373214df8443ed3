use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::engine::version;
use super::resources::capacity;
use super::*;
use crate::reactor::EngineChoice;

fn forbidden() -> EngineFacts {
    EngineFacts::Forbidden("cannot set up io_uring: Operation not permitted; allow it".into())
}

/// A machine on which every check is ok.
fn fine() -> Facts {
    Facts {
        kernel: "6.18.44".into(),
        ring: EngineFacts::Works { features: vec!["defer_taskrun".into()], lacks: None },
        epoll: EngineFacts::Works { features: vec![], lacks: None },
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
        threads: 2,
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
    examine(facts, EngineChoice::Auto).checks.into_iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_machine_without_faults_has_no_cures() {
    for (io, last) in [
        (EngineChoice::Auto, "deadpeer run starts here, on io_uring"),
        (EngineChoice::Uring, "deadpeer run --io uring starts here, on io_uring"),
        (EngineChoice::Epoll, "deadpeer run --io epoll starts here, on epoll"),
    ] {
        let found = examine(&fine(), io);
        let quiet = found.checks.iter().all(|check| check.verdict == Verdict::Ok && check.cure.is_none());
        assert!(quiet, "{found:#?}");
        assert_eq!(found.exit_code, 0);
        assert!(text(&found, false).ends_with(&format!("\n\n{last}\n")));
    }
}

#[test]
fn each_fault_is_reported_with_its_cure_and_no_other_check_is() {
    use Verdict::{Bad, Warn};
    let no_epoll =
        || EngineFacts::Short("cannot set up epoll: Too many open files; raise `ulimit -n`".into());
    let cases: &[(&str, Verdict, &str, u8, Facts)] = &[
        ("kernel", Warn, "6.12", 0, Facts { kernel: "6.1.0-18-amd64".into(), ..fine() }),
        ("kernel", Warn, "6.1", 0, Facts { kernel: "5.15.0".into(), ..fine() }),
        ("kernel", Warn, "6.1", 0, Facts { kernel: "some BSD".into(), ..fine() }),
        ("io_uring", Warn, "until then `deadpeer run` uses epoll", 0, Facts { ring: forbidden(), ..fine() }),
        ("epoll", Warn, "ulimit -n", 0, Facts { epoll: no_epoll(), ..fine() }),
        (
            "io_uring",
            Warn,
            "Linux 6.12",
            0,
            Facts {
                ring: EngineFacts::Works {
                    features: vec![],
                    lacks: Some("no min_wait: Linux 6.12 has".into()),
                },
                ..fine()
            },
        ),
        (
            "operations",
            Warn,
            "6.1",
            0,
            Facts { operations: vec![("POLL_ADD", true), ("RECV", false)], ..fine() },
        ),
        ("memlock", Warn, "ulimit -l", 0, Facts { memlock: Some(64 << 10), ..fine() }),
        ("memlock", Warn, "LimitMEMLOCK", 0, Facts { memlock: Some(2 << 20), ..fine() }),
        ("descriptors", Bad, "ulimit -n", 78, Facts { nofile: 64, ..fine() }),
        ("descriptors", Warn, "LimitNOFILE", 0, Facts { nofile: 1_024, ..fine() }),
        ("file-max", Warn, "fs.file-max", 0, Facts { file_max: Some(10_000), ..fine() }),
        ("cores", Warn, "cpu.max", 0, Facts { quota: Some(0.5), ..fine() }),
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
        let diagnosis = examine(facts, EngineChoice::Auto);
        let wrong: Vec<_> = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Ok).collect();
        assert_eq!(wrong.len(), 1, "{name}: {wrong:#?}");
        assert_eq!((wrong[0].name, wrong[0].verdict), (*name, *verdict));
        assert!(wrong[0].cure.as_deref().unwrap().contains(cure), "{:?}", wrong[0]);
        assert_eq!(diagnosis.exit_code, *code, "{name}");
    }
}

/// The verdict and the exit code are those of `run`: see `cli::exit`.
#[test]
fn without_a_ring_the_verdict_depends_on_the_io_that_is_asked_for() {
    use EngineChoice::{Auto, Epoll, Uring};
    use Verdict::{Bad, Ok, Warn};
    let failed = |reason: &str| format!("cannot set up io_uring: {reason}; do something");
    let rings = [
        (EngineFacts::Forbidden(failed("Operation not permitted")), 77),
        (EngineFacts::Missing(failed("Function not implemented")), 71),
        (EngineFacts::Short(failed("Cannot allocate memory")), 1),
    ];
    for (ring, code) in rings {
        let facts = Facts {
            ring,
            io_uring_disabled: Some(2),
            operations: vec![("RECV", false)],
            memlock: Some(64 << 10),
            ..fine()
        };
        for (io, verdict, engine, code) in
            [(Auto, Warn, Some("epoll"), 0), (Epoll, Ok, Some("epoll"), 0), (Uring, Bad, None, code)]
        {
            let found = examine(&facts, io);
            assert_eq!((found.verdict(), found.engine, found.exit_code), (verdict, engine, code), "{io:?}");
            assert_eq!(found.count(Ok), found.checks.len() - if verdict == Ok { 0 } else { 4 }, "{found:#?}");
            let conclusion = text(&found, false).lines().last().unwrap().to_owned();
            assert_eq!(conclusion.contains("does not start here"), verdict == Bad, "{conclusion}");
        }
        let nothing =
            Facts { epoll: EngineFacts::Short("cannot set up epoll: no; raise it".into()), ..facts };
        for io in [Auto, Epoll] {
            let found = examine(&nothing, io);
            assert_eq!((found.verdict(), found.engine, found.exit_code), (Bad, None, 1), "{io:?}");
        }
    }
    let crowded = Facts { memlock: Some(600 << 10), ..fine() };
    assert_eq!(examine(&crowded, Uring).exit_code, 1, "the second thread has no ring");
    assert_eq!(examine(&crowded, Auto).exit_code, 0, "the second thread takes epoll");
    let alone = Facts { threads: 1, ..crowded };
    assert_eq!(examine(&alone, Uring).exit_code, 0, "it is the threads that need rings, and not the cores");
}

#[test]
fn the_text_fits_80_columns_and_breaks_no_command() {
    let facts = Facts { ring: forbidden(), seccomp: Some(2), io_uring_disabled: Some(2), ..fine() };
    let shown = text(&examine(&facts, EngineChoice::Uring), false);
    for line in shown.lines() {
        let command = line.contains("echo kernel.io_uring_disabled=0 > /etc");
        assert!(line.chars().count() <= 80 || command, "{line}");
        assert_eq!(line.matches('`').count() % 2, 0, "{line}");
    }
}

#[test]
fn a_seccomp_filter_is_suspected_if_the_ring_is_forbidden() {
    let filtered = one(&Facts { ring: forbidden(), seccomp: Some(2), ..fine() }, "seccomp");
    assert!(filtered.cure.unwrap().contains("`deadpeer doctor --seccomp-profile > deadpeer.json`"));
    assert_eq!(one(&Facts { seccomp: Some(2), ..fine() }, "seccomp").verdict, Verdict::Ok);
    for (name, facts) in [
        ("syn-backlog", Facts { syn_backlog: Some(1), syn_cookies: Some(1), ..fine() }),
        ("memlock", Facts { kernel: "6.8.0".into(), memlock: Some(0), ..fine() }),
        ("memlock", Facts { memlock: Some(0), locks_memory: true, ..fine() }),
    ] {
        assert_eq!(one(&facts, name).verdict, Verdict::Ok, "{facts:?}");
    }
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
fn facts_are_read_from_their_files() {
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
    assert_eq!(facts.quota, Some(0.5));
    assert_eq!((facts.ports, facts.tcp_mem), (Some((1_024, 65_535)), Some([1, 2, 3])));
    assert_eq!(facts.conntrack, Some((7, 9)));
}

#[test]
fn every_fact_of_this_machine_is_read() {
    let facts = Facts::read();
    assert!(matches!(facts.ring, EngineFacts::Works { .. }), "{:?}", facts.ring);
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
    let diagnosis = examine(&facts, EngineChoice::Auto);
    let plain = text(&diagnosis, false);
    assert!(!plain.contains('\x1b') && text(&diagnosis, true).contains("\x1b[33mwarn"));
    assert!(
        plain.contains("warn  somaxconn") && plain.contains("-> `sysctl net.core.somaxconn=65535`"),
        "{plain}"
    );
    assert!(plain.ends_with("\ndeadpeer run starts here, on io_uring; the warning limits it\n"), "{plain}");
    let value: serde_json::Value = serde_json::from_str(&json(&diagnosis)).unwrap();
    assert_eq!((&value["version"], &value["verdict"]), (&1.into(), &"warn".into()));
    assert_eq!((&value["io"], &value["engine"]), (&"auto".into(), &"io_uring".into()));
    assert_eq!(value["checks"].as_array().unwrap().len(), diagnosis.checks.len());
}

#[test]
fn the_document_lists_every_check() {
    let document = include_str!("../../docs/REFERENCE.md");
    let (_, section) = document.split_once("## `deadpeer doctor`").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for check in examine(&fine(), EngineChoice::Auto).checks {
        assert!(section.contains(&format!("| `{}` |", check.name)), "{} has no row", check.name);
    }
}

proptest! {
    #[test]
    fn no_text_in_a_file_makes_it_panic(text in ".{0,60}", number: u64) {
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
        for io in [EngineChoice::Auto, EngineChoice::Uring, EngineChoice::Epoll] {
            prop_assert!(text_is_whole(&examine(&facts, io)));
        }
    }
}

fn text_is_whole(diagnosis: &Diagnosis) -> bool {
    text(diagnosis, true).lines().count() > diagnosis.checks.len()
        && serde_json::from_str::<serde_json::Value>(&json(diagnosis)).is_ok()
}
