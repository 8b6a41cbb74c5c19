//! What Redis' errors mean to the cluster.

use gobroke_core::cluster::ClusterError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What a failed command means.
pub(crate) fn meaning(what: &str, error: &RedisError) -> ClusterError {
    let text = format!("{what}: {error}");
    match (error.code(), error.kind()) {
        (Some("OUTOFSTEP"), _) => ClusterError::OutOfStep,
        (Some("EXPELLED"), _) => ClusterError::Expelled,
        // A server that stops being the master, or is not ready yet, is as good as away.
        (
            _,
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain,
            ),
        ) => ClusterError::Unreachable(text),
        (_, ErrorKind::Server(_) | ErrorKind::Extension) => ClusterError::Refused(text),
        (
            _,
            ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Parse,
        ) => ClusterError::Refused(text),
        _ => ClusterError::Unreachable(text),
    }
}

/// Whether the connection, or the server behind it, is of no use any more.
pub(crate) fn is_broken(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Unreachable(_))
}
