//! Guides: what one has to know beyond the page of one item.

// The guides link to endpoints of all features, with which the documentation is built.
#![cfg_attr(
    not(all(
        feature = "ws",
        feature = "tcp",
        feature = "udp",
        feature = "http",
        feature = "jwt",
        feature = "tls"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("udp.md")]
pub mod udp {}
