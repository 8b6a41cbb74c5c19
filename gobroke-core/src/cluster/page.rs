//! What the directory says of many clients: [`Page`] by page, all of them in a [`Listing`], or their [`Count`].

use std::{ops::Deref, slice, vec};

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
    /// Whether clients are missing, because the directory cannot be reached, or has not all of them yet.
    pub partial: bool,
}

/// Clients of all instances, as far as the directory could be read. It is a slice of them, and yields them.
///
/// ```
/// # use gobroke_core::Broke;
/// # async fn list(broke: Broke) {
/// let listing = broke.clients().await;
/// if listing.partial {
///     println!("at least {} clients:", listing.len());
/// }
/// for client in listing {
///     println!("{} on {}", client.id, client.instance);
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The clients.
    pub clients: Vec<ClientInfo>,
    /// Whether clients are missing, because the directory cannot be reached, or has not all of them yet.
    pub partial: bool,
}

impl Deref for Listing {
    type Target = [ClientInfo];

    fn deref(&self) -> &[ClientInfo] {
        &self.clients
    }
}

impl IntoIterator for Listing {
    type Item = ClientInfo;
    type IntoIter = vec::IntoIter<ClientInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.clients.into_iter()
    }
}

impl<'a> IntoIterator for &'a Listing {
    type Item = &'a ClientInfo;
    type IntoIter = slice::Iter<'a, ClientInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.clients.iter()
    }
}

/// How many clients there are, as far as the directory could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub clients: usize,
    /// Whether clients are missing, because the directory cannot be reached, or has not all of them yet.
    pub partial: bool,
}
