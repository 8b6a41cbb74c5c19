//! What a run found, fault by fault.

use std::time::Duration;

use super::{account::Account, arena::Again, fault::Fault};

/// How much slower messages within an instance may be at a fault.
const SLOWER: f64 = 2.0;
/// How often a fault has to be tried for that to be more than chance: the 99th percentile of a second's messages is that
/// of a few.
const OFTEN: usize = 3;

/// One fault, and what came of it.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    pub(crate) again: Vec<Again>,
    pub(crate) account: Account,
    /// How long local messages took before it, and during it until all worked again, in µs.
    pub(crate) before: Vec<u64>,
    pub(crate) during: Vec<u64>,
}

impl Row {
    pub(crate) fn print(&self) {
        let Account { owed, missing } = self.account;
        let again: Vec<_> = self
            .again
            .iter()
            .map(|again| again.took.as_millis().to_string())
            .collect();
        println!(
            "{:<16} again {:>9} ms, missing {missing} of {owed:>6}, local p99 {:>6} and {:>6} µs",
            format!("{:?}", self.fault),
            again.join(" "),
            p99(&self.before),
            p99(&self.during),
        );
    }
}

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        row.print();
        self.0.push(row);
    }

    /// Prints a line for each kind of fault, and gives what was slower than it may be.
    pub(crate) fn sum_up(&self, faults: &[Fault]) -> Vec<String> {
        println!(
            "\n{:<16} {:>5} {:>22} {:>8} {:>8} {:>24}",
            "fault",
            "times",
            "again, median, largest",
            "owed",
            "missing",
            "local p99, before/during"
        );
        let mut slow = Vec::new();
        for fault in faults {
            let rows: Vec<&Row> = self.0.iter().filter(|row| row.fault == *fault).collect();
            if !rows.is_empty() {
                slow.extend(line(&format!("{fault:?}"), &rows));
            }
        }
        let all: Vec<&Row> = self.0.iter().collect();
        slow.extend(slower("all", &all));
        slow
    }
}

/// The medians of the 99th percentiles before and during some faults.
fn percentiles(rows: &[&Row]) -> (u64, u64) {
    let before = rows.iter().map(|row| p99(&row.before));
    let during = rows.iter().map(|row| p99(&row.during));
    (median(before.collect()), median(during.collect()))
}

fn slower(name: &str, rows: &[&Row]) -> Option<String> {
    let (before, during) = percentiles(rows);
    let slower = rows.len() >= OFTEN && during as f64 > SLOWER * before as f64;
    slower.then(|| format!("{name}: p99 of local messages {during} µs, {before} µs before"))
}

fn line(name: &str, rows: &[&Row]) -> Vec<String> {
    let again: Vec<Again> = rows.iter().flat_map(|row| row.again.clone()).collect();
    let took: Vec<Duration> = again.iter().map(|again| again.took).collect();
    let sum = |of: fn(&Account) -> u64| rows.iter().map(|row| of(&row.account)).sum::<u64>();
    let (before, during) = percentiles(rows);
    println!(
        "{:<16} {:>5} {:>11} {:>7} ms {:>8} {:>8} {before:>13} {during:>7} µs",
        name,
        rows.len(),
        median(took.clone()).as_millis(),
        took.iter().max().map_or(0, Duration::as_millis),
        sum(|account| account.owed),
        sum(|account| account.missing),
    );
    let late = again.iter().filter(|again| again.took > again.bound);
    let mut slow: Vec<String> = late
        .map(|Again { took, bound }| format!("{name}: again after {took:?}, not {bound:?}"))
        .collect();
    slow.extend(slower(name, rows));
    slow
}

fn p99(times: &[u64]) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = times.len() * 99 / 100;
    times.get(at).copied().unwrap_or_default()
}

fn median<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
