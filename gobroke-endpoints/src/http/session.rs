//! One client, however its requests arrive: the task that runs it.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use gobroke_core::{Batch, CloseReason, Format, Gate, Incoming, Outgoing, Session};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    replay::Replay,
    sessions::{Attach, Entered, Up},
};
use crate::{
    codec::{Codec, Frame, FrameError, Inbound},
    stream::{ControlRate, Settings},
};

/// How a session is run.
#[derive(Clone, Debug)]
pub(super) struct Times {
    /// How long a client may be away.
    pub(super) resume_within: Duration,
    /// How many bytes of events are kept for one.
    pub(super) replay: usize,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            resume_within: Duration::from_secs(30),
            replay: 32 << 10,
        }
    }
}

/// Runs a client until it is closed, or has been away for too long.
pub(super) async fn run(
    gate: Gate,
    settings: Settings,
    times: Times,
    mut session: Session,
    entered: Entered,
    (first, attach, up): (Attach, mpsc::Receiver<Attach>, mpsc::Receiver<Up>),
) {
    let ended = {
        let (incoming, outgoing) = session.halves();
        let finishing = AtomicBool::new(false);
        let mut pump = Pump::new(&settings, &times, &entered.token.text());
        pump.attach(first, true);
        tokio::select! {
            biased;
            ended = pump.run(outgoing, attach, &finishing) => ended,
            () = take(&gate, &settings, incoming, up, &finishing) => None,
        }
    };
    if let Some(reason) = ended {
        session.end(reason);
    }
}

/// What goes to a client, into whichever stream it has open.
struct Pump {
    replay: Replay,
    stream: Option<mpsc::Sender<Bytes>>,
    /// When the stream has had enough time to take what waits for it, or the client to come back.
    deadline: Instant,
    /// When the stream is to be told that the server is still there.
    heartbeat: Instant,
    heartbeat_every: Option<Duration>,
    write_stall: Duration,
    resume_within: Duration,
}

impl Pump {
    fn new(settings: &Settings, times: &Times, token: &str) -> Self {
        let mut replay = Replay::new(token.to_owned(), times.replay.max(1));
        replay.push(format!("retry: 2000\nevent: session\ndata: {token}\n\n").as_bytes());
        let now = Instant::now();
        Self {
            replay,
            stream: None,
            deadline: now,
            heartbeat: now,
            heartbeat_every: settings.options.ping_interval,
            write_stall: settings.options.write_stall,
            resume_within: times.resume_within,
        }
    }

    /// Goes on with this stream, in the place of the one that was there.
    fn attach(&mut self, attach: Attach, is_first: bool) {
        let lost = attach.last.map_or(0, |last| self.replay.go_back(last));
        let mut greeting = String::new();
        if lost > 0 {
            greeting = format!("event: gap\ndata: {{\"lost\":{lost}}}\n\n");
        } else if !is_first {
            // So that the answer's head goes out at once.
            greeting.push_str(": here you are again\n\n");
        }
        if !greeting.is_empty() {
            // A fresh stream has room for one piece.
            let _ = attach.stream.try_send(greeting.into());
        }
        self.stream = Some(attach.stream);
        self.moved();
    }

    /// The stream took something.
    fn moved(&mut self) {
        let now = Instant::now();
        self.deadline = now + self.write_stall;
        self.heartbeat = now + self.heartbeat_every.unwrap_or(Duration::from_secs(1 << 25));
    }

    fn detach(&mut self) {
        self.stream = None;
        self.deadline = Instant::now() + self.resume_within;
    }

