//! [`Report`]: medians and spreads, as a Markdown page and plots.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, ops::Add, path::Path};

use crate::{
    load::expect::Account,
    round::Figures,
    scenario::{Kind, Scenario},
    server::{Contender, Role},
};

/// What the page is called.
pub const PAGE: &str = "report.md";

#[derive(Default)]
pub struct Report {
    /// In the order in which they came.
    sections: Vec<Section>,
    /// Where it ended, if that was before all was measured.
    over: Option<String>,
}

struct Section {
    name: String,
    kind: Kind,
    entries: Vec<Entry>,
}

struct Entry {
    contender: &'static str,
    role: Role,
    rounds: Vec<Figures>,
    failed: usize,
}

impl Report {
    /// Takes down a round, with no figures where it failed.
    pub fn add(&mut self, scenario: &Scenario, contender: &Contender, figures: Option<Figures>) {
        let name = &scenario.name;
        if self.sections.last().is_none_or(|last| last.name != *name) {
            self.sections.push(Section {
                name: name.clone(),
                kind: scenario.kind,
                entries: Vec::new(),
            });
        }
        let Some(Section { entries, .. }) = self.sections.last_mut() else {
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

    /// Takes down that the rest was not measured, from this round on.
    pub fn time_was_over(&mut self, scenario: &Scenario, contender: &str, round: usize) {
        let name = &scenario.name;
        self.over = Some(format!(
            "The time was over before all was measured. The rest is missing, from round {round} of {contender} in \
             *{name}* on."
        ));
    }

    /// Writes the page, and a plot for each scenario.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut page = String::from("# Side by side\n\n");
        page.push_str(&machine());
        page.push_str(
            "\nMedians, with the smallest and the largest of the rounds in brackets. CPU is the server's, for each \
             delivered message; in churn for each connection, and where connections are idle for each of the last thousand \
             that connected. The best peer is the one with the least CPU of those that, in every round, held the load and \
             delivered everything once and in order.\n",
        );
        if let Some(over) = &self.over {
            let _ = write!(page, "\n**{over}**\n");
        }
        page.push_str(&summary(&self.sections));
        for (number, section) in self.sections.iter().enumerate() {
            let name = &section.name;
            let _ = write!(page, "\n## {name}\n\n{}", table(&section.entries));
            let plot = format!("{:02}.svg", number + 1);
            if draw(&folder.join(&plot), section).is_some() {
                let _ = writeln!(page, "\n![{name}]({plot})");
            }
        }
        fs::write(folder.join(PAGE), page)
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
    let _ = writeln!(lines, "\n- {}", versions().join(", "));
    lines
}

/// The libraries that are measured, by the files that lock them.
fn versions() -> Vec<String> {
    let lock = serde_json::from_str(include_str!("../node/package-lock.json"));
    let lock: serde_json::Value = lock.unwrap_or_default();
    let mut versions = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../Cargo.lock").lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        }
        if let Some(value) = line.strip_prefix("version = ") {
            versions.insert(name, value.trim_matches('"'));
        }
    }
    for name in ["ws", "socket.io"] {
        let package = &lock["packages"][format!("node_modules/{name}")];
        versions.extend(package["version"].as_str().map(|version| (name, version)));
    }
    let measured = [
        "tokio",
        "axum",
        "tokio-tungstenite",
        "fastwebsockets",
        "actix-web",
        "actix-ws",
        "socketioxide",
        "ws",
        "socket.io",
    ];
    let known = |name: &&str| Some(format!("{name} {}", versions.get(name)?));
    measured.iter().filter_map(known).collect()
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

impl Entry {
    fn median(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        Some(spread(&self.rounds, figure)?.median)
    }

    fn cpu(&self) -> Option<f64> {
        self.median(|figures| figures.cpu)
    }

    /// What went wrong in all rounds; none where it is not looked at.
    fn account(&self) -> Option<Account> {
        let accounts = self.rounds.iter().filter_map(|figures| figures.account);
        accounts.reduce(Add::add)
    }

    fn fell_behind(&self) -> usize {
        self.rounds
            .iter()
            .filter(|figures| figures.fell_behind)
            .count()
    }

    /// Whether it held the load in every round, and delivered everything once and in order.
    fn keeps_order(&self) -> bool {
        let account = self.account().unwrap_or_default();
        self.failed == 0 && self.fell_behind() == 0 && account == Account::default()
    }

    /// In how many rounds it did not do what it should, and what it did to slow receivers.
    fn notes(&self) -> String {
        let rounds = self.rounds.len() + self.failed;
        let mut notes: Vec<String> = [("fell behind", self.fell_behind()), ("failed", self.failed)]
            .into_iter()
            .filter(|(_, times)| *times > 0)
            .map(|(what, times)| format!("{what} in {times} of {rounds}"))
            .collect();
        if let Some(cut) = self.median(|figures| Some(figures.cut? as f64)) {
            notes.push(format!("cut {cut} slow receivers"));
        }
        match notes.is_empty() {
            true => String::new(),
            false => format!(" ({})", notes.join(", ")),
        }
    }

    /// A figure's median, smallest and largest; nothing where there is none.
    fn cell(&self, digits: usize, figure: impl Fn(&Figures) -> Option<f64>) -> String {
        let spread = spread(&self.rounds, figure);
        spread.map_or_else(String::new, |spread| {
            let Spread {
                median,
                least,
                most,
            } = spread;
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        })
    }

    fn memory(&self) -> String {
        let each = self.cell(1, |figures| figures.per_connection);
        if !each.is_empty() {
            return format!("{each} KiB each");
        }
        let all = self.cell(0, |figures| figures.memory);
        let all = match all.is_empty() {
            true => all,
            false => format!("{all} MiB"),
        };
        match spread(&self.rounds, |figures| figures.pass) {
            Some(pass) => format!("{all}, beside a pass of {:.2} ms", pass.median),
            None => all,
        }
    }
}

/// GoBroke's figures in all scenarios, as multiples of the lane floor's and of those of the best peer: for each figure
/// that peer which has the best one. Empty where nobody stands beside it.
fn summary(sections: &[Section]) -> String {
    let rows: Vec<String> = sections.iter().filter_map(summary_row).collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!(
            "\n## GoBroke against the floor and the best peer\n\nIts figure, divided by theirs. Of processor time and \
             p99 less is better, of messages a second more. The best peer keeps order, and need not be the same in \
             each column.\n\n\
             | | CPU, µs | against the lane floor | against the best peer | k/s, against the best peer | p99, \
             against the best peer |\n|---|---|---|---|---|---|\n{}\n",
            rows.join("\n")
        ),
    }
}

fn summary_row(section: &Section) -> Option<String> {
    let Section {
        name,
        kind,
        entries,
    } = section;
    let gobroke = entries.iter().find(|entry| entry.role == Role::Gobroke)?;
    let floor = entries.iter().find(|entry| entry.contender == LANE_FLOOR);
    let peers: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.role == Role::Peer && entry.keeps_order())
        .collect();
    if floor.is_none() && peers.is_empty() {
        return None;
    }
    let against_best = |figure: fn(&Figures) -> Option<f64>, least: bool| {
        let own = gobroke.median(figure)?;
        let peers = peers
            .iter()
            .filter_map(|peer| Some((peer.median(figure)?, peer.contender)));
        let (best, name) = match least {
            true => peers.min_by(|(one, _), (other, _)| one.total_cmp(other)),
            false => peers.max_by(|(one, _), (other, _)| one.total_cmp(other)),
        }?;
        Some(format!("{:.2} ({name})", own / best))
    };
    let (main, unit) = main_figure(*kind);
    let own = gobroke.median(main)?;
    let unit = match kind.load() {
        Some(_) => String::new(),
        None => format!(" {unit}"),
    };
    let against_floor = floor.and_then(|floor| Some(own / floor.median(main)?));
    let cells = [
        Some(format!("{own:.2}{unit}")),
        against_floor.map(|ratio| format!("{ratio:.2}")),
        against_best(main, true),
        against_best(|figures| figures.throughput, false),
        against_best(|figures| Some(figures.latency?[1]), true),
    ];
    let cells = cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
    Some(format!(
        "| {name}{} | {} |",
        gobroke.notes(),
        cells.join(" | ")
    ))
}

