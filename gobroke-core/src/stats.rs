//! Counters and gauges, as one snapshot: [`Stats`].

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use dashmap::DashMap;
use serde::Serialize;

/// A count, in as many parts as a small server has threads: those that count at the same time do not hold each other
/// back.
#[derive(Debug, Default)]
pub(crate) struct Counter([Part; PARTS]);

const PARTS: usize = 4;

/// Alone in what processors hand to each other at a time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(AtomicU64);

thread_local! {
    /// Which part this thread counts in.
    static PART: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % PARTS
    };
}

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        // Also on a thread that ends.
        let part = PART.try_with(|part| *part).unwrap_or(0);
        self.0[part].0.fetch_add(by, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Relaxed)).sum()
    }
}

/// What is counted while the router runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connected: Counter,
    pub(crate) refused: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) disconnected: Counter,
    pub(crate) received: Counter,
    pub(crate) rejected: Counter,
    pub(crate) busy: Counter,
    pub(crate) full: Counter,
    pub(crate) dropped: Counter,
    pub(crate) unknown: Counter,
    pub(crate) slow_consumers: Counter,
    pub(crate) idle: Counter,
    pub(crate) writes: Counter,
    pub(crate) logic_errors: Counter,
    pub(crate) logic_panics: Counter,
    pub(crate) panics: Counter,
    pub(crate) bad_input: DashMap<&'static str, u64>,
}

/// Counters and gauges of an instance, at one moment. Counters count from the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Gauge: clients connected here.
    pub clients: usize,
    /// Gauge: groups with members here.
    pub groups: usize,
    /// Gauge: bytes that all outboxes hold together (whole allocations, a shared run once).
    pub outbox_bytes: usize,
    /// Gauge: bytes queued in lanes.
    pub lane_bytes: usize,
    /// Connections admitted.
    pub connected: u64,
    /// Connections refused: by limits or by the `on_connect` hook.
    pub refused: u64,
    /// Errors of endpoints that accept connections: no file descriptor is left, say.
    pub accept_errors: u64,
    /// Sessions that ended.
    pub disconnected: u64,
    /// Messages from clients that passed the door's middleware.
    pub received: u64,
    /// Messages that middleware rejected, at the door or at a send.
    pub rejected: u64,
    /// Messages whose client was told `busy`, since logic took none for the door's timeout.
    pub busy: u64,
    /// Sends that were refused with `Full`.
    pub full: u64,
    /// Messages delivered: written to a socket or waiting in an outbox; each receiver counts.
    pub delivered: u64,
    /// Messages dropped: by an overflow policy, or waiting for a client that was cut.
    pub dropped: u64,
    /// Messages for a client that was gone when its lane came to them.
    pub unknown: u64,
    /// Clients closed as slow consumers.
    pub slow_consumers: u64,
    /// Clients closed since nothing came from them.
    pub idle: u64,
    /// Writes that passes made.
    pub writes: u64,
    /// Errors that handlers of logic modules returned.
    pub logic_errors: u64,
    /// Panics of logic modules.
    pub logic_panics: u64,
    /// Panics of codecs, wires and endpoints.
    pub panics: u64,
    /// What endpoints refused to read, by what was wrong with it.
    pub bad_input: BTreeMap<String, u64>,
    /// This instance's part in the cluster, where there is one.
    pub cluster: Option<crate::cluster::ClusterStats>,
    /// What the logic modules have queued and in flight, by name.
    pub logic: BTreeMap<String, LogicStats>,
}

/// What a logic module has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogicStats {
    /// Messages queued.
    pub queued: usize,
    /// Handlers that wait for something.
    pub in_flight: usize,
    /// Errors and panics.
    pub failures: u64,
}
