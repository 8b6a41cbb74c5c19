//! [`Report`]: medians and spreads, as a Markdown page and plots.

mod growth;
mod head;
mod plot;
mod summary;
mod table;

use std::{fmt::Write as _, fs, io, ops::Add, path::Path};

use crate::{
    load::expect::Account,
    round::Figures,
    scenario::{Kind, Scenario},
    server::{Contender, Role},
};

/// What the page is called.
pub const PAGE: &str = "report.md";

pub struct Report {
    /// How often each is measured, and for how many seconds.
    rounds: usize,
    seconds: f64,
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
    /// It disordered messages, if only in another scenario: what does so now and then does not keep order.
    disorders: bool,
}

impl Report {
    pub fn new(rounds: usize, seconds: f64) -> Self {
        Self {
            rounds,
            seconds,
            sections: Vec::new(),
            over: None,
        }
    }

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
                disorders: false,
            });
            entries.len() - 1
        });
        match figures {
            Some(figures) => entries[index].rounds.push(figures),
            None => entries[index].failed += 1,
        }
        self.note_disorder(contender.name);
    }

    /// Notes, in all scenarios, that a contender disordered messages in one of them.
    fn note_disorder(&mut self, contender: &str) {
        let its = |entry: &&mut Entry| entry.contender == contender;
        let all = self
            .sections
            .iter_mut()
            .flat_map(|section| &mut section.entries);
        let mut its: Vec<&mut Entry> = all.filter(its).collect();
        if its.iter().any(|entry| entry.has_disordered()) {
            its.iter_mut().for_each(|entry| entry.disorders = true);
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

    /// Where GoBroke did not deliver everything once and in order, and what went wrong there.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for Section { name, entries, .. } in &self.sections {
            let own = entries.iter().filter(|entry| entry.role == Role::Gobroke);
            for entry in own.filter(|entry| !entry.delivers()) {
                let Entry { contender, .. } = entry;
                faults.push(format!(
                    "{contender} in {name}{}: {WRONG} {}",
                    entry.notes(),
                    entry.wrong()
                ));
            }
        }
        faults
    }

    /// Writes the page, and a plot for each scenario.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut page = String::from("# Side by side\n\n");
        page.push_str(&head::head(self.rounds, self.seconds));
        page.push_str(
            "\nMedians, with the smallest and the largest of the rounds in brackets. CPU is the server's, for each \
             delivered message; in churn for each connection, and where connections are idle for each of the last thousand \
             that connected. The best peer is the one with the least CPU of those that, in every round, held the load and \
             delivered everything once and in order, and that disordered nothing in any other scenario either: of those that \
             are as their own documentation makes them, and of all, those that were made better by hand among them.\n",
        );
        if let Some(over) = &self.over {
            let _ = write!(page, "\n**{over}**\n");
        }
        page.push_str(&summary::summary(&self.sections));
        page.push_str(&growth::growth(&self.sections));
        for (number, section) in self.sections.iter().enumerate() {
            let name = &section.name;
            let _ = write!(page, "\n## {name}\n\n{}", table::table(&section.entries));
            let plot = format!("{:02}.svg", number + 1);
            if plot::draw(&folder.join(&plot), section).is_some() {
                let _ = writeln!(page, "\n![{name}]({plot})");
            }
        }
        fs::write(folder.join(PAGE), page)
    }
}

const LANE_FLOOR: &str = "floor: lanes";
const RESTING_FLOOR: &str = "floor: lanes that rest";

/// What [`Entry::wrong`] counts.
const WRONG: &str = "lost, doubled, disordered, stray";

/// One of the figures of a round.
type Figure = fn(&Figures) -> Option<f64>;

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

impl Section {
    fn gobroke(&self) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.role == Role::Gobroke)
    }
}

/// The one of that name.
fn named<'a>(entries: &'a [Entry], contender: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.contender == contender)
}