const LANE_FLOOR: &str = "floor: lanes";

const COLUMNS: [&str; 11] = [
    "",
    "CPU, µs",
    "against the lane floor",
    "against the best peer that keeps order",
    "k/s",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "messages a write",
    "memory",
    "lost, doubled, disordered, stray",
];

fn table(entries: &[Entry]) -> String {
    let mut floors = entries.iter().filter(|entry| entry.contender == LANE_FLOOR);
    let floor = floors.next().and_then(Entry::cpu);
    let peers = entries
        .iter()
        .filter(|entry| entry.role == Role::Peer && entry.keeps_order());
    let best = peers.filter_map(Entry::cpu).min_by(f64::total_cmp);
    let mut table = format!(
        "| {} |\n{}|\n",
        COLUMNS.join(" | "),
        "|---".repeat(COLUMNS.len())
    );
    for entry in entries {
        let _ = writeln!(table, "| {} |", row(entry, floor, best).join(" | "));
    }
    table
}

fn row(entry: &Entry, floor: Option<f64>, best: Option<f64>) -> [String; COLUMNS.len()] {
    let bold = match entry.role {
        Role::Gobroke => "**",
        Role::Floor | Role::Peer | Role::ByHand => "",
    };
    let against = |other: Option<f64>| {
        let both = entry.cpu().zip(other);
        both.map_or_else(String::new, |(own, other)| format!("{:.2}", own / other))
    };
    let latency = |index: usize| entry.cell(2, |figures| Some(figures.latency?[index]));
    let account = entry.account().map_or_else(
        || "–".to_owned(),
        |Account {
             lost,
             doubled,
             disordered,
             stray,
         }| format!("{lost}, {doubled}, {disordered}, {stray}"),
    );
    [
        format!("{bold}{}{bold}{}", entry.contender, entry.notes()),
        entry.cell(2, |figures| figures.cpu),
        against(floor),
        against(best),
        entry.cell(1, |figures| Some(figures.throughput? / 1000.0)),
        latency(0),
        latency(1),
        latency(2),
        entry.cell(1, |figures| figures.together),
        entry.memory(),
        account,
    ]
}

