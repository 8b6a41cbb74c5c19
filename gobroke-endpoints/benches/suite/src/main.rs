//! Whole servers side by side, over real sockets, in one run.

mod contenders;
mod load;
mod plan;
mod profile;
mod report;
mod round;
mod scenario;
mod server;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use lexopt::prelude::*;

use crate::{
    plan::{Plan, QUICK_MINUTES, QUICK_ROUNDS, QUICK_SECONDS},
    report::Report,
    round::Times,
    scenario::Scenario,
    server::Contender,
};

const HELP: &str = "\
Usage: suite [--quick] [--only TEXT] [--contenders TEXT] [--rounds N] [--seconds S] [--within M] [--profile TEXT]
             [--out FOLDER]

  --quick            a selection of the scenarios, one round of half a second each, within five minutes
  --only TEXT        the scenario of this name, or those whose name contains it; or of several: A|B
  --contenders TEXT  those alone that are called so, or whose names contain it; or several: A|B. \"Nagle\" asks for those
                     that are not measured otherwise, whose sockets are as the system makes them
  --rounds N         how often each is measured, interleaved (default: 5)
  --seconds S        for how long each time (default: 2)
  --within M         ends within so many minutes, and leaves out what is not measured then
  --profile TEXT     draws a flame graph of gobroke in the scenario of this name, or the first whose name contains it,
                     and measures nothing; not of idle, churn and beside, which are no load
  --out FOLDER       where the report goes (default: target/bench)";

struct Options {
    quick: bool,
    only: String,
    contenders: Option<String>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    within: Option<f64>,
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
            within: None,
            profile: None,
            out: "target/bench".into(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => options.quick = true,
                Long("only") => options.only = parser.value()?.string()?,
                Long("contenders") => options.contenders = Some(parser.value()?.string()?),
                Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
                Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
                Long("within") => options.within = Some(parser.value()?.parse()?),
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

    fn plan(&self) -> Plan {
        let (rounds, seconds, within) = match self.quick {
            true => (QUICK_ROUNDS, QUICK_SECONDS, Some(QUICK_MINUTES)),
            false => (5, 2.0, None),
        };
        let mut there = BTreeMap::new();
        let is_there = |contender: &Contender| {
            *there
                .entry(contender.name)
                .or_insert_with(|| is_there(contender))
        };
        Plan {
            steps: plan::steps(self.quick, &self.only, self.contenders.as_deref(), is_there),
            rounds: self.rounds.unwrap_or(rounds),
            times: Times::of(self.seconds.unwrap_or(seconds)),
            within: self
                .within
                .or(within)
                .map(|minutes| Duration::from_secs_f64(60.0 * minutes)),
        }
    }
}

/// Whether it is installed; says so where it is not.
fn is_there(contender: &Contender) -> bool {
    let is_there = contender.is_there();
    if !is_there {
        eprintln!("{} is not installed", contender.name);
    }
    is_there
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
    let plan = options.plan();
    let (count, expected) = (plan.steps.len(), plan.expected());
    eprint!("{count} scenarios, about {}", clock(expected));
    match plan.within {
        Some(within) => eprintln!(", at most {}", clock(within)),
        None => eprintln!(),
    }
    let began = Instant::now();
    let mut report = Report::new(plan.rounds, plan.times.measured.as_secs_f64());
    for (index, step) in plan.steps.iter().enumerate() {
        let (number, name) = (index + 1, &step.scenario.name);
        let elapsed = clock(began.elapsed());
        eprintln!(
            "[{number}/{count}, {elapsed} of {}] {name}",
            clock(expected)
        );
        let all = plan.measure(step, began, &mut report);
        // What is there is kept, whatever becomes of the rest.
        report.write(&options.out)?;
        if !all {
            eprintln!("The time is over: what is left is not measured.");
            break;
        }
    }
    let elapsed = clock(began.elapsed());
    eprintln!(
        "written after {elapsed}: {}",
        options.out.join(report::PAGE).display()
    );
    let faults = report.faults();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(std::io::Error::other(faults.join("\n  "))),
    }
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

fn profile(name: &str, out: &Path) -> std::io::Result<()> {
    let mut all = scenario::all();
    all.retain(|scenario| scenario.kind.load().is_some());
    let is_called = |scenario: &&Scenario| scenario.name == name;
    let has_in_name = |scenario: &&Scenario| !name.is_empty() && scenario.name.contains(name);
    let found = all.iter().find(is_called);
    let Some(scenario) = found.or_else(|| all.iter().find(has_in_name)) else {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        let error = format!(
            "--profile takes the name of a scenario with a load, or a part of one, not {name:?}; there are:\n  {}",
            names.join("\n  ")
        );
        return Err(std::io::Error::other(error));
    };
    if let Some(gobroke) = contenders::of(&scenario.kind).next() {
        let path = profile::draw(gobroke, scenario, out)?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}
