//! Help, and arguments that are refused.

use std::collections::BTreeSet;

use crate::outcome::outcome;

/// Where a daemon would listen if a refusal were forgotten.
const RUN: &str = "run --listen 127.0.0.1:0";

#[track_caller]
fn assert_usage_error(line: &str, words: &[&str]) {
    outcome(line).assert_refusal(2, words);
}

/// The options that a help text explains: `--word` at the beginning of a line.
fn options(help: &str) -> BTreeSet<&str> {
    let lines =
        help.lines().map(|line| line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, "));
    lines.filter(|line| line.starts_with("--")).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn help_shows_the_sub_commands_and_each_explains_its_options() {
    let help = outcome("--help");
    help.assert_quiet_success();
    for word in ["Usage: deadpeer <COMMAND>", "\n  run ", "\n  beat ", "\n  bench ", "\n  report "] {
        assert!(help.stdout.contains(word), "{help:#?}");
    }

    let run = outcome("run --help");
    run.assert_quiet_success();
    let expected = [
        "--listen",
        "--policy",
        "--idle",
        "--interval",
        "--io",
        "--probes",
        "--handshake",
        "--half-closed-grace",
        "--user-timeout",
        "--heartbeat",
        "--wake",
        "--unread",
        "--drain-every",
        "--on-duplicate",
        "--threads",
        "--batch-window",
        "--max-connections",
        "--events",
        "--only",
        "--latency-log",
        "--latency-interval",
        "--help",
    ];
    assert_eq!(options(&run.stdout), BTreeSet::from(expected));

    let beat = outcome("beat --help");
    beat.assert_quiet_success();
    let expected =
        ["--count", "--every", "--identity", "--for", "--seed", "--reconnect", "--quiet", "--help"];
    assert_eq!(options(&beat.stdout), BTreeSet::from(expected));
    assert!(beat.stdout.contains("<ADDR>") && beat.stdout.contains("127.0.0.1:7400"), "{beat:#?}");
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = outcome("--version");
    version.assert_quiet_success();
    assert_eq!(version.stdout, concat!("deadpeer ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn without_a_sub_command_the_help_comes_as_an_error() {
    assert_usage_error("", &["Usage: deadpeer <COMMAND>", "run", "beat", "--help"]);
}

#[test]
fn unknown_words_are_named_and_the_way_to_the_help_is_shown() {
    for (line, word) in [
        ("--nonsense", "--nonsense"),
        ("nonsense", "nonsense"),
        ("run --nonsense", "--nonsense"),
        ("run nonsense", "nonsense"),
        ("beat 127.0.0.1:1 --nonsense", "--nonsense"),
    ] {
        assert_usage_error(line, &[word, "--help"]);
    }
    assert_usage_error("beat", &["<ADDR>", "--help"]);
    assert_usage_error(&format!("{RUN} --idle 5s --idle 6s"), &["--idle", "multiple times"]);
    assert_usage_error(&format!("{RUN} --events"), &["--events <-|PATH>", "value is required"]);
}

#[test]
fn a_word_that_is_none_of_the_choices_is_answered_with_the_choices() {
    for (option, choices) in
        [("--policy", "standard, strict"), ("--heartbeat", "bytes, frames, none"), ("--wake", "lazy, beat")]
    {
        assert_usage_error(&format!("{RUN} {option} often"), &[option, "often", choices]);
    }
}

#[test]
fn a_duration_that_cannot_be_read_is_answered_with_how_to_write_it() {
    for option in
        ["--idle", "--interval", "--handshake", "--half-closed-grace", "--user-timeout", "--batch-window"]
    {
        assert_usage_error(&format!("{RUN} {option} 30"), &[option, "no unit", "write `30s`", "`30ms`"]);
    }
    assert_usage_error(&format!("{RUN} --idle 3sec"), &["`sec`", "h, m, s, ms, us and ns"]);
    assert_usage_error(&format!("{RUN} --idle soon"), &["`soon`", "write it like", "`1.5s`"]);
    assert_usage_error(&format!("{RUN} --idle="), &["--idle", "write it like"]);
    assert_usage_error("beat 127.0.0.1:1 --every 5", &["--every", "write `5s`"]);
    assert_usage_error("beat 127.0.0.1:1 --for 5", &["--for", "write `5s`"]);
}

#[test]
fn an_address_that_cannot_be_read_is_answered_with_how_to_write_it() {
    for (address, cure) in [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("::1", "[::1]:8080"),
        ("7400", ":7400"),
        ("127.0.0.1:99999", "0 to 65535"),
        ("[::1]", "[::1]:8080"),
        ("https://[::1]:7400", "no TLS"),
    ] {
        assert_usage_error(&format!("run --listen {address}"), &[address, "--listen", cure]);
    }
    for address in ["127.0.0.1", "::1", ":7400", "127.0.0.1:99999", "[::1]"] {
        assert_usage_error(&format!("beat {address}"), &[address, "127.0.0.1:7400", "[::1]:7400"]);
    }
    assert_usage_error("beat 127.0.0.1:0", &["127.0.0.1:0", "port 0", "the port that the server printed"]);
}

#[test]
fn a_number_out_of_range_is_answered_with_the_range() {
    for (option, values, range) in [
        ("--unread", ["0", "1048577"], "from 1 to 1048576"),
        ("--drain-every", ["0", "201"], "1..=200"),
        ("--threads", ["0", "257"], "1..=256"),
        ("--max-connections", ["0", "16777217"], "1..=16777216"),
    ] {
        for value in values {
            assert_usage_error(&format!("{RUN} {option} {value}"), &[option, value, range]);
        }
    }
    for probes in ["0", "101", "4294967295"] {
        assert_usage_error(
            &format!("{RUN} --probes {probes}"),
            &[probes, "probes", "at least 1, at most 100"],
        );
    }
    for count in ["0", "64513"] {
        assert_usage_error(&format!("beat 127.0.0.1:1 --count {count}"), &[count, "1 to 64512"]);
    }
    for every in ["0", "999us", "86401s"] {
        assert_usage_error(
            &format!("beat 127.0.0.1:1 --every {every}"),
            &["cannot beat every", "1ms to 86400s"],
        );
    }
    let name = "n".repeat(65);
    assert_usage_error(&format!("beat 127.0.0.1:1 --identity {name}"), &[&name, "64 bytes", "shorter"]);
}

#[test]
fn a_time_that_cannot_be_kept_is_answered_with_those_that_can() {
    for (arguments, words) in [
        ("--idle 99ms", ["idle of 99ms", "at least 100ms, at most 32767s"]),
        ("--idle 32768s", ["idle of 32768s", "at least 100ms, at most 32767s"]),
        ("--interval 49ms", ["interval of 49ms", "at least 50ms, at most 32767s"]),
        ("--handshake 99ms", ["handshake of 99ms", "at least 100ms, at most 32767s"]),
        ("--half-closed-grace 10h", ["half-closed grace of 36000s", "at most 32767s"]),
        ("--batch-window 101ms", ["--batch-window", "at most 100ms"]),
        ("--user-timeout 999h", ["user timeout of 3596400s", "at least 32s, at most 2147483s"]),
    ] {
        assert_usage_error(&format!("{RUN} {arguments}"), &words);
    }
}

#[test]
fn a_timeout_of_nothing_and_an_address_of_nothing_are_refused() {
    let proxy = "proxy --upstream 127.0.0.1:1";
    for option in ["head", "body", "connect", "send", "response"] {
        let line = format!("{proxy} --{option}-timeout 0s");
        assert_usage_error(
            &line,
            &[&format!("--{option}-timeout"), "`0s` leaves no time", "leave the option out"],
        );
    }
    assert_usage_error("proxy --upstream=", &["the address is empty", "127.0.0.1:8080"]);
    assert_usage_error(
        &format!("{proxy} --listen 127.0.0.1:80:90"),
        &["two ports", "write it like 127.0.0.1:80"],
    );
}

#[test]
fn a_policy_that_contradicts_itself_is_answered_with_the_arithmetic_and_the_cure() {
    for (arguments, words) in [
        (
            "--policy strict --idle 30s",
            [
                "idle 30s + 3 probes x 1s = 33s",
                "strict promises a verdict within 6s to 9s",
                "leave the name out",
            ],
        ),
        (
            "--policy standard --probes 1 --interval 1s",
            [
                "idle 20s + 1 probes x 1s = 21s",
                "standard promises a verdict within 30s to 40s",
                "change the parts",
            ],
        ),
        (
            "--policy strict --user-timeout 6s",
            ["user timeout of 6s", "4 s + 3 x 1 s = 7s: one lost probe would kill", "at least 7s"],
        ),
        (
            "--user-timeout 0",
            ["user timeout of 0ns", "20 s + 3 x 4 s = 32s: one lost probe would kill", "at least 32s"],
        ),
        (
            "--heartbeat none --idle 1s --interval 500ms",
            ["idle of 1s is too fine for TCP keepalive", "whole seconds", "at least 2s, or take heartbeats"],
        ),
        (
            "--heartbeat none --idle 9000s --interval 200ms --probes 100",
            [
                "idle 9000s + 100 probes x 200ms needs 4521 keepalive probes",
                "at most 127",
                "take fewer probes",
            ],
        ),
    ] {
        assert_usage_error(&format!("{RUN} {arguments}"), &words);
    }
}

#[test]
fn no_refusal_names_a_time_that_was_not_given() {
    // The handshake follows from the pace of the beats and would be longer than the longest.
    let outcome = outcome(&format!("{RUN} --idle 32767s --interval 200ms --probes 100 --events /dev/full"));
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(!outcome.stderr.contains("handshake"), "{outcome:#?}");
}
