//! Locks, atomics, wake-ups and time, as delivery uses them.
//!
//! parking_lot's, std's and tokio's; in the tests of `delivery/interleavings` (`--cfg gobroke_interleavings`) those of
//! a checker, which decides at each of them which thread goes on.

#[cfg(all(test, gobroke_interleavings))]
mod checked;
#[cfg(not(all(test, gobroke_interleavings)))]
mod usual;

#[cfg(all(test, gobroke_interleavings))]
pub(crate) use checked::{
    Instant, Local, LocalCell, Mutex, MutexGuard, Notify, atomic, give_way, sleep_until,
    thread_local,
};

#[cfg(not(all(test, gobroke_interleavings)))]
pub(crate) use {
    self::usual::give_way,
    parking_lot::{Mutex, MutexGuard},
    std::{sync::atomic, thread_local},
    tokio::{
        sync::Notify,
        time::{Instant, sleep_until},
    },
};
