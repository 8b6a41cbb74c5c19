//! `curl` as the client.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::{
    common::{address, echo, soon},
    endpoint, start,
};

/// A `curl` that writes what comes, and is ended with the test.
fn curl(arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--no-buffer"])
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("curl starts");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    (child, output)
}

/// The rest of the next line that begins so.
async fn line(output: &mut BufReader<ChildStdout>, begin: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(
            soon(output.read_line(&mut line)).await.expect("a line"),
            0,
            "no {begin:?}"
        );
        if let Some(rest) = line.trim_end().strip_prefix(begin) {
            return rest.to_owned();
        }
    }
}

#[tokio::test]
async fn curl_is_enough() {
    let broke = start(echo(endpoint())).await;
    let url = format!("http://{}/events", address(&broke));
    let (child, mut output) = curl(&["-N", &url]);
    let session = line(&mut output, "data: ").await;
    assert!(line(&mut output, "data: ").await.contains("welcome"));
    let header = format!("gobroke-session: {session}");
    let (mut post, _) = curl(&[
        "--fail",
        "-H",
        &header,
        "-d",
        r#"{"payload":"hello"}"#,
        &url,
    ]);
    assert!(soon(post.wait()).await.expect("it ends").success());
    let heard: Value = serde_json::from_str(&line(&mut output, "data: ").await).expect("JSON");
    assert_eq!(heard["payload"], "hello");
    soon(broke.stop()).await;
    assert_eq!(line(&mut output, "event: ").await, "close");
    drop(child);
}
