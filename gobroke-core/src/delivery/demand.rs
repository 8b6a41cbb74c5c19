//! [`Demand`]: whether a lane should rest between passes, so that more goes into the next.

use std::time::Duration;

use super::pass::Tally;

/// A pass shorter than this is followed by no rest: rests after short passes cost a closed loop (which sends nothing
/// more until it is answered) a quarter of its throughput.
const SHORT: Duration = Duration::from_millis(1);
/// Below this share of its time a lane does not rest: latency first.
const BUSY: f64 = 0.45;
/// How far back the means look.
const MEMORY: f64 = 0.05;
/// A rest was worth it where writes carry so many times the messages that they carry without one. In a room at 1,000
/// messages/s it is about twice as many (13 and 7), where senders wait for answers as many (16 and 16).
const WORTH: f64 = 1.25;
/// After so many rests that were worth it one is left out, to see what writes carry without one.
const LOOK_AGAIN: u32 = 32;
/// After rests that were not, at the most this many passes go without one.
const MAX_SKIP: u32 = 63;

/// What a write for each delivery would cost, as a share of the lane's time, in moving means.
///
/// It counts what arrives (arrivals x members x the cost of a write), which does not depend on the resting. From 0.45 to
/// nearly one a lane rests up to four times the last pass. Measured with 1,000 receivers at 1,000 messages/s: 1.06 µs and
/// p99 29 ms without rest, 0.58 µs and 25 ms with it.
///
/// Where lanes share a core, a pass is taken for as long as those of all of them together: clients are spread evenly
/// over the lanes, so the others have as much to write. With 1,000 receivers at 1,000 messages/s in four lanes on two
/// cores that took the cost of a delivery from 1.16 to 0.92 µs, in eight from 1.30 to 1.12; in two it is 0.85.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Deliveries a second.
    rate: f64,
    /// Seconds a write.
    write: f64,
    last_pass: Duration,
    /// How many passes long the last rest was to be.
    times: f64,
    /// How many messages the writes of a pass carry, in moving means: of those that no rest came before, and of the
    /// others.
    plain: Option<f64>,
    rested: Option<f64>,
    /// A rest came before the next pass.
    after_rest: bool,
    /// How many rests were worth it since one was left out to look again.
    worth: u32,
    skip: u32,
    next_skip: u32,
}

impl Demand {
    /// Takes note of a pass: what it did, how long ago the one before ended, and how many lanes there are for each core.
    pub(crate) fn passed(&mut self, tally: &Tally, since_last: Duration, sharing: f64) {
        let since = since_last.as_secs_f64().max(1e-6);
        let weight = since / (since + MEMORY);
        self.rate += weight * (tally.delivered as f64 / since - self.rate);
        let writing = tally.writing.mul_f64(sharing);
        if tally.writes > 0 {
            let write = writing.as_secs_f64() / tally.writes as f64;
            self.write += 0.2 * (write - self.write);
            self.judge(tally.delivered as f64 / tally.writes as f64);
        }
        self.last_pass = writing;
    }

    /// Takes note of how many messages the writes of a pass carried, and judges by it the rest before it, if one was.
    fn judge(&mut self, carried: f64) {
        let after_rest = std::mem::take(&mut self.after_rest);
        let mean = match after_rest {
            false => &mut self.plain,
            true => &mut self.rested,
        };
        let so_far = mean.unwrap_or(carried);
        *mean = Some(so_far + 0.3 * (carried - so_far));
        if !after_rest {
            return;
        }
        if self.rested < self.plain.map(|plain| WORTH * plain) {
            self.hold_off();
        } else {
            self.next_skip = 0;
            self.worth += 1;
            if self.worth == LOOK_AGAIN {
                self.worth = 0;
                self.skip = 1;
            }
        }
    }

    /// Leaves out the next rests: twice as many as the last time.
    fn hold_off(&mut self) {
        self.next_skip = (2 * self.next_skip + 1).min(MAX_SKIP);
        self.skip = self.next_skip;
    }

