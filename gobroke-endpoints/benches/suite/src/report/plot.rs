//! The plot of a scenario.

use std::path::Path;

use plotters::prelude::*;

use super::{Section, Spread, main_figure, spread};
use crate::server::Role;

/// Bars of the main figure; none where there is nothing to draw.
pub fn draw(path: &Path, section: &Section) -> Option<()> {
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
