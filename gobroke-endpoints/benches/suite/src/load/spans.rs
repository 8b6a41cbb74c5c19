//! [`Spans`]: when messages were sent, and when they came.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Header;

/// Of one message.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When it was due to be sent.
    pub sent: Instant,
    /// When its first and its last receiver had it.
    pub first: Instant,
    pub last: Instant,
}

impl Span {
    /// From the first receiver to the last.
    pub fn pass(&self) -> Duration {
        self.last - self.first
    }

    /// Whether it was under way at this moment.
    pub fn covers(&self, moment: Instant) -> bool {
        (self.sent..=self.last).contains(&moment)
    }
}

/// Those of all messages, by sender and number.
#[derive(Default)]
pub struct Spans(BTreeMap<(u32, u32), Span>);

impl Spans {
    /// Takes note of a delivery, so many nanoseconds after the load began.
    pub fn delivered(&mut self, header: Header, began: Instant, nanos: u64) {
        let at = began + Duration::from_nanos(nanos);
        let span = self
            .0
            .entry((header.sender, header.number))
            .or_insert(Span {
                sent: began + Duration::from_nanos(header.nanos),
                first: at,
                last: at,
            });
        span.last = at;
    }

    /// Those that were sent in this time.
    pub fn between(self, from: Instant, until: Instant) -> Vec<Span> {
        let mut spans: Vec<Span> = self.0.into_values().collect();
        spans.retain(|span| (from..until).contains(&span.sent));
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reaches_from_the_sending_over_the_first_to_the_last_delivery() {
        let began = Instant::now();
        let header = Header {
            sender: 0,
            number: 1,
            nanos: 100,
        };
        let mut spans = Spans::default();
        for nanos in [300, 500, 900] {
            spans.delivered(header, began, nanos);
        }
        spans.delivered(
            Header {
                number: 2,
                nanos: 5000,
                ..header
            },
            began,
            6000,
        );
        let after = |nanos| began + Duration::from_nanos(nanos);
        let spans = spans.between(began, after(5000));
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].pass(), Duration::from_nanos(600));
        assert!(spans[0].covers(after(100)) && spans[0].covers(after(900)));
        assert!(!spans[0].covers(after(99)) && !spans[0].covers(after(901)));
    }
}
