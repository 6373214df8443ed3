//! Holds what operators read against what runs: the unit, the limits and the messages of
//! docs/REFERENCE.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deadpeer::cli::duration;

#[path = "kernel/skip.rs"]
mod skip;
use skip::skip;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A section of docs/REFERENCE.md, up to the next of its rank.
fn section(title: &str) -> String {
    let text = read("docs/REFERENCE.md");
    let start = text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}")) + 1;
    let end = text[start..].find("\n## ").map_or(text.len(), |end| start + end);
    text[start..end].to_owned()
}

/// The rows of all tables in a text, cell by cell, without heads.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len())
        .filter(|&n| lines[n].starts_with('|') && !lines[n].starts_with("|---"))
        .filter(|&n| !lines.get(n + 1).is_some_and(|next| next.starts_with("|---")))
        .map(|n| cells(lines[n]))
        .collect()
}

mod unit {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{ChildStdout, Command, Stdio};

    use deadpeer::frame::Frame;
    use serde_json::Value;

    use super::*;

    const BINARY: &str = env!("CARGO_BIN_EXE_deadpeer");

    /// The output of a tool, if there is such a tool.
    fn tool(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
        let Ok(output) = Command::new(name).args(arguments).output() else {
            skip(&format!("no `{name}`: install systemd and strace"));
            return None;
        };
        let text = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// The settings of the unit with this name, in order.
    fn settings(name: &str) -> Vec<String> {
        let unit = read("docs/deadpeer.service");
        let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.map(str::to_owned).collect()
    }

    #[test]
    fn systemd_finds_no_fault_in_the_unit_and_little_exposure() {
        // Verifying looks for the program, so it is given the one that was built.
        let folder = std::env::temp_dir().join(format!("deadpeer-unit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("deadpeer.service");
        fs::write(&path, read("docs/deadpeer.service").replace("/usr/local/bin/deadpeer", BINARY)).unwrap();
        let path = path.to_str().unwrap();
        let verified = tool("systemd-analyze", &["verify", "--man=no", path]);
        let secure = tool("systemd-analyze", &["security", "--offline=yes", "--threshold=15", path]);
        fs::remove_dir_all(&folder).unwrap();
        let (Some((fit, faults)), Some((safe, exposure))) = (verified, secure) else { return };
        assert!(fit && faults.is_empty(), "{faults}");
        assert!(safe, "{exposure}");
    }

    /// Adds the members of a set of systemd's, and of the sets in it.
    fn expand(set: &str, listing: &str, into: &mut BTreeSet<String>) {
        let Some(members) = listing.split("\n\n").find_map(|text| text.strip_prefix(&format!("{set}\n")))
        else {
            panic!("systemd has no set {set}");
        };
        for member in members.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            if member.starts_with('@') {
                expand(member, listing, into);
            } else {
                into.insert(member.to_owned());
            }
        }
    }

    /// Calls that the unit's filter allows, as `systemd.exec(5)` reads it: a list of what is allowed,
    /// from which the lines with a `~` take away.
    fn allowed(listing: &str) -> BTreeSet<String> {
        let mut allowed = BTreeSet::new();
        for line in settings("SystemCallFilter") {
            let (taken, names) = match line.strip_prefix('~') {
                Some(names) => (true, names.to_owned()),
                None => (false, line),
            };
            for name in names.split_whitespace() {
                let mut calls = BTreeSet::new();
                if name.starts_with('@') {
                    expand(name, listing, &mut calls);
                } else {
                    calls.insert(name.to_owned());
                }
                for call in calls {
                    if taken {
                        allowed.remove(&call)
                    } else {
                        allowed.insert(call)
                    };
                }
            }
        }
        allowed
    }

    /// Reads events until one of this name.
    fn wait(output: &mut BufReader<ChildStdout>, name: &str) -> Value {
        for line in output.lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == name {
                return event;
            }
        }
        panic!("the events ended before {name}");
    }

    #[test]
    fn the_unit_allows_every_system_call_that_the_daemon_makes() {
        let Some((true, listing)) = tool("systemd-analyze", &["--no-pager", "syscall-filter"]) else {
            return;
        };
        if tool("strace", &["-V"]).is_none() {
            return;
        }
        let trace = std::env::temp_dir().join(format!("deadpeer-trace-{}", std::process::id()));
        let mut traced = Command::new("strace")
            .args(["-f", "-qq", "-o", trace.to_str().unwrap(), BINARY, "run", "--events", "-"])
            .args(["--listen", "127.0.0.1:0", "--heartbeat", "frames"])
            .args(["--idle", "200ms", "--interval", "100ms", "--probes", "2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A whole life: a beat, a silence with its probes, a death by time; a FIN; the end.
        let mut output = BufReader::new(traced.stdout.take().unwrap());
        let listening = wait(&mut output, "listening");
        let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
        let mut silent = TcpStream::connect(address).unwrap();
        silent.write_all(&Frame::beat(0).encode()).unwrap();
        assert_eq!(wait(&mut output, "died")["cause"], "heartbeat_expired");
        drop(TcpStream::connect(address).unwrap());
        assert_eq!(wait(&mut output, "died")["cause"], "closed");
        assert!(
            Command::new("kill").args(["-TERM", &listening["pid"].to_string()]).status().unwrap().success()
        );
        wait(&mut output, "summary");
        assert!(traced.wait().unwrap().success());

        let text = fs::read_to_string(&trace).unwrap();
        fs::remove_file(&trace).unwrap();
        // `4711  read(3, ...`; a call that was interrupted by another thread's is told in two lines.
        let calls = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('('));
        let calls: BTreeSet<&str> = calls.map(|(call, _)| call).collect();
        for expected in ["io_uring_setup", "io_uring_enter", "accept4", "sendto", "prlimit64"] {
            assert!(calls.contains(expected), "{expected} was not seen: {calls:?}");
        }
        let allowed = allowed(&listing);
        let forbidden: Vec<_> = calls.iter().filter(|&&call| !allowed.contains(call)).collect();
        assert!(forbidden.is_empty(), "SystemCallFilter= forbids what the daemon needs: {forbidden:?}");

        let profile: Value = serde_json::from_str(&read("docs/seccomp.json")).unwrap();
        let groups = profile["syscalls"].as_array().unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let names: BTreeSet<&str> = groups
            .iter()
            // Where clone3 is said not to be there, libc takes clone, whose flags can be seen: no namespaces.
            .filter(|group| group["action"] == "SCMP_ACT_ALLOW" || group["names"][0] == "clone3")
            .flat_map(|group| group["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        let forbidden: Vec<_> = calls.iter().filter(|&&call| !names.contains(call)).collect();
        assert!(forbidden.is_empty(), "docs/seccomp.json forbids what the daemon needs: {forbidden:?}");
        let own: Vec<_> = groups[0]["names"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(
            own,
            ["io_uring_setup", "io_uring_enter", "io_uring_register"].map(|name| format!("{name:?}"))
        );
        for dangerous in [
            "keyctl",
            "ptrace",
            "unshare",
            "setns",
            "bpf",
            "mount",
            "init_module",
            "kexec_load",
            "reboot",
            "settimeofday",
        ] {
            assert!(!names.contains(dangerous), "{dangerous}");
        }

        // RestrictAddressFamilies= is about socket(2).
        let families = settings("RestrictAddressFamilies").join(" ");
        for (_, rest) in text.lines().filter_map(|line| line.split_once(" socket(")) {
            let family = rest.split(',').next().unwrap();
            assert!(
                families.split_whitespace().any(|allowed| allowed == family),
                "{family} is not in {families}"
            );
        }
    }
}

mod limits {
    use super::*;

    /// The constants of a source file whose value is a plain number or a plain time.
    fn constants(path: &str) -> Vec<(String, String)> {
        let declarations = read(path);
        let declarations = declarations.lines().filter_map(|line| {
            let (name, value) = line.split_once("const ")?.1.split_once(": ")?;
            Some((name.to_owned(), value.split_once(" = ")?.1.split(';').next()?.to_owned()))
        });
        declarations.collect()
    }

    /// `1 << 24`, `64 * 1024`, `4_096`, `u16::MAX`, `Duration::from_millis(500)`, as a number of
    /// units or of nanoseconds.
    fn value(text: &str) -> Option<u64> {
        let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
        if text == "u16::MAX" {
            return Some(u64::from(u16::MAX));
        }
        if let Some((base, shift)) = text.split_once(" << ") {
            return Some(number(base)? << number(shift)?);
        }
        if let Some((a, b)) = text.split_once(" * ") {
            return Some(number(a)? * number(b)?);
        }
        for (unit, nanos) in [("secs", 1_000_000_000), ("millis", 1_000_000), ("micros", 1_000)] {
            if let Some(rest) = text.strip_prefix(&format!("Duration::from_{unit}(")) {
                return Some(number(rest.trim_end_matches(')'))? * nanos);
            }
        }
        number(text)
    }

    #[test]
    fn the_numbers_of_the_limits_are_those_of_the_sources() {
        let mut shown = BTreeSet::new();
        for row in rows(&section("Limits")) {
            let [name, file, number, ..] = &row[..] else { panic!("a short row: {row:?}") };
            let (name, file) = (name.trim_matches('`'), file.trim_matches('`'));
            let constants = constants(&format!("src/{file}"));
            let declared = constants.iter().find(|(constant, _)| constant == name);
            let (_, declared) = declared.unwrap_or_else(|| panic!("no {name} in src/{file}"));
            let plain = number.replace([',', ' '], "");
            let documented = match duration::parse(&plain) {
                Ok(time) if !time.is_zero() => u64::try_from(time.as_nanos()).unwrap(),
                _ => plain.parse().unwrap_or_else(|_| panic!("{name}: `{number}` is no number")),
            };
            assert_eq!(
                value(declared),
                Some(documented),
                "{name}: {declared} in src/{file}, {number} in the document"
            );
            shown.insert(name.to_owned());
        }
        for (name, _) in constants("src/limits.rs").iter().filter(|(name, _)| name != "_") {
            assert!(shown.contains(name), "{name} of src/limits.rs has no row under Limits");
        }
    }
}

mod messages {
    use super::*;

    fn sources() -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    found.push((path, text));
                }
            }
        }
        let mut found = Vec::new();
        walk(&root().join("src"), &mut found);
        found
    }

    /// The code of a file, without comments and without its tests.
    fn code(text: &str) -> String {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
        let lines = lines.filter(|line| !line.contains("assert!(")); // its words are a panic's
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// The string literals in a piece of code, as they are when the program runs.
    fn literals(code: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut letters = code.chars().peekable();
        while letters.by_ref().any(|letter| letter == '"') {
            let mut literal = String::new();
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => break,
                    '\\' => match letters.next() {
                        Some('\n') => while letters.next_if(|next| next.is_whitespace()).is_some() {},
                        Some('"') => literal.push('"'),
                        _ => literal.push(' '),
                    },
                    letter => literal.push(letter),
                }
            }
            found.push(literal);
        }
        found
    }

