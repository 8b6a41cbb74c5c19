//! Payloads, out of a buffer that is about to be read into again.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Payloads up to this size share a page.
const SHORT: usize = 256;

/// How much memory short payloads share. A message that is kept keeps this much at the most.
const PAGE: usize = 1024;

thread_local! {
    /// The page of this thread.
    static SHARED: RefCell<Option<BytesMut>> = const { RefCell::new(None) };
}

/// A copy. Short ones stand in a page together with those that came before and after them: the messages of a read are
/// mostly gone together, and then the page is used again, where each of them would have allocated.
pub(super) fn copy(bytes: &[u8]) -> Bytes {
    match bytes.len() {
        0 => Bytes::new(),
        1..=SHORT => shared(bytes),
        _ => Bytes::copy_from_slice(bytes),
    }
}

fn shared(bytes: &[u8]) -> Bytes {
    SHARED.with_borrow_mut(|page| {
        let page = page.get_or_insert_default();
        if page.capacity() < bytes.len() && !page.try_reclaim(PAGE) {
            *page = BytesMut::with_capacity(PAGE);
        }
        page.extend_from_slice(bytes);
        page.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_any_length_is_what_it_was_made_of() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        let mut all = Vec::new();
        for length in 0..=bytes.len() {
            let copied = copy(&bytes[..length]);
            assert_eq!(copied.clone().as_ptr(), copied.as_ptr());
            all.push(copied);
        }
        for (length, copied) in all.iter().enumerate() {
            assert_eq!(copied, &bytes[..length]);
        }
    }

    #[test]
    fn short_payloads_that_are_gone_leave_their_page_to_the_next() {
        let first = copy(&[1; 64]).as_ptr();
        let found = (0..PAGE / 64).any(|_| copy(&[2; 64]).as_ptr() == first);
        assert!(found, "the page is used from its beginning again");
    }

    #[test]
    fn a_payload_that_is_kept_is_not_written_over() {
        let kept: Vec<Bytes> = (0..=255).map(|byte| copy(&[byte; 100])).collect();
        for (byte, kept) in (0..=255).zip(&kept) {
            assert_eq!(kept, &[byte; 100][..]);
        }
    }
}
