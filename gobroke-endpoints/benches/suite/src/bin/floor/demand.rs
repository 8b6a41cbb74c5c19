//! [`Demand`]: whether a lane rests.

use std::{sync::LazyLock, time::Duration};

/// How many lanes there are for each core: what a lane knows of itself, it takes for all that share its core.
static SHARING: LazyLock<f64> = LazyLock::new(|| {
    let lanes = tokio::runtime::Handle::current().metrics().num_workers();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (lanes as f64 / cores as f64).max(1.0)
});

/// What a write for each delivery would cost, as a share of the lane's time.
#[derive(Default)]
pub struct Demand {
    rate: f64,
    write: f64,
    skip: u32,
    next_skip: u32,
}

impl Demand {
    pub fn passed(
        &mut self,
        delivered: usize,
        writes: usize,
        took: Duration,
        since_last: Duration,
    ) {
        let since = since_last.as_secs_f64().max(1e-6);
        let weight = since / (since + 0.05);
        self.rate += weight * (delivered as f64 / since - self.rate);
        let write = *SHARING * took.as_secs_f64() / writes.max(1) as f64;
        self.write += 0.2 * (write - self.write);
    }

    /// In which steps to rest, and how long, after a pass that took so long.
    pub fn rest(&mut self, took: Duration) -> (Duration, Duration) {
        let took = took.mul_f64(*SHARING);
        let share = self.rate * self.write;
        if took < Duration::from_millis(1) || share <= 0.5 {
            return (took, Duration::ZERO);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return (took, Duration::ZERO);
        }
        let rest = took.mul_f64(8.0 * (share - 0.5).min(0.5));
        (took, rest.min(Duration::from_millis(10)))
    }

    pub fn rested(&mut self, brought: bool) {
        if brought {
            self.next_skip = 0;
        } else {
            self.next_skip = (2 * self.next_skip + 1).min(63);
            self.skip = self.next_skip;
        }
    }
}
