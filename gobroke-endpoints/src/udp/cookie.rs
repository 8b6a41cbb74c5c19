//! Proofs that an address is the sender's, for which nothing is kept: [`Baker`] and its [`Cookie`].

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::Instant;

/// How long a cookie is taken.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);

/// How long the key is: a block of SHA-256.
pub(super) const KEY: usize = 64;

/// How much of the code stands in a cookie: 128 bits.
const CODE: usize = 16;
/// How long a cookie is.
pub(super) const PROOF: usize = 4 + CODE;

/// The time at which it was made, and a code over that, the address that it was sent to, and what it is for. Who sends
/// it back has received it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookie([u8; PROOF]);

impl Cookie {
    pub(super) fn from_bytes(bytes: &[u8; PROOF]) -> Self {
        Self(*bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; PROOF] {
        &self.0
    }
}

/// What a cookie is for: one is not taken for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    Connect = 1,
    Move = 2,
}

/// Makes cookies and knows them again, by a key of its own that was drawn when it was made.
pub(super) struct Baker {
    mac: Hmac<Sha256>,
    start: Instant,
}

impl Baker {
    /// # Errors
    /// The system has no randomness.
    pub(super) fn new() -> io::Result<Self> {
        let mut key = [0; KEY];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self::with_key(&key))
    }

    pub(super) fn with_key(key: &[u8; KEY]) -> Self {
        Self {
            mac: Hmac::new(&(*key).into()),
            start: Instant::now(),
        }
    }

    /// Milliseconds since the start, which wrap after seven weeks.
    fn now(&self) -> u32 {
        self.start.elapsed().as_millis() as u32
    }

    fn code(
        &self,
        made: [u8; 4],
        purpose: Use,
        name: &[u8; 8],
        address: SocketAddr,
    ) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&made);
        mac.update(&[purpose as u8]);
        mac.update(name);
        match address.ip() {
            IpAddr::V4(ip) => mac.update(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&address.port().to_be_bytes());
        mac
    }

    /// A cookie for an address and a name. Allocates nothing.
    pub(super) fn bake(&self, purpose: Use, name: &[u8; 8], address: SocketAddr) -> Cookie {
        let made = self.now().to_be_bytes();
        let code = self.code(made, purpose, name, address).finalize();
        let mut cookie = [0; PROOF];
        cookie[..4].copy_from_slice(&made);
        cookie[4..].copy_from_slice(&code.into_bytes()[..CODE]);
        Cookie(cookie)
    }

    /// Whether a cookie was made here, for this and not too long ago. Takes as long for a wrong one as for a right one,
    /// and allocates nothing.
    pub(super) fn knows(
        &self,
        cookie: &Cookie,
        purpose: Use,
        name: &[u8; 8],
        address: SocketAddr,
    ) -> bool {
        let (made, code) = cookie.0.split_at(4);
        let made = [made[0], made[1], made[2], made[3]];
        let age = self.now().wrapping_sub(u32::from_be_bytes(made));
        let known = self
            .code(made, purpose, name, address)
            .verify_truncated_left(code)
            .is_ok();
        known && u128::from(age) <= LIFETIME.as_millis()
    }
}

impl std::fmt::Debug for Baker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Baker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8; 8] = b"a client";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn a_cookie_is_good_for_its_address_its_name_its_use_and_its_time() {
        let baker = Baker::new().expect("randomness");
        let here = address("192.0.2.1:5000");
        let cookie = baker.bake(Use::Connect, NAME, here);
        assert!(baker.knows(&cookie, Use::Connect, NAME, here));
        assert!(!baker.knows(&cookie, Use::Move, NAME, here));
        assert!(!baker.knows(&cookie, Use::Connect, b"b client", here));
        for elsewhere in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
            assert!(!baker.knows(&cookie, Use::Connect, NAME, address(elsewhere)));
        }
        for bit in 0..PROOF * 8 {
            let mut changed = cookie;
            changed.0[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !baker.knows(&changed, Use::Connect, NAME, here),
                "bit {bit}"
            );
        }
        assert!(!Baker::with_key(&[0; KEY]).knows(&cookie, Use::Connect, NAME, here));
        tokio::time::advance(LIFETIME).await;
        assert!(baker.knows(&cookie, Use::Connect, NAME, here));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!baker.knows(&cookie, Use::Connect, NAME, here));
    }
}