    /// Runs until the client is closed (`None`), or for how it ended.
    async fn run(
        &mut self,
        mut outgoing: Outgoing<'_>,
        mut attach: mpsc::Receiver<Attach>,
        finishing: &AtomicBool,
    ) -> Option<CloseReason> {
        loop {
            let waiting = self.replay.is_waiting();
            let stream = self.stream.clone();
            let attached = stream.is_some();
            tokio::select! {
                biased;
                Some(attach) = attach.recv() => self.attach(attach, false),
                () = closed(stream.as_ref()), if attached => self.detach(),
                permit = reserve(stream.as_ref()), if attached && waiting => if let Some(permit) = permit {
                    permit.send(self.replay.give());
                    self.moved();
                },
                frames = outgoing.next(), if self.replay.has_room() => match frames {
                    Some(frames) => {
                        let was_waiting = waiting;
                        frames.iter().for_each(|event| self.replay.push(event));
                        if attached && !was_waiting {
                            self.deadline = Instant::now() + self.write_stall;
                        }
                    }
                    None => break,
                },
                () = sleep_until(self.deadline), if !attached => return Some(CloseReason::ConnectionLost),
                // It is not read: what waits may be had by another stream.
                () = sleep_until(self.deadline), if attached && waiting => self.detach(),
                () = sleep_until(self.heartbeat), if attached && !waiting => {
                    if let Some(stream) = &stream {
                        // Where there is no room, something else is under way.
                        let _ = stream.try_send(Bytes::from_static(b": still here\n\n"));
                    }
                    self.moved();
                }
            }
        }
        finishing.store(true, Relaxed);
        self.finish().await;
        None
    }

    /// Gives the stream what is left, the close last.
    async fn finish(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        while self.replay.is_waiting() {
            match timeout(self.write_stall, stream.reserve()).await {
                Ok(Ok(permit)) => permit.send(self.replay.give()),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

async fn closed(stream: Option<&mpsc::Sender<Bytes>>) {
    match stream {
        Some(stream) => stream.closed().await,
        None => pending().await,
    }
}

async fn reserve(stream: Option<&mpsc::Sender<Bytes>>) -> Option<mpsc::Permit<'_, Bytes>> {
    match stream {
        Some(stream) => stream.reserve().await.ok(),
        None => pending().await,
    }
}

/// Hands what the client sends to the router, until the client is closed. Ends where it was closed at once, for taking
/// nothing; else it waits for ever, while what is left goes out.
async fn take(
    gate: &Gate,
    settings: &Settings,
    mut incoming: Incoming<'_>,
    mut up: mpsc::Receiver<Up>,
    finishing: &AtomicBool,
) {
    let mut batch = Batch::new();
    let mut control = ControlRate::new(settings.control_frames);
    loop {
        let came = tokio::select! {
            came = up.recv() => came,
            () = incoming.gone() => None,
        };
        let Some(came) = came else { break };
        match came {
            Up::Close => {
                incoming.close(CloseReason::Normal);
                break;
            }
            Up::Frame {
                body,
                is_text,
                taken,
            } => {
                let read = match read(&*settings.codec, &body, is_text) {
                    Ok(read) => read,
                    Err(error) => {
                        gate.count_bad_input(error.code());
                        // The request may have gone.
                        let _ = taken.send(Err(error));
                        continue;
                    }
                };
                match read {
                    Some(Inbound::Message(message)) => batch.push(message),
                    // Whoever sends it sees by the answer that the server is there.
                    Some(_) => {
                        if let Err(reason) = control.count() {
                            gate.count_bad_input("policy_violation");
                            incoming.close(reason);
                            break;
                        }
                    }
                    None => {
                        gate.count_panic();
                        incoming.close(CloseReason::Internal);
                        break;
                    }
                }
                if incoming.receive(&mut batch).await.is_err() {
                    break;
                }
                let _ = taken.send(Ok(()));
            }
        }
    }
    // What comes now finds nobody.
    drop(up);
    incoming.gone().await;
    if finishing.load(Relaxed) {
        pending::<()>().await;
    }
}

/// What a body says; `None` where the codec panicked over it.
fn read(codec: &dyn Codec, body: &[u8], is_text: bool) -> Result<Option<Inbound>, FrameError> {
    let text = std::str::from_utf8(body).ok();
    let frame = match (codec.format(), text) {
        (Some(Format::Text), None) => return Err(FrameError::bad_frame("send UTF-8")),
        (Some(Format::Text), Some(text)) => Frame::Text(text),
        (None, Some(text)) if is_text => Frame::Text(text),
        _ => Frame::Binary(body),
    };
    match catch_unwind(AssertUnwindSafe(|| codec.decode(frame))) {
        Ok(decoded) => decoded.map(Some),
        Err(_) => Ok(None),
    }
}
