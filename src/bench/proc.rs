//! Figures from /proc: CPU of a process and of the machine, resident memory, slabs.

use std::{fs, io};

use super::now;
use crate::sys::process;

/// The counters of one process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub cpu_ns: u64,
    /// Voluntary context switches of all threads: how often it slept.
    pub sleeps: u64,
}

impl Process {
    pub fn read(pid: u32) -> io::Result<Process> {
        let mut sleeps = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(Process { cpu_ns: process::cpu_nanos(pid)?, sleeps })
    }
}

/// The number of descriptors that a process holds. Since Linux 6.2 it is the size of the directory; before that the
/// size is zero, and the entries are counted.
pub fn descriptors(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path)?.len() {
        0 => Ok(fs::read_dir(&path)?.count() as u64),
        count => Ok(count),
    }
}

/// The cores of the measurement at one moment: nanoseconds, summed over the cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Time that has passed.
    wall: u64,
    /// idle + iowait
    idle: u64,
    /// Taken away by the hypervisor.
    pub steal: u64,
    /// user + nice + system + irq + softirq, as the tick sampled them.
    pub sampled: u64,
}

impl Machine {
    /// Sums the lines `cpuN` of the given cores. The busy columns of /proc/stat are samples, taken
    /// at the timer tick. A load that sleeps by a timer can keep step with the tick, and the kernel's own timers,
    /// such as delayed ACKs, run right after the sample: the columns showed 0.3 s where one process alone had used
    /// 1.9 s. Idle time is clocked at each entry and exit (NO_HZ), so busy time is the rest; `perf record -a`, which
    /// has a clock of its own, agrees with that.
    pub fn read(cores: &[usize]) -> io::Result<Machine> {
        let text = fs::read_to_string("/proc/stat")?;
        let mut sum = Machine::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let core = words.next().and_then(|name| name.strip_prefix("cpu")?.parse::<usize>().ok());
            if !core.is_some_and(|core| cores.contains(&core)) {
                continue;
            }
            let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            let nanos = |index: usize| ticks.get(index).copied().unwrap_or(0) * TICK_NS;
            sum.wall += now();
            sum.idle += nanos(3) + nanos(4);
            sum.steal += nanos(7);
            sum.sampled += nanos(0) + nanos(1) + nanos(2) + nanos(5) + nanos(6);
        }
        if sum.wall == 0 {
            return Err(io::Error::other(format!("/proc/stat has no line for the cores {cores:?}")));
        }
        Ok(sum)
    }

    pub fn since(self, earlier: Machine) -> Machine {
        Machine {
            wall: self.wall - earlier.wall,
            // The kernel may correct idle time downwards.
            idle: self.idle.saturating_sub(earlier.idle),
            steal: self.steal.saturating_sub(earlier.steal),
            sampled: self.sampled.saturating_sub(earlier.sampled),
        }
    }

    pub fn busy(self) -> u64 {
        self.wall.saturating_sub(self.idle + self.steal)
    }
}

/// CPU of all user processes but `ours`, in nanoseconds since boot. It includes that of ended children, which /proc adds
/// to their parents, such as a compiler's. It leaves out kernel threads: they mostly handle our own packets.
fn others_cpu(ours: &[u32]) -> io::Result<u64> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // The process may have ended since the directory was read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in brackets may hold any bytes, so the fields are counted from its end.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let kernel_thread = number(6) & PF_KTHREAD != 0;
        if !kernel_thread && !ours.contains(&pid) {
            ticks += (11..=14).map(number).sum::<u64>();
        }
    }
    Ok(ticks * TICK_NS)
}

/// The CPU of other programs and the busy time of the machine, at one moment.
pub struct Surroundings {
    /// As [`others_cpu`].
    pub others: u64,
    pub machine: Machine,
}

impl Surroundings {
    /// Reads them; `ours` and this process are no other programs.
    pub fn read(ours: &[u32], cores: &[usize]) -> io::Result<Surroundings> {
        let ours = [ours, &[std::process::id()]].concat();
        Ok(Surroundings { others: others_cpu(&ours)?, machine: Machine::read(cores)? })
    }
}

/// The bit of a kernel thread in the flags of /proc/PID/stat.
const PF_KTHREAD: u64 = 0x0020_0000;

/// `USER_HZ` is 100 on every architecture that has io_uring.
const TICK_NS: u64 = 10_000_000;

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> io::Result<i64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(field(&text, "Rss:").unwrap_or(0).cast_signed() * 1024)
}

/// Slab caches of files and pages, which other programs change by megabytes and a socket does not; and those of /proc,
/// which this program's own reads change. A socket has a dentry and an LSM blob, too, the same under every server.
const OF_FILE_SYSTEMS: [&str; 11] = [
    "buffer_head",
    "btrfs",
    "ext4",
    "jbd2",
    "xfs",
    "inode_cache",
    "proc_inode_cache",
    "lsm_inode_cache",
    "dentry",
    "radix_tree_node",
    "extent_status",
];

/// The bytes of live objects in slab caches, from /proc/slabinfo; `None` where it cannot be read: it needs root. Objects
/// on a core's partial slabs count as live, so a figure is exact to some hundred objects: measure with thousands.
pub fn slabs() -> Option<i64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let live = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, active, _, size, ..] = words[..] else { return None };
        // The two lines of its head hold no numbers.
        let bytes = active.parse::<i64>().ok()? * size.parse::<i64>().ok()?;
        (!OF_FILE_SYSTEMS.iter().any(|prefix| name.starts_with(prefix))).then_some(bytes)
    });
    Some(live.sum())
}

/// The number behind a name at the begin of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
