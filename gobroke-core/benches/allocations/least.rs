//! [`least`]: what is allocated where nothing disturbs.

use allocation_counter::AllocationInfo;

/// Each is counted so often, and the least taken: a pass that the machine interrupts leaves more for the next.
const ROUNDS: usize = 8;

pub(crate) fn least(mut send: impl FnMut()) -> AllocationInfo {
    // Until buffers have their size.
    send();
    let rounds = (0..ROUNDS).map(|_| allocation_counter::measure(&mut send));
    let least = rounds.reduce(|one, other| AllocationInfo {
        count_total: one.count_total.min(other.count_total),
        bytes_total: one.bytes_total.min(other.bytes_total),
        ..one
    });
    least.unwrap_or_default()
}
