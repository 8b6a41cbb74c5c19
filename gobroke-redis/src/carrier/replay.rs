//! [`ReplayGuard`]: which sealed packets have been taken, so that none is taken twice.

use std::collections::HashMap;

use crate::keys::parse_instance;

/// How many origins are remembered: many times those that are there at once.
const ORIGINS: usize = 8192;

/// The last number taken of each origin. Whoever publishes numbers its packets in one order, for all channels.
///
/// An origin is heard through the channel of all only when it has been heard through that of this instance alone, which
/// is named by its incarnation: nothing was ever sealed for it before this instance was there. So what came before, of
/// somebody who is gone or still there, cannot be told a newcomer by who recorded it. What an origin publishes to all
/// before it greets the newcomer, the lines repair.
#[derive(Debug, Default)]
pub(crate) struct ReplayGuard {
    taken: HashMap<Box<str>, u64>,
    /// The highest incarnation of an origin that was forgotten: who is not remembered and not younger is not heard.
    forgotten: u64,
}

impl ReplayGuard {
    /// Whether this packet was not taken before, and was sealed since this instance is there.
    pub(super) fn admits(&mut self, origin: &str, number: u64, to_all: bool) -> bool {
        if let Some(taken) = self.taken.get_mut(origin) {
            let newer = number > *taken;
            *taken = number.max(*taken);
            return newer;
        }
        let incarnation = parse_instance(origin).map(|origin| origin.incarnation.number());
        if to_all || incarnation.is_none_or(|number| number <= self.forgotten) {
            return false;
        }
        self.taken.insert(origin.into(), number);
        if self.taken.len() > ORIGINS {
            self.forget();
        }
        true
    }

    /// Forgets the oldest half: of those, by far the most are gone.
    fn forget(&mut self) {
        let incarnation =
            |origin: &str| parse_instance(origin).map_or(0, |origin| origin.incarnation.number());
        let mut numbers: Vec<u64> = self
            .taken
            .keys()
            .map(|origin| incarnation(origin))
            .collect();
        let (_, middle, _) = numbers.select_nth_unstable(ORIGINS / 2);
        self.forgotten = *middle;
        self.taken
            .retain(|origin, _| incarnation(origin) > self.forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_once_and_in_the_order_of_its_origin() {
        let mut guard = ReplayGuard::default();
        assert!(!guard.admits("a#1.0", 4, true), "not heard alone yet");
        assert!(guard.admits("a#1.0", 5, false));
        assert!(!guard.admits("a#1.0", 5, false), "again");
        assert!(!guard.admits("a#1.0", 4, true), "older than what was taken");
        assert!(guard.admits("a#1.0", 9, true));
        assert!(!guard.admits("a#1.0", 8, false));
        assert!(guard.admits("b#1.0", 1, false), "another one's numbers");
        assert!(!guard.admits("nobody", 1, false));
    }

    #[test]
    fn who_is_forgotten_is_not_taken_for_a_newcomer() {
        let mut guard = ReplayGuard::default();
        let origin = |number: usize| format!("a#{number}.0");
        for number in 1..=ORIGINS + 1 {
            assert!(guard.admits(&origin(number), 7, false));
        }
        assert!(guard.taken.len() <= ORIGINS);
        for number in 1..=ORIGINS + 1 {
            assert!(!guard.admits(&origin(number), 7, false), "{number}");
        }
        assert!(guard.admits(&origin(ORIGINS + 2), 1, false));
    }
}
