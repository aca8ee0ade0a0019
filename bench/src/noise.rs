//! How quiet the machine was while something was measured.
//!
//! Three witnesses: what the hypervisor took (steal, proc(5) `stat`), how long runnable threads waited for a processor
//! (`/proc/pressure/cpu` for the machine, `/proc/self/schedstat` for the thread that conducts the measurement), and a
//! fixed piece of arithmetic that is timed before, between and after the runs.

use std::hint::black_box;
use std::time::Duration;

use outrider_drivers::time::Instant;
use serde::Serialize;

use crate::host::{TICKS_PER_SECOND, cpu_seconds};
use crate::node::now;

/// Rounds of the calibration: some milliseconds, so that one interrupt does not show and a neighbour on the processor does.
const CALIBRATION_ROUNDS: u64 = 3_000_000;

/// What the witnesses say of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Noise {
    /// Share of all processors' time that the hypervisor took.
    pub(crate) steal_share: Option<f64>,
    /// Share of the time in which some thread of this machine waited for a processor, threads of this process included.
    pub(crate) waiting_share: Option<f64>,
    /// How long the conducting thread waited for a processor on average, each time it was to run.
    pub(crate) run_queue_us: Option<f64>,
    /// Processors kept busy by others, on average.
    pub(crate) others_cpus: Option<f64>,
    /// The calibration loop.
    pub(crate) calibration_us: Calibration,
    /// Differences smaller than this cannot be told from the machine: the spread of the calibration and the steal.
    pub(crate) relative: f64,
}

/// Times of the calibration loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Calibration {
    /// How often it ran.
    pub(crate) times: usize,
    /// 10th percentile.
    pub(crate) p10: f64,
    /// Median.
    pub(crate) p50: f64,
    /// 90th percentile.
    pub(crate) p90: f64,
}

impl Calibration {
    fn of(mut times_us: Vec<f64>) -> Self {
        times_us.sort_by(f64::total_cmp);
        let Some(last) = times_us.len().checked_sub(1) else { return Calibration::default() };
        let at = |share: f64| times_us[(last as f64 * share).round() as usize];
        Calibration { times: times_us.len(), p10: at(0.1), p50: at(0.5), p90: at(0.9) }
    }

    /// From the 10th to the 90th percentile, over the median.
    fn spread(&self) -> f64 {
        if self.p50 > 0.0 { (self.p90 - self.p10) / self.p50 } else { 0.0 }
    }
}

/// Readings of the kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    /// Ticks of all processors: all, idle or waiting for a disk, stolen.
    ticks: Option<[u64; 3]>,
    /// Microseconds in which some thread waited.
    waiting_us: Option<u64>,
    /// Nanoseconds that the conducting thread waited, and how often it ran.
    run_queue: Option<[u64; 2]>,
}

impl Counters {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Counters {
            ticks: ticks(&text("/proc/stat")),
            waiting_us: pressure(&text("/proc/pressure/cpu")),
            run_queue: run_queue(&text("/proc/thread-self/schedstat")),
        }
    }
}

/// Total, idle and stolen ticks of the first line of proc(5) `stat`.
fn ticks(stat: &str) -> Option<[u64; 3]> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let [user, nice, system, idle, disk, irq, softirq, steal] =
        [next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?];
    // Guests are counted in user and nice already.
    Some([user + nice + system + idle + disk + irq + softirq + steal, idle + disk, steal])
}

/// The total of the line `some`.
fn pressure(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// Time on the run queue and time slices of proc(5) `schedstat`.
fn run_queue(text: &str) -> Option<[u64; 2]> {
    let mut fields = text.split_ascii_whitespace().skip(1);
    Some([fields.next()?.parse().ok()?, fields.next()?.parse().ok()?])
}

/// Watches the machine from [`Meter::begin`] on. To be used by one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    own_cpu_seconds: f64,
    counters: Counters,
    calibrations_us: Vec<f64>,
}

impl Meter {
    /// Begins, with a calibration.
    pub(crate) fn begin() -> Self {
        let mut meter = Meter {
            began: now(),
            own_cpu_seconds: cpu_seconds(),
            counters: Counters::read(),
            calibrations_us: Vec::new(),
        };
        // The first round warms the processor up and is thrown away.
        black_box(arithmetic(CALIBRATION_ROUNDS));
        meter.calibrate();
        meter
    }

    /// Times the calibration loop; to be called between runs, when nothing of this process is at work.
    pub(crate) fn calibrate(&mut self) {
        let before = now();
        black_box(arithmetic(CALIBRATION_ROUNDS));
        self.calibrations_us.push((now() - before).as_secs_f64() * 1e6);
    }

    /// What it was like.
    pub(crate) fn end(self) -> Noise {
        let own_cpu_seconds = cpu_seconds() - self.own_cpu_seconds;
        let calibration_us = Calibration::of(self.calibrations_us);
        between(&self.counters, &Counters::read(), now() - self.began, own_cpu_seconds, calibration_us)
    }
}

