//! Guides: longer reading than an item's own page has room for. Every example in them is compiled and run as a test.
//!
//! | guide | answers |
//! |---|---|
//! | [`logic`] | Which kind of logic module do I write, in what order do messages reach it, what happens when it fails or falls behind? |
//! | [`middleware`] | How do I check, change or refuse messages on their way? |
//! | [`delivery`] | When is a message written, what happens to slow clients, which bounds are there and where are they set? |
//! | [`endpoints`] | How do I bring a transport of my own? |
//! | [`errors`] | What is a client told when something goes wrong, and what is the program told? |
//! | [`from_go`] | I know the Go original: what is called what here? |

// The guides link to the in-memory endpoint of the feature `testing`, which the documentation is built with.
#![cfg_attr(not(feature = "testing"), allow(rustdoc::broken_intra_doc_links))]

pub mod delivery {
    #![doc = include_str!("delivery.md")]

    #[cfg(doc)]
    use crate::*;
}

pub mod endpoints {
    #![doc = include_str!("endpoints.md")]

    #[cfg(doc)]
    use crate::*;
}

pub mod errors {
    #![doc = include_str!("errors.md")]

    #[cfg(doc)]
    use crate::*;
}

pub mod from_go {
    #![doc = include_str!("from_go.md")]

    #[cfg(doc)]
    use crate::*;
}

pub mod logic {
    #![doc = include_str!("logic.md")]

    #[cfg(doc)]
    use crate::*;
}

pub mod middleware {
    #![doc = include_str!("middleware.md")]

    #[cfg(doc)]
    use crate::*;
}

/// The first page of the crate, so that its example is compiled too.
#[cfg(doctest)]
mod readme {
    #![doc = include_str!("../../README.md")]
}
