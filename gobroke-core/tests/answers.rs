//! What a turn of its door answers a client: in its place among all else, as one write, and like any other message where
//! something goes wrong.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::sync::Arc;

use common::{Ears, Frame, Lean, Peer, start, until, within};
use gobroke_core::{
    Batch, Broke, BrokeBuilder, CloseReason, ConnectRequest, Encoder, Logic, LogicContext, Message,
    testing::{Pipe, TestEndpoint},
};

/// A room for all of a test's frames.
const CAPACITY: usize = 64 << 10;

/// A router with one logic module and an endpoint whose messages go there.
async fn with(
    builder: BrokeBuilder,
    handle: impl Fn(&Message, &LogicContext) + Send + Sync + 'static,
) -> (Broke, TestEndpoint) {
    let endpoint = TestEndpoint::to_logic("answers");
    let logic = Logic::dispatched("answers", move |message: Message, ctx: &LogicContext| {
        handle(&message, ctx);
        Ok(())
    });
    let broke = start(builder.endpoint(endpoint.clone()).logic(logic)).await;
    (broke, endpoint)
}

fn reply(ctx: &LogicContext, to: &Message, text: &'static str) {
    ctx.reply(to, Message::new(text)).unwrap();
}

fn asked(payload: &'static str) -> Message {
    Message::new(payload).to_logic("answers")
}

/// The messages that come before another frame, and that frame.
async fn texts(ears: &mut Ears) -> (Vec<String>, Option<Frame>) {
    let mut texts = Vec::new();
    loop {
        match ears.next().await {
            Some(Frame::Welcome) => {}
            Some(Frame::Message(payload)) => texts.push(String::from_utf8(payload).unwrap()),
            other => return (texts, other),
        }
    }
}

#[tokio::test]
async fn answers_stand_where_they_were_sent_and_go_as_one_write() {
    let (broke, endpoint) = with(Broke::builder().lanes(2), |message, ctx| {
        reply(ctx, message, "1");
        reply(ctx, message, "2");
        ctx.broadcast(Message::new("3")).unwrap();
        reply(ctx, message, "4");
        ctx.broadcast(Message::new("5")).unwrap();
        reply(ctx, message, "6");
    })
    .await;
    let lean = Arc::new(Lean(0));
    let mut asking = Peer::connect(&endpoint, &lean, CAPACITY).await;
    let mut other = Peer::connect(&endpoint, &lean, CAPACITY).await;
    until("both are welcome", || broke.stats().writes == 2).await;
    asking.sender.send(vec![asked("?")]).await.unwrap();
    until("all is delivered", || broke.stats().delivered == 2 + 6 + 2).await;
    assert_eq!(broke.stats().writes, 4, "one for each of the two");
    let two = vec![asked("?"), asked("?")];
    asking.sender.send(two).await.unwrap();
    until("all is delivered", || broke.stats().delivered == 10 + 16).await;
    assert_eq!(broke.stats().writes, 6, "one for each of the two");
    broke.stop().await;
    let (heard, end) = texts(&mut asking.ears).await;
    assert_eq!(heard.concat(), "123456".repeat(3));
    assert_eq!(end, Some(Frame::Close(1001)));
    let (heard, _) = texts(&mut other.ears).await;
    assert_eq!(heard.concat(), "35".repeat(3));
}

#[tokio::test]
async fn nothing_follows_a_close_that_stands_between_answers() {
    let (broke, endpoint) = with(Broke::builder(), |message, ctx| {
        let client = message.client().unwrap();
        reply(ctx, message, "before");
        assert!(ctx.disconnect(client, CloseReason::Normal));
        let receipt = ctx.reply(message, Message::new("behind")).unwrap();
        assert_eq!((receipt.clients, receipt.unknown), (0, 1));
    })
    .await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), CAPACITY).await;
    peer.sender.send(vec![asked("?")]).await.unwrap();
    let (heard, end) = texts(&mut peer.ears).await;
    assert_eq!(heard, ["before"]);
    assert_eq!(end, Some(Frame::Close(1000)));
    assert_eq!(peer.ears.next().await, None);
    assert_eq!(broke.stats().logic_panics, 0);
    broke.stop().await;
}

