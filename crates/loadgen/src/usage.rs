//! What a run cost: CPU time and memory of the server's processes and of this one, read from `/proc`.
//!
//! Server CPU is the on-CPU time of all threads (`schedstat`, nanoseconds, kernel share included); `/proc/PID/stat`
//! gives the user share in clock ticks of 10 ms, so the share of a short run is rough.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

/// One look at the clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Instant,
    own_cpu: Duration,
    server: Option<ServerSample>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ServerSample {
    on_cpu: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

/// What was used between two looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) wall: Duration,
    own_cpu: Duration,
    /// On-CPU time of the server, if its processes are known.
    pub(crate) server_cpu: Option<Duration>,
    /// User-space part of the server's CPU time, 0 to 1; absent below ten ticks, where it says nothing.
    pub(crate) user_share: Option<f64>,
}

/// Resident memory of the server, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

impl Sample {
    /// Looks at this process and at the server's `pids`.
    ///
    /// # Errors
    /// The caller's: a process that does not exist (any more).
    pub(crate) fn take(pids: &[u32]) -> anyhow::Result<Self> {
        let mut server = ServerSample::default();
        for pid in pids {
            let one = ServerSample::take(*pid)
                .with_context(|| format!("cannot read the CPU time of process {pid}"))?;
            server.on_cpu += one.on_cpu;
            server.user_ticks += one.user_ticks;
            server.system_ticks += one.system_ticks;
        }
        Ok(Self { at: Instant::now(), own_cpu: own_cpu(), server: (!pids.is_empty()).then_some(server) })
    }

    /// What was used from `self` to `later`.
    pub(crate) fn until(&self, later: &Self) -> Span {
        let server = self.server.zip(later.server);
        let user_share = server.and_then(|(a, b)| {
            let user = b.user_ticks.saturating_sub(a.user_ticks);
            let all = user + b.system_ticks.saturating_sub(a.system_ticks);
            (all >= 10).then(|| user as f64 / all as f64)
        });
        Span {
            wall: later.at.saturating_duration_since(self.at),
            own_cpu: later.own_cpu.saturating_sub(self.own_cpu),
            server_cpu: server.map(|(a, b)| b.on_cpu.saturating_sub(a.on_cpu)),
            user_share,
        }
    }
}

impl Span {
    /// This process's share of one CPU, in percent.
    pub(crate) fn own_cpu_pct(&self) -> f64 {
        percent(self.own_cpu, self.wall)
    }

    /// The server's share of one CPU, in percent; above 100 when it uses several.
    pub(crate) fn server_cpu_pct(&self) -> Option<f64> {
        self.server_cpu.map(|cpu| percent(cpu, self.wall))
    }

    /// Whether this process was the bottleneck: then its rate says nothing about the server.
    pub(crate) fn is_saturated(&self) -> bool {
        self.own_cpu_pct() >= 95.0
    }

    /// Server CPU for each of `units`, in microseconds.
    pub(crate) fn server_us_per(&self, units: u64) -> Option<f64> {
        self.server_cpu.filter(|_| units > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / units as f64)
    }

    /// `units` per second.
    pub(crate) fn rate(&self, units: u64) -> f64 {
        units as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

fn percent(cpu: Duration, wall: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / wall.as_secs_f64().max(1e-9)
}

fn own_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}

impl ServerSample {
    fn take(pid: u32) -> anyhow::Result<Self> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the look; then it has nothing to add.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_ticks, system_ticks) = decode_stat(&stat).context("unknown form of /proc/PID/stat")?;
        Ok(Self { on_cpu: Duration::from_nanos(nanos), user_ticks, system_ticks })
    }
}

/// `utime` and `stime`, fields 14 and 15. The name in field 2 may contain anything, so the count starts behind its parenthesis.
fn decode_stat(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident memory of all `pids` together; `None` without any.
///
/// # Errors
/// The caller's: a process that does not exist (any more).
pub(crate) fn memory(pids: &[u32]) -> anyhow::Result<Option<Memory>> {
    let mut sum = Memory::default();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        sum.resident += decode_status(&status, "VmRSS:");
        sum.anonymous += decode_status(&status, "RssAnon:");
    }
    Ok((!pids.is_empty()).then_some(sum))
}

/// One `Name: 12 kB` line of `/proc/PID/status`, in bytes; 0 when it is not there.
fn decode_status(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Raises the soft limit of descriptors to the hard one and refuses more connections than fit.
///
/// # Errors
/// The environment's: the hard limit is too low.
pub(crate) fn allow_descriptors(needed: usize) -> anyhow::Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    // 32: the standard streams, epoll, /proc files and what the runtime opens.
    let needed = needed as u64 + 32;
    if let Some(maximum) = limit.maximum {
        anyhow::ensure!(needed <= maximum, "{needed} descriptors needed, the hard limit is {maximum}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0";
        assert_eq!(decode_stat(stat), Some((111, 222)));
        assert_eq!(decode_stat("42 (a"), None);
    }

    #[test]
    fn status_lines_are_kibibytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(decode_status(status, "VmRSS:"), 2 << 20);
        assert_eq!(decode_status(status, "RssAnon:"), 12 << 10);
        assert_eq!(decode_status(status, "VmSwap:"), 0);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let pids = [std::process::id()];
        let (a, b) = (Sample::take(&pids).unwrap(), Sample::take(&pids).unwrap());
        assert!(a.until(&b).server_cpu.is_some());
        assert!(memory(&pids).unwrap().unwrap().resident > 0);
        assert!(memory(&[]).unwrap().is_none());
    }
}
