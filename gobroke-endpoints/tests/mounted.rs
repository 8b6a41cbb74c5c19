//! WebSocket as a route of an axum `Router`.

#![cfg(feature = "ws")]

mod common;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, routing::get, serve::Listener};
use common::{echo, soon, stop};
use futures_util::{SinkExt, StreamExt};
use gobroke_core::CloseReason;
#[cfg(feature = "axum")]
use gobroke_core::{Admission, Refusal};
use gobroke_endpoints::{MountedWebSocket, RawCodec, WebSocketEndpoint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn endpoint() -> MountedWebSocket {
    WebSocketEndpoint::mounted().codec(RawCodec::to_logic("echo"))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn app(endpoint: &MountedWebSocket) -> Router {
    Router::new()
        .route("/", get(|| async { "the page" }))
        .route_service("/ws", endpoint.route())
}

async fn connect(address: SocketAddr) -> Result<Client, Error> {
    soon(connect_async(format!("ws://{address}/ws")))
        .await
        .map(|(client, _)| client)
}

/// The status and the reason of a refusal.
#[track_caller]
fn refusal(refused: Result<Client, Error>) -> (u16, String) {
    match refused {
        Err(Error::Http(answer)) => {
            let reason = answer.body().clone().unwrap_or_default();
            let reason = String::from_utf8(reason).expect("text");
            (answer.status().as_u16(), reason)
        }
        other => panic!("{other:?}"),
    }
}

async fn echoes(client: &mut Client) {
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 300_000]),
        Message::text(""),
    ] {
        soon(client.send(message.clone())).await.expect("it writes");
        assert!(
            soon(client.next())
                .await
                .expect("a message")
                .expect("a good one")
                == message
        );
    }
}

#[tokio::test]
async fn it_echoes_beside_the_pages_of_the_app() {
    let endpoint = endpoint();
    let (listener, address) = listener().await;
    let server = tokio::spawn(axum::serve(listener, app(&endpoint)).into_future());
    let broke = echo(endpoint).start().await.expect("it starts");
    let mut client = connect(address).await.expect("a handshake");
    echoes(&mut client).await;
    assert_eq!(broke.local_clients()[0].endpoint(), "ws");
    stop(broke, client).await;
    server.abort();
}

fn not_running() -> (u16, String) {
    (503, "the server is not running; try again later".to_owned())
}

#[tokio::test]
async fn before_the_start_and_after_the_stop_it_is_unavailable() {
    let endpoint = endpoint();
    let (listener, address) = listener().await;
    let server = tokio::spawn(axum::serve(listener, app(&endpoint)).into_future());
    assert_eq!(refusal(connect(address).await), not_running());
    let broke = echo(endpoint).start().await.expect("it starts");
    stop(broke, connect(address).await.expect("a handshake")).await;
    assert_eq!(refusal(connect(address).await), not_running());
    server.abort();
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_so() {
    let endpoint = endpoint();
    let (listener, address) = listener().await;
    let server = tokio::spawn(axum::serve(listener, app(&endpoint)).into_future());
    let broke = echo(endpoint).start().await.expect("it starts");
    let mut client = common::TcpClient::connect(address).await;
    client
        .write("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let answer = String::from_utf8(client.rest().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    stop(broke, client).await;
    server.abort();
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn the_clients_address_is_known_and_counts_against_the_limit() {
    let endpoint = endpoint().configure(|options| options.max_connections_per_address = Some(1));
    let (listener, address) = listener().await;
    let app = app(&endpoint).into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let broke = echo(endpoint)
        .on_connect(|request| async move {
            match request.remote {
                Some(_) => Ok(Admission::anonymous()),
                None => Err(Refusal::forbidden("where are you?")),
            }
        })
        .start()
        .await
        .expect("it starts");
    let mut client = connect(address).await.expect("a handshake");
    echoes(&mut client).await;
    let remote = broke.local_clients()[0].remote().expect("an address");
    let MaybeTlsStream::Plain(stream) = client.get_ref() else {
        panic!("no plain stream")
    };
    assert_eq!(remote, stream.local_addr().expect("an address"));
    assert_eq!(refusal(connect(address).await).0, 429);
    stop(broke, client).await;
    server.abort();
}

/// A listener whose streams are none that a lane can write into, as with TLS.
struct Wrapping(TcpListener);

struct Wrapped(TcpStream);

impl Listener for Wrapping {
    type Io = Wrapped;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wrapped, SocketAddr) {
        let (stream, address) = self.0.accept().await.expect("a connection");
        (Wrapped(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stream_that_is_not_plain_tcp_is_written_by_its_task() {
    let endpoint = endpoint();
    let (listener, address) = listener().await;
    let server = tokio::spawn(axum::serve(Wrapping(listener), app(&endpoint)).into_future());
    let broke = echo(endpoint).start().await.expect("it starts");
    let mut client = connect(address).await.expect("a handshake");
    echoes(&mut client).await;
    let id = broke.local_clients()[0].id();
    broke.disconnect(id, CloseReason::Kicked("be nice".into()));
    let Message::Close(Some(close)) = soon(client.next())
        .await
        .expect("a close")
        .expect("a good one")
    else {
        panic!("no close")
    };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (4002, "be nice")
    );
    stop(broke, client).await;
    server.abort();
}
