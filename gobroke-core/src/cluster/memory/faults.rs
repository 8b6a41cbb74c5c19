//! [`Carrier`]: carries frames between inboxes, and, in tests, carries them badly.

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::cluster::Inbox;

#[cfg(feature = "testing")]
use {crate::cluster::seed::Seed, parking_lot::Mutex, std::time::Duration};

/// What happens to frames on their way.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many of 1,000 do not arrive.
    pub lose: u64,
    /// How many of 1,000 arrive twice.
    pub double: u64,
    /// How long one is under way at the most; each takes its own time, so later ones overtake.
    pub delay: Duration,
}

/// The way from inbox to inbox.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    #[cfg(feature = "testing")]
    faults: Mutex<Option<(Seed, Faults)>>,
}

impl Carrier {
    #[cfg(feature = "testing")]
    pub(super) fn set(&self, seed: u64, faults: Faults) {
        let faults = (faults != Faults::default()).then(|| (Seed::new(seed), faults));
        *self.faults.lock() = faults;
    }

    #[cfg(feature = "testing")]
    pub(super) fn carry(&self, handle: &Handle, inbox: &Inbox, frame: Bytes) {
        let mut faults = self.faults.lock();
        let Some((seed, faults)) = &mut *faults else {
            inbox.arrived(frame);
            return;
        };
        let copies = if seed.per_mille(faults.double) { 2 } else { 1 };
        for _ in 0..copies {
            if seed.per_mille(faults.lose) {
                continue;
            }
            let delay = Duration::from_micros(seed.below(faults.delay.as_micros() as u64 + 1));
            let (inbox, frame) = (inbox.clone(), frame.clone());
            handle.spawn(async move {
                tokio::time::sleep(delay).await;
                inbox.arrived(frame);
            });
        }
    }

    #[cfg(not(feature = "testing"))]
    #[allow(
        clippy::unused_self,
        reason = "with the feature `testing` it has faults"
    )]
    pub(super) fn carry(&self, _: &Handle, inbox: &Inbox, frame: Bytes) {
        inbox.arrived(frame);
    }
}
