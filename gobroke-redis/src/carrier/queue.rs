//! [`Queue`]: frames that wait to be published, and packets that wait for their answer.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use gobroke_core::cluster::{Full, InstanceId, To};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    packet,
    seal::{Seal, Sealing},
};
use crate::{
    config::PACKET,
    keys::{Keys, Place, instance},
};

/// What a frame costs beside its bytes while it waits, about.
const EACH: usize = 64;

/// Everything that an instance publishes, in order, over all its connections.
///
/// What was handed to a connection that broke before it answered stays in front, and is published again: whoever gets
/// it twice drops it, by its number.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    bound: usize,
    keys: Arc<Keys>,
    trunk: Place,
    sealing: Option<Sealing>,
    /// Told when a frame was put in.
    pub(super) filled: Notify,
    /// Told when bytes were answered.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<(To, Bytes)>,
    unanswered: VecDeque<Packed>,
    bytes: usize,
}

/// A packet for one channel.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) channel: Arc<str>,
    pub(super) payload: Bytes,
    /// What it takes of the bound.
    weight: usize,
}

impl Queue {
    /// What `origin` publishes, in packets with this seal.
    pub(crate) fn new(
        keys: Arc<Keys>,
        origin: &InstanceId,
        bound: usize,
        seal: Option<Seal>,
    ) -> Self {
        Self {
            waiting: Mutex::default(),
            bound,
            trunk: keys.trunk(origin),
            keys,
            sealing: seal.map(|seal| Sealing::new(seal, instance(origin))),
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// Takes a frame, unless the bound is reached.
    pub(crate) fn push(&self, to: &To, frame: Bytes) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.bytes >= self.bound {
            return Err(Full);
        }
        waiting.bytes += frame.len() + EACH;
        waiting.frames.push_back((to.clone(), frame));
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until less than half of the bound waits. Cancel-safe.
    pub(crate) async fn room(&self) {
        self.until(|waiting| waiting.bytes < self.bound.div_ceil(2))
            .await;
    }

    /// Waits until everything has been published and answered. Cancel-safe.
    pub(crate) async fn drained(&self) {
        self.until(|waiting| waiting.bytes == 0).await;
    }

    async fn until(&self, so: impl Fn(&Waiting) -> bool) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if so(&self.waiting.lock()) {
                return;
            }
            emptied.await;
        }
    }

    /// What a former connection did not answer, to be published again.
    pub(super) fn again(&self) -> Vec<Packed> {
        self.waiting.lock().unanswered.iter().cloned().collect()
    }

    /// Takes frames of about `most` bytes, packed; they wait for their answer from now on.
    pub(super) fn take(&self, most: usize) -> Vec<Packed> {
        let mut waiting = self.waiting.lock();
        let mut bytes = 0;
        let mut count = 0;
        for (_, frame) in &waiting.frames {
            if bytes >= most {
                break;
            }
            bytes += frame.len() + EACH;
            count += 1;
        }
        let frames: Vec<_> = waiting.frames.drain(..count).collect();
        // Copied without the lock, which whoever publishes needs.
        drop(waiting);
        let channel = |to: &To| self.keys.channel(self.trunk, to);
        let packed = pack(frames, &channel, self.sealing.as_ref());
        self.waiting
            .lock()
            .unanswered
            .extend(packed.iter().cloned());
        packed
    }

    /// The first packets have been answered.
    pub(super) fn answered(&self, count: usize) {
        let mut waiting = self.waiting.lock();
        let answered: usize = waiting
            .unanswered
            .drain(..count)
            .map(|packed| packed.weight)
            .sum();
        waiting.bytes -= answered;
        drop(waiting);
        self.emptied.notify_waiters();
    }
}

