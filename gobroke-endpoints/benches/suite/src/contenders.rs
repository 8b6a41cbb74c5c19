//! Who stands side by side.

use gobroke_bench::{NAGLE, WORKERS};

use crate::{
    load::dialect::Dialect,
    scenario::Kind,
    server::{Contender, Program, Role},
};

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
        setting: None,
    }
}

const fn speaking(dialect: Dialect, contender: Contender) -> Contender {
    Contender {
        dialect,
        ..contender
    }
}

const fn over_tls(contender: Contender) -> Contender {
    speaking(Dialect::SecureWebSocket, contender)
}

const fn with_workers(name: &'static str, count: &'static str) -> Contender {
    Contender {
        setting: Some((WORKERS, count)),
        ..own(name, "gobroke", "ws", Role::Gobroke)
    }
}

const fn with_nagle(name: &'static str, contender: Contender) -> Contender {
    Contender {
        name,
        setting: Some((NAGLE, "1")),
        ..contender
    }
}

const GOBROKE: Contender = own("gobroke", "gobroke", "ws", Role::Gobroke);
const GOBROKE_TCP: Contender = speaking(
    Dialect::Tcp,
    own("gobroke", "gobroke", "tcp", Role::Gobroke),
);
const AXUM: Contender = own("axum", "axum", "", Role::Peer);
const AXUM_FORWARDED: Contender = own("axum, forwarded", "axum", "forwarded", Role::ByHand);
const TUNGSTENITE: Contender = own("tokio-tungstenite", "tungstenite", "", Role::Peer);
const FASTWEBSOCKETS: Contender = own("fastwebsockets", "fastwebsockets", "", Role::Peer);
/// Its example for axum has as many threads as there are cores.
const FASTWEBSOCKETS_THREADS: Contender = own(
    "fastwebsockets, threads",
    "fastwebsockets",
    "threads",
    Role::Peer,
);
const ACTIX: Contender = own("actix-ws", "actix", "", Role::Peer);
const ACTIX_CLONED: Contender = own("actix-ws, cloned", "actix", "cloned", Role::ByHand);
const SOCKETIOXIDE: Contender = speaking(
    Dialect::SocketIo,
    own("socketioxide", "socketioxide", "", Role::Peer),
);

/// GoBroke, the floors, and what one would use instead.
const CONTENDERS: &[Contender] = &[
    GOBROKE,
    own("floor: a write each", "floor", "each", Role::Floor),
    own("floor: lanes", "floor", "lanes", Role::Floor),
    own("floor: lanes that rest", "floor", "rest", Role::Floor),
    AXUM,
    with_nagle("axum, Nagle", AXUM),
    AXUM_FORWARDED,
    TUNGSTENITE,
    with_nagle("tokio-tungstenite, Nagle", TUNGSTENITE),
    FASTWEBSOCKETS,
    with_nagle("fastwebsockets, Nagle", FASTWEBSOCKETS),
    FASTWEBSOCKETS_THREADS,
    with_nagle("fastwebsockets, threads, Nagle", FASTWEBSOCKETS_THREADS),
    ACTIX,
    with_nagle("actix-ws, Nagle", ACTIX),
    ACTIX_CLONED,
    SOCKETIOXIDE,
    with_nagle("socketioxide, Nagle", SOCKETIOXIDE),
    Contender {
        name: "Node ws",
        program: Program::Node("ws.js"),
        dialect: Dialect::WebSocket,
        role: Role::Peer,
        setting: None,
    },
    Contender {
        name: "Node socket.io",
        program: Program::Node("socketio.js"),
        dialect: Dialect::SocketIo,
        role: Role::Peer,
        setting: None,
    },
];

/// Those of the scenarios over TCP.
const TCP_CONTENDERS: &[Contender] = &[
    GOBROKE_TCP,
    Contender {
        name: "nats-server",
        program: Program::NatsServer,
        dialect: Dialect::Nats,
        role: Role::Peer,
        setting: None,
    },
];

/// That of the scenarios over TCP with TLS.
const SECURE_TCP_CONTENDERS: &[Contender] = &[speaking(Dialect::SecureTcp, GOBROKE_TCP)];

/// Those of the scenarios over TLS.
const TLS_CONTENDERS: &[Contender] = &[
    over_tls(GOBROKE),
    over_tls(AXUM),
    over_tls(AXUM_FORWARDED),
    over_tls(TUNGSTENITE),
    over_tls(FASTWEBSOCKETS),
    over_tls(FASTWEBSOCKETS_THREADS),
    over_tls(ACTIX),
    over_tls(ACTIX_CLONED),
];

/// Those of the scenarios with more and fewer worker threads.
const WORKER_CONTENDERS: &[Contender] = &[
    with_workers("gobroke, 1 worker thread", "1"),
    with_workers("gobroke, 2 worker threads", "2"),
    with_workers("gobroke, 4 worker threads", "4"),
    with_workers("gobroke, 8 worker threads", "8"),
];

impl Contender {
    /// Whether it takes part only where it is asked for by its name.
    pub fn is_on_request(&self) -> bool {
        matches!(self.setting, Some((NAGLE, _)))
    }
}

/// Those that take part in such a scenario, GoBroke first.
pub fn of(kind: &Kind) -> impl Iterator<Item = &'static Contender> {
    let contenders = match kind {
        Kind::Tcp(_) => TCP_CONTENDERS,
        Kind::SecureTcp(_) => SECURE_TCP_CONTENDERS,
        Kind::Tls(_) => TLS_CONTENDERS,
        Kind::Workers(_) => WORKER_CONTENDERS,
        // Its target is the room's own pass.
        Kind::Beside(_) => &CONTENDERS[..1],
        Kind::Mix(_) => &CONTENDERS[..4],
        Kind::Load(_) | Kind::Idle(_) | Kind::Churn => CONTENDERS,
    };
    // Where nothing is forwarded, and no list cloned, those by hand would be the ones beside them once more.
    let is_echo = kind.is_echo();
    contenders
        .iter()
        .filter(move |contender| !is_echo || contender.role != Role::ByHand)
}
