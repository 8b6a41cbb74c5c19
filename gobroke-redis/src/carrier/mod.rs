//! Carrying: what waits to be published, how it is packed, and the tasks that publish and subscribe.

mod packet;
mod publisher;
mod queue;
mod replay;
mod seal;
mod subscriber;

pub(crate) use self::{
    publisher::publish,
    queue::Queue,
    replay::ReplayGuard,
    seal::Seal,
    subscriber::{Hearing, Subscribed, listen, probe},
};
