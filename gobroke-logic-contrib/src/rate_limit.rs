//! [`RateLimit`]: receive middleware that bounds how much each client sends.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use gobroke_core::{ClientId, CloseReason, Message};
use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, state::keyed::DashMapStateStore,
};
use tokio::time::Instant;

/// How many messages are checked, at the least, between two sweeps of the state.
const SWEEP_EVERY: usize = 1024;

/// Bounds how many messages and bytes each client sends: receive middleware.
///
/// Each limit is a bucket that a client empties with what it sends, and that fills again at an even rate (the generic
/// cell rate algorithm, as [`governor`] has it). A message beyond either limit is rejected, which its client is told;
/// [`disconnect`](Self::disconnect) ends the client's connection as well. Without a limit set, all passes.
///
/// A limit counts from the client's first message on. A client that connects anew begins anew, unless the `on_connect`
/// hook gave it the same id, so bound the connections of an address too
/// (`EndpointOptions::max_connections_per_address`). Messages of logic and of the program itself are not counted.
///
/// The state is bounded: a client whose buckets are full again is forgotten, at a sweep each time as many messages
/// have been checked as there are clients known (at least 1,024).
///
/// ```
/// use gobroke_core::Broke;
/// use gobroke_logic_contrib::RateLimit;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gobroke_core::StartError> {
/// let limit = RateLimit::per_client()
///     .messages(20, 40) // a second, and at once
///     .bytes(64 << 10, 256 << 10)
///     .disconnect();
/// let broke = Broke::builder().receive_middleware(limit.into_middleware()).start().await?;
/// # broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "a rate limit does nothing until its middleware is added to a router"]
pub struct RateLimit {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    disconnect: bool,
    checked: AtomicUsize,
    sweep_at: AtomicUsize,
}

impl RateLimit {
    /// No limit yet, to be set with [`messages`](Self::messages) and [`bytes`](Self::bytes).
    pub fn per_client() -> Self {
        Self {
            sweep_at: AtomicUsize::new(SWEEP_EVERY),
            ..Self::default()
        }
    }

    /// At most `per_second` messages of a client in the long run, and `burst` at once. Zeros count as one.
    pub fn messages(mut self, per_second: u32, burst: u32) -> Self {
        self.messages = Some(Bucket::new(per_second, burst));
        self
    }

    /// At most `per_second` bytes of payload of a client in the long run, and `burst` at once. Zeros count as one.
    ///
    /// A message larger than `burst` never passes. Rates of more than some 10 MB/s are rounded up: the bucket fills in
    /// steps of whole nanoseconds for each byte.
    pub fn bytes(mut self, per_second: u32, burst: u32) -> Self {
        self.bytes = Some(Bucket::new(per_second, burst));
        self
    }

    /// Disconnects a client that goes beyond a limit, with [`CloseReason::PolicyViolation`]. Default: its message
    /// alone is rejected.
    pub fn disconnect(mut self) -> Self {
        self.disconnect = true;
        self
    }

    /// The middleware, for `receive_middleware` of the router's builder.
    pub fn into_middleware(self) -> impl Fn(&mut Message) + Send + Sync + 'static {
        move |message| {
            let Some(client) = message.client() else {
                return;
            };
            if let Err(excess) = self.check(client, message.payload().len()) {
                if self.disconnect {
                    message
                        .reject_and_close(CloseReason::PolicyViolation(excess.to_string().into()));
                } else {
                    message.reject(excess.to_string());
                }
            }
        }
    }

    fn check(&self, client: ClientId, length: usize) -> Result<(), Excess> {
        self.sweep_when_due();
        if let Some(bucket) = &self.messages {
            bucket.take(client, 1).map_err(|_| Excess::Messages {
                per_second: bucket.per_second,
            })?;
        }
        if let Some(bucket) = &self.bytes {
            bucket.take(client, length).map_err(|too| match too {
                Too::Much => Excess::Bytes {
                    per_second: bucket.per_second,
                },
                Too::Large => Excess::Large {
                    length,
                    burst: bucket.burst,
                },
            })?;
        }
        Ok(())
    }

    fn sweep_when_due(&self) {
        if self.checked.fetch_add(1, Relaxed) < self.sweep_at.load(Relaxed) {
            return;
        }
        // Set first, so that the other threads do not sweep as well.
        self.checked.store(0, Relaxed);
        let buckets = || self.messages.iter().chain(&self.bytes);
        buckets().for_each(|bucket| bucket.limiter.retain_recent());
        let known = buckets()
            .map(|bucket| bucket.limiter.len())
            .max()
            .unwrap_or(0);
        self.sweep_at.store(known.max(SWEEP_EVERY), Relaxed);
    }
}

