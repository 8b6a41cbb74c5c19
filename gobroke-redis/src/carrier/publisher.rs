//! Publishes what the queue holds.

use futures_util::stream::{FuturesOrdered, StreamExt};
use redis::{RedisResult, aio::MultiplexedConnection};

use super::{Queue, queue::Packed};
use crate::config::{BATCH, UNDER_WAY};

/// Publishes by this command over this connection until it fails: at once when idle, whatever has gathered when busy, and several
/// batches under way, in order.
pub(crate) async fn publish(
    queue: &Queue,
    command: &'static str,
    connection: &MultiplexedConnection,
) -> RedisResult<()> {
    let mut under_way = FuturesOrdered::new();
    let again = queue.again();
    if !again.is_empty() {
        under_way.push_back(send(connection.clone(), command, again));
    }
    loop {
        if under_way.len() < UNDER_WAY {
            let packed = queue.take(BATCH);
            if !packed.is_empty() {
                under_way.push_back(send(connection.clone(), command, packed));
            }
        }
        let idle = under_way.len() < UNDER_WAY;
        tokio::select! {
            biased;
            Some(answer) = under_way.next() => queue.answered(answer?),
            () = queue.filled.notified(), if idle => {}
        }
    }
}

/// Gives back how many packets were answered. Whether anybody heard them does not matter here: whoever should have
/// asks for them.
async fn send(
    mut connection: MultiplexedConnection,
    command: &str,
    packed: Vec<Packed>,
) -> RedisResult<usize> {
    let mut pipe = redis::pipe();
    for Packed {
        channel, payload, ..
    } in &packed
    {
        pipe.cmd(command).arg(&**channel).arg(&**payload);
    }
    let _heard: Vec<i64> = pipe.query_async(&mut connection).await?;
    Ok(packed.len())
}
