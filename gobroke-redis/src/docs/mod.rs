//! Guides: what one has to know beyond the page of one item.

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("scaling.md")]
pub mod scaling {}