/// What a client went beyond.
#[derive(Debug, PartialEq)]
enum Excess {
    Messages { per_second: NonZeroU32 },
    Bytes { per_second: NonZeroU32 },
    Large { length: usize, burst: NonZeroU32 },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages { per_second } => {
                write!(f, "more than {per_second} messages a second; slow down")
            }
            Self::Bytes { per_second } => {
                write!(f, "more than {per_second} bytes a second; slow down")
            }
            Self::Large { length, burst } => {
                write!(
                    f,
                    "a message of {length} bytes, where the rate limit lets {burst} pass at once"
                )
            }
        }
    }
}

/// One limit, with a bucket for each client.
struct Bucket {
    per_second: NonZeroU32,
    burst: NonZeroU32,
    limiter:
        RateLimiter<ClientId, DashMapStateStore<ClientId>, TokioClock, NoOpMiddleware<Duration>>,
}

/// Why a bucket does not give.
enum Too {
    /// Not now.
    Much,
    /// Never: it is not as large.
    Large,
}

impl Bucket {
    fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let (per_second, burst) = (at_least_one(per_second), at_least_one(burst));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::new(
            quota,
            DashMapStateStore::default(),
            TokioClock(Instant::now()),
        );
        Self {
            per_second,
            burst,
            limiter,
        }
    }

    fn take(&self, client: ClientId, count: usize) -> Result<(), Too> {
        let Ok(count) = u32::try_from(count) else {
            return Err(Too::Large);
        };
        let Some(count) = NonZeroU32::new(count) else {
            return Ok(());
        };
        match self.limiter.check_key_n(&client, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Too::Much),
            Err(_) => Err(Too::Large),
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("per_second", &self.per_second)
            .field("burst", &self.burst)
            .field("clients", &self.limiter.len())
            .finish()
    }
}

/// Tokio's clock, which tests can pause, as time since a start.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_burst_and_then_go_on_at_its_rate() {
        let limit = RateLimit::per_client().messages(10, 3);
        let (ann, bob) = (ClientId::new(), ClientId::new());
        let excess = Err(Excess::Messages {
            per_second: NonZeroU32::new(10).unwrap(),
        });
        for _ in 0..3 {
            assert_eq!(limit.check(ann, 1), Ok(()));
        }
        assert_eq!(limit.check(ann, 1), excess);
        assert_eq!(limit.check(bob, 1), Ok(()), "the others notice nothing");
        advance(Duration::from_millis(100)).await;
        assert_eq!(limit.check(ann, 1), Ok(()));
        assert_eq!(limit.check(ann, 1), excess);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_whole_messages() {
        let limit = RateLimit::per_client().bytes(1000, 500);
        let ann = ClientId::new();
        let burst = NonZeroU32::new(500).unwrap();
        assert_eq!(
            limit.check(ann, 501),
            Err(Excess::Large { length: 501, burst })
        );
        assert_eq!(limit.check(ann, 0), Ok(()));
        assert_eq!(limit.check(ann, 500), Ok(()));
        let excess = limit.check(ann, 100).unwrap_err();
        assert_eq!(
            excess.to_string(),
            "more than 1000 bytes a second; slow down"
        );
        advance(Duration::from_millis(100)).await;
        assert_eq!(limit.check(ann, 100), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_fell_silent_are_forgotten() {
        let limit = RateLimit::per_client().messages(10, 10).bytes(1000, 1000);
        let known = |limit: &RateLimit| {
            limit
                .messages
                .as_ref()
                .map_or(0, |bucket| bucket.limiter.len())
        };
        for _ in 0..50_000 {
            assert_eq!(limit.check(ClientId::new(), 10), Ok(()));
            advance(Duration::from_millis(1)).await;
        }
        assert!(known(&limit) <= 2 * SWEEP_EVERY + 1000, "{}", known(&limit));
    }

    #[test]
    fn zeros_count_as_one_and_no_limit_lets_all_pass() {
        let ann = ClientId::new();
        let limit = RateLimit::per_client().messages(0, 0);
        assert_eq!(limit.check(ann, 1), Ok(()));
        assert!(limit.check(ann, 1).is_err());
        let limit = RateLimit::per_client();
        assert!((0..10_000).all(|_| limit.check(ann, usize::MAX).is_ok()));
    }
}
