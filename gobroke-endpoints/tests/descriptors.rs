//! A server that has no file descriptor left.

#![cfg(all(feature = "tcp", unix))]

mod common;

use std::{
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use common::{TcpClient, address, echo, stop};
use gobroke_endpoints::{RawCodec, TcpEndpoint};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Says, to the program that it starts, that it runs with few of them.
const FEW: &str = "GOBROKE_TEST_WITH_FEW_DESCRIPTORS";

/// Counts warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn accepting_slows_down_is_told_and_goes_on_when_some_come_free() {
    if std::env::var_os(FEW).is_none() {
        return again_with_few();
    }
    let warnings = Warnings::default();
    let _told = tracing::subscriber::set_default(warnings.clone());
    let broke = echo(TcpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo")))
        .start()
        .await
        .expect("it starts");
    // The system accepts them all; for the server's halves there are not enough left.
    let clients: Vec<_> = (0..30)
        .map(|_| TcpStream::connect(address(&broke)).expect("a connection"))
        .collect();
    for client in clients {
        client.set_nonblocking(true).expect("a socket");
        let mut client = TcpClient(client.try_into().expect("a stream"));
        client.send("hello").await;
        assert_eq!(client.next().await.expect("an echo"), b"hello");
        // Leaves room for another one.
    }
    let told = warnings.0.load(Relaxed);
    assert!((1..100).contains(&told), "{told} warnings");
    assert_eq!(broke.stats().accept_errors, told as u64);
    stop(broke, ()).await;
}

/// Runs this test again, in a program that may have 48 of them.
fn again_with_few() {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 48 && exec \"$0\" \"$@\""])
        .arg(program)
        .args(["accepting_slows_down", "--nocapture"])
        .env(FEW, "1")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}
