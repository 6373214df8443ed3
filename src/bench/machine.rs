//! The machine that a measurement runs on, and which cores it uses.

use std::fs;

use super::now;
use super::proc::field;
use crate::measure::result::Machine;
use crate::sys::{clock, process, rlimit};

/// Describes this machine and the cores in use. A figure that cannot be read is empty or zero.
pub fn describe(server_cores: &[usize], load_cores: &[usize]) -> Machine {
    let cpu = read("/proc/cpuinfo");
    let cpu_line =
        |name: &str| cpu.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    let numbers = |cores: &[usize]| cores.iter().filter_map(|&core| u32::try_from(core).ok()).collect();
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: cpu_line("model name").map_or(String::new(), |(_, name)| name.trim().to_owned()),
        cores: u32::try_from(process::usable_cores().len()).unwrap_or(u32::MAX),
        memory_bytes: field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) * 1024,
        virtual_machine: cpu_line("flags")
            .is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "hypervisor")),
        tick_ns: clock::tick_nanos(),
        descriptors: rlimit::raise_nofile().unwrap_or(0),
        // The soft limit, or `unlimited`, which is no number.
        memlock_bytes: field(&read("/proc/self/limits"), "Max locked memory"),
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

fn load() -> u64 {
    let text = read("/proc/loadavg");
    let load = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    load.map_or(0, |load| (load * 1_000.0) as u64)
}

/// The cores of the servers and those of the load: different ones where there are two or more.
pub fn share_out(server_threads: usize) -> (Vec<usize>, Vec<usize>) {
    let cores = process::usable_cores();
    if cores.len() < 2 {
        return (cores.clone(), cores);
    }
    let servers = server_threads.clamp(1, cores.len() - 1);
    (cores[..servers].to_vec(), cores[servers..].to_vec())
}

/// The instant at which a measurement begins: late enough for each process to have read its plan.
pub fn soon() -> u64 {
    now() + 200_000_000
}
