//! What a message costs a server, from the socket on which it comes to those on which it goes out: framing both ways,
//! routing, and the pass that encodes and writes.

use std::{
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use gobroke_core::{Broke, BrokeBuilder, Logic, Message};
use gobroke_endpoints::{TcpEndpoint, WebSocketEndpoint, codec::Codec};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::{baseline::Baseline, least::least};

/// How many messages a read of the server's finds, and how many reads are counted.
const READ: u64 = 16;
const READS: u64 = 400;
/// How many get what is said to all.
const LISTENERS: usize = 16;
const ANY: &str = "127.0.0.1:0";

/// How frames stand in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    WebSocket,
    Tcp,
}

/// Counts what an answer to its sender costs, and what a message to all: a client's frame with this payload, sixteen in a
/// read.
pub(crate) fn count<C: Codec>(
    baseline: &mut Baseline,
    name: &str,
    framing: Framing,
    codec: fn() -> C,
    payload: &[u8],
) {
    let answering = Logic::dispatched("logic", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    });
    let broadcasting = Logic::dispatched("logic", |message, ctx| {
        ctx.broadcast(message)?;
        Ok(())
    });
    for (way, logic, clients) in [
        ("answered".to_owned(), answering, 1),
        (format!("to {LISTENERS}"), broadcasting, LISTENERS),
    ] {
        let broke = Broke::builder().receive_middleware(look_at).logic(logic);
        let broke = framing.listen(broke, codec());
        let mut house = House::start(broke, framing, clients);
        let frames = framing.frame(payload).repeat(READ as usize);
        let counted = least(|| house.send(&frames));
        baseline.count(&format!("{name}, {way}"), &counted, READ * READS);
        house.runtime.block_on(house.broke.stop());
    }
}

/// A receive middleware, as most programs have one.
fn look_at(message: &mut Message) {
    if message.payload().len() > 1 << 20 {
        message.reject("too large");
    }
}

impl Framing {
    fn listen(self, broke: BrokeBuilder, codec: impl Codec) -> BrokeBuilder {
        match self {
            Self::WebSocket => broke.endpoint(WebSocketEndpoint::bind(ANY).codec(codec)),
            Self::Tcp => broke.endpoint(TcpEndpoint::bind(ANY).codec(codec)),
        }
    }

    /// A client's frame; that of a WebSocket is text, and its mask changes nothing.
    fn frame(self, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        match self {
            Self::WebSocket => {
                let [_, _, length @ ..] = length.to_be_bytes();
                [&[0x81, 0x80 | 126], &length[..], &[0; 4], payload].concat()
            }
            Self::Tcp => [&length.to_be_bytes(), payload].concat(),
        }
    }
}

/// A server on one thread, with its clients, who take everything.
struct House {
    runtime: Runtime,
    broke: Broke,
    clients: Vec<Client>,
}

impl House {
    fn start(broke: BrokeBuilder, framing: Framing, clients: usize) -> Self {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let broke = runtime.block_on(broke.start()).expect("it starts");
        let address = match framing {
            Framing::WebSocket => broke.address("ws"),
            Framing::Tcp => broke.address("tcp"),
        };
        let address = address.expect("it is bound");
        let connect = move || {
            (0..clients)
                .map(|_| Client::connect(framing, address))
                .collect()
        };
        let connecting = runtime.spawn_blocking(connect);
        let clients = runtime.block_on(async {
            let all: Vec<Client> = connecting.await.expect("they connect");
            while broke.local_client_count() < all.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            all
        });
        Self {
            runtime,
            broke,
            clients,
        }
    }

    /// Lets the first client send, and all read what comes of it before it sends more.
    fn send(&mut self, frames: &[u8]) {
        let clients = &mut self.clients;
        let (done, ended) = oneshot::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..READS {
                    clients[0]
                        .stream
                        .get_mut()
                        .write_all(frames)
                        .expect("it is open");
                    clients.iter_mut().for_each(|client| client.read(READ));
                }
                done.send(()).expect("somebody waits");
            });
            self.runtime
                .block_on(ended)
                .expect("the clients have read all");
        });
    }
}

struct Client {
    framing: Framing,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(framing: Framing, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        // What does not come fails, and is not waited for.
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("it is open");
        let mut client = Self {
            framing,
            stream: BufReader::new(stream),
        };
        if let Framing::WebSocket = framing {
            client.upgrade();
        }
        client
    }

    fn upgrade(&mut self) {
        let request =
            b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.stream
            .get_mut()
            .write_all(request)
            .expect("it is open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.extend(self.take::<1>());
        }
    }

    /// Reads so many messages; a codec may have a welcome before them.
    fn read(&mut self, mut messages: u64) {
        while messages > 0 {
            let length = match self.framing {
                Framing::WebSocket => match self.take::<2>()[1] {
                    126 => u16::from_be_bytes(self.take()).into(),
                    length => length.into(),
                },
                Framing::Tcp => u32::from_be_bytes(self.take()),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).expect("it comes");
            messages -= u64::from(!payload.starts_with(br#"{"welcome""#));
        }
    }

    fn take<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.stream.read_exact(&mut bytes).expect("it comes");
        bytes
    }
}