    /// From each place where `start` begins to the end of its block: the next `}` as far to the left.
    fn blocks(code: &str, start: impl Fn(&str) -> bool) -> Vec<&str> {
        let mut found = Vec::new();
        let mut offset = 0;
        for line in code.split_inclusive('\n') {
            if start(line.trim()) {
                let indent = &line[..line.len() - line.trim_start().len()];
                let rest = &code[offset..];
                let end = rest.find(&format!("\n{indent}}}\n")).expect("a block ends");
                found.push(&rest[..end]);
            }
            offset += line.len();
        }
        found
    }

    /// All that an error can say: what errors display, the cures, what was attempted, and every string
    /// of the command line.
    fn said() -> Vec<String> {
        let mut said = Vec::new();
        for (path, text) in sources() {
            let code = code(&text);
            let is_help = path.ends_with("cli/values.rs");
            if path.components().any(|part| part.as_os_str() == "cli") && !is_help {
                said.extend(literals(&code));
            }
            let errors = |line: &str| line.starts_with("impl fmt::Display for") && line.ends_with("Error {");
            let cures = |line: &str| line.starts_with("fn cure(");
            for block in blocks(&code, errors).into_iter().chain(blocks(&code, cures)) {
                said.extend(literals(block));
            }
            for call in ["attempted: \"", "attempt(address, \"", "RingError::new(\""] {
                for (position, _) in code.match_indices(call) {
                    said.extend(literals(&code[position..]).into_iter().next());
                }
            }
        }
        said
    }

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    /// Words and single spaces, without the marks of code.
    fn plain(text: &str) -> String {
        words(&text.replace(['`', '\\'], "")).join(" ")
    }

