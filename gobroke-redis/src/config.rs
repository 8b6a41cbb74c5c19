//! [`Config`]: what a [`RedisCluster`](crate::RedisCluster) is told by its builder methods.

use std::{ops::RangeInclusive, time::Duration};

use crate::carrier::Seal;

/// How much a PUBLISH carries at the most, unless a single frame is larger.
pub(crate) const PACKET: usize = 64 << 10;
/// How many bytes are handed to the connection at a time.
pub(crate) const BATCH: usize = 1 << 20;
/// How many of these may be without an answer.
pub(crate) const UNDER_WAY: usize = 4;
/// How many clients one script writes about: few enough that it takes Redis less than 5 ms.
pub(crate) const CHUNK: usize = 128;
/// How long a subscription is quiet until a probe goes through it.
pub(crate) const QUIET: Duration = Duration::from_secs(5);
/// How long a lease may be. Much longer ones overflow the sums that are made with it.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
/// How long a timeout may be. What is shorter ends before a busy server or a network has answered anything; what is longer
/// ends nothing that hangs.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) namespace: String,
    pub(crate) lease: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) queue: usize,
    pub(crate) optional: bool,
    /// How many replicas have to confirm the lease of a logic module that runs once.
    pub(crate) replicas: usize,
    pub(crate) seal: Option<Seal>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: "gobroke".to_owned(),
            lease: Duration::from_secs(15),
            response_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            queue: 8 << 20,
            optional: false,
            replicas: 0,
            seal: None,
        }
    }
}

impl Config {
    /// What cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        let namespace = &self.namespace;
        let bad = |c: char| c.is_whitespace() || c.is_control() || "{}*?[]".contains(c);
        if namespace.is_empty() || namespace.contains(bad) {
            return Err(format!(
                "the namespace {namespace:?} is empty, or has spaces, braces or pattern characters in it"
            ));
        }
        if !LEASES.contains(&self.lease) {
            return Err(format!(
                "a lease of {:?} does not work: give it 1 s or more, and 365 days at the most",
                self.lease
            ));
        }
        for (name, timeout) in [
            ("response", self.response_timeout),
            ("connect", self.connect_timeout),
        ] {
            if !TIMEOUTS.contains(&timeout) {
                return Err(format!(
                    "a {name} timeout of {timeout:?} does not work: give it 10 ms or more, and an hour at the most"
                ));
            }
        }
        if self.queue == 0 {
            return Err(
                "a queue of 0 bytes takes nothing: leave it at its 8 MiB, or give it 1 byte or more"
                    .to_owned(),
            );
        }
        self.seal.as_ref().map_or(Ok(()), Seal::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_and_the_least_that_can_is_not() {
        fn check(set: impl FnOnce(&mut Config)) -> Result<(), String> {
            let mut config = Config::default();
            set(&mut config);
            config.check()
        }
        let ms = Duration::from_millis;
        let (hour, year) = (ms(3_600_000), ms(365 * 86_400_000));
        for refused in [
            check(|config| config.queue = 0),
            check(|config| config.lease = ms(999)),
            check(|config| config.lease = year + ms(1)),
            check(|config| config.lease = Duration::MAX),
            check(|config| config.response_timeout = ms(9)),
            check(|config| config.connect_timeout = Duration::ZERO),
            check(|config| config.response_timeout = Duration::MAX),
            check(|config| config.connect_timeout = hour + ms(1)),
            check(|config| config.namespace = String::new()),
            check(|config| config.seal = Some(Seal::new(b"short"))),
        ] {
            assert!(refused.is_err());
        }
        let least = check(|config| {
            config.queue = 1;
            config.lease = ms(1_000);
            config.response_timeout = ms(10);
            config.connect_timeout = ms(10);
        });
        assert_eq!(least, Ok(()));
        let most = check(|config| {
            config.queue = usize::MAX;
            config.lease = year;
            config.response_timeout = hour;
            config.connect_timeout = hour;
        });
        assert_eq!(most, Ok(()));
    }
}
