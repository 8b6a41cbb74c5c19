//! Who is who in a cluster: [`InstanceId`], and the numbers that tell one life of a name from the next.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use crate::Name;

macro_rules! drawn {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Ordered by number; the nonce tells apart two that were drawn alike, after a loss of data. Implementations
        /// of [`Cluster`](super::Cluster) draw the number as the larger of the last one plus one and the time in
        /// microseconds, so that numbers do not start anew after an empty restart of what stores them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            number: u64,
            nonce: u32,
        }

        impl $name {
            /// One with this number and nonce.
            pub const fn new(number: u64, nonce: u32) -> Self {
                Self { number, nonce }
            }

            /// The number: the larger, the newer.
            pub const fn number(self) -> u64 {
                self.number
            }

            /// The nonce.
            pub const fn nonce(self) -> u32 {
                self.nonce
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}.{:x}", self.number, self.nonce)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

drawn! {
    /// One life of an instance: a process that starts again under its old name has a newer one.
    Incarnation
}

drawn! {
    /// One registration of a client in the directory: of two for the same client, the newer one wins.
    Registration
}

/// An instance in one of its lives: what envelopes are addressed to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId {
    /// Its name.
    pub name: Name,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

impl InstanceId {
    /// The instance of this name in this life.
    pub fn new(name: impl Into<Name>, incarnation: Incarnation) -> Self {
        Self {
            name: name.into(),
            incarnation,
        }
    }

    /// A number that stands for it where space counts.
    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint(&self.name, self.incarnation)
    }
}

/// Of the incarnation alone, which no two instances share but by chance.
impl Hash for InstanceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.incarnation.hash(state);
    }
}

/// The same on every machine (FNV-1a, 64 bits).
pub(crate) fn fingerprint(name: &str, incarnation: Incarnation) -> u64 {
    let number = incarnation.number.to_be_bytes();
    let nonce = incarnation.nonce.to_be_bytes();
    let bytes = name.bytes().chain(number).chain(nonce);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
