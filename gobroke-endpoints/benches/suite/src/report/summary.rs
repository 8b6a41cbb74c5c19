//! GoBroke's figures in all scenarios, as multiples of those of the floors and of the best peer.

use super::{Entry, Figure, LANE_FLOOR, RESTING_FLOOR, Section, WRONG, main_figure, named, peers};
use crate::load::Pace;

/// A figure that is compared with the best one that a peer has.
struct Compared {
    figure: Figure,
    less_is_better: bool,
}

/// Empty where nobody stands beside it.
pub fn summary(sections: &[Section]) -> String {
    let rows: Vec<String> = sections.iter().filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let compared = ["CPU", "k/s", "p50", "p99"];
    let compared = compared.map(|figure| format!("{figure}, documented | {figure}, all"));
    let titles = format!(
        " | CPU, µs | CPU, lane floor | CPU, resting floor | {} | {WRONG}",
        compared.join(" | ")
    );
    let line = "|---".repeat(titles.split(" | ").count());
    format!(
        "\n## GoBroke against the floors and the best peer\n\nIts figure, divided by theirs. Of processor time, p50 and \
         p99 less is better, of messages a second more. The resting floor is compared with where messages come at a rate, \
         since only there it rests. The best peer keeps order, and need not be the same in each column: *documented* are \
         those that are as their documentation makes them, *all* are those made better by hand too.\n\n\
         | {titles} |\n{line}|\n{}\n",
        rows.join("\n")
    )
}

fn row(section: &Section) -> Option<String> {
    let Section {
        name,
        kind,
        entries,
    } = section;
    let gobroke = section.gobroke()?;
    let floor = named(entries, LANE_FLOOR);
    if floor.is_none() && peers(entries, true).next().is_none() {
        return None;
    }
    let is_room = kind
        .load()
        .is_some_and(|load| matches!(load.pace, Pace::Rate(_)));
    let resting = named(entries, RESTING_FLOOR).filter(|_| is_room);
    let (main, unit) = main_figure(*kind);
    let own = gobroke.median(main)?;
    let unit = match kind.load() {
        Some(_) => String::new(),
        None => format!(" {unit}"),
    };
    let against = |other: Option<&Entry>| Some(format!("{:.2}", own / other?.median(main)?));
    let mut cells = vec![
        Some(format!("{own:.2}{unit}")),
        against(floor),
        against(resting),
    ];
    let less = |figure| Compared {
        figure,
        less_is_better: true,
    };
    let compared = [
        less(main),
        Compared {
            figure: |figures| figures.throughput,
            less_is_better: false,
        },
        less(|figures| Some(figures.latency?[0])),
        less(|figures| Some(figures.latency?[1])),
    ];
    for compared in &compared {
        cells.extend([false, true].map(|by_hand| compared.against_best(gobroke, entries, by_hand)));
    }
    cells.push(Some(gobroke.wrong()));
    let cells = cells
        .into_iter()
        .map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
    Some(format!(
        "| {name}{} | {} |",
        gobroke.notes(),
        cells.collect::<Vec<_>>().join(" | ")
    ))
}

impl Compared {
    /// Against that peer which has the best one.
    fn against_best(&self, own: &Entry, entries: &[Entry], by_hand: bool) -> Option<String> {
        let own = own.median(self.figure)?;
        let theirs = peers(entries, by_hand)
            .filter_map(|peer| Some((peer.median(self.figure)?, peer.contender)));
        let (best, name) = match self.less_is_better {
            true => theirs.min_by(|(one, _), (other, _)| one.total_cmp(other)),
            false => theirs.max_by(|(one, _), (other, _)| one.total_cmp(other)),
        }?;
        Some(format!("{:.2} ({name})", own / best))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{entry, section},
        *,
    };
    use crate::{round::Figures, scenario, server::Role};

    /// Measured once, its p50 half of its p99.
    fn measured(contender: &'static str, role: Role, [cpu, throughput, p99]: [f64; 3]) -> Entry {
        let mut entry = entry(contender, role, cpu, 0);
        let figures = entry.rounds[0].clone();
        entry.rounds[0] = Figures {
            throughput: Some(throughput),
            latency: Some([p99 / 2.0, p99, p99]),
            ..figures
        };
        entry
    }

    #[test]
    fn the_summary_has_the_best_peer_of_each_figure_documented_and_of_all() {
        let all = vec![
            measured("gobroke", Role::Gobroke, [1.0, 100.0, 3.0]),
            measured(LANE_FLOOR, Role::Floor, [0.5, 400.0, 1.0]),
            measured(RESTING_FLOOR, Role::Floor, [0.8, 400.0, 1.0]),
            measured("thrifty", Role::Peer, [2.0, 20.0, 6.0]),
            measured("quick", Role::Peer, [4.0, 50.0, 2.0]),
            measured("made", Role::ByHand, [1.0, 25.0, 1.0]),
        ];
        let mut room = section("room", all);
        let cpu = "0.50 (thrifty) | 1.00 (made)";
        let rest = "2.00 (quick) | 2.00 (quick) | 1.50 (quick) | 3.00 (made) | 1.50 (quick) | 3.00 (made) | 0, 0, 0, 0 |";
        assert_eq!(
            row(&room).unwrap(),
            format!("| room | 1.00 | 2.00 | – | {cpu} | {rest}")
        );
        let mut scenarios = scenario::all().into_iter();
        let busy = scenarios.find(|scenario| scenario.name.starts_with("busy room"));
        room.kind = busy.unwrap().kind;
        assert_eq!(
            row(&room).unwrap(),
            format!("| room | 1.00 | 2.00 | 1.25 | {cpu} | {rest}")
        );
    }

    #[test]
    fn there_is_none_where_nobody_stands_beside_it() {
        let alone = measured("gobroke", Role::Gobroke, [1.0, 100.0, 3.0]);
        assert_eq!(summary(&[section("room", vec![alone])]), "");
    }

    #[test]
    fn what_gobroke_gets_wrong_stands_in_its_row() {
        let entries = vec![
            entry("gobroke", Role::Gobroke, 1.0, 5),
            entry("other", Role::Peer, 1.0, 0),
        ];
        assert!(
            row(&section("room", entries))
                .unwrap()
                .ends_with("| 0, 0, 5, 0 |")
        );
    }
}