fn between(
    before: &Counters,
    after: &Counters,
    time: Duration,
    own_cpu_seconds: f64,
    calibration_us: Calibration,
) -> Noise {
    let seconds = time.as_secs_f64().max(1e-9);
    let ticks = before.ticks.zip(after.ticks).map(|(before, after)| {
        [0, 1, 2].map(|index: usize| after[index].saturating_sub(before[index]) as f64)
    });
    let steal_share = ticks.and_then(|[all, _, steal]| (all > 0.0).then(|| steal / all));
    let others_cpus = ticks.map(|[all, idle, steal]| {
        ((all - idle - steal) / TICKS_PER_SECOND - own_cpu_seconds).max(0.0) / seconds
    });
    let waiting_us = before.waiting_us.zip(after.waiting_us);
    let run_queue = before.run_queue.zip(after.run_queue);
    Noise {
        steal_share,
        others_cpus,
        waiting_share: waiting_us
            .map(|(before, after)| after.saturating_sub(before) as f64 / 1e6 / seconds)
            .map(|share| share.min(1.0)),
        run_queue_us: run_queue.and_then(|(before, after)| {
            let slices = after[1].checked_sub(before[1]).filter(|slices| *slices > 0)?;
            Some(after[0].saturating_sub(before[0]) as f64 / 1e3 / slices as f64)
        }),
        relative: calibration_us.spread() + steal_share.unwrap_or(0.0),
        calibration_us,
    }
}

/// A fixed piece of work that no compiler can shorten: each step needs the one before.
fn arithmetic(rounds: u64) -> u64 {
    (0..rounds)
        .fold(0x9e37_79b9_7f4a_7c15, |x: u64, n| (x ^ n).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29))
}

impl Noise {
    /// One line for people.
    pub(crate) fn told(&self) -> String {
        let percent = |share: Option<f64>| {
            share.map_or("unknown".to_owned(), |share| format!("{:.1} %", share * 100.0))
        };
        let Calibration { times, p10, p50, p90 } = self.calibration_us;
        format!(
            "The machine: steal {}, others kept {} processors busy, some thread waited {} of the time, the conductor {} \
             each time; calibration {:.2} ms ({:.2} to {:.2}, {times} times); differences below {:.1} % are noise\n",
            percent(self.steal_share),
            self.others_cpus.map_or("an unknown number of".to_owned(), |cpus| format!("{cpus:.2}")),
            percent(self.waiting_share),
            self.run_queue_us.map_or("unknown".to_owned(), |us| format!("{us:.0} us")),
            p50 / 1e3,
            p10 / 1e3,
            p90 / 1e3,
            self.relative * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_the_kernel_are_read_as_proc_5_has_them() {
        assert_eq!(ticks("cpu  10 1 5 100 3 0 2 7 0 0\ncpu0 ..."), Some([128, 103, 7]));
        assert_eq!(ticks("cpu  10 1"), None);
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=17\nfull avg10=0.00 total=3\n";
        assert_eq!(pressure(text), Some(17));
        assert_eq!(pressure(""), None);
        assert_eq!(run_queue("215881 2375802 2\n"), Some([2_375_802, 2]));
        assert_eq!(run_queue(""), None);
    }

    #[test]
    fn differences_of_the_counters_become_shares() {
        let before = Counters { ticks: Some([0; 3]), waiting_us: Some(0), run_queue: Some([0, 0]) };
        // Two seconds of two processors.
        let after =
            Counters { ticks: Some([400, 200, 40]), waiting_us: Some(500_000), run_queue: Some([90_000, 3]) };
        let noise = between(&before, &after, Duration::from_secs(2), 0.6, Calibration::default());
        assert_eq!((noise.steal_share, noise.waiting_share), (Some(0.1), Some(0.25)));
        assert_eq!(noise.run_queue_us, Some(30.0));
        assert!(noise.others_cpus.is_some_and(|cpus| (cpus - 0.5).abs() < 1e-9), "{noise:?}");
        assert!((noise.relative - 0.1).abs() < 1e-9);
        let unknown =
            between(&Counters::default(), &after, Duration::from_secs(2), 0.6, Calibration::default());
        assert_eq!((unknown.steal_share, unknown.others_cpus, unknown.run_queue_us), (None, None, None));
    }

    #[test]
    fn one_slow_calibration_among_many_is_no_noise_and_a_drift_is() {
        let mut times = vec![100.0; 20];
        times[7] = 900.0;
        assert_eq!(Calibration::of(times).spread(), 0.0);
        let drift = Calibration::of((0..11).map(|n| 100.0 + f64::from(n)).collect());
        assert_eq!((drift.p10, drift.p50, drift.p90), (101.0, 105.0, 109.0));
        assert!((drift.spread() - 8.0 / 105.0).abs() < 1e-9);
        assert_eq!(Calibration::of(Vec::new()), Calibration::default());
    }

    #[test]
    fn a_meter_calibrates_and_reads_this_machine() {
        let mut meter = Meter::begin();
        meter.calibrate();
        let noise = meter.end();
        assert_eq!(noise.calibration_us.times, 2);
        assert!(noise.calibration_us.p50 > 0.0 && noise.relative >= 0.0, "{noise:?}");
        assert!(noise.told().contains("calibration"), "{}", noise.told());
    }
}
