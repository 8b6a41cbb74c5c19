//! actix-ws, with its sessions in a list: each clone of a session writes to its client.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, rt, web};
use actix_ws::{Message, Session};
use futures_util::{StreamExt, future::join_all};
use gobroke_bench::{ACK, ANY, Mode, ready, room, tls::Identity};

struct Server {
    mode: Mode,
    next: AtomicUsize,
    /// By room.
    sessions: Mutex<HashMap<usize, Vec<(usize, Session)>>>,
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = web::Data::from(Arc::new(Server {
        mode: Mode::from_args(),
        next: AtomicUsize::new(0),
        sessions: Mutex::default(),
    }));
    let http = HttpServer::new(move || {
        App::new()
            .app_data(server.clone())
            .default_service(web::get().to(upgrade))
    });
    let http = match Identity::from_env() {
        None => http.bind(ANY)?,
        Some(identity) => {
            let config = identity.server()?;
            http.bind_rustls_0_23(ANY, Arc::unwrap_or_clone(config))?
        }
    };
    ready(http.addrs()[0]);
    http.run().await
}

async fn upgrade(
    request: HttpRequest,
    body: web::Payload,
    server: web::Data<Server>,
) -> Result<HttpResponse, Error> {
    let room = room(request.path());
    let (response, session, incoming) = actix_ws::handle(&request, body)?;
    rt::spawn(serve(server.into_inner(), session, incoming, room));
    Ok(response)
}

async fn serve(
    server: Arc<Server>,
    mut session: Session,
    mut incoming: actix_ws::MessageStream,
    room: usize,
) {
    let me = server.next.fetch_add(1, Relaxed);
    let room = if server.mode == Mode::Rooms { room } else { 0 };
    let sessions = || {
        server
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    if server.mode != Mode::Echo {
        sessions()
            .entry(room)
            .or_default()
            .push((me, session.clone()));
    }
    let with_sender = matches!(server.mode, Mode::All | Mode::Rooms);
    while let Some(Ok(message)) = incoming.next().await {
        let Message::Binary(bytes) = message else {
            continue;
        };
        if server.mode == Mode::Echo {
            if session.binary(bytes).await.is_err() {
                break;
            }
            continue;
        }
        let receivers: Vec<(usize, Session)> = sessions().get(&room).cloned().unwrap_or_default();
        let sends = receivers
            .into_iter()
            .filter(|(peer, _)| with_sender || *peer != me);
        join_all(sends.map(|(_, mut session)| {
            let bytes = bytes.clone();
            async move { session.binary(bytes).await }
        }))
        .await;
        if server.mode == Mode::Ack
            && session
                .binary(bytes.slice(..ACK.min(bytes.len())))
                .await
                .is_err()
        {
            break;
        }
    }
    if let Some(sessions) = sessions().get_mut(&room) {
        sessions.retain(|(peer, _)| *peer != me);
    }
}
