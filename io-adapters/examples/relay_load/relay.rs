//! The relay's process, as the kernel counts it.

/// A clock tick of `/proc/PID/stat`, in nanoseconds: 100 a second on Linux.
const TICK: u64 = 10_000_000;

/// The relay's process, if it is known.
#[derive(Clone, Copy)]
pub(crate) struct Process(Option<u32>);

impl Process {
    pub(crate) const fn new(pid: Option<u32>) -> Self {
        Self(pid)
    }

    /// The CPU time of all its threads so far, in nanoseconds.
    pub(crate) fn cpu(self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0?)).ok()?;
        // The program's name may hold anything; fields are counted after it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = |n| fields.split(' ').nth(n)?.parse::<u64>().ok();
        Some((ticks(11)? + ticks(12)?) * TICK)
    }

    /// Its resident set in KiB.
    pub(crate) fn resident_kib(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0?)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}
