//! actix-ws, as its chat example does it: the sessions of a room in a list under a lock, which a message takes out,
//! writes to together, and puts back. With `cloned` as its second argument, better than that example: messages do not wait
//! for each other there, each writes to a copy of the list.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer, rt,
    web::{self, Bytes},
};
use actix_ws::{AggregatedMessage, Message, MessageStream, Session};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use gobroke_bench::{ACK, ANY, Mode, nodelay, ready, room, tls::Identity};

struct Server {
    mode: Mode,
    clones: bool,
    next: AtomicUsize,
    rooms: Mutex<HashMap<usize, Arc<Chat>>>,
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = web::Data::from(Arc::new(Server {
        mode: Mode::from_args(),
        clones: std::env::args().nth(2).as_deref() == Some("cloned"),
        next: AtomicUsize::new(0),
        rooms: Mutex::default(),
    }));
    let http = HttpServer::new(move || {
        App::new()
            .app_data(server.clone())
            .default_service(web::get().to(upgrade))
    });
    let http = http.tcp_nodelay(nodelay());
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
    match server.mode {
        Mode::Echo => rt::spawn(echo(session, incoming)),
        _ => rt::spawn(serve(server.into_inner(), session, incoming, room)),
    };
    Ok(response)
}

async fn echo(mut session: Session, mut incoming: MessageStream) {
    while let Some(Ok(message)) = incoming.recv().await {
        if let Message::Binary(bytes) = message
            && session.binary(bytes).await.is_err()
        {
            return;
        }
    }
}

async fn serve(server: Arc<Server>, mut session: Session, incoming: MessageStream, room: usize) {
    let me = server.next.fetch_add(1, Relaxed);
    let room = if server.mode == Mode::Rooms { room } else { 0 };
    let chat = server.chat(room);
    chat.insert(me, session.clone()).await;
    let left_out = (!server.mode.includes_sender()).then_some(me);
    let mut incoming = incoming
        .max_frame_size(128 * 1024)
        .aggregate_continuations();
    while let Some(Ok(message)) = incoming.recv().await {
        let AggregatedMessage::Binary(bytes) = message else {
            continue;
        };
        match server.clones {
            true => chat.send_to_clones(&bytes, left_out).await,
            false => chat.send(&bytes, left_out).await,
        }
        if server.mode.acknowledges() {
            let answer = bytes.slice(..ACK.min(bytes.len()));
            if session.binary(answer).await.is_err() {
                break;
            }
        }
    }
    // Whoever writes to it next takes it off the list, but for clones.
    let _ = session.close(None).await;
    if server.clones {
        chat.remove(me).await;
    }
}

impl Server {
    fn chat(&self, room: usize) -> Arc<Chat> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(room).or_default().clone()
    }
}

/// The sessions of a room, each with its number.
#[derive(Default)]
struct Chat {
    sessions: tokio::sync::Mutex<Vec<(usize, Session)>>,
}

impl Chat {
    async fn insert(&self, number: usize, session: Session) {
        self.sessions.lock().await.push((number, session));
    }

    async fn remove(&self, number: usize) {
        let mut sessions = self.sessions.lock().await;
        sessions.retain(|(known, _)| *known != number);
    }

    async fn send(&self, bytes: &Bytes, left_out: Option<usize>) {
        let mut sessions = self.sessions.lock().await;
        let mut unordered = FuturesUnordered::new();
        for (number, mut session) in sessions.drain(..) {
            let bytes = (left_out != Some(number)).then(|| bytes.clone());
            unordered.push(async move {
                if let Some(bytes) = bytes {
                    session.binary(bytes).await.ok()?;
                }
                Some((number, session))
            });
        }
        while let Some(sent) = unordered.next().await {
            sessions.extend(sent);
        }
    }

    async fn send_to_clones(&self, bytes: &Bytes, left_out: Option<usize>) {
        let sessions = self.sessions.lock().await.clone();
        let receivers = sessions
            .into_iter()
            .filter(|(number, _)| left_out != Some(*number));
        join_all(receivers.map(async |(_, mut session)| session.binary(bytes.clone()).await)).await;
    }
}
