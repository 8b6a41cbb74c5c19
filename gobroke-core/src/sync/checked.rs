//! The checker's locks, atomics, wake-ups and time, in the shape of those that they stand for.

use std::{
    cell::{Cell, RefCell},
    ops::{Add, Sub},
    sync::PoisonError,
    time::Duration,
};

pub(crate) use shuttle::{
    future::yield_now as give_way,
    sync::{MutexGuard, atomic},
};
use shuttle::{
    rand::{Rng, thread_rng},
    thread::LocalKey,
};
use tokio::sync::futures::Notified;

/// parking_lot's: it knows no poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// tokio's, with other threads let in before each step.
#[derive(Debug, Default)]
pub(crate) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        switch();
        self.0.notified()
    }

    pub(crate) fn notify_one(&self) {
        switch();
        self.0.notify_one();
    }

    pub(crate) fn notify_waiters(&self) {
        switch();
        self.0.notify_waiters();
    }
}

fn switch() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// A cell of the checker's threads, with those methods of std's that are used.
pub(crate) struct Local<T: 'static>(pub(crate) LocalKey<RefCell<T>>);

impl<T: 'static> Local<T> {
    pub(crate) fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.0.with(|cell| f(&cell.borrow()))
    }

    pub(crate) fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(|cell| f(&mut cell.borrow_mut()))
    }
}

/// The same of a value that is copied.
pub(crate) struct LocalCell<T: 'static>(pub(crate) LocalKey<Cell<T>>);

impl<T: Copy + 'static> LocalCell<T> {
    pub(crate) fn get(&'static self) -> T {
        self.0.with(Cell::get)
    }

    pub(crate) fn set(&'static self, value: T) {
        self.0.with(|cell| cell.set(value));
    }

    pub(crate) fn replace(&'static self, value: T) -> T {
        self.0.with(|cell| cell.replace(value))
    }
}

macro_rules! local {
    ($(#[$doc:meta])* static $name:ident: Cell<$type:ty> = $init:expr;) => {
        $(#[$doc])*
        static $name: crate::sync::LocalCell<$type> =
            crate::sync::LocalCell(shuttle::thread::LocalKey {
                init: || -> Cell<$type> { $init },
                _p: std::marker::PhantomData,
            });
    };
    (static $name:ident: RefCell<$type:ty> = $init:expr;) => {
        static $name: crate::sync::Local<$type> = crate::sync::Local(shuttle::thread::LocalKey {
            init: || -> RefCell<$type> { $init },
            _p: std::marker::PhantomData,
        });
    };
}
pub(crate) use local as thread_local;

/// A clock that moves when it is looked at: mostly little, sometimes by more than a slice, sometimes by more than what
/// calls for a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

std::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Instant {
    pub(crate) fn now() -> Self {
        let step = match thread_rng().gen_range(0..16) {
            0..=10 => Duration::from_micros(5),
            11..=13 => Duration::from_micros(300),
            _ => Duration::from_millis(3),
        };
        let now = NOW.get() + step;
        NOW.set(now);
        Self(now)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

pub(crate) async fn sleep_until(deadline: Instant) {
    while Instant::now() < deadline {
        give_way().await;
    }
}
