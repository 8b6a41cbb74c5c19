//! Listings of clients: [`Page`] by page.

use crate::ClientInfo;

/// Where a listing goes on: what one [`Page`] hands to the next request.
///
/// Opaque: an implementation of [`Cluster`](super::Cluster) writes in it what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor with an implementation's own text. The empty one stands for the beginning.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part of a listing of clients.
///
/// A client that is there for the whole of a listing is in one of its pages; one that comes, goes or moves meanwhile
/// may be in none or in two.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The clients. Possibly none, though more pages follow.
    pub clients: Vec<ClientInfo>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
    /// Whether clients are missing, because the directory cannot be reached.
    pub partial: bool,
}
