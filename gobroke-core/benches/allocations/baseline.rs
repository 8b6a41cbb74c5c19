//! [`Baseline`]: what was counted before, and whether it is the same.

use std::{fs, path::PathBuf, process::ExitCode};

use allocation_counter::AllocationInfo;

/// How far a count may be from the one before: what became less can grow back unseen, so it is written down too.
const TOLERANCE: f64 = 0.05;
/// And how many allocations and bytes where there were next to none.
const NEXT_TO_NONE: [f64; 2] = [0.0005, 0.05];

/// Counts and the file with those of before. `UPDATE=1` in the environment writes the new ones there.
pub(crate) struct Baseline {
    path: PathBuf,
    /// Those that have not been counted again.
    before: Vec<(String, [f64; 2])>,
    now: String,
    wrong: Vec<String>,
}

impl Baseline {
    /// Reads the counts of before; a file that is not there has none.
    pub(crate) fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let file = fs::read_to_string(&path).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.rsplitn(3, ' ').map(str::trim);
            let bytes = words.next()?.parse().ok()?;
            let allocations = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), [allocations, bytes]))
        };
        let before = file.lines().filter_map(line).collect();
        Self {
            path,
            before,
            now: String::new(),
            wrong: Vec::new(),
        }
    }

    /// Prints what was counted for so many messages, beside what it was before.
    pub(crate) fn count(&mut self, name: &str, counted: &AllocationInfo, messages: u64) {
        let each = |count: u64| count as f64 / messages as f64;
        let now = [each(counted.count_total), each(counted.bytes_total)];
        self.now += &format!("{name} {:.4} {:.2}\n", now[0], now[1]);
        let known = self.before.iter().position(|(known, _)| known == name);
        let wrong = match known.map(|known| self.before.swap_remove(known).1) {
            None => Some("not counted before".to_owned()),
            Some(before) => {
                let is_other = |unit: usize| {
                    let allowed = (before[unit] * TOLERANCE).max(NEXT_TO_NONE[unit]);
                    (now[unit] - before[unit]).abs() > allowed
                };
                (0..2)
                    .any(is_other)
                    .then(|| format!("was {:.4} and {:.2}", before[0], before[1]))
            }
        };
        println!(
            "{name:<36} {:>8.4} allocations {:>9.2} bytes a message  {}",
            now[0],
            now[1],
            wrong.as_deref().unwrap_or_default()
        );
        self.wrong
            .extend(wrong.map(|wrong| format!("{name}: {wrong}")));
    }

    /// Fails where one is another than before, was not counted before, or is not counted any more.
    pub(crate) fn judge(mut self) -> ExitCode {
        if std::env::var_os("UPDATE").is_some() {
            return match fs::write(&self.path, self.now) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}: {error}", self.path.display());
                    ExitCode::FAILURE
                }
            };
        }
        let gone = self.before.iter();
        self.wrong
            .extend(gone.map(|(name, _)| format!("{name}: not counted any more")));
        if self.wrong.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "This is not as in {}:\n  {}\nIf that is meant, write it anew with UPDATE=1 in the environment, and say why.",
            self.path.display(),
            self.wrong.join("\n  ")
        );
        ExitCode::FAILURE
    }
}
