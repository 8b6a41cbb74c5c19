//! What the endpoints over HTTP share: a connection's beginning, answers, and being a route of a server that is there.

mod answer;
mod begin;
mod mount;

pub(crate) use self::{
    answer::{Text, refused, text},
    begin::{begin, connect_request, turn_away},
    mount::{Mount, remote},
};

/// How long a request's head may be, in bytes.
pub(crate) const LONGEST_HEAD: usize = 16 * 1024;
