//! Ids of messages and clients: UUIDs of version 7, laid by hand.
//!
//! A generator's UUID costs 80 to 590 ns. A server makes one for every message, so these are laid from a
//! millisecond clock, a counter of the thread and a random part that each thread draws once (RFC 9562, section 5.7
//! and 6.2, method 1): about 5 ns.

use std::{cell::Cell, fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        // Read and written in the words in which what holds it is copied: where the pieces differ, a processor waits.
        #[repr(align(8))]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id: a UUID of version 7, unique and rising with time.
            #[allow(clippy::new_without_default, reason = "a default that differs at every call surprises")]
            pub fn new() -> Self {
                Self(next(now()))
            }

            /// The UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// The id of a message, the same wherever the message goes.
    ///
    /// ```
    /// use gobroke_core::MessageId;
    /// assert_ne!(MessageId::new(), MessageId::new());
    /// ```
    MessageId
}

id! {
    /// The id of a client: drawn at its connection, or given by the `on_connect` hook when the client is known. The
    /// nil UUID names nobody.
    ///
    /// ```
    /// use gobroke_core::ClientId;
    /// let id: ClientId = "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e".parse()?;
    /// assert_eq!(id.to_string(), "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ClientId
}

impl ClientId {
    /// Names nobody: [`Gate::admit`](crate::Gate::admit) refuses it.
    pub(crate) const NIL: Self = Self(Uuid::nil());
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    // A clock before 1970 reads as 1970: ids stay unique, by counter and random part.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// The moment of a read or a turn: while one is held, all ids that its thread makes have the same time, so that the
/// clock is read once for all messages of a read.
///
/// The time is that of the first id. For endpoints: hold one while the bytes of one read are decoded, not across an
/// await.
///
/// ```
/// use gobroke_core::{Message, Moment};
/// let _moment = Moment::begin();
/// let messages: Vec<_> = (0..16).map(|_| Message::new("x")).collect();
/// ```
#[derive(Debug)]
pub struct Moment(PhantomData<*const ()>);

thread_local! {
    /// How many moments are held on this thread.
    static MOMENTS: Cell<u32> = const { Cell::new(0) };
    /// Their time, once it has been asked for.
    static HELD: Cell<u64> = const { Cell::new(0) };
}

impl Moment {
    /// Begins one, unless one is held: then it is the same.
    #[inline]
    pub fn begin() -> Self {
        MOMENTS.set(MOMENTS.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for Moment {
    #[inline]
    fn drop(&mut self) {
        let others = MOMENTS.get() - 1;
        MOMENTS.set(others);
        if others == 0 {
            HELD.set(0);
        }
    }
}

/// Milliseconds since 1970, at this moment.
#[inline]
pub(crate) fn now() -> u64 {
    match HELD.get() {
        0 => read_clock(),
        held => held,
    }
}

#[inline(never)]
fn read_clock() -> u64 {
    let millis = unix_millis();
    if MOMENTS.get() > 0 {
        HELD.set(millis);
    }
    millis
}

// A thread's hold on uniqueness. Each in a cell of its own: only what changes is written.
thread_local! {
    /// The last millisecond used.
    static MILLIS: Cell<u64> = const { Cell::new(0) };
    /// What was counted in it.
    static COUNT: Cell<u32> = const { Cell::new(0) };
    /// The random part, once it is drawn: the second half of a v4, which begins with the variant that a v7 has too.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// How many bits of an id count: 12 beside the version, 16 behind the variant and 6 random bits; 40 random bits follow.
const COUNT_BITS: u32 = 28;

fn next(millis: u64) -> Uuid {
    if RANDOM.get() == 0 {
        return first(millis);
    }
    if millis > MILLIS.get() {
        MILLIS.set(millis);
        COUNT.set(0);
    } else {
        // Within one millisecond, or when the clock went back: count. When that is used up, time moves on by one.
        COUNT.set(COUNT.get() + 1);
        if COUNT.get() == 1 << COUNT_BITS {
            MILLIS.set(MILLIS.get() + 1);
            COUNT.set(0);
        }
    }
    let count = u64::from(COUNT.get());
    let high = MILLIS.get() << 16 | 0x7000 | count >> 16;
    let low = RANDOM.get() & !(0xffff << 40) | (count & 0xffff) << 40;
    Uuid::from_u64_pair(high, low)
}

/// The thread's first.
#[cold]
fn first(millis: u64) -> Uuid {
    RANDOM.set(Uuid::new_v4().as_u64_pair().1);
    next(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_unique_and_rising_within_a_thread() {
        let ids: Vec<Uuid> = (0..100_000).map(|_| MessageId::new().into()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        let times: Vec<_> = ids.iter().map(|id| id.as_bytes()[..6].to_vec()).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn within_a_millisecond_ids_count_whatever_was_drawn() {
        let ids: Vec<Uuid> = (0..100_000).map(|_| next(1)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        let of_rfc =
            |id: &Uuid| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122;
        assert!(ids.iter().all(of_rfc));
    }

    #[test]
    fn a_moment_has_one_time_and_ends() {
        let outer = Moment::begin();
        let time = now();
        drop(Moment::begin());
        while unix_millis() == time {
            std::hint::spin_loop();
        }
        assert_eq!(now(), time);
        drop(outer);
        assert!(now() > time);
    }

    #[test]
    fn threads_do_not_draw_the_same_ids() {
        let draw = || (0..10_000).map(|_| next(1)).collect::<Vec<_>>();
        let other = std::thread::spawn(draw);
        let mut all = draw();
        all.extend(other.join().expect("the thread ends"));
        let unique: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
    }
}
