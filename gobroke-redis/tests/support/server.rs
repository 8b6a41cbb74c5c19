//! A server of the test's own, on a unix socket in a directory of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tempfile::TempDir;

/// Where `scripts/install-test-tools` puts Valkey on systems that have none to install.
const UNPACKED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/valkey/usr/bin/valkey-server"
);

/// What runs as a server.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    Redis,
    Valkey,
}

impl Program {
    pub(crate) fn command(self) -> Command {
        Command::new(match self {
            Self::Redis => "redis-server",
            Self::Valkey if Path::new(UNPACKED).exists() => UNPACKED,
            Self::Valkey => "valkey-server",
        })
    }
}

pub(crate) struct Server {
    program: Program,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
    frozen: AtomicBool,
}

impl Server {
    /// Starts a Redis, with these arguments beside the usual ones: no port, nothing saved.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        Self::start_with(Program::Redis, arguments.collect()).await
    }

    pub(crate) async fn start_with(program: Program, arguments: Vec<String>) -> Self {
        let mut server = Self {
            program,
            directory: tempfile::tempdir().unwrap(),
            arguments,
            process: None,
            frozen: AtomicBool::new(false),
        };
        // What it is told while it runs, and writes there, holds when it is started again: whose replica it is, too.
        std::fs::write(server.configuration(), "").unwrap();
        server.run().await;
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("redis.sock")
    }

    fn configuration(&self) -> PathBuf {
        self.path().join("redis.conf")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts it (again), with what it saved.
    pub(crate) async fn run(&mut self) {
        // A socket that a killed server left behind would be taken for one that listens.
        let _ = std::fs::remove_file(self.socket());
        let log = std::fs::File::create(self.path().join("log")).unwrap();
        let process = self
            .program
            .command()
            .arg(self.configuration())
            .args(["--port", "0", "--unixsocket"])
            .arg(self.socket())
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.path())
            .args(&self.arguments)
            .stdout(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the server is installed: see scripts/install-test-tools");
        self.process = Some(process);
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        while !self.answers().await {
            assert!(
                tokio::time::Instant::now() < end,
                "the server does not start: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    async fn answers(&self) -> bool {
        let Ok(client) = redis::Client::open(self.url()) else {
            return false;
        };
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        let answer = redis::cmd("PING")
            .query_async::<String>(&mut connection)
            .await;
        answer.is_ok_and(|answer| answer == "PONG")
    }

    /// Whether it answers: it was not killed, and is not stopped.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some() && !self.frozen.load(Relaxed)
    }

    /// Removes what it saved. It has to be killed first.
    pub(crate) fn lose_data(&self) {
        assert!(self.process.is_none(), "it runs");
        std::fs::remove_file(self.path().join("dump.rdb")).ok();
    }

    /// Changes an option for good.
    pub(crate) async fn configure(&self, option: &str, value: &str) {
        self.cli(&["CONFIG", "SET", option, value]).await;
        self.cli(&["CONFIG", "REWRITE"]).await;
    }

    /// How many subscribers it has cut off for reading too slowly, since it was started.
    pub(crate) fn cut_off(&self) -> usize {
        self.log()
            .matches("overcoming of output buffer limits")
            .count()
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it as it is, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Relaxed);
        let signal = if frozen { "STOP" } else { "CONT" };
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Has a command run, on a connection of its own.
    pub(crate) async fn cli(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let config =
            redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .unwrap();
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
