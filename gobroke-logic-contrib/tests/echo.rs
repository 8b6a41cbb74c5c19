//! What the echo promises.

#![cfg(feature = "echo")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use gobroke_core::{Broke, Message};
use gobroke_logic_contrib::Echo;

use self::support::Server;

#[tokio::test]
async fn what_comes_goes_back_to_its_sender_as_it_was() {
    for echo in [Echo::dispatched("echo"), Echo::worker("echo")] {
        let server = Server::start(Broke::builder().logic(echo), "echo").await;
        let (mut ann, mut bob) = (server.connect().await, server.connect().await);
        for message in [
            Message::text("one").with_metadata("n", 1),
            Message::new(vec![2]),
        ] {
            let sent = message.clone();
            ann.sends(message.to_logic("echo")).await;
            let echoed = ann.receives().await;
            assert_eq!(
                (
                    echoed.id(),
                    echoed.payload(),
                    echoed.format(),
                    echoed.metadata()
                ),
                (sent.id(), sent.payload(), sent.format(), sent.metadata())
            );
        }
        bob.sends(Message::text("mine").to_logic("echo")).await;
        assert_eq!(bob.receives().await.payload().as_ref(), b"mine");
        server.stop().await;
    }
}
