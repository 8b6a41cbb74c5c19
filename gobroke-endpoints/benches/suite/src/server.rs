//! [`Server`]: a contender's process, and what it uses.

use std::{
    fs, io,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use gobroke_bench::{Mode, tls::Identity};

use crate::load::dialect::Dialect;

/// The certificate and the key of the servers that speak TLS.
pub fn identity() -> io::Result<&'static Identity> {
    static IDENTITY: LazyLock<io::Result<Identity>> = LazyLock::new(Identity::new);
    let identity = IDENTITY.as_ref();
    identity.map_err(|error| io::Error::other(format!("no certificate: {error}")))
}

/// One of those that stand side by side.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    pub name: &'static str,
    pub program: Program,
    pub dialect: Dialect,
    /// What it stands for in the comparison.
    pub role: Role,
    /// What it is started with in its environment, if something.
    pub setting: Option<(&'static str, &'static str)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// A program of this crate, with an argument behind the mode.
    Own(&'static str, &'static str),
    /// A script for Node.
    Node(&'static str),
    NatsServer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Gobroke,
    /// No router.
    Floor,
    /// As its own documentation or example does it.
    Peer,
    /// A peer that is made better by hand than its documentation does it.
    ByHand,
}

/// What npm writes when all that the scripts need is installed.
const INSTALLED: &str = "node_modules/.package-lock.json";

/// Where the scripts for Node are.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}

impl Contender {
    /// Whether what it needs is installed.
    pub fn is_there(&self) -> bool {
        let runs = |name: &str| {
            let mut command = Command::new(name);
            let status = command
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        match self.program {
            Program::Own(..) => true,
            Program::Node(_) => scripts().join(INSTALLED).exists() && runs("node"),
            Program::NatsServer => runs("nats-server"),
        }
    }
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub fn start(contender: &Contender, mode: Mode) -> io::Result<Self> {
        match contender.program {
            Program::Own(name, argument) => {
                let program = std::env::current_exe()?.with_file_name(name);
                let mut command = Command::new(program);
                command.args([mode.name(), argument]);
                if contender.dialect.is_secure() {
                    command.envs(identity()?.to_env());
                }
                command.envs(contender.setting);
                Self::that_tells(&mut command)
            }
            Program::Node(script) => {
                let script = scripts().join(script);
                Self::that_tells(Command::new("node").arg(script).arg(mode.name()))
            }
            Program::NatsServer => {
                let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
                let child = Command::new("nats-server")
                    .args(["-a", "127.0.0.1", "-p", &address.port().to_string()])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?;
                let server = Self { child, address };
                let give_up = Instant::now() + Duration::from_secs(10);
                while TcpStream::connect(address).is_err() {
                    if Instant::now() > give_up {
                        return Err(io::Error::other("nats-server does not listen"));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(server)
            }
        }
    }

    fn that_tells(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line
            .trim()
            .strip_prefix("ready ")
            .and_then(|address| address.parse().ok());
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.address =
            address.ok_or_else(|| io::Error::other(format!("it did not start: {line:?}")))?;
        Ok(server)
    }

    /// The time that its threads have had on a processor.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