/// Packs frames into as few packets as keep the order that receivers see: what is for one instance and what is for
/// all do not overtake each other; what is for different instances may.
fn pack(
    frames: Vec<(To, Bytes)>,
    channel: &dyn Fn(&To) -> String,
    sealing: Option<&Sealing>,
) -> Vec<Packed> {
    let mut packed = Vec::new();
    let mut open: Vec<(To, Vec<u8>, usize)> = Vec::new();
    let mut places: HashMap<InstanceId, usize> = HashMap::new();
    for (to, frame) in frames {
        let to_all = to == To::All;
        if open
            .first()
            .is_some_and(|(first, _, _)| (*first == To::All) != to_all)
        {
            close(&mut open, &mut places, channel, sealing, &mut packed);
        }
        let mut place = match &to {
            To::All => (!open.is_empty()).then_some(0),
            To::Instance(id) => places.get(id).copied(),
        };
        if place.is_some_and(|place| open[place].1.len() + frame.len() > PACKET) {
            close(&mut open, &mut places, channel, sealing, &mut packed);
            place = None;
        }
        let place = place.unwrap_or_else(|| {
            if let To::Instance(id) = &to {
                places.insert(id.clone(), open.len());
            }
            open.push((to, packet::begin(frame.len() + packet::EACH, sealing), 0));
            open.len() - 1
        });
        let (_, payload, weight) = &mut open[place];
        packet::add(payload, &frame);
        *weight += frame.len() + EACH;
    }
    close(&mut open, &mut places, channel, sealing, &mut packed);
    packed
}

fn close(
    open: &mut Vec<(To, Vec<u8>, usize)>,
    places: &mut HashMap<InstanceId, usize>,
    channel: &dyn Fn(&To) -> String,
    sealing: Option<&Sealing>,
    packed: &mut Vec<Packed>,
) {
    places.clear();
    packed.extend(open.drain(..).map(|(to, payload, weight)| {
        let channel = channel(&to);
        Packed {
            payload: packet::end(payload, &channel, sealing),
            channel: channel.into(),
            weight,
        }
    }));
}

#[cfg(test)]
mod tests {
    use gobroke_core::cluster::Incarnation;

    use super::*;

    fn to(name: &str) -> To {
        To::Instance(InstanceId::new(name, Incarnation::new(1, 0)))
    }

    fn queue(bound: usize) -> Queue {
        let origin = InstanceId::new("origin", Incarnation::new(1, 0));
        Queue::new(Arc::new(Keys::new("test")), &origin, bound, None)
    }

    #[test]
    fn frames_are_packed_and_what_is_for_all_keeps_its_place() {
        let queue = queue(8 << 20);
        let sent = [
            to("a"),
            to("b"),
            to("a"),
            To::All,
            To::All,
            to("b"),
            to("a"),
        ];
        for (number, to) in sent.iter().enumerate() {
            queue.push(to, Bytes::from(number.to_string())).unwrap();
        }
        let packed = queue.take(usize::MAX);
        let read: Vec<(&str, Vec<u8>)> = packed
            .iter()
            .map(|packed| {
                let Ok(packet::Packet::Frames(frames)) =
                    packet::read(packed.payload.clone(), &packed.channel, None)
                else {
                    panic!("it is a packet of frames");
                };
                let channel = packed.channel.strip_prefix("{test}:").unwrap();
                (channel, frames.flat_map(|frame| frame.unwrap()).collect())
            })
            .collect();
        let expected = [
            ("to:a#1.0", b"02".to_vec()),
            ("to:b#1.0", b"1".to_vec()),
            ("all", b"34".to_vec()),
            ("to:b#1.0", b"5".to_vec()),
            ("to:a#1.0", b"6".to_vec()),
        ];
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn what_is_not_answered_takes_room_and_is_published_again() {
        let queue = queue(1000);
        let frame = Bytes::from(vec![0; 436]);
        queue.push(&To::All, frame.clone()).unwrap();
        queue.push(&To::All, frame.clone()).unwrap();
        assert_eq!(queue.push(&To::All, frame.clone()), Err(Full));
        let count = queue.take(1).len();
        assert_eq!((count, queue.again().len()), (1, 1));
        assert_eq!(queue.push(&To::All, frame.clone()), Err(Full));
        queue.answered(count);
        queue.push(&To::All, frame).unwrap();
        queue.answered(queue.take(usize::MAX).len());
        queue.drained().await;
        assert!(queue.again().is_empty());
    }

    #[test]
    fn a_packet_stays_small_unless_a_frame_is_not() {
        let queue = queue(8 << 20);
        for size in [PACKET / 2, PACKET / 2, PACKET / 2, 3 * PACKET, 1] {
            queue.push(&To::All, Bytes::from(vec![0; size])).unwrap();
        }
        let sizes: Vec<_> = queue
            .take(usize::MAX)
            .iter()
            .map(|packed| packed.payload.len() / PACKET)
            .collect();
        assert_eq!(sizes, [0, 0, 0, 3, 0]);
    }
}
