//! Without feature `deflate`: no compression is ever agreed on.

use gobroke_core::CloseReason;
use hyper::{HeaderMap, header::HeaderValue};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {}

impl Agreed {
    pub(super) const COUNT: usize = 0;

    pub(super) fn on(_: &HeaderMap) -> Option<Self> {
        None
    }

    pub(super) fn header(self) -> HeaderValue {
        match self {}
    }

    pub(super) fn index(self) -> usize {
        match self {}
    }

    pub(super) fn inflate(self, _: &[u8], _: usize) -> Result<Vec<u8>, CloseReason> {
        match self {}
    }

    pub(super) fn deflate(self, _: &[u8], _: &mut Vec<u8>) -> bool {
        match self {}
    }
}
