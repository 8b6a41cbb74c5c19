//! Starts the example programs, reads what they print, and ends them.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic"
)]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use gobroke_examples::{read_frame, write_frame};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::timeout,
};

/// How long any one thing may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running program. Dropping it kills it, and all that it started in turn.
pub(crate) struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Program {
    pub(crate) fn start(path: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(path).args(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = printed.next_line().await {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take().unwrap(),
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line with `part` in it, and gives what is behind that.
    pub(crate) async fn prints(&mut self, part: &str) -> String {
        let found = timeout(DEADLINE, async {
            loop {
                let line = self.lines.recv().await?;
                self.seen.push(line.clone());
                if let Some((_, rest)) = line.split_once(part) {
                    return Some(rest.to_owned());
                }
            }
        });
        let found = found.await.ok().flatten();
        found.unwrap_or_else(|| panic!("{part:?} was not printed, but: {:#?}", self.seen))
    }

    pub(crate) async fn types(&mut self, line: &str) {
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(self.id().expect("it runs"), Signal::TERM).unwrap();
    }

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }

    /// Waits until it has ended, and gives its exit code.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait())
            .await
            .expect("it ends in time")
            .unwrap()
            .code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // None where it has ended and was waited for.
        if let Some(id) = self.id() {
            kill_process_group(id, Signal::KILL).ok();
        }
    }
}

/// The chat server, with its addresses.
pub(crate) struct Chat {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Chat {
    pub(crate) async fn start(http: &str, tcp: &str) -> Self {
        Self::start_with(http, tcp, &[]).await
    }

    pub(crate) async fn start_with(http: &str, tcp: &str, more: &[&str]) -> Self {
        let arguments = [&["--http", http, "--tcp", tcp], more].concat();
        let mut program = Program::start(env!("CARGO_BIN_EXE_chat"), &arguments);
        let http = program.prints("Open http://").await;
        let tcp = program.prints("chat_tcp -- ").await;
        let http = http.split_once(' ').unwrap().0.parse().unwrap();
        Self {
            http,
            tcp: tcp.parse().unwrap(),
            program,
        }
    }

    /// Starts it on free ports.
    pub(crate) async fn start_anywhere() -> Self {
        Self::start("127.0.0.1:0", "127.0.0.1:0").await
    }

    /// One that is one chat with the others over this Redis.
    pub(crate) async fn start_over(server: &RedisServer, instance: &str) -> Self {
        let more = ["--redis", &server.url(), "--instance", instance];
        Self::start_with("127.0.0.1:0", "127.0.0.1:0", &more).await
    }

    pub(crate) async fn stop(mut self) {
        self.program.terminate();
        assert_eq!(self.program.ends().await, Some(0));
    }
}

/// A redis-server, on a socket in a directory of its own.
pub(crate) struct RedisServer {
    _program: Program,
    directory: TempDir,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]);
        command
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(socket);
        let mut program = Program::spawn(&mut command);
        program
            .prints("The server is now ready to accept connections")
            .await;
        Self {
            _program: program,
            directory,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}/redis.sock", self.directory.path().display())
    }
}

/// A TCP client of the chat.
pub(crate) struct TcpClient {
    stream: TcpStream,
}

impl TcpClient {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(to).await.unwrap(),
        }
    }

    pub(crate) async fn joins(&mut self, room: &str, name: &str) {
        self.asks(json!({"do": "join", "room": room, "name": name}))
            .await;
    }

    pub(crate) async fn says(&mut self, room: &str, text: &str) {
        self.asks(json!({"do": "say", "room": room, "text": text}))
            .await;
    }

    pub(crate) async fn asks(&mut self, payload: Value) {
        write_frame(
            &mut self.stream,
            json!({ "payload": payload }).to_string().as_bytes(),
        )
        .await
        .unwrap();
    }

    /// The next event of this kind; others are passed over.
    pub(crate) async fn hears(&mut self, event: &str) -> Value {
        let heard = timeout(DEADLINE, async {
            loop {
                let frame = read_frame(&mut self.stream)
                    .await
                    .expect("the connection lives");
                let mut frame: Value = serde_json::from_slice(&frame).unwrap();
                if frame["payload"]["event"] == event {
                    return frame["payload"].take();
                }
            }
        });
        heard.await.unwrap_or_else(|_| panic!("no event {event:?}"))
    }
}
