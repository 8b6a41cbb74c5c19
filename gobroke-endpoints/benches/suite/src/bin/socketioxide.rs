//! socketioxide on axum, with its rooms and broadcasts.

use gobroke_bench::{ACK, ANY, Mode, nodelay, ready};
use socketioxide::{
    SocketIo,
    extract::{Data, SocketRef, State},
};

#[derive(Clone, Copy)]
struct Does(Mode);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) = SocketIo::builder()
        .with_state(Does(Mode::from_args()))
        // More than is ever under way: what does not fit is lost.
        .max_buffer_size(1 << 16)
        .build_layer();
    io.ns("/", on_connect);
    let app = axum::Router::new().layer(layer);
    let listener = tokio::net::TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(nodelay());
        }),
        app,
    )
    .await?;
    Ok(())
}

async fn on_connect(socket: SocketRef, State(Does(mode)): State<Does>) {
    if mode == Mode::Rooms {
        let query = socket
            .req_parts()
            .uri
            .query()
            .unwrap_or_default()
            .to_owned();
        let room = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("room="))
            .unwrap_or("0")
            .to_owned();
        socket.join(room);
    }
    socket.on("message", on_message);
}

async fn on_message(
    socket: SocketRef,
    io: SocketIo,
    Data(text): Data<String>,
    State(Does(mode)): State<Does>,
) {
    // An emit fails for those who are gone.
    let _ = match mode {
        Mode::Echo => return drop(socket.emit("message", &text)),
        Mode::All | Mode::AllAck => io.emit("message", &text).await,
        Mode::Others | Mode::OthersAck => socket.broadcast().emit("message", &text).await,
        Mode::Rooms | Mode::Beside | Mode::Mix => {
            io.to(socket.rooms()).emit("message", &text).await
        }
    };
    if mode.acknowledges() {
        let _ = socket.emit("message", &text[..ACK.min(text.len())]);
    }
}
