//! The machine that a measurement runs on, and which cores it uses.

use std::fs;

use super::now;
use crate::measure::result::Machine;
use crate::sys::{clock, process, rlimit};

/// Describes this machine and the cores in use. A figure that cannot be read is empty or zero.
#[must_use]
pub fn describe(server_cores: &[usize], load_cores: &[usize]) -> Machine {
    let cpu = read("/proc/cpuinfo");
    let cpu_line =
        |name: &str| cpu.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    let numbers = |cores: &[usize]| cores.iter().filter_map(|&core| u32::try_from(core).ok()).collect();
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: cpu_line("model name").map_or(String::new(), |(_, name)| name.trim().to_owned()),
        cores: u32::try_from(process::usable_cores().len()).unwrap_or(u32::MAX),
        memory_bytes: memory(),
        virtual_machine: cpu_line("flags")
            .is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "hypervisor")),
        tick_ns: clock::tick_nanos(),
        descriptors: rlimit::raise_nofile().unwrap_or(0),
        memlock_bytes: limit("Max locked memory"),
        root: process::is_root(),
        load_thousandths: load(),
        server_cores: numbers(server_cores),
        load_cores: numbers(load_cores),
        bare_recv: None,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn memory() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The soft limit of that name; `None` for unlimited.
fn limit(name: &str) -> Option<u64> {
    let text = read("/proc/self/limits");
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn load() -> u64 {
    let text = read("/proc/loadavg");
    let load = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    load.map_or(0, |load| (load * 1_000.0) as u64)
}

/// The cores of the servers and those of the load: different ones where there are two or more.
#[must_use]
pub fn share_out(server_threads: usize) -> (Vec<usize>, Vec<usize>) {
    let cores = process::usable_cores();
    if cores.len() < 2 {
        return (cores.clone(), cores);
    }
    let servers = server_threads.clamp(1, cores.len() - 1);
    (cores[..servers].to_vec(), cores[servers..].to_vec())
}

/// The instant at which a measurement begins: late enough for each process to have read its plan.
#[must_use]
pub fn soon() -> u64 {
    now() + 200_000_000
}
