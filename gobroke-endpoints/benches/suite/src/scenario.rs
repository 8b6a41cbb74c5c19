//! What is measured.

use gobroke_bench::Mode;

use crate::load::{Load, Pace};

pub struct Scenario {
    pub name: String,
    pub kind: Kind,
    /// Part of the quick selection.
    pub quick: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Load(Load),
    /// So many connections that say nothing.
    Idle(usize),
    /// Connect, join a room, say something there, leave: one after the other.
    Churn,
    /// A message to someone outside a busy room: the room's load, which is not looked at.
    Beside(Load),
    /// TCP, to be compared with nats-server.
    Tcp(Load),
    /// WebSocket over TLS.
    Tls(Load),
}

impl Kind {
    /// What is put on the server, where that is all there is to it.
    pub fn load(&self) -> Option<&Load> {
        match self {
            Self::Load(load) | Self::Tcp(load) | Self::Tls(load) => Some(load),
            Self::Idle(_) | Self::Churn | Self::Beside(_) => None,
        }
    }

    /// Whether each gets back what it sends, if anything, and nobody else gets it.
    pub fn is_echo(&self) -> bool {
        match self {
            Self::Idle(_) => true,
            _ => self.load().is_some_and(|load| load.mode == Mode::Echo),
        }
    }

    /// How many connections it takes.
    pub fn connections(&self) -> usize {
        match self {
            Self::Idle(connections) => *connections,
            Self::Churn => 1,
            Self::Beside(load) => load.connections,
            _ => self.load().map_or(0, |load| load.connections),
        }
    }
}

impl Scenario {
    fn load(name: impl Into<String>, quick: bool, load: Load) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Load(load),
            quick,
        }
    }
}

/// All of them, in the order of the report.
pub fn all() -> Vec<Scenario> {
    let fan_out = |receivers: usize, window: usize, payload: usize| Load {
        mode: Mode::All,
        connections: receivers,
        senders: 1,
        room: receivers,
        pace: Pace::Window(window),
        payload,
    };
    let busy = |mode: Mode, rate: u32| Load {
        mode,
        connections: 1000,
        senders: 100,
        room: 1000,
        pace: Pace::Rate(rate),
        payload: 128,
    };
    let echo = |connections: usize, window: usize| Load {
        mode: Mode::Echo,
        connections,
        senders: 1,
        room: 1,
        pace: Pace::Window(window),
        payload: 128,
    };
    let mut all = Vec::new();
    for receivers in [100, 1000, 5000] {
        for window in [1, 16, 64] {
            let quick = matches!((receivers, window), (100, 1 | 16) | (1000, 16));
            let name = format!("fan-out, {receivers} receivers, {window} outstanding");
            all.push(Scenario::load(name, quick, fan_out(receivers, window, 128)));
        }
    }
    for (payload, size) in [(64, "64 B"), (1024, "1 KiB"), (16 << 10, "16 KiB")] {
        let name = format!("fan-out, 100 receivers, 16 outstanding, {size}");
        all.push(Scenario::load(name, false, fan_out(100, 16, payload)));
    }
    for rate in [50, 300, 1000] {
        for (mode, how) in [
            (Mode::All, ""),
            (Mode::AllAck, ", acknowledged"),
            (Mode::Others, ", sender left out"),
            (Mode::OthersAck, ", sender left out, acknowledged"),
        ] {
            let quick = matches!((mode, rate), (Mode::All, 300) | (Mode::OthersAck, 1000));
            let name = format!("busy room, {rate} messages/s{how}");
            all.push(Scenario::load(name, quick, busy(mode, rate)));
        }
    }
    all.push(Scenario::load(
        "100 rooms of 10, 16 outstanding",
        true,
        Load {
            mode: Mode::Rooms,
            connections: 1000,
            senders: 1,
            room: 10,
            pace: Pace::Window(16),
            payload: 128,
        },
    ));
    for (rooms, size) in [(1000, 10), (1, 10_000)] {
        let load = Load {
            mode: Mode::Rooms,
            connections: 10_000,
            senders: 1,
            room: size,
            pace: Pace::Window(16),
            payload: 128,
        };
        let name = format!("growth: {rooms} rooms of {size}, 16 outstanding");
        all.push(Scenario::load(name, false, load));
    }
    all.push(Scenario {
        name: "direct message beside a room of 5000 with 5 messages/s".into(),
        kind: Kind::Beside(Load {
            mode: Mode::Beside,
            connections: 5000,
            senders: 1,
            room: 5000,
            pace: Pace::Rate(5),
            payload: 128,
        }),
        quick: true,
    });
    for connections in [100, 1000] {
        for window in [1, 16] {
            let name = format!("echo, {connections} connections, {window} outstanding");
            all.push(Scenario::load(
                name,
                connections == 100,
                echo(connections, window),
            ));
        }
    }
    for connections in [1_000, 10_000] {
        all.push(Scenario {
            name: format!("idle, {connections} connections"),
            kind: Kind::Idle(connections),
            quick: connections == 1_000,
        });
    }
    all.push(Scenario {
        name: "churn".into(),
        kind: Kind::Churn,
        quick: true,
    });
    for (name, load) in [
        (
            "fan-out over TLS, 100 receivers, 1 outstanding",
            fan_out(100, 1, 128),
        ),
        (
            "fan-out over TLS, 100 receivers, 16 outstanding",
            fan_out(100, 16, 128),
        ),
        (
            "fan-out over TLS, 1000 receivers, 16 outstanding",
            fan_out(1000, 16, 128),
        ),
        (
            "echo over TLS, 100 connections, 1 outstanding",
            echo(100, 1),
        ),
        (
            "echo over TLS, 100 connections, 16 outstanding",
            echo(100, 16),
        ),
    ] {
        all.push(Scenario {
            name: name.into(),
            kind: Kind::Tls(load),
            quick: name.contains("100 receivers, 16"),
        });
    }
    all.push(Scenario {
        name: "TCP fan-out, 100 receivers, 16 outstanding".into(),
        kind: Kind::Tcp(fan_out(100, 16, 128)),
        quick: true,
    });
    all
}
