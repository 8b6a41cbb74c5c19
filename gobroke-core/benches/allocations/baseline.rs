//! [`Baseline`]: what was counted before, and whether it grew.

use std::{fs, path::PathBuf, process::ExitCode};

use allocation_counter::AllocationInfo;

/// What a count may be above the one before.
const TOLERANCE: f64 = 1.05;
/// And where there was none before: a twentieth of an allocation is a buffer that grew now and then.
const NONE: f64 = 0.05;

/// Counts and the file with those of before. `UPDATE=1` in the environment writes the new ones there.
pub(crate) struct Baseline {
    path: PathBuf,
    before: Vec<(String, [f64; 2])>,
    now: String,
    grew: bool,
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
            grew: false,
        }
    }

    /// Prints what was counted for so many messages, beside what it was before.
    pub(crate) fn count(&mut self, name: &str, counted: &AllocationInfo, messages: u64) {
        let each = |count: u64| count as f64 / messages as f64;
        let now = [each(counted.count_total), each(counted.bytes_total)];
        self.now += &format!("{name} {:.3} {:.1}\n", now[0], now[1]);
        let before = self
            .before
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, before)| *before);
        let verdict = match before {
            None => "not counted before".to_owned(),
            Some(before)
                if now
                    .iter()
                    .zip(before)
                    .any(|(now, before)| *now > (before * TOLERANCE).max(NONE)) =>
            {
                self.grew = true;
                format!("GREW from {:.3} and {:.1}", before[0], before[1])
            }
            Some(_) => String::new(),
        };
        println!(
            "{name:<36} {:>7.3} allocations {:>9.1} bytes a message  {verdict}",
            now[0], now[1]
        );
    }

    /// Fails where one grew, or was not counted before.
    pub(crate) fn judge(self) -> ExitCode {
        if std::env::var_os("UPDATE").is_some() {
            return match fs::write(&self.path, self.now) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}: {error}", self.path.display());
                    ExitCode::FAILURE
                }
            };
        }
        let same = self.before.len() == self.now.lines().count();
        if self.grew || !same {
            eprintln!(
                "More is allocated than {} allows. If that is meant, run again with UPDATE=1 and say why.",
                self.path.display()
            );
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}
