//! The lane's task: passes that turns leave to it, and rests.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Claim, Lane, Phase, SLICE, passing::Passing};
use crate::sync::{Instant, give_way, sleep_until};

impl Lane {
    /// The lane's task: passes what turns leave to it, and rests where the load calls for it.
    pub(crate) async fn run(self: Arc<Self>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = self.task.notified() => {}
                () = stopped.cancelled() => return self.clear(),
            }
            if !self.take_over() {
                continue;
            }
            loop {
                if !self.slice_caught() {
                    self.write_ahead_caught();
                    look_at_sockets().await;
                    continue;
                }
                let rest = self.passing().demand.rest(self.context.coalesce);
                if !rest.is_zero() {
                    self.rest(rest).await;
                }
                if self.release_if_done() {
                    break;
                }
                // Others keep feeding it: its thread's other tasks come first.
                give_way().await;
            }
        }
    }

    /// A slice; a panic in it (a defect of ours: codecs and wires are caught) loses that pass, and neither the lane nor
    /// what was taken for later passes.
    fn slice_caught(&self) -> bool {
        let mut now = Instant::now();
        let until = now + SLICE;
        catch_unwind(AssertUnwindSafe(|| self.slice(&mut now, until))).unwrap_or_else(|_| {
            let mut passing = self.passing();
            let Passing {
                members,
                pass,
                taken,
                ..
            } = &mut *passing;
            let (lost, queued, weight) = pass.abandon(members, taken);
            self.room.release(queued, weight);
            self.context.stats.panics.add(1);
            self.context.stats.dropped.add(lost as u64);
            tracing::error!(
                lane = self.context.index,
                lost,
                "a pass panicked; its messages are lost"
            );
            taken.is_empty()
        })
    }

    fn write_ahead_caught(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.write_ahead())).is_err() {
            self.context.stats.panics.add(1);
        }
    }

    /// Gathers: in steps as long as the last pass; the first in which nothing came ends it.
    async fn rest(&self, rest: Duration) {
        let step = self.passing().demand.step();
        let end = Instant::now() + rest;
        let mut queued = {
            let mut queue = self.queue.lock();
            queue.phase = Phase::Resting;
            queue.entries.len()
        };
        let had_some = queued > 0;
        let mut steps = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            self.sleep_until((now + step).min(end)).await;
            let length = self.queue.lock().entries.len();
            if length <= queued {
                break;
            }
            steps += 1;
            queued = length;
        }
        // A turn may be writing ahead: it gives the phase back under the lock.
        while !self.wake_up() {
            give_way().await;
        }
        self.passing().demand.rested(had_some, steps);
    }

    /// Sleeps in a rest, out of which direct messages go ahead.
    async fn sleep_until(&self, end: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                () = self.direct.notified() => self.go_ahead().await,
            }
        }
    }

    /// Writes ahead in a rest, when no turn does: one that does may have looked already.
    async fn go_ahead(&self) {
        while !self.queue.lock().entries.is_empty() {
            if let Some(phase) = self.claim() {
                let _claim = Claim {
                    lane: self,
                    back: Some(phase),
                };
                return self.write_ahead_caught();
            }
            give_way().await;
        }
    }
}

/// Gives way until the thread has looked which sockets are ready. With a task that is always ready the runtime does so
/// after 61 tasks only (its `event_interval`), and with a slice for each of them that is 15 ms.
pub(crate) async fn look_at_sockets() {
    #[cfg(not(gobroke_interleavings))]
    tokio::task::yield_now().await;
    #[cfg(gobroke_interleavings)]
    give_way().await;
}

