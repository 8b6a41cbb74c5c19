//! Whole servers side by side, over real sockets, in one run.

mod load;
mod profile;
mod report;
mod round;
mod scenario;
mod server;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use lexopt::prelude::*;

use crate::{
    load::dialect::Dialect,
    report::Report,
    round::Times,
    scenario::Kind,
    server::{Contender, Program, Role},
};

const HELP: &str = "\
Usage: suite [--quick] [--only TEXT] [--contenders A,B,..] [--rounds N] [--seconds S] [--profile TEXT] [--out FOLDER]

  --quick            a selection of the scenarios, one round of a second each
  --only TEXT        the scenario of this name, or those whose name contains it; or of several: A|B
  --contenders A,B   these alone
  --rounds N         how often each is measured, interleaved (default: 5)
  --seconds S        for how long each time (default: 2)
  --profile TEXT     draws a flame graph of gobroke in the first scenario whose name contains it, and measures nothing
  --out FOLDER       where the report goes (default: target/bench)";

const fn over_tls(contender: Contender) -> Contender {
    Contender {
        dialect: Dialect::SecureWebSocket,
        ..contender
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
    },
    Contender {
        name: "Node ws",
        program: Program::Node("ws.js"),
        dialect: Dialect::WebSocket,
        role: Role::Peer,
    },
    Contender {
        name: "Node socket.io",
        program: Program::Node("socketio.js"),
        dialect: Dialect::SocketIo,
        role: Role::Peer,
    },
];

/// Those of the scenarios over TCP.
const TCP_CONTENDERS: &[Contender] = &[
    Contender {
        name: "gobroke",
        program: Program::Own("gobroke", "tcp"),
        dialect: Dialect::Tcp,
        role: Role::Gobroke,
    },
    Contender {
        name: "nats-server",
        program: Program::NatsServer,
        dialect: Dialect::Nats,
        role: Role::Peer,
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

struct Options {
    quick: bool,
    only: String,
    contenders: Option<Vec<String>>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    profile: Option<String>,
    out: PathBuf,
}

impl Options {
    fn read() -> Result<Self, lexopt::Error> {
        let mut options = Self {
            quick: false,
            only: String::new(),
            contenders: None,
            rounds: None,
            seconds: None,
            profile: None,
            out: "target/bench".into(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => options.quick = true,
                Long("only") => options.only = parser.value()?.string()?,
                Long("contenders") => {
                    let names = parser.value()?.string()?;
                    options.contenders = Some(names.split(',').map(str::to_owned).collect());
                }
                Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
                Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
                Long("profile") => options.profile = Some(parser.value()?.string()?),
                Long("out") => options.out = parser.value()?.into(),
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }

    fn takes(&self, contender: &Contender) -> bool {
        self.contenders.as_ref().is_none_or(|names| {
            names
                .iter()
                .any(|name| contender.name.contains(name.as_str()))
        })
    }
}

fn main() -> ExitCode {
    let done = Options::read()
        .map_err(|error| error.to_string())
        .and_then(|options| run(&options).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    if let Some(name) = &options.profile {
        return profile(name, &options.out);
    }
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 1.0 } else { 2.0 });
    let times = Times {
        warm_up: Duration::from_secs_f64(seconds / 4.0),
        measured: Duration::from_secs_f64(seconds),
    };
    let all = scenario::all();
    let is_meant = |name: &str| {
        options.only.split('|').any(|text| {
            let is_name = all.iter().any(|scenario| scenario.name == text);
            name == text || !is_name && name.contains(text)
        })
    };
    let scenarios: Vec<_> = all
        .iter()
        .filter(|scenario| scenario.quick || !options.quick)
        .filter(|scenario| is_meant(&scenario.name))
        .collect();
    let mut report = Report::default();
    for (number, scenario) in scenarios.iter().enumerate() {
        let contenders = match scenario.kind {
            Kind::Tcp(_) => TCP_CONTENDERS,
            Kind::Tls(_) => TLS_CONTENDERS,
            // Its target is the room's own pass.
            Kind::Beside(_) => &CONTENDERS[..1],
            _ => CONTENDERS,
        };
        let contenders: Vec<_> = contenders
            .iter()
            .filter(|contender| options.takes(contender))
            .filter(|contender| takes_part(contender, &scenario.kind))
            .collect();
        eprintln!("[{}/{}] {}", number + 1, scenarios.len(), scenario.name);
        let (contenders, missing): (Vec<&Contender>, Vec<&Contender>) = contenders
            .into_iter()
            .partition(|contender| contender.is_there());
        for contender in missing {
            eprintln!("  {} is not installed", contender.name);
        }
        for round in 0..rounds {
            for contender in &contenders {
                let figures = round::measure(contender, &scenario.kind, times);
                match &figures {
                    Ok(figures) => {
                        eprintln!("  {}/{rounds} {:24} {figures}", round + 1, contender.name)
                    }
                    Err(error) => eprintln!(
                        "  {}/{rounds} {:24} failed: {error}",
                        round + 1,
                        contender.name
                    ),
                }
                report.add(scenario, contender, figures.ok());
            }
        }
    }
    let written = report.write(&options.out)?;
    eprintln!("written: {}", written.display());
    Ok(())
}

/// In an echo nothing is forwarded, and no list cloned: those contenders would be the ones beside them once more.
fn takes_part(contender: &Contender, kind: &Kind) -> bool {
    !kind.is_echo() || !matches!(contender.program, Program::Own(_, "forwarded" | "cloned"))
}

fn profile(name: &str, out: &std::path::Path) -> std::io::Result<()> {
    let all = scenario::all();
    let Some(scenario) = all.iter().find(|scenario| scenario.name.contains(name)) else {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        let error = format!(
            "no scenario is called {name:?}; there are:\n  {}",
            names.join("\n  ")
        );
        return Err(std::io::Error::other(error));
    };
    let gobroke = match scenario.kind {
        Kind::Tcp(_) => &TCP_CONTENDERS[0],
        Kind::Tls(_) => &TLS_CONTENDERS[0],
        _ => &CONTENDERS[0],
    };
    let path = profile::draw(gobroke, scenario, out)?;
    eprintln!("written: {}", path.display());
    Ok(())
}
