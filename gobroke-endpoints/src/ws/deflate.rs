//! Compression of messages (permessage-deflate, RFC 7692): [`Agreed`].
//!
//! Every message is compressed on its own, in both directions (`server_no_context_takeover`,
//! `client_no_context_takeover`). So a message for many is compressed once for all of them, and a connection keeps no
//! window; what compresses and inflates is the thread's.

use std::{cell::RefCell, collections::BTreeMap};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use gobroke_core::CloseReason;
use hyper::{
    HeaderMap,
    header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS},
};

/// What a flushed block ends with, and what is left out of a message (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A shorter message is sent as it is: it would hardly get shorter.
const WORTHWHILE: usize = 64;

/// How hard it tries: the second step of nine. The first one of zlib-rs (0.6.8) panics where its output does not fit.
const LEVEL: Compression = Compression::new(2);

/// By how much the room for an inflated message grows.
const STEP: usize = 16 * 1024;

/// The largest window that there is, as its logarithm.
const LARGEST_WINDOW: u8 = 15;

thread_local! {
    /// What compresses, by the window: a quarter of a megabyte each.
    static COMPRESS: RefCell<BTreeMap<u8, Compress>> = const { RefCell::new(BTreeMap::new()) };
    static DECOMPRESS: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// That a connection's messages may be compressed, and with which window the client's side can inflate them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    window: u8,
}

impl Agreed {
    /// Agrees to the first of a client's offers that can be met; `None` where there is none.
    pub(super) fn on(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .find_map(offer)
    }

    /// What the client is answered.
    pub(super) fn header(self) -> HeaderValue {
        const PLAIN: &str =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        match self.window {
            LARGEST_WINDOW => HeaderValue::from_static(PLAIN),
            window => format!("{PLAIN}; server_max_window_bits={window}")
                .parse()
                .unwrap_or(HeaderValue::from_static(PLAIN)),
        }
    }

    /// The position of this agreement among all that there can be.
    pub(super) fn index(self) -> usize {
        usize::from(LARGEST_WINDOW - self.window)
    }

    /// How many different ones there can be.
    pub(super) const COUNT: usize = 7;

    /// Inflates a message that is no longer than `most` then.
    ///
    /// # Errors
    /// It is longer, or not compressed as agreed.
    pub(super) fn inflate(self, bytes: &[u8], most: usize) -> Result<Vec<u8>, CloseReason> {
        DECOMPRESS.with_borrow_mut(|inflater| {
            let inflater = inflater
                .get_or_insert_with(|| Decompress::new_with_window_bits(false, LARGEST_WINDOW));
            inflater.reset(false);
            let mut out = Vec::new();
            for input in [bytes, &TAIL] {
                if inflate(inflater, input, &mut out, most)? {
                    // A last block ends it, whatever is behind (section 7.2.3.4).
                    break;
                }
            }
            Ok(out)
        })
    }

    /// Appends a message compressed, if it gets shorter that way; says whether it did.
    pub(super) fn deflate(self, message: &[u8], out: &mut Vec<u8>) -> bool {
        if message.len() < WORTHWHILE {
            return false;
        }
        let start = out.len();
        let shorter = COMPRESS.with_borrow_mut(|compressors| {
            let compressor = compressors
                .entry(self.window)
                .or_insert_with(|| Compress::new_with_window_bits(LEVEL, false, self.window));
            compressor.reset();
            // What takes as much room as the message is not worth it.
            out.reserve(message.len());
            let limit = start + message.len();
            let mut input = message;
            loop {
                let (read, written) = (compressor.total_in(), compressor.total_out());
                let status = compressor.compress_vec(input, out, FlushCompress::Sync);
                let read = (compressor.total_in() - read) as usize;
                let written = compressor.total_out() - written;
                input = &input[read..];
                if status.is_err() || out.len() >= limit {
                    return false;
                }
                if input.is_empty() && out.len() < out.capacity() {
                    return out.ends_with(&TAIL);
                }
                if read == 0 && written == 0 {
                    return false;
                }
            }
        });
        let end = if shorter {
            out.len() - TAIL.len()
        } else {
            start
        };
        out.truncate(end);
        shorter
    }
}

/// Inflates a piece of a message; says whether a block came that is the last.
fn inflate(
    inflater: &mut Decompress,
    mut input: &[u8],
    out: &mut Vec<u8>,
    most: usize,
) -> Result<bool, CloseReason> {
    let broken = || CloseReason::InvalidPayload("a message is not compressed as agreed".into());
    loop {
        if out.len() == out.capacity() {
            // One byte more than may be shows that there is more.
            let room = (most + 1 - out.len()).min(STEP.max(out.len()));
            out.reserve_exact(room);
        }
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let status = inflater
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|_| broken())?;
        let read = (inflater.total_in() - read) as usize;
        let written = inflater.total_out() - written;
        input = &input[read..];
        if out.len() > most {
            return Err(CloseReason::TooBig);
        }
        match status {
            Status::StreamEnd => return Ok(true),
            _ if input.is_empty() && out.len() < out.capacity() => return Ok(false),
            _ if read == 0 && written == 0 && out.len() < out.capacity() => return Err(broken()),
            _ => {}
        }
    }
}

