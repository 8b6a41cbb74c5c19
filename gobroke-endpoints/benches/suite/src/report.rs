//! [`Report`]: medians and spreads, as a Markdown page and plots.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    ops::Add,
    path::{Path, PathBuf},
};

use crate::{
    load::expect::Account,
    round::Figures,
    server::{Contender, Role},
};

#[derive(Default)]
pub struct Report {
    /// By scenario, in the order in which they came.
    scenarios: Vec<(String, Vec<Entry>)>,
}

struct Entry {
    contender: &'static str,
    role: Role,
    rounds: Vec<Figures>,
    failed: usize,
}

impl Report {
    pub fn add(&mut self, scenario: &str, contender: &Contender, figures: Option<Figures>) {
        if self
            .scenarios
            .last()
            .is_none_or(|(name, _)| name != scenario)
        {
            self.scenarios.push((scenario.to_owned(), Vec::new()));
        }
        let Some((_, entries)) = self.scenarios.last_mut() else {
            return;
        };
        let known = entries
            .iter()
            .position(|entry| entry.contender == contender.name);
        let index = known.unwrap_or_else(|| {
            entries.push(Entry {
                contender: contender.name,
                role: contender.role,
                rounds: Vec::new(),
                failed: 0,
            });
            entries.len() - 1
        });
        match figures {
            Some(figures) => entries[index].rounds.push(figures),
            None => entries[index].failed += 1,
        }
    }

    /// Writes `report.md` and a plot for each scenario; gives the path of the page.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let mut page = String::from("# Side by side\n\n");
        page.push_str(&machine());
        page.push_str(
            "\nMedians, with the smallest and the largest of the rounds in brackets. CPU is the server's, for each \
             delivered message.\n",
        );
        for (number, (name, entries)) in self.scenarios.iter().enumerate() {
            let _ = write!(page, "\n## {name}\n\n{}", table(entries));
            let plot = format!("{:02}.svg", number + 1);
            if draw(&folder.join(&plot), name, entries).is_some() {
                let _ = writeln!(page, "\n![{name}]({plot})");
            }
        }
        let path = folder.join("report.md");
        fs::write(&path, page)?;
        Ok(path)
    }
}

/// What it ran on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let tool = |name: &str| {
        let output = std::process::Command::new(name).arg("--version").output();
        output
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut lines = format!("- {model}, {cores} cores, Linux {}", kernel.trim());
    for name in ["rustc", "node", "nats-server"] {
        if let Some(version) = tool(name) {
            let prefix = if version.starts_with(name) {
                String::new()
            } else {
                format!("{name} ")
            };
            let _ = write!(lines, "\n- {prefix}{version}");
        }
    }
    let lock = include_str!("../Cargo.lock");
    let mut versions = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        }
        if let Some(value) = line.strip_prefix("version = ") {
            versions.insert(name, value.trim_matches('"'));
        }
    }
    let crates = [
        "tokio",
        "axum",
        "tokio-tungstenite",
        "fastwebsockets",
        "actix-ws",
        "socketioxide",
    ];
    let known: Vec<String> = crates
        .iter()
        .filter_map(|name| Some(format!("{name} {}", versions.get(name)?)))
        .collect();
    let _ = writeln!(lines, "\n- {}", known.join(", "));
    lines
}

/// Median, smallest and largest.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

fn spread(rounds: &[Figures], figure: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
    let mut values: Vec<f64> = rounds.iter().filter_map(figure).collect();
    values.sort_by(f64::total_cmp);
    Some(Spread {
        median: *values.get(values.len() / 2)?,
        least: *values.first()?,
        most: *values.last()?,
    })
}

/// What went wrong in all rounds; none where it is not looked at.
fn account(rounds: &[Figures]) -> Option<Account> {
    let accounts = rounds.iter().filter_map(|figures| figures.account);
    accounts.reduce(Add::add)
}

