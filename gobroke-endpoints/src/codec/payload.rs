//! Payloads, out of a buffer that is about to be read into again.

use bytes::Bytes;

/// A copy. A short one shares one allocation with the count of its holders, which `Bytes` makes a second one for when it
/// is cloned first; and what logic answers is mostly a clone.
pub(super) fn copy(bytes: &[u8]) -> Bytes {
    match bytes.len() {
        0 => Bytes::new(),
        1..=64 => Short::<64>::copy(bytes),
        65..=128 => Short::<128>::copy(bytes),
        129..=256 => Short::<256>::copy(bytes),
        _ => Bytes::copy_from_slice(bytes),
    }
}

/// Up to `N` bytes in place.
struct Short<const N: usize> {
    bytes: [u8; N],
    length: u16,
}

impl<const N: usize> Short<N> {
    fn copy(from: &[u8]) -> Bytes {
        let mut bytes = [0; N];
        bytes[..from.len()].copy_from_slice(from);
        let length = from.len() as u16;
        Bytes::from_owner(Self { bytes, length })
    }
}

impl<const N: usize> AsRef<[u8]> for Short<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_any_length_is_what_it_was_made_of() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        for length in 0..=bytes.len() {
            let copied = copy(&bytes[..length]);
            assert_eq!(copied, bytes[..length]);
            assert_eq!(copied.clone().as_ptr(), copied.as_ptr());
        }
    }
}
