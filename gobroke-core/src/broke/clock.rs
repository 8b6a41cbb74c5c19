//! [`Clock`]: the coarse time that all connections share, and the one task that watches them by it.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::router::Router;
use crate::{CloseReason, client::ClientShared, delivery::entry::Entry};

/// One tick: pings, pong deadlines and write stalls are this coarse.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How many connections are pinged or closed before others have their turn: thousands may be due at once, and each that
/// is closed is some work of its own task.
const AT_A_TIME: usize = 32;

/// Coarse time since the start.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// The tick in which all connections were looked at last.
    looked: AtomicU32,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            looked: AtomicU32::new(1),
        }
    }

    /// The tick of a moment; the first is 1, so that 0 can mean never.
    pub(crate) fn tick(&self) -> u32 {
        (self.start.elapsed().as_millis() / TICK.as_millis()) as u32 + 1
    }

    /// The tick as of the last look at all connections, which comes once in each: for every read, where asking for the
    /// time would be much of what there is to do.
    pub(crate) fn last_tick(&self) -> u32 {
        self.looked.load(Relaxed)
    }
}

impl Clock {
    /// The tick in which a time of the wall clock comes, in milliseconds since 1970: as far away as it is now.
    pub(crate) fn end(&self, unix_millis: Option<u64>) -> u32 {
        let Some(end) = unix_millis else { return 0 };
        let left = Duration::from_millis(end.saturating_sub(crate::id::unix_millis()));
        self.tick().saturating_add(ticks(left))
    }
}

fn ticks(duration: Duration) -> u32 {
    duration
        .as_millis()
        .div_ceil(TICK.as_millis())
        .min(u32::MAX.into()) as u32
}

/// Watches all connections: one task and one timer, however many there are.
pub(crate) async fn watch(router: Weak<Router>, stopped: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stopped.cancelled() => return,
        }
        let Some(router) = router.upgrade() else {
            return;
        };
        let now = router.clock.tick();
        router.clock.looked.store(now, Relaxed);
        // Collected first: what follows reaches into lanes, and the registry's locks are not held meanwhile.
        let mut due = Vec::new();
        router.registry.for_each_session(|client| {
            due.extend(look(client, now).map(|what| (client.clone(), what)));
        });
        for (number, (client, what)) in due.into_iter().enumerate() {
            act(&router, &client, what, now);
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Due {
    Ping,
    Silent,
    Stalled,
    Ended,
}

fn look(client: &Arc<ClientShared>, now: u32) -> Option<Due> {
    let heartbeat = &client.heartbeat;
    let options = &client.endpoint.options;
    let moved = heartbeat.moved.load(Relaxed);
    match client.outbox.waiting() {
        // Where nothing is said, core's own writers have nothing written here, however many they are.
        None if moved == 0 => {}
        None => heartbeat.moved.store(0, Relaxed),
        Some(left) => {
            let moving = left != heartbeat.left.swap(left, Relaxed);
            if moving {
                // A slow link: its ping, or its pong, is behind what still moves. The write stall watches over it.
                client.heard.store(now, Relaxed);
            }
            if moving || moved == 0 {
                heartbeat.moved.store(now, Relaxed);
            } else if now.saturating_sub(moved) >= ticks(options.write_stall) {
                return Some(Due::Stalled);
            }
        }
    }
    if client.is_closed() {
        return None;
    }
    let ends = heartbeat.ends.load(Relaxed);
    if ends != 0 && now >= ends {
        return Some(Due::Ended);
    }
    let interval = options.ping_interval?;
    if heartbeat.at_door.load(Relaxed) {
        // What it sent waits for logic, and its pong may be behind that.
        client.heard.store(now, Relaxed);
    }
    let heard = client.heard.load(Relaxed);
    match heartbeat.pinged.load(Relaxed) {
        pinged if pinged > heard => {
            (now.saturating_sub(pinged) > ticks(options.pong_timeout)).then_some(Due::Silent)
        }
        _ => (now.saturating_sub(heard) >= ticks(interval)).then_some(Due::Ping),
    }
}

fn act(router: &Router, client: &Arc<ClientShared>, due: Due, now: u32) {
    match due {
        Due::Ping => {
            if let Some(frame) = client.encode(&router.stats, |encoder, out| encoder.ping(out)) {
                client.heartbeat.pinged.store(now, Relaxed);
                client.lane.append(Entry::Frame {
                    client: client.clone(),
                    frame,
                });
            }
        }
        Due::Silent => {
            router.stats.idle.add(1);
            router.close(client, CloseReason::Idle);
        }
        Due::Ended => router.close(client, CloseReason::TokenExpired),
        Due::Stalled => {
            if client.outbox.closing().is_none() {
                router.stats.slow_consumers.add(1);
            }
            client.closed.store(true, Relaxed);
            let dropped = client.outbox.end(CloseReason::SlowConsumer);
            router.stats.dropped.add(dropped as u64);
        }
    }
}
