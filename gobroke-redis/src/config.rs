//! [`Config`]: what a [`RedisCluster`](crate::RedisCluster) is told by its builder methods.

use std::time::Duration;

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
        if self.lease < Duration::from_secs(1) {
            return Err(format!("a lease of {:?} is shorter than 1 s", self.lease));
        }
        self.seal.as_ref().map_or(Ok(()), Seal::check)
    }
}