#[tokio::test]
async fn what_logic_answered_before_it_panicked_arrives() {
    let (broke, endpoint) = with(Broke::builder(), |message, ctx| {
        reply(ctx, message, "said");
        assert!(message.payload() != "panic", "as asked");
    })
    .await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), CAPACITY).await;
    let three = vec![asked("?"), asked("panic"), asked("?")];
    peer.sender.send(three).await.unwrap();
    until("it has panicked", || broke.stats().logic_panics == 1).await;
    broke.stop().await;
    let (heard, end) = texts(&mut peer.ears).await;
    assert_eq!(heard, ["said"; 3]);
    assert_eq!(end, Some(Frame::Close(1001)));
}

/// Panics at one payload.
struct Picky(Lean);

impl Encoder for Picky {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        self.0.message(message, out);
        assert!(message.payload() != "poison", "as asked");
    }
}

#[tokio::test]
async fn an_encoder_that_panics_at_an_answer_costs_its_client_and_nobody_else() {
    let (broke, endpoint) = with(Broke::builder().lanes(1), |message, ctx| {
        reply(ctx, message, "good");
        ctx.reply(message, message.clone()).unwrap();
        reply(ctx, message, "good");
    })
    .await;
    let picky: Arc<dyn Encoder> = Arc::new(Picky(Lean(0)));
    let mut poisoned = Peer::connect_with(&endpoint, picky.clone(), 0, CAPACITY).await;
    let mut other = Peer::connect_with(&endpoint, picky, 0, CAPACITY).await;
    poisoned.sender.send(vec![asked("poison")]).await.unwrap();
    until("it is over", || poisoned.client.is_closed()).await;
    assert_eq!(texts(&mut poisoned.ears).await, (Vec::new(), None));
    other.sender.send(vec![asked("fine")]).await.unwrap();
    until("the other is answered", || broke.stats().delivered == 3).await;
    let stats = broke.stats();
    assert_eq!((stats.panics, stats.dropped), (1, 3));
    broke.stop().await;
    assert_eq!(texts(&mut other.ears).await.0, ["good", "fine", "good"]);
}

#[tokio::test]
async fn answers_to_one_whose_connection_is_gone_are_counted_as_dropped() {
    let (broke, endpoint) = with(Broke::builder(), |message, ctx| {
        reply(ctx, message, "1");
        reply(ctx, message, "2");
    })
    .await;
    let Peer {
        client,
        sender,
        ears,
        ..
    } = Peer::connect(&endpoint, &Arc::new(Lean(0)), CAPACITY).await;
    drop(ears);
    sender.send(vec![asked("?")]).await.unwrap();
    until("it is over", || client.is_closed()).await;
    assert_eq!(broke.stats().dropped, 2);
    broke.stop().await;
}

#[tokio::test]
async fn what_has_to_wait_is_left_to_the_one_who_may() {
    let builder = Broke::builder().receive_middleware_async(async |mut message: Message| {
        tokio::task::yield_now().await;
        let text = format!("{}!", String::from_utf8_lossy(message.payload()));
        message.set_payload(text);
        message
    });
    let (broke, endpoint) = with(builder, |message, ctx| {
        ctx.reply(message, message.clone()).unwrap();
    })
    .await;
    let (pipe, reader) = Pipe::bounded(CAPACITY);
    let gate = endpoint.gate().await;
    let (request, encoder) = (ConnectRequest::default(), Arc::new(Lean(0)));
    let mut session = gate
        .connect(request, encoder, Some(Box::new(pipe)))
        .await
        .unwrap();
    let mut batch = Batch::new();
    for text in ["1", "2", "3"] {
        batch.push(asked(text));
    }
    let (mut incoming, _outgoing) = session.halves();
    assert!(!incoming.receive_now(&mut batch).unwrap());
    assert_eq!(batch.len(), 3);
    within(incoming.receive(&mut batch)).await.unwrap();
    assert!(incoming.receive_now(&mut batch).unwrap());
    incoming.close(CloseReason::Normal);
    assert!(incoming.receive_now(&mut batch).is_err());
    let mut ears = Ears::new(reader, 0);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        if let Some(Frame::Message(payload)) = ears.next().await {
            heard.push(String::from_utf8(payload).unwrap());
        }
    }
    assert_eq!(heard, ["1!", "2!", "3!"]);
    drop(session);
    broke.stop().await;
}
