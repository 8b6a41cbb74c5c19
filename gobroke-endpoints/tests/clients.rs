//! WebSocket clients that nobody here wrote, in other languages: their programs are in `clients/`.

#![cfg(all(feature = "ws", feature = "deflate", feature = "tls"))]

mod common;

use std::{fs, path::Path, process::Stdio};

use common::{bad_input, echo, soon};
use gobroke_endpoints::{RawCodec, Tls, WebSocketEndpoint};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

/// Runs a client against a server, with which it goes on until the server stops.
async fn run(mut client: Command) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (
        directory.path().join("server.pem"),
        directory.path().join("server.key"),
    );
    fs::write(&certificate, certified.cert.pem()).expect("it is written");
    fs::write(&key, certified.signing_key.serialize_pem()).expect("it is written");

    let ws = || WebSocketEndpoint::bind("localhost:0").codec(RawCodec::to_logic("echo"));
    let secure = ws().name("wss").tls(Tls::files(&certificate, key));
    let broke = echo(ws().deflate())
        .endpoint(secure)
        .start()
        .await
        .expect("it starts");
    let port = |name: &str| broke.address(name).expect("it listens").port();

    let mut client = client
        .arg(format!("ws://localhost:{}/", port("ws")))
        .arg(format!("wss://localhost:{}/", port("wss")))
        .arg(certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the client starts");
    let mut said = BufReader::new(client.stdout.take().expect("its output")).lines();
    let line = soon(said.next_line()).await.expect("text");
    assert_eq!(line.as_deref(), Some("waiting"));
    soon(broke.clone().stop()).await;
    assert!(soon(client.wait()).await.expect("it ends").success());
    assert_eq!(bad_input(&broke, "foreign_origin"), 1);
    assert_eq!(broke.stats().bad_input.len(), 1, "{:?}", broke.stats());
}

fn program(name: &str) -> std::path::PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    tests.join(name)
}

#[tokio::test]
async fn ws_of_node_talks_plain_compressed_and_over_tls() {
    let mut node = Command::new("node");
    // Where Debian puts modules, which a Node from elsewhere does not know.
    node.env("NODE_PATH", "/usr/share/nodejs")
        .arg(program("ws.js"));
    run(node).await;
}

#[tokio::test]
async fn websockets_of_python_talks_plain_compressed_and_over_tls() {
    // Debian's own knows Debian's modules; one that stands before it in the path may not.
    let debian = Path::new("/usr/bin/python3");
    let mut python = Command::new(if debian.exists() {
        debian
    } else {
        Path::new("python3")
    });
    python.arg(program("websockets_client.py"));
    run(python).await;
}
