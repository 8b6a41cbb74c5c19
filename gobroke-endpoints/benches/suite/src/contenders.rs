//! Who stands side by side.

use crate::{
    load::dialect::Dialect,
    scenario::Kind,
    server::{Contender, Program, Role},
};

const fn over_tls(contender: Contender) -> Contender {
    Contender {
        dialect: Dialect::SecureWebSocket,
        ..contender
    }
}

const fn with_workers(name: &'static str, count: &'static str) -> Contender {
    Contender {
        workers: Some(count),
        ..own(name, "gobroke", "ws", Role::Gobroke)
    }
}

const fn own(
    name: &'static str,
    program: &'static str,
    argument: &'static str,
    role: Role,
) -> Contender {
    Contender {
        name,
        program: Program::Own(program, argument),
        dialect: Dialect::WebSocket,
        role,
        workers: None,
    }
}

const CONTENDERS: &[Contender] = &[
    own("gobroke", "gobroke", "ws", Role::Gobroke),
    own("floor: a write each", "floor", "each", Role::Floor),
    own("floor: lanes", "floor", "lanes", Role::Floor),
    own("floor: lanes that rest", "floor", "rest", Role::Floor),
    own("axum", "axum", "", Role::Peer),
    own("axum, forwarded", "axum", "forwarded", Role::Peer),
    own("tokio-tungstenite", "tungstenite", "", Role::Peer),
    own("fastwebsockets", "fastwebsockets", "", Role::Peer),
    own("actix-ws", "actix", "", Role::Peer),
    own("actix-ws, cloned", "actix", "cloned", Role::Peer),
    Contender {
        name: "socketioxide",
        program: Program::Own("socketioxide", ""),
        dialect: Dialect::SocketIo,
        role: Role::Peer,
        workers: None,
    },
    Contender {
        name: "Node ws",
        program: Program::Node("ws.js"),
        dialect: Dialect::WebSocket,
        role: Role::Peer,
        workers: None,
    },
    Contender {
        name: "Node socket.io",
        program: Program::Node("socketio.js"),
        dialect: Dialect::SocketIo,
        role: Role::Peer,
        workers: None,
    },
];

/// Those of the scenarios over TCP.
const TCP_CONTENDERS: &[Contender] = &[
    Contender {
        name: "gobroke",
        program: Program::Own("gobroke", "tcp"),
        dialect: Dialect::Tcp,
        role: Role::Gobroke,
        workers: None,
    },
    Contender {
        name: "nats-server",
        program: Program::NatsServer,
        dialect: Dialect::Nats,
        role: Role::Peer,
        workers: None,
    },
];

/// Those of the scenarios over TLS.
const TLS_CONTENDERS: &[Contender] = &[
    over_tls(own("gobroke", "gobroke", "ws", Role::Gobroke)),
    over_tls(own("axum", "axum", "", Role::Peer)),
    over_tls(own("axum, forwarded", "axum", "forwarded", Role::Peer)),
    over_tls(own("tokio-tungstenite", "tungstenite", "", Role::Peer)),
    over_tls(own("fastwebsockets", "fastwebsockets", "", Role::Peer)),
    over_tls(own("actix-ws", "actix", "", Role::Peer)),
    over_tls(own("actix-ws, cloned", "actix", "cloned", Role::Peer)),
];

/// Those of the scenarios with more and fewer worker threads.
const WORKER_CONTENDERS: &[Contender] = &[
    with_workers("gobroke, 1 worker thread", "1"),
    with_workers("gobroke, 2 worker threads", "2"),
    with_workers("gobroke, 4 worker threads", "4"),
    with_workers("gobroke, 8 worker threads", "8"),
];

/// Those that take part in such a scenario, GoBroke first.
pub fn of(kind: &Kind) -> impl Iterator<Item = &'static Contender> {
    let contenders = match kind {
        Kind::Tcp(_) => TCP_CONTENDERS,
        Kind::Tls(_) => TLS_CONTENDERS,
        Kind::Workers(_) => WORKER_CONTENDERS,
        // Its target is the room's own pass.
        Kind::Beside(_) => &CONTENDERS[..1],
        Kind::Load(_) | Kind::Idle(_) | Kind::Churn => CONTENDERS,
    };
    // Where nothing is forwarded, and no list cloned, these would be the ones beside them once more.
    let is_own = |contender: &Contender| {
        !matches!(contender.program, Program::Own(_, "forwarded" | "cloned"))
    };
    let is_echo = kind.is_echo();
    contenders
        .iter()
        .filter(move |contender| !is_echo || is_own(contender))
}