#[cfg(all(test, feature = "testing", not(gobroke_interleavings)))]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::{
        Broke, ConnectRequest, Message, Targets, Wire,
        delivery::pass::Tally,
        testing::{Pipe, TestClient, TestEndpoint},
    };

    /// Eight slices.
    const MEMBERS: usize = 64;
    const WRITES_A_SLICE: u32 = 8;

    /// A socket that takes everything, and calls this for each write, which takes its part of a slice by the paused
    /// clock.
    struct Socket<F>(F);

    impl<F: FnMut() + Send + 'static> Wire for Socket<F> {
        fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)();
            let advance = std::pin::pin!(tokio::time::advance(SLICE / WRITES_A_SLICE));
            // The first poll moves the clock. What it then waits for is that others have their turn.
            let _ = advance.poll(&mut Context::from_waker(Waker::noop()));
            Ok(bytes.len())
        }

        fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn shutdown(self: Box<Self>) {}
    }

    async fn one_lane(endpoint: &TestEndpoint) -> (Broke, Arc<Lane>) {
        let broke = Broke::builder().lanes(1).endpoint(endpoint.clone());
        let broke = broke.start().await.expect("it starts");
        let lane = broke.0.lanes[0].clone();
        (broke, lane)
    }

    /// Connects the members of `room`, who call this for each write.
    async fn fill_room(
        broke: &Broke,
        endpoint: &TestEndpoint,
        written: impl Fn() + Clone + Send + 'static,
    ) -> Vec<TestClient> {
        let mut members = Vec::new();
        for _ in 0..MEMBERS {
            let wire = Box::new(Socket(written.clone()));
            let (_, reader) = Pipe::bounded(0);
            let request = ConnectRequest::default();
            let member = endpoint.connect_over(request, Some(wire), reader).await;
            members.push(member.expect("it is admitted"));
        }
        for member in &members {
            assert!(broke.join(member.id(), "room"));
        }
        members
    }

    async fn settle(lane: &Lane) {
        while !lane.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_direct_message_does_not_wait_for_the_pass_of_somebody_elses_room() {
        let endpoint = TestEndpoint::new(Targets::default());
        let (broke, lane) = one_lane(&endpoint).await;
        let writes = Arc::<AtomicUsize>::default();
        let written = writes.clone();
        let count = move || {
            written.fetch_add(1, Relaxed);
        };
        let _members = fill_room(&broke, &endpoint, count).await;
        let mut outsider = endpoint.connect().await.expect("it is admitted");
        settle(&lane).await;
        writes.store(0, Relaxed);
        let sent = broke.send(Message::new("to many").to_group("room"));
        sent.expect("there is room");
        while writes.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let sent = broke.send(Message::new("x").to_client(outsider.id()));
        sent.expect("there is room");
        assert_eq!(outsider.next_text().await.as_deref(), Some("x"));
        let (writes_before, waited) = (writes.load(Relaxed), begun.elapsed());
        assert!(writes_before < MEMBERS, "{writes_before}");
        assert!(waited <= SLICE, "{waited:?}");
        settle(&lane).await;
        assert_eq!(writes.load(Relaxed), MEMBERS);
        broke.stop().await;
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_pass_keeps_a_socket_from_being_read_for_a_slice_at_the_most() {
        use std::{collections::VecDeque, io::Write};

        use parking_lot::Mutex;
        use tokio::io::AsyncReadExt;

        let (answering, socket) = std::os::unix::net::UnixStream::pair().expect("two sockets");
        socket.set_nonblocking(true).expect("a socket");
        let mut socket = tokio::net::UnixStream::from_std(socket).expect("a socket");
        let (answering, answers) = (Arc::new(answering), Arc::new(Mutex::new(VecDeque::new())));
        let answered = answers.clone();
        // Whoever is written something answers at once.
        let answer = move || {
            answered.lock().push_back(Instant::now());
            (&*answering).write_all(b"x").expect("it is open");
        };
        let endpoint = TestEndpoint::new(Targets::default());
        let (broke, lane) = one_lane(&endpoint).await;
        let _members = fill_room(&broke, &endpoint, answer).await;
        settle(&lane).await;
        let mut to_welcomes = vec![0; answers.lock().len()];
        let read = socket.read_exact(&mut to_welcomes).await;
        read.expect("it is open");
        answers.lock().clear();

        let begun = Instant::now();
        let sent = broke.send(Message::new("to many").to_group("room"));
        sent.expect("there is room");
        let mut waits = Vec::new();
        while waits.len() < MEMBERS {
            let read = socket.read(&mut [0; MEMBERS]).await.expect("it is open");
            waits.extend(answers.lock().drain(..read).map(|at| at.elapsed()));
        }
        let longest = waits.into_iter().max();
        assert!(longest <= Some(SLICE), "{longest:?}");
        assert_eq!(begun.elapsed(), SLICE * (MEMBERS as u32 / WRITES_A_SLICE));
        broke.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_direct_message_of_no_turn_goes_out_of_a_rest() {
        let endpoint = TestEndpoint::new(Targets::default());
        let (broke, lane) = one_lane(&endpoint).await;
        let mut client = endpoint.connect().await.expect("it is admitted");
        settle(&lane).await;
        let long = Duration::from_secs(10);
        lane.lock().phase = Phase::Passing;
        lane.passing().demand.passed(
            &Tally {
                writing: long,
                ..Tally::default()
            },
            long,
            1.0,
        );
        let begun = Instant::now();
        let gets_it = async {
            // The rest has begun.
            tokio::time::sleep(long / 2).await;
            let sent = broke.send(Message::new("x").to_client(client.id()));
            sent.expect("there is room");
            assert_eq!(client.next_text().await.as_deref(), Some("x"));
            begun.elapsed()
        };
        let ((), took) = tokio::join!(lane.rest(long), gets_it);
        assert_eq!(took, long / 2);
        while !lane.release_if_done() {
            lane.slice_caught();
        }
        broke.stop().await;
    }
}
