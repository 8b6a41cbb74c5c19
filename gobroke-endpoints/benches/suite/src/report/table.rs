//! The table of a scenario: all that was measured of each contender.

use super::{Entry, LANE_FLOOR, WRONG, named, peers, spread};
use crate::{round::Figures, server::Role};

type Cell<'a> = Box<dyn Fn(&Entry) -> String + 'a>;

/// A column has a place where somebody has something in it.
pub fn table(entries: &[Entry]) -> String {
    let mut columns = columns(entries);
    columns.retain(|(_, cell)| entries.iter().any(|entry| !cell(entry).is_empty()));
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let mut lines = vec![titles.join(" | "), vec!["---"; titles.len()].join("|")];
    for entry in entries {
        let cells: Vec<String> = columns.iter().map(|(_, cell)| cell(entry)).collect();
        lines.push(cells.join(" | "));
    }
    lines.iter().map(|line| format!("| {line} |\n")).collect()
}

fn columns(entries: &[Entry]) -> Vec<(&'static str, Cell<'_>)> {
    let floor = named(entries, LANE_FLOOR).and_then(Entry::cpu);
    let best = |by_hand| {
        peers(entries, by_hand)
            .filter_map(Entry::cpu)
            .min_by(f64::total_cmp)
    };
    vec![
        ("", Box::new(name)),
        ("CPU, µs", figure(2, |figures| figures.cpu)),
        ("against the lane floor", against(floor)),
        (
            "against the best documented peer that keeps order",
            against(best(false)),
        ),
        ("against the best of all", against(best(true))),
        (
            "first thousand, µs each",
            figure(1, |figures| Some(figures.connecting?[0])),
        ),
        (
            "last beside first thousand",
            figure(2, |figures| {
                let [first, last] = figures.connecting?;
                Some(last / first)
            }),
        ),
        (
            "k/s",
            figure(1, |figures| Some(figures.throughput? / 1000.0)),
        ),
        ("p50, ms", figure(2, |figures| Some(figures.latency?[0]))),
        ("p99, ms", figure(2, |figures| Some(figures.latency?[1]))),
        ("p99.9, ms", figure(2, |figures| Some(figures.latency?[2]))),
        (
            "beside a pass of, ms",
            figure(2, |figures| Some(figures.beside?.pass)),
        ),
        (
            "messages counted beside it",
            figure(0, |figures| Some(figures.beside?.counted as f64)),
        ),
        ("messages a write", figure(1, |figures| figures.together)),
        ("memory, MiB", figure(0, |figures| figures.memory)),
        (
            "memory, KiB each",
            figure(1, |figures| figures.per_connection),
        ),
        (WRONG, Box::new(Entry::wrong)),
    ]
}

fn name(entry: &Entry) -> String {
    let bold = match entry.role {
        Role::Gobroke => "**",
        Role::Floor | Role::Peer | Role::ByHand => "",
    };
    let by_hand = match entry.role {
        Role::ByHand => ", by hand",
        _ => "",
    };
    format!("{bold}{}{bold}{by_hand}{}", entry.contender, entry.notes())
}

fn against<'a>(other: Option<f64>) -> Cell<'a> {
    Box::new(move |entry| {
        let both = entry.cpu().zip(other);
        both.map_or_else(String::new, |(own, other)| format!("{:.2}", own / other))
    })
}

/// Median, smallest and largest; nothing where there is none.
fn figure<'a>(digits: usize, figure: impl Fn(&Figures) -> Option<f64> + 'a) -> Cell<'a> {
    Box::new(move |entry| {
        let spread = spread(&entry.rounds, &figure);
        spread.map_or_else(String::new, |spread| {
            let (median, least, most) = (spread.median, spread.least, spread.most);
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::entry, *};

    /// The cell of a contender in a column.
    fn cell<'a>(table: &'a str, contender: &str, column: &str) -> &'a str {
        let cells = |line: &'a str| line.split('|').map(str::trim);
        let mut lines = table.lines();
        let mut titles = cells(lines.next().unwrap());
        let place = titles.position(|title| title == column).unwrap();
        let begin = format!("| {contender}");
        let line = lines.find(|line| line.starts_with(&begin)).unwrap();
        cells(line).nth(place).unwrap()
    }

    const DOCUMENTED: &str = "against the best documented peer that keeps order";
    const ALL: &str = "against the best of all";

    #[test]
    fn the_best_peer_is_none_that_disorders_fails_or_falls_behind() {
        let mut failed = entry("failed", Role::Peer, 0.2, 0);
        failed.failed = 1;
        let mut behind = entry("behind", Role::Peer, 0.2, 0);
        behind.rounds[0].fell_behind = true;
        let table = table(&[
            entry("gobroke", Role::Gobroke, 1.0, 0),
            entry(LANE_FLOOR, Role::Floor, 0.5, 0),
            entry("disorders", Role::Peer, 0.2, 3),
            failed,
            behind,
            entry("orders", Role::Peer, 4.0, 0),
            entry("orders too", Role::Peer, 8.0, 0),
        ]);
        let gobroke = |column| cell(&table, "**gobroke**", column);
        assert_eq!(gobroke("against the lane floor"), "2.00");
        assert_eq!((gobroke(DOCUMENTED), gobroke(ALL)), ("0.25", "0.25"));
        assert_eq!(cell(&table, "orders |", DOCUMENTED), "1.00");
    }

    #[test]
    fn a_peer_made_by_hand_is_the_best_of_all_and_not_of_the_documented() {
        let table = table(&[
            entry("gobroke", Role::Gobroke, 1.0, 0),
            entry("made", Role::ByHand, 2.0, 0),
            entry("documented", Role::Peer, 4.0, 0),
        ]);
        let gobroke = |column| cell(&table, "**gobroke**", column);
        assert_eq!((gobroke(DOCUMENTED), gobroke(ALL)), ("0.25", "0.50"));
        assert!(table.contains("| made, by hand |"));
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
    fn what_is_not_looked_at_has_a_dash_and_what_nobody_has_no_column() {
        let mut idle = entry("idle", Role::Peer, 1.0, 0);
        idle.rounds[0].account = None;
        let table = table(&[idle, entry("looked at", Role::Peer, 1.0, 2)]);
        assert_eq!(cell(&table, "idle", WRONG), "–");
        assert_eq!(cell(&table, "looked at", WRONG), "0, 0, 2, 0");
        assert!(!table.contains("p99"));
    }
}
