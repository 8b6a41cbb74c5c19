//! What a delivery and a connection cost where there are many, beside what they cost where there are few.

use super::{Entry, Figure, LANE_FLOOR, Section, named};
use crate::scenario::{GROWTH, Kind};

/// Empty where nothing of it was measured.
pub fn growth(sections: &[Section]) -> String {
    let mut rows: Vec<String> = GROWTH
        .iter()
        .filter_map(|(many, few)| deliveries(sections, many, few))
        .collect();
    rows.extend(sections.iter().filter_map(connecting));
    match rows.is_empty() {
        true => String::new(),
        false => format!(
            "\n## Growth\n\nProcessor time where there are many, as a multiple of that where there are few, and both in µs; \
             and how many messages a write of GoBroke carries in each.\n\n\
             | | GoBroke | the lane floor | messages a write |\n|---|---|---|---|\n{}\n",
            rows.join("\n")
        ),
    }
}

fn deliveries(sections: &[Section], many: &str, few: &str) -> Option<String> {
    let section = |name: &str| sections.iter().find(|section| section.name == name);
    let (large, small) = (section(many)?, section(few)?);
    let own = [small.gobroke()?, large.gobroke()?];
    let floor = [small, large].map(|section| named(&section.entries, LANE_FLOOR));
    let cpu: Figure = |figures| figures.cpu;
    let ratio = |[few, many]: [&Entry; 2]| Some(times(few.median(cpu)?, many.median(cpu)?));
    let floor = match floor {
        [Some(few), Some(many)] => ratio([few, many]),
        _ => None,
    };
    let together = own.map(|entry| entry.median(|figures| figures.together));
    let together = together.map(|count| count.map_or_else(dash, |count| format!("{count:.1}")));
    Some(format!(
        "| {many}, beside {few} | {} | {} | {} |",
        ratio(own)?,
        floor.unwrap_or_else(dash),
        together.join(", ")
    ))
}

/// The last thousand that connect, beside the first thousand of the same run.
fn connecting(section: &Section) -> Option<String> {
    let Kind::Idle(connections) = section.kind else {
        return None;
    };
    let ratio = |entry: &Entry| {
        let each = |index: usize| entry.median(move |figures| Some(figures.connecting?[index]));
        Some(times(each(0)?, each(1)?))
    };
    let floor = named(&section.entries, LANE_FLOOR).and_then(ratio);
    Some(format!(
        "| connecting at {connections}, beside the first thousand | {} | {} | – |",
        section.gobroke().and_then(ratio)?,
        floor.unwrap_or_else(dash)
    ))
}

fn times(few: f64, many: f64) -> String {
    format!("{:.2} ({few:.2}, {many:.2})", many / few)
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{entry, section},
        *,
    };
    use crate::server::Role;

    #[test]
    fn many_are_compared_with_few_where_both_were_measured() {
        let (many, few) = GROWTH[0];
        let sections = |cpu: f64| {
            vec![
                entry("gobroke", Role::Gobroke, cpu, 0),
                entry(LANE_FLOOR, Role::Floor, 1.0, 0),
            ]
        };
        let (small, large) = (section(few, sections(2.0)), section(many, sections(3.0)));
        assert_eq!(growth(&[section(few, sections(2.0))]), "");
        let line =
            format!("| {many}, beside {few} | 1.50 (2.00, 3.00) | 1.00 (1.00, 1.00) | –, – |\n");
        assert!(growth(&[small, large]).ends_with(&line));
    }

    #[test]
    fn the_last_that_connect_are_compared_with_the_first_thousand() {
        let mut idle = entry("gobroke", Role::Gobroke, 9.0, 0);
        idle.rounds[0].connecting = Some([6.0, 9.0]);
        let section = Section {
            kind: Kind::Idle(10_000),
            ..section("idle", vec![idle])
        };
        let line = "| connecting at 10000, beside the first thousand | 1.50 (6.00, 9.00) | – | – |";
        assert_eq!(connecting(&section).unwrap(), line);
    }
}
