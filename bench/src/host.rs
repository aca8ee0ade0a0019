//! What the host is, and how much processor time this process has used.

use serde::Serialize;

/// Facts about the machine that every result carries.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    /// Processors this process may run on.
    pub(crate) cpus: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Commit this binary was built from, `unknown` outside a git checkout.
    pub(crate) commit: &'static str,
}

impl Host {
    /// This machine.
    pub(crate) fn this() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Host {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            commit: env!("OUTRIDER_COMMIT"),
        }
    }
}

/// Clock ticks per second in `/proc/PID/stat`: USER_HZ is 100 on every Linux architecture in use.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time, user and system, of all threads of this process so far, in seconds; to 10 ms.
pub(crate) fn cpu_seconds() -> f64 {
    std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| ticks(&stat)).unwrap_or(0.0)
        / TICKS_PER_SECOND
}

/// `utime + stime` of a line of proc(5) stat.
fn ticks(stat: &str) -> Option<f64> {
    // The command name is in parentheses and may itself contain both spaces and parentheses.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Whether this process has the privilege that network labs need.
pub(crate) fn is_root() -> bool {
    // Uid line of proc(5) status: real, effective, saved, file system.
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| s.lines().find(|l| l.starts_with("Uid:")).map(str::to_owned))
        .and_then(|line| line.split_ascii_whitespace().nth(2).map(|uid| uid == "0"))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_an_odd_command_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 17 4 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(21.0));
    }

    #[test]
    fn a_truncated_line_gives_nothing() {
        assert_eq!(ticks("42 (x) S 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_host_has_processors_and_a_kernel() {
        let host = Host::this();
        assert!(host.cpus >= 1);
        assert!(!host.kernel.is_empty());
    }
}
