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
        // A node answers so where the slot of the script's keys is on its way, or the Redis Cluster is down.
        (_, ErrorKind::Server(_)) if text.contains("Script attempted to ") => {
            ClusterError::Unreachable(text)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server answers, as the client reads it.
    fn answered(line: &str) -> ClusterError {
        let value = redis::parse_redis_value(line.as_bytes()).and_then(redis::Value::extract_error);
        meaning("a batch", &value.unwrap_err())
    }

    #[test]
    fn a_server_that_cannot_do_it_now_is_away_and_one_that_may_not_refuses() {
        for away in [
            "-MOVED 3999 127.0.0.1:6381\r\n",
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            "-CLUSTERDOWN The cluster is down\r\n",
            "-READONLY You can't write against a read only replica.\r\n",
            "-ERR Script attempted to access a non local key in a cluster node script: 1, on @user_script:1.\r\n",
        ] {
            assert!(is_broken(&answered(away)), "{away}: {:?}", answered(away));
        }
        for refused in [
            "-NOPERM this user has no permissions to run the 'hset' command\r\n",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        ] {
            assert!(!is_broken(&answered(refused)), "{refused}");
        }
    }
}