/// Reads one offer (section 7.1); `None` for one that cannot be met, or is none.
fn offer(offer: &str) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut window = LARGEST_WINDOW;
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        // None may come twice.
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            // It may be that small, and need not be: what inflates has the largest.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => drop(bits(value)?),
            ("server_max_window_bits", Some(value)) => window = bits(value)?,
            _ => return None,
        }
    }
    // 8 is allowed, and what compresses has none that is so small.
    (window > 8).then_some(Agreed { window })
}

/// A window's logarithm: 8 to 15, without leading zeros.
fn bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    let plain = !value.starts_with(['0', '+']);
    (plain && (8..=LARGEST_WINDOW).contains(&bits)).then_some(bits)
}

/// Inflates, and compresses and inflates again, for the fuzzer. The first byte says with which window.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(data: &[u8]) {
    let Some((&window, message)) = data.split_first() else {
        return;
    };
    let agreed = Agreed {
        window: 9 + window % 7,
    };
    if let Ok(inflated) = agreed.inflate(message, 10_000) {
        assert!(inflated.len() <= 10_000);
    }
    let mut out = Vec::new();
    if agreed.deflate(message, &mut out) {
        assert!(out.len() < message.len());
        assert_eq!(agreed.inflate(&out, message.len()).as_deref(), Ok(message));
    } else {
        assert!(out.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(offers: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        }
        let header = Agreed::on(&headers)?.header();
        Some(header.to_str().expect("text").to_owned())
    }

    #[test]
    fn the_first_offer_that_can_be_met_is_agreed_on() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let ten = format!("{plain}; server_max_window_bits=10");
        for offers in [
            &["permessage-deflate"][..],
            &["permessage-deflate; client_max_window_bits"],
            &["Permessage-Deflate; client_max_window_bits=8; server_no_context_takeover"],
            &["x-webkit-deflate-frame, permessage-deflate"],
            &["permessage-deflate; server_max_window_bits=8, permessage-deflate"],
            &["permessage-deflate; unknown", "permessage-deflate"],
        ] {
            assert_eq!(agreed(offers).as_deref(), Some(plain), "{offers:?}");
        }
        for offers in [
            &["permessage-deflate; server_max_window_bits=10"][..],
            &["permessage-deflate; server_max_window_bits=\"10\", permessage-deflate"],
        ] {
            assert_eq!(agreed(offers), Some(ten.clone()), "{offers:?}");
        }
        for offers in [
            &[][..],
            &["x-webkit-deflate-frame"],
            &["permessage-deflate; server_max_window_bits"],
            &["permessage-deflate; server_max_window_bits=7"],
            &["permessage-deflate; server_max_window_bits=16"],
            &["permessage-deflate; server_max_window_bits=09"],
            &["permessage-deflate; server_no_context_takeover=1"],
            &["permessage-deflate; client_max_window_bits; client_max_window_bits"],
        ] {
            assert_eq!(agreed(offers), None, "{offers:?}");
        }
    }

    #[test]
    fn what_is_compressed_is_inflated_with_every_window() {
        let text = "so it goes, and so on. ".repeat(5000);
        for window in 9..=15 {
            let agreed = Agreed { window };
            for length in [64, 65, 1000, 10_000, text.len()] {
                let message = &text.as_bytes()[..length];
                let mut out = b"earlier".to_vec();
                assert!(agreed.deflate(message, &mut out), "{length} bytes");
                assert!(out.len() - 7 < message.len());
                let inflated = agreed.inflate(&out[7..], message.len());
                assert_eq!(inflated.as_deref(), Ok(message));
                let above = agreed.inflate(&out[7..], message.len() - 1);
                assert_eq!(above, Err(CloseReason::TooBig));
            }
        }
    }

    #[test]
    fn what_does_not_get_shorter_is_left_as_it_is() {
        // Xorshift: nothing in it comes twice.
        let mut state = 88_172_645_463_325_252_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(300_000)
        .collect();
        let mut out = b"earlier".to_vec();
        let long = (10..18).map(|power| &noise[..(1 << power) + 7]);
        for message in long.chain([&b"short"[..]]) {
            for window in 9..=15 {
                assert!(!Agreed { window }.deflate(message, &mut out));
                assert_eq!(out, b"earlier");
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_inflated() {
        let agreed = Agreed { window: 15 };
        // Sections 7.2.3.1, .3, .4 and .5: one block, one without compression, one that is the last, and two.
        let examples: [&[u8]; 4] = [
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ];
        for bytes in examples {
            assert_eq!(agreed.inflate(bytes, 5).as_deref(), Ok(&b"Hello"[..]));
        }
        assert_eq!(agreed.inflate(b"\x00", 5).as_deref(), Ok(&b""[..]));
        let garbage = agreed.inflate(b"\xff\xff\xff", 5).expect_err("no blocks");
        assert_eq!(garbage.code(), 1007);
    }
}