/// Those that one would use instead, and that keep order: as their documentation makes them, or those made by hand too.
fn peers(entries: &[Entry], by_hand: bool) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(move |entry| {
        let is_peer = match entry.role {
            Role::Peer => true,
            Role::ByHand => by_hand,
            Role::Gobroke | Role::Floor => false,
        };
        is_peer && entry.keeps_order()
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

    /// The same in figures.
    fn wrong(&self) -> String {
        self.account().map_or_else(
            || "–".to_owned(),
            |Account {
                 lost,
                 doubled,
                 disordered,
                 stray,
             }| format!("{lost}, {doubled}, {disordered}, {stray}"),
        )
    }

    fn fell_behind(&self) -> usize {
        self.rounds
            .iter()
            .filter(|figures| figures.fell_behind)
            .count()
    }

    /// Whether it failed in no round, and delivered everything once and in order.
    fn delivers(&self) -> bool {
        let account = self.account().unwrap_or_default();
        self.failed == 0 && account == Account::default()
    }

    fn has_disordered(&self) -> bool {
        self.account().is_some_and(|account| account.disordered > 0)
    }

    /// The same as [`delivers`](Self::delivers), and whether it held the load too, and keeps order everywhere.
    fn keeps_order(&self) -> bool {
        self.delivers() && self.fell_behind() == 0 && !self.disorders
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
}

/// What is drawn of a scenario, and its unit.
fn main_figure(kind: Kind) -> (Figure, &'static str) {
    match kind {
        Kind::Idle(_) => (|figures| figures.per_connection, "KiB for each connection"),
        Kind::Churn => (|figures| figures.cpu, "µs of CPU for each connection"),
        _ => (|figures| figures.cpu, "µs of CPU for each delivery"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::dialect::Dialect, scenario, server::Program};

    /// Measured once.
    pub(super) fn entry(contender: &'static str, role: Role, cpu: f64, disordered: u64) -> Entry {
        let account = Account {
            disordered,
            ..Account::default()
        };
        let figures = Figures {
            cpu: Some(cpu),
            account: Some(account),
            ..Figures::default()
        };
        Entry {
            contender,
            role,
            rounds: vec![figures],
            failed: 0,
            disorders: false,
        }
    }

    pub(super) fn section(name: &str, entries: Vec<Entry>) -> Section {
        Section {
            name: name.to_owned(),
            kind: scenario::all()[0].kind,
            entries,
        }
    }

    #[test]
    fn who_disorders_in_one_scenario_is_the_best_peer_in_none() {
        let mut report = Report::new(1, 0.3);
        let peer = |name| Contender {
            name,
            program: Program::NatsServer,
            dialect: Dialect::WebSocket,
            role: Role::Peer,
            setting: None,
        };
        for (scenario, disordered) in scenario::all().iter().zip([0, 1, 0]) {
            let mut measured = entry("hasty", Role::Peer, 1.0, disordered);
            report.add(scenario, &peer("hasty"), measured.rounds.pop());
            report.add(scenario, &peer("orderly"), Some(Figures::default()));
        }
        assert_eq!(report.sections.len(), 3);
        for Section { name, entries, .. } in &report.sections {
            let best: Vec<_> = peers(entries, true).map(|peer| peer.contender).collect();
            assert_eq!(best, ["orderly"], "{name}");
        }
    }

    #[test]
    fn what_gobroke_gets_wrong_is_a_fault_and_what_others_do_is_none() {
        let mut report = Report::new(1, 0.3);
        report.sections.push(section(
            "room",
            vec![
                entry("gobroke", Role::Gobroke, 1.0, 0),
                entry("other", Role::Peer, 1.0, 7),
            ],
        ));
        assert_eq!(report.faults(), [] as [String; 0]);
        let mut failed = entry("gobroke, 2 worker threads", Role::Gobroke, 1.0, 0);
        failed.failed = 1;
        report.sections.push(section(
            "hall",
            vec![entry("gobroke", Role::Gobroke, 1.0, 3), failed],
        ));
        assert_eq!(
            report.faults(),
            [
                "gobroke in hall: lost, doubled, disordered, stray 0, 0, 3, 0",
                "gobroke, 2 worker threads in hall (failed in 1 of 2): lost, doubled, disordered, stray 0, 0, 0, 0",
            ]
        );
    }
}