    /// The first seven words of a message that stand together and are always the same.
    fn stable(message: &str) -> Option<String> {
        let message = message.replace('`', "");
        // What stands for a value is between braces: every second part.
        let first = message.split(['{', '}']).step_by(2).map(words).find(|words| words.len() >= 3)?;
        Some(first[..first.len().min(7)].join(" "))
    }

    #[test]
    fn every_message_has_its_row() {
        let documented = plain(&section("Messages"));
        let said = said();
        assert!(said.len() > 80, "the messages were not found: {}", said.len());
        let stable: BTreeSet<String> = said.iter().filter_map(|message| stable(message)).collect();
        let missing: Vec<_> = stable.iter().filter(|words| !documented.contains(*words)).collect();
        assert!(missing.is_empty(), "no row under Messages in docs/REFERENCE.md for:\n{missing:#?}");
    }

    #[test]
    fn no_row_is_about_a_message_that_is_gone() {
        let all: Vec<String> = sources().iter().flat_map(|(_, text)| literals(&code(text))).collect();
        let all = plain(&all.join("\n"));
        let mut gone = Vec::new();
        for row in rows(&section("Messages")) {
            // Two are not ours: they are the words of the language's runtime.
            if row[0].contains("memory allocation") || row[0].contains("panicked at") {
                continue;
            }
            let message = plain(&row[0]);
            let message = message.trim_start_matches("cannot ");
            // What stands for a value, and the joints at which the program puts messages together.
            for part in message.split(['<', '>', ':', ';']) {
                let words = words(part);
                if words.len() >= 3 && !all.contains(&words[..words.len().min(7)].join(" ")) {
                    gone.push(format!("{}: {}", row[0], words.join(" ")));
                }
            }
        }
        assert!(gone.is_empty(), "nothing in the sources says:\n{}", gone.join("\n"));
    }

    #[test]
    fn a_message_says_no_number_that_only_programmers_know() {
        // A port that is taken, and one where no program listens.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let deaf = taken.local_addr().unwrap().as_socket().unwrap().to_string();
        for arguments in [
            &["run", "--events", "/nowhere/events", "--listen", "127.0.0.1:0"][..],
            &["run", "--listen", "127.0.0.1:0", "--events", "/dev/full"],
            &["run", "--listen", "192.0.2.1:0"],
            &["beat", &deaf, "--quiet"],
        ] {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_deadpeer")).args(arguments).output();
            let output = output.unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
            assert!(message.starts_with(&format!("deadpeer {}: ", arguments[0])), "{message}");
            assert!(!message.contains("os error"), "{message}");
        }
    }

    #[test]
    fn every_cell_of_the_messages_says_something() {
        for row in rows(&section("Messages")) {
            assert!(row.len() >= 2 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }
}
