//! What is measured.

use gobroke_bench::{MIXED, Mode};

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
    /// TCP over TLS, which nobody else speaks.
    SecureTcp(Load),
    /// WebSocket over TLS.
    Tls(Load),
    /// Messages to all, to a group and to one, of GoBroke and the floors.
    Mix(Load),
    /// GoBroke with more and fewer worker threads.
    Workers(Load),
}

impl Kind {
    /// What is put on the server, where that is all there is to it.
    pub fn load(&self) -> Option<&Load> {
        match self {
            Self::Load(load)
            | Self::Tcp(load)
            | Self::SecureTcp(load)
            | Self::Tls(load)
            | Self::Mix(load)
            | Self::Workers(load) => Some(load),
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

/// One connection, whose messages come back to it.
const LOAD: Load = Load {
    mode: Mode::Echo,
    connections: 1,
    senders: 1,
    room: 1,
    pace: Pace::Window(1),
    payload: 128,
    big: None,
    slow: 0,
};

const fn fan_out(receivers: usize, window: usize) -> Load {
    Load {
        mode: Mode::All,
        connections: receivers,
        room: receivers,
        pace: Pace::Window(window),
        ..LOAD
    }
}

const fn busy(mode: Mode, rate: u32) -> Load {
    Load {
        mode,
        connections: 1000,
        senders: 100,
        room: 1000,
        pace: Pace::Rate(rate),
        ..LOAD
    }
}

const fn rooms(rooms: usize, size: usize) -> Load {
    Load {
        mode: Mode::Rooms,
        connections: rooms * size,
        room: size,
        pace: Pace::Window(16),
        ..LOAD
    }
}

const fn echo(connections: usize, window: usize) -> Load {
    Load {
        connections,
        pace: Pace::Window(window),
        ..LOAD
    }
}

/// Where there are many, beside where there are few.
pub const GROWTH: &[(&str, &str)] = &[
    (
        "fan-out, 5000 receivers, 1 outstanding",
        "fan-out, 1000 receivers, 1 outstanding",
    ),
    (
        "fan-out, 5000 receivers, 16 outstanding",
        "fan-out, 1000 receivers, 16 outstanding",
    ),
    (
        "fan-out, 5000 receivers, 64 outstanding",
        "fan-out, 1000 receivers, 64 outstanding",
    ),
    (
        "growth: 1000 rooms of 10, 16 outstanding",
        "growth: 1 rooms of 10000, 16 outstanding",
    ),
];

/// All of them, in the order of the report.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |quick: bool, name: &str, kind: Kind| {
        let name = name.to_owned();
        all.push(Scenario { name, kind, quick });
    };
    for receivers in [100, 1000, 5000] {
        for window in [1, 16, 64] {
            let quick = matches!((receivers, window), (100, 1 | 16) | (1000, 16));
            let name = format!("fan-out, {receivers} receivers, {window} outstanding");
            add(quick, &name, Kind::Load(fan_out(receivers, window)));
        }
    }
    for (payload, size) in [(64, "64 B"), (1024, "1 KiB"), (16 << 10, "16 KiB")] {
        let load = Load {
            payload,
            ..fan_out(100, 16)
        };
        let name = format!("fan-out, 100 receivers, 16 outstanding, {size}");
        add(false, &name, Kind::Load(load));
    }
    let load = Load {
        big: Some(16 << 10),
        ..fan_out(100, 16)
    };
    let name = "fan-out, 100 receivers, 16 outstanding, each 16th message of 16 KiB";
    add(false, name, Kind::Load(load));
    // Big ones, since the sockets' own buffers take some megabytes before a slow receiver is noticed.
    let load = Load {
        payload: 16 << 10,
        slow: 10,
        ..fan_out(100, 16)
    };
    let name = "fan-out, 100 receivers, 16 outstanding, 16 KiB, 10 of them slow";
    add(false, name, Kind::Load(load));
    for rate in [50, 300, 1000] {
        for (mode, how) in [
            (Mode::All, ""),
            (Mode::AllAck, ", acknowledged"),
            (Mode::Others, ", sender left out"),
            (Mode::OthersAck, ", sender left out, acknowledged"),
        ] {
            let quick = matches!((mode, rate), (Mode::All, 300) | (Mode::OthersAck, 1000));
            let name = format!("busy room, {rate} messages/s{how}");
            add(quick, &name, Kind::Load(busy(mode, rate)));
        }
    }
    let load = Load {
        payload: 1024,
        ..busy(Mode::All, 1000)
    };
    add(false, "busy room, 1000 messages/s, 1 KiB", Kind::Load(load));
    // Of the big ones no more than all can hold.
    for (payload, rate, size) in [(64, 50, "64 B"), (16 << 10, 10, "16 KiB")] {
        let load = Load {
            payload,
            ..busy(Mode::All, rate)
        };
        let name = format!("busy room, {rate} messages/s, {size}");
        add(false, &name, Kind::Load(load));
    }
    let name = "100 rooms of 10, 16 outstanding";
    add(true, name, Kind::Load(rooms(100, 10)));
    let mix = Load {
        mode: Mode::Mix,
        connections: MIXED,
        room: MIXED,
        senders: 10,
        pace: Pace::Window(16),
        ..LOAD
    };
    let name = "to all, to a group and to one in turn, 10 senders among 100, 16 outstanding";
    add(true, name, Kind::Mix(mix));
    for (count, size) in [(1000, 10), (1, 10_000)] {
        let name = format!("growth: {count} rooms of {size}, 16 outstanding");
        add(false, &name, Kind::Load(rooms(count, size)));
    }
    let beside = Load {
        mode: Mode::Beside,
        connections: 5000,
        room: 5000,
        pace: Pace::Rate(5),
        ..LOAD
    };
    let name = "direct message beside a room of 5000 with 5 messages/s";
    add(true, name, Kind::Beside(beside));
    for connections in [100, 1000] {
        for window in [1, 16] {
            let name = format!("echo, {connections} connections, {window} outstanding");
            let load = echo(connections, window);
            add(connections == 100, &name, Kind::Load(load));
        }
    }
    for (payload, size) in [(64, "64 B"), (1024, "1 KiB"), (16 << 10, "16 KiB")] {
        let load = Load {
            payload,
            ..echo(100, 16)
        };
        let name = format!("echo, 100 connections, 16 outstanding, {size}");
        add(false, &name, Kind::Load(load));
    }
    for connections in [1_000, 10_000] {
        let name = format!("idle, {connections} connections");
        add(connections == 1_000, &name, Kind::Idle(connections));
    }
    add(true, "churn", Kind::Churn);
    for (receivers, window) in [(100, 1), (100, 16), (1000, 16)] {
        let quick = (receivers, window) == (100, 16);
        let name = format!("fan-out over TLS, {receivers} receivers, {window} outstanding");
        add(quick, &name, Kind::Tls(fan_out(receivers, window)));
    }
    for window in [1, 16] {
        let name = format!("echo over TLS, 100 connections, {window} outstanding");
        add(false, &name, Kind::Tls(echo(100, window)));
    }
    let name = "TCP fan-out, 100 receivers, 16 outstanding";
    add(true, name, Kind::Tcp(fan_out(100, 16)));
    let name = "TCP over TLS: fan-out, 100 receivers, 16 outstanding";
    add(false, name, Kind::SecureTcp(fan_out(100, 16)));
    let name = "TCP over TLS: echo, 100 connections, 16 outstanding";
    add(false, name, Kind::SecureTcp(echo(100, 16)));
    for (name, load) in [
        ("fan-out, 1000 receivers, 16 outstanding", fan_out(1000, 16)),
        (
            "busy room, 1000 messages/s, sender left out, acknowledged",
            busy(Mode::OthersAck, 1000),
        ),
        ("echo, 100 connections, 16 outstanding", echo(100, 16)),
    ] {
        add(
            false,
            &format!("worker threads: {name}"),
            Kind::Workers(load),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_for_growth_is_measured() {
        let all = all();
        for name in GROWTH.iter().flat_map(|(many, few)| [many, few]) {
            assert!(all.iter().any(|scenario| scenario.name == *name), "{name}");
        }
    }
}
