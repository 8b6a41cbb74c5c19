//! [`Rounds`]: what was measured in each round.

#[derive(Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// From what to what.
    pub(crate) fn spread(&self, digits: usize) -> String {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        format!("{least:.digits$} to {most:.digits$}")
    }

    /// The median, and from what to what.
    pub(crate) fn show(&self, digits: usize) -> String {
        format!("{:.digits$} ({})", self.median(), self.spread(digits))
    }
}
