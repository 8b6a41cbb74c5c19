//! How often a peer may send what is answered without logic: [`ControlRate`].

use std::time::Duration;

use gobroke_core::CloseReason;
use tokio::time::Instant;

/// Counts a connection's control frames, a second at a time.
#[derive(Debug)]
pub(crate) struct ControlRate {
    most: u32,
    count: u32,
    /// When the second began that is counted.
    since: Option<Instant>,
}

impl ControlRate {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            count: 0,
            since: None,
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// It is one too many within a second.
    pub(crate) fn count(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        match self.since {
            Some(since) if now - since < Duration::from_secs(1) => self.count += 1,
            _ => {
                self.since = Some(now);
                self.count = 1;
            }
        }
        if self.count > self.most {
            return Err(CloseReason::PolicyViolation(
                "too many control frames".into(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_are_taken_within_a_second_and_as_many_within_the_next() {
        let mut rate = ControlRate::new(3);
        for _ in 0..3 {
            for _ in 0..3 {
                rate.count().expect("one of three");
            }
            assert_eq!(rate.count().expect_err("the fourth").code(), 1008);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