fn table(entries: &[Entry]) -> String {
    let mut table = String::from(
        "| | CPU, µs | against the lane floor | k/s | p50, ms | p99, ms | p99.9, ms | messages a write | memory | lost, doubled, disordered, stray |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let floor = entries
        .iter()
        .find(|entry| entry.contender == "floor: lanes")
        .and_then(|entry| spread(&entry.rounds, |figures| figures.cpu));
    for entry in entries {
        let rounds = &entry.rounds;
        if rounds.is_empty() {
            let _ = writeln!(
                table,
                "| {} | failed {} times | | | | | | | | |",
                entry.contender, entry.failed
            );
            continue;
        }
        let cell = |digits: usize, figure: &dyn Fn(&Figures) -> Option<f64>| {
            spread(rounds, figure).map_or_else(
                String::new,
                |Spread {
                     median,
                     least,
                     most,
                 }| {
                    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
                },
            )
        };
        let latency = |index: usize| cell(2, &move |figures| Some(figures.latency?[index]));
        let against = floor.as_ref().zip(spread(rounds, |figures| figures.cpu));
        let against = against.map_or_else(String::new, |(floor, own)| {
            format!("{:.2}", own.median / floor.median)
        });
        let memory = match rounds[0].per_connection {
            Some(_) => format!("{} KiB each", cell(1, &|figures| figures.per_connection)),
            None => cell(0, &|figures| figures.memory) + " MiB",
        };
        let memory = match spread(rounds, |figures| figures.pass) {
            Some(pass) => format!("{memory}, beside a pass of {:.2} ms", pass.median),
            None => memory,
        };
        let bold = if entry.role == Role::Gobroke {
            "**"
        } else {
            ""
        };
        let behind = rounds.iter().filter(|figures| figures.fell_behind).count();
        let behind = if behind > 0 {
            format!(" (fell behind in {behind} of {})", rounds.len())
        } else {
            String::new()
        };
        let account = account(rounds).map_or_else(
            || "–".to_owned(),
            |Account {
                 lost,
                 doubled,
                 disordered,
                 stray,
             }| format!("{lost}, {doubled}, {disordered}, {stray}"),
        );
        let _ = writeln!(
            table,
            "| {bold}{}{bold}{behind} | {} | {against} | {} | {} | {} | {} | {} | {memory} | {account} |",
            entry.contender,
            cell(2, &|figures| figures.cpu),
            cell(1, &|figures| Some(figures.throughput? / 1000.0)),
            latency(0),
            latency(1),
            latency(2),
            cell(1, &|figures| figures.together),
        );
    }
    table
}

/// Bars of the main figure; none where there is nothing to draw.
fn draw(path: &Path, name: &str, entries: &[Entry]) -> Option<()> {
    use plotters::prelude::*;
    let main = |figures: &Figures| figures.cpu.or(figures.per_connection);
    let bars: Vec<(&str, Role, Spread)> = entries
        .iter()
        .filter_map(|entry| Some((entry.contender, entry.role, spread(&entry.rounds, main)?)))
        .collect();
    let most = bars
        .iter()
        .map(|(_, _, spread)| spread.median)
        .fold(0.0, f64::max);
    if most == 0.0 {
        return None;
    }
    let unit = match entries.iter().find_map(|entry| entry.rounds.first())?.cpu {
        Some(_) => "µs of CPU for each delivery",
        None => "KiB for each connection",
    };
    let size = (900, 70 + 34 * bars.len() as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).ok()?;
    let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        root.draw(&Text::new(
            format!("{name}: {unit}"),
            (16, 16),
            ("sans-serif", 20),
        ))?;
        for (row, (contender, role, spread)) in (0..).zip(&bars) {
            let top = 52 + 34 * row;
            let colour = match role {
                Role::Gobroke => RGBColor(214, 93, 14),
                Role::Floor => RGBColor(120, 120, 120),
                Role::Peer => RGBColor(69, 133, 136),
            };
            let length = (450.0 * spread.median / most) as i32;
            root.draw(&Text::new(
                (*contender).to_owned(),
                (16, top + 5),
                ("sans-serif", 16),
            ))?;
            root.draw(&Rectangle::new(
                [(220, top), (222 + length, top + 24)],
                colour.filled(),
            ))?;
            let label = format!(
                "{:.2}  ({:.2}–{:.2})",
                spread.median, spread.least, spread.most
            );
            root.draw(&Text::new(
                label,
                (232 + length, top + 5),
                ("sans-serif", 15),
            ))?;
        }
        root.present()
    };
    draw().ok()
}
