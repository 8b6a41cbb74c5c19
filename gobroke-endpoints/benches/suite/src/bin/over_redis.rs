//! Two instances over one Redis, from a program on one to a client of the other, a WebSocket: GoBroke, socketioxide with
//! its Redis adapter, and the way of the Go original, a JSON object in an awaited PUBLISH (which has no WebSocket).
//!
//! Rounds are interleaved; medians are printed, and how far apart the rounds were. It starts a redis-server of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::FuturesUnordered};
use gobroke_bench::ANY;
use gobroke_core::{Broke, ClientId, Message};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};
use gobroke_redis::RedisCluster;
use socketioxide::{
    SocketIo,
    adapter::{Adapter, Emitter},
    extract::SocketRef,
};
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};
use tokio_tungstenite::{connect_async, tungstenite};

#[path = "../../../../../gobroke-redis/benches/two_instances/original.rs"]
mod original;
#[path = "../../../../../gobroke-redis/benches/two_instances/rounds.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod rounds;
#[path = "../../../../../gobroke-redis/tests/support/server.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: usize = 5;
const PAYLOAD: usize = 128;
/// How many messages may be under way, sent and not yet with the client: another is sent as soon as one has come. As
/// many as an outbox of GoBroke holds by default.
const UNDER_WAY: u64 = 1024;
/// How much socketioxide keeps for a socket: more than is ever under way, since what does not fit is lost.
const BUFFER: usize = 1 << 16;
/// What allocates for all of them, since they are one program.
const ALLOCATED_BY: &str = "mimalloc";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let redis = server::Server::start(&[]).await;
    let gobroke = GoBroke::start(&redis.url()).await?;
    let socketioxide = Socketioxide::start(&redis.url()).await?;
    let mut rates = [(); 4].map(|()| rounds::Rounds::default());
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        rates[0].add(gobroke.round(1_000_000).await?);
        rates[1].add(socketioxide.round(20_000, 1).await?);
        rates[2].add(socketioxide.round(100_000, UNDER_WAY).await?);
        rates[3].add(original::rate(&redis.url(), PAYLOAD, 30_000).await);
    }
    let names = [
        "GoBroke".to_owned(),
        "socketioxide, each emit awaited".to_owned(),
        format!("socketioxide, up to {UNDER_WAY} emits awaited together"),
        "JSON in an awaited PUBLISH".to_owned(),
    ];
    println!(
        "| {PAYLOAD} bytes, two instances, one Redis, up to {UNDER_WAY} under way, {ALLOCATED_BY} | messages/s | rounds | GoBroke's, times |"
    );
    println!("|---|---|---|---|");
    for (name, own) in names.iter().zip(&rates) {
        let times = rates[0].median() / own.median();
        println!(
            "| {name} | {:.0} | {} | {times:.1} |",
            own.median(),
            own.spread(0)
        );
    }
    Ok(())
}

/// How many messages a second: `count` of them are sent by `send` and come to `client`, where `is_message` knows them.
async fn measure(
    address: SocketAddr,
    path: &str,
    count: u64,
    greet: &[&str],
    send: impl AsyncFnOnce(Arc<AtomicU64>) -> Result<(), Error>,
) -> Result<f64, Error> {
    let (mut client, _) = connect_async(format!("ws://{address}{path}")).await?;
    for text in greet {
        client.next().await.ok_or("it closed")??;
        client.send(tungstenite::Message::text(*text)).await?;
    }
    if !greet.is_empty() {
        client.next().await.ok_or("it closed")??;
    }
    // Until all instances know where the client is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let received = Arc::new(AtomicU64::new(0));
    let reader = tokio::spawn({
        let received = received.clone();
        async move {
            while received.load(Relaxed) < count {
                let message = client.next().await.ok_or("it closed")??;
                if message.len() >= PAYLOAD {
                    received.fetch_add(1, Relaxed);
                } else if message.to_text()? == "2" {
                    client.send(tungstenite::Message::text("3")).await?;
                }
            }
            client.close(None).await?;
            Ok::<_, Error>(Instant::now())
        }
    });
    let begun = Instant::now();
    // Where the client is gone nothing more comes, and sending would wait for it.
    let ((), ended) = tokio::try_join!(send(received), async { reader.await? })?;
    Ok(count as f64 / ended.duration_since(begun).as_secs_f64())
}

struct GoBroke {
    one: Broke,
    two: Broke,
}

impl GoBroke {
    async fn start(url: &str) -> Result<Self, Error> {
        let start = async |name: &str| {
            let endpoint = WebSocketEndpoint::bind(ANY).codec(RawCodec::to_logic("none"));
            Broke::builder()
                .instance(name)
                .endpoint(endpoint)
                .cluster(RedisCluster::new(url))
                .start()
                .await
        };
        let (one, two) = (start("one").await?, start("two").await?);
        Ok(Self { one, two })
    }

    async fn client(&self) -> Option<ClientId> {
        Some(self.one.clients().await.first()?.id)
    }

    async fn round(&self, count: u64) -> Result<f64, Error> {
        while self.client().await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let address = self.two.address("ws").ok_or("it is not bound")?;
        measure(address, "/", count, &[], async |received| {
            let to = self.client().await.ok_or("the client is not known")?;
            let payload = Bytes::from(vec![b'x'; PAYLOAD]);
            let mut sent = 0;
            while sent < count {
                while sent < count && sent - received.load(Relaxed) < UNDER_WAY {
                    self.one.send(Message::new(payload.clone()).to_client(to))?;
                    sent += 1;
                }
                tokio::task::yield_now().await;
            }
            Ok(())
        })
        .await
    }
}

struct Socketioxide {
    one: SocketIo<RedisAdapter<Emitter>>,
    /// Where the other one listens.
    address: SocketAddr,
}

impl Socketioxide {
    async fn start(url: &str) -> Result<Self, Error> {
        let (one, _) = Self::instance(url).await?;
        let (_, address) = Self::instance(url).await?;
        Ok(Self { one, address })
    }

    async fn instance(url: &str) -> Result<(SocketIo<RedisAdapter<Emitter>>, SocketAddr), Error> {
        let client = redis::Client::open(format!("{url}?protocol=resp3"))?;
        let adapter = RedisAdapterCtr::new_with_redis(&client).await?;
        let (layer, io) = SocketIo::builder()
            .with_adapter::<RedisAdapter<_>>(adapter)
            .max_buffer_size(BUFFER)
            .build_layer();
        io.ns("/", on_connect).await?;
        let app = axum::Router::new().layer(layer);
        let listener = tokio::net::TcpListener::bind(ANY).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((io, address))
    }

    /// With up to so many emits that are awaited together.
    async fn round(&self, count: u64, together: u64) -> Result<f64, Error> {
        let path = "/socket.io/?EIO=4&transport=websocket";
        measure(self.address, path, count, &["40"], async |received| {
            let payload = "x".repeat(PAYLOAD);
            let (mut sent, mut emits) = (0, FuturesUnordered::new());
            while sent < count || !emits.is_empty() {
                while sent < count
                    && sent - received.load(Relaxed) < UNDER_WAY
                    && (emits.len() as u64) < together
                {
                    emits.push(self.one.to("room").emit("message", &payload));
                    sent += 1;
                }
                match emits.next().await {
                    Some(emitted) => emitted.map_err(|error| error.to_string())?,
                    None => tokio::task::yield_now().await,
                }
            }
            Ok(())
        })
        .await
    }
}

async fn on_connect<A: Adapter>(socket: SocketRef<A>) {
    socket.join("room");
}
