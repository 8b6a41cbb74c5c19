//! What the fuzzer calls (`fuzz/` at the root), built for it and for tests alone. It takes any bytes, and panics where
//! something is not as it should be.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "no part of what users see"
)]

use bytes::Bytes;

use crate::cluster::envelope::{Body, Content, Frame};

/// A frame as a carrier brings it: whatever can be read is written and read again as the same.
pub fn envelope(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let Ok(Frame {
        body: Body::Numbered(numbered),
        ..
    }) = Frame::decode(&frame)
    else {
        return;
    };
    let Ok(content) = Content::decode(&numbered.content) else {
        return;
    };
    let written = written(&content);
    let again = Content::decode(&written);
    assert_eq!(again.as_ref().map(self::written), Ok(written));
}

fn written(content: &Content) -> Bytes {
    let mut out = Vec::new();
    content.encode(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn what_the_fuzzer_keeps_for_the_envelope_is_survived() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/envelope");
        let mut count = 0;
        for entry in fs::read_dir(&folder).expect("a folder of inputs") {
            let path = entry.expect("an input").path();
            // The name stands in the output of a failure.
            println!("{}", path.display());
            super::envelope(&fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count > 0, "there are inputs in {}", folder.display());
    }
}