/// What is drawn of a scenario, and its unit.
fn main_figure(kind: Kind) -> (fn(&Figures) -> Option<f64>, &'static str) {
    match kind {
        Kind::Idle(_) => (|figures| figures.per_connection, "KiB for each connection"),
        Kind::Churn => (|figures| figures.cpu, "µs of CPU for each connection"),
        _ => (|figures| figures.cpu, "µs of CPU for each delivery"),
    }
}

/// Bars of the main figure; none where there is nothing to draw.
fn draw(path: &Path, section: &Section) -> Option<()> {
    use plotters::prelude::*;
    let Section {
        name,
        kind,
        entries,
    } = section;
    let (figure, unit) = main_figure(*kind);
    let bars: Vec<(&str, Role, Spread)> = entries
        .iter()
        .filter_map(|entry| Some((entry.contender, entry.role, spread(&entry.rounds, figure)?)))
        .collect();
    let most = bars
        .iter()
        .map(|(_, _, spread)| spread.median)
        .fold(0.0, f64::max);
    if most == 0.0 {
        return None;
    }
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
                Role::ByHand => RGBColor(143, 181, 182),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    fn entry(contender: &'static str, role: Role, cpu: f64, disordered: u64) -> Entry {
        let account = Account {
            disordered,
            ..Account::default()
        };
        Entry {
            contender,
            role,
            rounds: vec![Figures {
                cpu: Some(cpu),
                account: Some(account),
                ..Figures::default()
            }],
            failed: 0,
        }
    }

    fn cells(table: &str, contender: &str) -> Vec<String> {
        let begin = format!("| {contender}");
        let line = table.lines().find(|line| line.starts_with(&begin));
        line.unwrap()
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    }

    #[test]
    fn the_best_peer_is_none_that_disorders_fails_or_falls_behind() {
        let mut failed = entry("failed", Role::Peer, 0.2, 0);
        failed.failed = 1;
        let mut behind = entry("behind", Role::Peer, 0.2, 0);
        behind.rounds[0].fell_behind = true;
        let table = table(&[
            entry("gobroke", Role::Gobroke, 1.0, 0),
            entry("floor: lanes", Role::Floor, 0.5, 0),
            entry("disorders", Role::Peer, 0.2, 3),
            failed,
            behind,
            entry("orders", Role::Peer, 4.0, 0),
            entry("orders too", Role::Peer, 8.0, 0),
        ]);
        let gobroke = cells(&table, "**gobroke**");
        assert_eq!(gobroke[3..5], ["2.00", "0.25"]);
        assert_eq!(cells(&table, "orders |")[4], "1.00");
    }

    #[test]
    fn the_summary_has_the_best_peer_of_each_figure() {
        let figures = |cpu, throughput, p99| Figures {
            throughput: Some(throughput),
            latency: Some([0.0, p99, 0.0]),
            ..entry("", Role::Peer, cpu, 0).rounds[0].clone()
        };
        let entry = |name, role, rounds| Entry {
            rounds: vec![rounds],
            ..entry(name, role, 0.0, 0)
        };
        let gobroke = entry("gobroke", Role::Gobroke, figures(1.0, 100.0, 3.0));
        let kind = scenario::all()[0].kind;
        let section = |entries| Section {
            name: "room".into(),
            kind,
            entries,
        };
        let all = vec![
            gobroke,
            entry(LANE_FLOOR, Role::Floor, figures(0.5, 400.0, 1.0)),
            entry("thrifty", Role::Peer, figures(2.0, 20.0, 6.0)),
            entry("quick", Role::Peer, figures(4.0, 50.0, 2.0)),
        ];
        assert_eq!(
            summary_row(&section(all)).unwrap(),
            "| room | 1.00 | 2.00 | 0.50 (thrifty) | 2.00 (quick) | 1.50 (quick) |"
        );
        let alone = entry("gobroke", Role::Gobroke, figures(1.0, 100.0, 3.0));
        assert_eq!(summary(&[section(vec![alone])]), "");
    }

    #[test]
    fn who_failed_or_fell_behind_says_in_how_many_rounds() {
        let mut both = entry("both", Role::Peer, 1.0, 0);
        both.rounds[0].fell_behind = true;
        both.failed = 2;
        let mut never = entry("never", Role::Peer, 1.0, 0);
        never.rounds.clear();
        never.failed = 5;
        let table = table(&[both, never]);
        assert!(table.contains("| both (fell behind in 1 of 3, failed in 2 of 3) |"));
        assert!(table.contains("| never (failed in 5 of 5) |"));
    }

    #[test]
    fn what_is_not_looked_at_has_a_dash() {
        let mut idle = entry("idle", Role::Peer, 1.0, 0);
        idle.rounds[0].account = None;
        let table = table(&[idle, entry("looked at", Role::Peer, 1.0, 2)]);
        assert_eq!(cells(&table, "idle")[11], "–");
        assert_eq!(cells(&table, "looked at")[11], "0, 0, 2, 0");
    }
}
