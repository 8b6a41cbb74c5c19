//! [`Seal`]: a code by which instances that share a secret know each other's packets.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a code is: HMAC-SHA-256, whole.
pub(super) const CODE: usize = 32;
/// A shorter secret can be guessed: 128 bits.
const SHORTEST: usize = 16;

/// The code is over the channel, which names the namespace, the target and its incarnation, and over the packet: its
/// number, its origin and the origin's incarnation, and its frames. So a packet cannot be changed, or sent on to somebody
/// else; and where it is repeated, its number says so ([`ReplayGuard`](super::ReplayGuard)).
#[derive(Clone)]
pub(crate) struct Seal {
    keyed: Hmac<Sha256>,
    length: usize,
}

impl Seal {
    pub(crate) fn new(secret: &[u8]) -> Self {
        // A key of any length is taken.
        let keyed = Hmac::new_from_slice(secret)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Self {
            keyed,
            length: secret.len(),
        }
    }

    /// What is wrong with the secret.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.length {
            0..SHORTEST => Err(format!(
                "a secret of {} bytes can be guessed: take {SHORTEST} random bytes or more",
                self.length
            )),
            _ => Ok(()),
        }
    }

    fn over(&self, channel: &str, frames: &[u8]) -> Hmac<Sha256> {
        let mut code = self.keyed.clone();
        code.update(&(channel.len() as u64).to_be_bytes());
        code.update(channel.as_bytes());
        code.update(frames);
        code
    }

    pub(super) fn code(&self, channel: &str, frames: &[u8]) -> [u8; CODE] {
        self.over(channel, frames).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(super) fn is_sound(&self, channel: &str, frames: &[u8], code: &[u8]) -> bool {
        self.over(channel, frames).verify_slice(code).is_ok()
    }
}

/// What an instance seals its packets with.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) seal: Seal,
    /// The instance, as it is written.
    pub(super) origin: String,
    drawn: AtomicU64,
}

impl Sealing {
    pub(super) fn new(seal: Seal, origin: impl Into<String>) -> Self {
        Self {
            seal,
            origin: origin.into(),
            drawn: AtomicU64::new(0),
        }
    }

    /// The number of the next packet, from 1.
    pub(super) fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Relaxed) + 1
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}
