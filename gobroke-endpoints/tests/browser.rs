//! Chromium's own WebSocket and EventSource, from a page of the same host and from a foreign one.

#![cfg(all(feature = "http", feature = "ws"))]

mod common;

use std::{net::SocketAddr, process::Stdio};

use axum::{
    Router,
    response::Html,
    routing::{get, post},
};
use common::{bad_input, soon};
use gobroke_core::{Broke, Logic};
use gobroke_endpoints::{HttpEndpoint, JsonCodec, WebSocketEndpoint};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
};

/// Says over each transport what comes back, or that nothing can be had from `host`.
const PAGE: &str = r#"<!doctype html><script>
const host = new URLSearchParams(location.search).get("host");
const report = (text) => fetch("/report", {method: "POST", body: text});
const socket = new WebSocket(`ws://${host}/ws`, "gobroke.json.v1");
socket.onopen = () => socket.send('{"payload":"over ws"}');
socket.onmessage = (event) => { const frame = JSON.parse(event.data); if (frame.payload) report(frame.payload); };
socket.onerror = () => report("no ws");
const events = new EventSource(`http://${host}/events`);
events.addEventListener("session", (event) => fetch(`http://${host}/events`, {
  method: "POST", headers: {"gobroke-session": event.data}, body: '{"payload":"over sse"}'}));
events.onmessage = (event) => { const frame = JSON.parse(event.data); if (frame.payload) report(frame.payload); };
events.onerror = () => { events.close(); report("no sse"); };
</script>"#;

/// A running browser. Dropping it ends it, and all that it started.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let names = [
            "chromium",
            "chromium-browser",
            "google-chrome",
            "google-chrome-stable",
        ];
        let profile = tempfile::tempdir().expect("a directory");
        let start = |name: &&str| {
            Command::new(name)
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--no-first-run",
                ])
                .args(["--disable-background-networking", "--disable-dev-shm-usage"])
                .arg("--remote-debugging-port=0")
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .arg(url)
                .env("HOME", profile.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .ok()
        };
        let child = names
            .iter()
            .find_map(start)
            .expect("a Chromium is installed");
        Self {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            kill_process_group(id, Signal::KILL).ok();
        }
    }
}

async fn start() -> (Broke, SocketAddr, mpsc::UnboundedReceiver<String>) {
    let codec = || JsonCodec::to_logic("echo");
    let (ws, http) = (
        WebSocketEndpoint::mounted().codec(codec()),
        HttpEndpoint::mounted().codec(codec()),
    );
    let (reports, reported) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route(
            "/report",
            post(move |text: String| async move {
                reports.send(text).ok();
            }),
        )
        .route_service("/ws", ws.route())
        .route_service("/events", http.route());
    let broke = Broke::builder()
        .endpoint(ws)
        .endpoint(http)
        .logic(Logic::dispatched("echo", |message, ctx| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        }))
        .start()
        .await
        .expect("it starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());
    (broke, address, reported)
}

#[tokio::test]
async fn a_page_talks_over_both_and_a_foreign_page_over_neither() {
    let (broke, address, mut reported) = start().await;
    let port = address.port();
    for (host, expected) in [
        (format!("127.0.0.1:{port}"), ["over sse", "over ws"]),
        (format!("localhost:{port}"), ["no sse", "no ws"]),
    ] {
        let browser = Browser::open(&format!("http://127.0.0.1:{port}/?host={host}"));
        let mut told = [soon(reported.recv()).await, soon(reported.recv()).await]
            .map(Option::unwrap_or_default);
        told.sort();
        assert_eq!(told, expected, "{host}");
        drop(browser);
    }
    assert_eq!(bad_input(&broke, "foreign_origin"), 2);
    soon(broke.stop()).await;
}
