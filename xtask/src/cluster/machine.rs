//! Owns how busy the machine was during a run, and how much of that was the run's own doing: on a machine that has nothing left,
//! delays and rates tell of it rather than of the servers. Reads Linux's `/proc`.

use anyhow::Context;

/// Processor time so far, in the system's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    all: u64,
    idle: u64,
    /// Of this process and of those that it has started and that have ended.
    ours: u64,
}

impl Cpu {
    /// # Errors
    /// The environment's: there is no `/proc` as Linux has it.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let (machine, this) = ("/proc/stat", "/proc/self/stat");
        let read = |file: &str| std::fs::read_to_string(file).with_context(|| file.to_owned());
        Self::parse(&read(machine)?, &read(this)?).context("/proc says something else than Linux does")
    }

    fn parse(machine: &str, this: &str) -> Option<Self> {
        let ticks = |text: &str| text.split_whitespace().map(|word| word.parse().ok()).collect();
        // User, nice, system, idle, waiting for disks, two kinds of interrupts, stolen; what follows is within these.
        let of_machine: Option<Vec<u64>> = ticks(machine.lines().next()?.strip_prefix("cpu")?);
        let of_machine = of_machine?;
        // The name, in parentheses, may have spaces; eleven fields after it come user, system, and both of those that ended.
        let (_, fields) = this.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ours: Option<Vec<u64>> = ticks(&fields.get(11..15)?.join(" "));
        Some(Self {
            all: of_machine.get(..8)?.iter().sum(),
            idle: of_machine.get(3..5)?.iter().sum(),
            ours: ours?.iter().sum(),
        })
    }

    /// Shares of the machine since then, in percent: what was used, and what of it by the run.
    pub(crate) fn used_since(self, then: Self) -> (u64, u64) {
        let all = self.all.saturating_sub(then.all).max(1);
        let idle = self.idle.saturating_sub(then.idle).min(all);
        ((all - idle) * 100 / all, self.ours.saturating_sub(then.ours) * 100 / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_ticks_between_two_moments() {
        let machine = "cpu  10 0 5 80 4 0 0 1 0 0\ncpu0 10 0 5 80 4 0 0 1 0 0\n";
        let this = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 20 0";
        let then = Cpu::parse(machine, this).unwrap();
        assert_eq!(then, Cpu { all: 100, idle: 84, ours: 11 + 12 + 13 + 14 });
        let now = Cpu { all: 300, idle: 134, ours: 150 };
        assert_eq!(now.used_since(then), (75, 50));
        assert_eq!(Cpu::parse("cpu 1 2", this), None);
        assert_eq!(Cpu::parse(machine, "7 (a) S 1 2"), None);
    }
}
