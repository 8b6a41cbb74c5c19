//! [`Plan`]: who is measured in which scenarios, and how long that takes.

use std::time::{Duration, Instant};

use crate::{
    contenders,
    report::Report,
    round::{self, Times},
    scenario::{self, Scenario},
    server::Contender,
};

pub struct Plan {
    pub steps: Vec<Step>,
    /// How often each is measured.
    pub rounds: usize,
    pub times: Times,
    /// After so long all is over.
    pub within: Option<Duration>,
}

/// A scenario, and those that take part in it.
pub struct Step {
    pub scenario: Scenario,
    contenders: Vec<&'static Contender>,
}

/// Of what there is, what `A|B` means: what is called so, or, where nothing is, that whose name contains it.
pub struct Meant<'a> {
    /// Each with whether it is a whole name.
    parts: Vec<(&'a str, bool)>,
}

impl<'a> Meant<'a> {
    pub fn by(text: &'a str, names: &[&str]) -> Self {
        let part = |part| (part, names.contains(&part));
        Self {
            parts: text.split('|').map(part).collect(),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|&(part, is_name)| name == part || !is_name && name.contains(part))
    }
}

/// What is meant: of the quick selection or of all, with the contenders that are asked for, or all but those that are
/// measured on request, as far as they are there.
pub fn steps(
    quick: bool,
    only: &str,
    asked_for: Option<&str>,
    mut is_there: impl FnMut(&Contender) -> bool,
) -> Vec<Step> {
    let mut all = scenario::all();
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    let meant = Meant::by(only, &names);
    all.retain(|scenario| (scenario.quick || !quick) && meant.has(&scenario.name));
    let step = |scenario: Scenario| {
        let mut contenders: Vec<_> = contenders::of(&scenario.kind).collect();
        let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
        let asked_for = asked_for.map(|text| Meant::by(text, &names));
        contenders.retain(|contender| {
            let takes_part = match &asked_for {
                Some(meant) => meant.has(contender.name),
                None => !contender.is_on_request(),
            };
            takes_part && is_there(contender)
        });
        Step {
            scenario,
            contenders,
        }
    };
    let mut steps: Vec<Step> = all.into_iter().map(step).collect();
    steps.retain(|step| !step.contenders.is_empty());
    steps
}

/// How often and for how long each is measured in a quick run, and within how many minutes all of it.
pub const QUICK_ROUNDS: usize = 1;
pub const QUICK_SECONDS: f64 = 0.5;
pub const QUICK_MINUTES: f64 = 5.0;

impl Plan {
    /// Roughly how long all of it takes.
    pub fn expected(&self) -> Duration {
        let step = |step: &Step| {
            let rounds = self.rounds * step.contenders.len();
            self.times.expected(&step.scenario.kind) * rounds as u32
        };
        self.steps.iter().map(step).sum()
    }

    /// Measures a scenario, its contenders in turn; says whether there was time for all of it.
    pub fn measure(&self, step: &Step, began: Instant, report: &mut Report) -> bool {
        let Step {
            scenario,
            contenders,
        } = step;
        for round in 1..=self.rounds {
            for contender in contenders {
                let name = contender.name;
                if self.is_too_late(began) {
                    report.time_was_over(scenario, name, round);
                    return false;
                }
                let figures = round::measure(contender, &scenario.kind, self.times);
                let rounds = self.rounds;
                match &figures {
                    Ok(figures) => eprintln!("  {round}/{rounds} {name:25} {figures}"),
                    Err(error) => eprintln!("  {round}/{rounds} {name:25} failed: {error}"),
                }
                report.add(scenario, contender, figures.ok());
            }
        }
        true
    }

    /// Whether what begins now could end too late.
    fn is_too_late(&self, began: Instant) -> bool {
        let longest = self.times.longest();
        self.within
            .is_some_and(|within| began.elapsed() + longest > within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_selected_for_a_quick_run_fits_into_its_time() {
        let plan = Plan {
            steps: steps(true, "", None, |_| true),
            rounds: QUICK_ROUNDS,
            times: Times::of(QUICK_SECONDS),
            within: None,
        };
        let (expected, longest) = (plan.expected(), plan.times.longest());
        assert!(
            (expected + longest).as_secs_f64() < 60.0 * QUICK_MINUTES,
            "{expected:?}"
        );
    }

    #[test]
    fn a_name_means_that_scenario_alone_and_a_part_of_names_all_of_them() {
        let names = |only: &str| -> Vec<String> {
            let steps = steps(false, only, None, |_| true).into_iter();
            steps.map(|step| step.scenario.name).collect()
        };
        let name = "fan-out, 100 receivers, 16 outstanding";
        assert_eq!(names(name), [name]);
        assert!(names("fan-out, 100 receivers, 1").len() > 3);
        assert_eq!(names("churn|idle, 1000 connections").len(), 2);
    }

    #[test]
    fn who_is_measured_on_request_takes_part_where_it_is_asked_for() {
        let names = |asked_for| -> Vec<&str> {
            let steps = steps(
                false,
                "fan-out, 100 receivers, 1 outstanding",
                asked_for,
                |_| true,
            );
            let contenders = steps[0].contenders.iter();
            contenders.map(|contender| contender.name).collect()
        };
        assert!(!names(None).iter().any(|name| name.contains("Nagle")));
        assert_eq!(names(Some("tokio-tungstenite")), ["tokio-tungstenite"]);
        assert_eq!(
            names(Some("axum, forwarded|tungstenite")),
            [
                "axum, forwarded",
                "tokio-tungstenite",
                "tokio-tungstenite, Nagle"
            ]
        );
    }
}
