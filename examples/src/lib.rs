//! What the example programs share: how they end, how they join other instances, and the frames of the TCP endpoint as
//! a client writes them.

use std::{error::Error, fmt, io, net::SocketAddr, process::ExitCode};

use gobroke_core::BrokeBuilder;
use gobroke_redis::RedisCluster;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame that [`read_frame`] takes.
const LARGEST_FRAME: usize = 16 << 20;

/// Why a program ends early.
#[derive(Debug)]
pub enum Failure {
    /// It was started wrongly.
    Usage(lexopt::Error),
    /// Something went wrong.
    Other(Box<dyn Error + Send + Sync>),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error)
    }
}

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Other(error.into())
            }
        })*
    };
}
failure_from!(
    io::Error,
    gobroke_core::StartError,
    gobroke_core::SendError,
    String
);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => write!(f, "{error}; --help shows what there is"),
            Self::Other(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

/// Ends a program: with code 0, or with one line about what went wrong and code 1, or 2 where it was started wrongly.
pub fn exit(program: &str, result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{program}: {failure}");
    ExitCode::from(if matches!(failure, Failure::Usage(_)) {
        2
    } else {
        1
    })
}

/// Reads the value of a flag that is an address and a port.
///
/// # Errors
/// What is wrong with the value, or that there is none.
pub fn address(flag: &str, parser: &mut lexopt::Parser) -> Result<SocketAddr, lexopt::Error> {
    let value = parser.value()?;
    let value = value.to_string_lossy();
    value.parse().map_err(|_| {
        lexopt::Error::Custom(
            format!("{flag} takes an address with a port, such as 127.0.0.1:8080, not {value:?}")
                .into(),
        )
    })
}

/// Whether a program is one instance of several, and which: `--redis URL` and `--instance NAME`.
#[derive(Debug)]
pub struct Together {
    /// The Redis by which it joins the others; alone without.
    pub redis: Option<String>,
    /// The name of the instance.
    pub instance: String,
}

impl Together {
    /// Alone, under this name.
    pub fn alone(instance: &str) -> Self {
        Self {
            redis: None,
            instance: instance.to_owned(),
        }
    }

    /// Gives a router its name, and the others.
    pub fn join(&self, builder: BrokeBuilder) -> BrokeBuilder {
        let builder = builder.instance(&*self.instance);
        match &self.redis {
            Some(url) => builder.cluster(RedisCluster::new(&**url)),
            None => builder,
        }
    }
}

/// Reads one frame of the TCP endpoint: its length as four bytes, the highest first, then so many bytes.
///
/// Not cancel-safe: what was read is lost.
///
/// # Errors
/// What reading fails with; [`io::ErrorKind::UnexpectedEof`] at the end; [`io::ErrorKind::InvalidData`] for a frame of
/// more than 16 MiB.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length > LARGEST_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes"),
        ));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Writes one frame for the TCP endpoint.
///
/// # Errors
/// What writing fails with.
pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "frame too large"))?;
    to.write_all(&[&length.to_be_bytes(), frame].concat()).await
}

/// The README of the workspace, so that what it shows is compiled.
#[cfg(doctest)]
mod readme {
    #![doc = include_str!("../../README.md")]
}