    /// How long to rest now; zero for not at all.
    pub(crate) fn rest(&mut self, coalesce: Duration) -> Duration {
        let share = self.rate * self.write;
        if self.last_pass < SHORT || share <= BUSY || coalesce.is_zero() {
            return Duration::ZERO;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        self.times = 8.0 * (share - BUSY).min(0.5);
        self.last_pass.mul_f64(self.times).min(coalesce)
    }

    /// One step of a rest: as long as the last pass.
    pub(crate) fn step(&self) -> Duration {
        self.last_pass
    }

    /// Takes note of a rest: whether something was queued when it began, and in how many steps something came.
    ///
    /// Where nothing was queued and there was time for two steps, one is not enough: so looks a closed loop, whose
    /// senders go on when another lane's pass ends, all at once, and then wait. With 1,000 receivers and 16 messages under
    /// way, rests that took it for a gathering halved the throughput: while another lane rests little comes, so that a
    /// pass without a rest carries little, too.
    pub(crate) fn rested(&mut self, had_some: bool, steps: u32) {
        let enough = if had_some || self.times < 2.0 { 1 } else { 2 };
        self.after_rest = steps >= enough;
        if !self.after_rest {
            self.hold_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(delivered: u64, writes: u64, writing: Duration) -> Tally {
        Tally {
            delivered,
            writes,
            writing,
            ..Tally::default()
        }
    }

    fn settle(delivered: u64, writes: u64, writing: Duration, every: Duration) -> Demand {
        settle_sharing(delivered, writes, writing, every, 1.0)
    }

    fn settle_sharing(
        delivered: u64,
        writes: u64,
        writing: Duration,
        every: Duration,
        sharing: f64,
    ) -> Demand {
        let mut demand = Demand::default();
        for _ in 0..200 {
            demand.passed(&pass(delivered, writes, writing), every, sharing);
        }
        demand
    }

    #[test]
    fn a_quiet_lane_does_not_rest() {
        let mut demand = settle(
            1000,
            1000,
            Duration::from_millis(4),
            Duration::from_millis(10),
        );
        assert_eq!(demand.rest(Duration::from_millis(10)), Duration::ZERO);
    }

    #[test]
    fn a_busy_lane_rests_four_passes_but_not_longer_than_coalesce() {
        let mut demand = settle(
            10_000,
            1000,
            Duration::from_millis(2),
            Duration::from_millis(4),
        );
        assert_eq!(
            demand.rest(Duration::from_millis(100)),
            Duration::from_millis(8)
        );
        assert_eq!(
            demand.rest(Duration::from_millis(5)),
            Duration::from_millis(5)
        );
        assert_eq!(demand.rest(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_short_pass_is_followed_by_no_rest() {
        let mut demand = settle(
            10_000,
            100,
            Duration::from_micros(900),
            Duration::from_millis(1),
        );
        assert_eq!(demand.rest(Duration::from_millis(10)), Duration::ZERO);
    }

    #[test]
    fn lanes_that_share_a_core_rest_by_their_passes_together() {
        let each = Duration::from_micros(400);
        let busy = |sharing| settle_sharing(2000, 200, each, 3 * each, sharing);
        assert_eq!(busy(1.0).rest(10 * each), Duration::ZERO);
        let mut demand = busy(4.0);
        assert_eq!(demand.step(), 4 * each);
        assert_eq!(demand.rest(100 * each), 16 * each);
    }

    /// A lane under such a load that it rests 8 ms, whose writes carry so many messages where it does not.
    fn busy(carried: u64) -> Demand {
        settle(
            10_000,
            10_000 / carried,
            Duration::from_millis(2),
            Duration::from_millis(4),
        )
    }

    /// How many rests are left out before the next.
    fn left_out(demand: &mut Demand) -> u32 {
        let mut count = 0;
        while demand.rest(Duration::from_millis(10)).is_zero() {
            count += 1;
        }
        count
    }

    #[test]
    fn rests_that_bring_nothing_become_rare() {
        let mut demand = busy(10);
        assert_eq!(left_out(&mut demand), 0);
        let skips: Vec<_> = (0..8)
            .map(|_| {
                demand.rested(true, 0);
                left_out(&mut demand)
            })
            .collect();
        assert_eq!(skips, [1, 3, 7, 15, 31, 63, 63, 63]);
    }

    #[test]
    fn rests_after_which_writes_carry_no_more_become_rare() {
        let mut demand = busy(10);
        let same = pass(10_000, 1000, Duration::from_millis(2));
        let mut skips = Vec::new();
        for _ in 0..4 {
            demand.rested(true, 1);
            demand.passed(&same, Duration::from_millis(4), 1.0);
            skips.push(left_out(&mut demand));
        }
        assert_eq!(skips, [1, 3, 7, 15]);
    }

    #[test]
    fn where_rests_are_worth_it_few_are_left_out_to_see_what_writes_carry_without_one() {
        let mut demand = busy(10);
        let fuller = pass(20_000, 1000, Duration::from_millis(2));
        let plain = pass(10_000, 1000, Duration::from_millis(2));
        let mut without = 0;
        for _ in 0..10 * LOOK_AGAIN {
            if demand.rest(Duration::from_millis(10)).is_zero() {
                without += 1;
                demand.passed(&plain, Duration::from_millis(4), 1.0);
            } else {
                demand.rested(true, 1);
                demand.passed(&fuller, Duration::from_millis(8), 1.0);
            }
        }
        assert_eq!(without, 9, "one of {LOOK_AGAIN} and itself");
    }

    #[test]
    fn a_lane_whose_senders_begin_to_wait_for_each_answer_rests_no_more() {
        let mut demand = busy(2);
        let every = Duration::from_millis(4);
        for _ in 0..100 {
            demand.rested(true, 1);
            demand.passed(&pass(10_000, 1000, every / 2), every, 1.0);
        }
        // From now on writes carry sixteen messages, rest or none.
        let closed = pass(16_000, 1000, every / 2);
        let mut rests = 0;
        for _ in 0..1000 {
            if !demand.rest(Duration::from_millis(10)).is_zero() {
                rests += 1;
                demand.rested(true, 1);
            }
            demand.passed(&closed, every, 1.0);
        }
        // Four or five looks, 32 rests apart, until it is known; then one of 64.
        assert!(rests < 150, "{rests} of 1000");
    }

    #[test]
    fn a_rest_that_began_with_nothing_needs_two_steps_to_bring_something() {
        let each = Duration::from_millis(2);
        for (had_some, steps, brought) in [
            (true, 0, false),
            (true, 1, true),
            (false, 0, false),
            (false, 1, false),
            (false, 2, true),
        ] {
            let mut demand = settle(10_000, 1000, each, 2 * each);
            assert!(demand.rest(Duration::from_millis(10)) >= 2 * each);
            demand.rested(had_some, steps);
            let rests_again = !demand.rest(Duration::from_millis(10)).is_zero();
            assert_eq!(rests_again, brought, "{had_some} {steps}");
        }
    }

    #[test]
    fn a_short_rest_needs_one_step_to_bring_something() {
        let each = Duration::from_millis(2);
        // 300 messages/s to 1,000 receivers.
        let mut demand = settle(1000, 1000, each, Duration::from_micros(3500));
        let rest = demand.rest(Duration::from_millis(10));
        assert!(!rest.is_zero() && rest < 2 * each, "{rest:?}");
        demand.rested(false, 1);
        assert!(!demand.rest(Duration::from_millis(10)).is_zero());
    }
}
