//! [`Commands`]: what commands go over, for as long as the connections are of use.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use redis::{
    Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{is_broken, meaning};

/// A connection for commands, which all share. When it is given up, none goes on waiting for the answer of a server that
/// will not give one, or that does not count any more.
#[derive(Clone)]
pub(crate) struct Commands {
    connection: MultiplexedConnection,
    given_up: CancellationToken,
    broken: Arc<Notify>,
}

/// Dropping it gives the connection up.
pub(crate) struct Use {
    _given_up: DropGuard,
    broken: Arc<Notify>,
}

impl Use {
    /// Waits until a command shows that the connection is of no use.
    pub(crate) async fn broken(&self) {
        self.broken.notified().await;
    }
}

impl Commands {
    pub(crate) fn new(connection: MultiplexedConnection) -> (Self, Use) {
        let (given_up, broken) = (CancellationToken::new(), Arc::<Notify>::default());
        let used = Use {
            _given_up: given_up.clone().drop_guard(),
            broken: broken.clone(),
        };
        let commands = Self {
            connection,
            given_up,
            broken,
        };
        (commands, used)
    }
}

/// Waits for an answer, unless the connection is given up before.
async fn answer<T>(
    asked: impl Future<Output = RedisResult<T>>,
    given_up: &CancellationToken,
    broken: &Notify,
    refused: impl FnOnce(&T) -> Option<RedisError>,
) -> RedisResult<T> {
    let Some(answer) = given_up.run_until_cancelled(asked).await else {
        let error = io::Error::new(ErrorKind::ConnectionAborted, "the connection was given up");
        return Err(error.into());
    };
    let refused = match &answer {
        Ok(answer) => refused(answer),
        Err(error) => Some(error.clone()),
    };
    if refused.is_some_and(|error| is_broken(&meaning("", &error))) {
        broken.notify_one();
    }
    answer
}

fn refusal(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for Commands {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let asked = self.connection.req_packed_command(cmd);
        Box::pin(answer(asked, &self.given_up, &self.broken, refusal))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let asked = self.connection.req_packed_commands(pipeline, offset, count);
        let any = |values: &Vec<Value>| values.iter().find_map(refusal);
        Box::pin(answer(asked, &self.given_up, &self.broken, any))
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
