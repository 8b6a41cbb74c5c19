//! A flame graph of a server under a load, by `perf`.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use inferno::{
    collapse::{Collapse, perf},
    flamegraph,
};

use crate::{
    load::Generator,
    scenario::Scenario,
    server::{Contender, Server},
};

/// Stacks are taken whole and unwound later. Frame pointers would not do: every call of the system goes through glibc,
/// which has none, and 82 % of the samples of a fan-out ended there.
const STACKS: &str = "dwarf,16384";

/// How long it is looked at, and how many times a second; not a round number, so that it meets no timer.
const TIME: Duration = Duration::from_secs(5);
const FREQUENCY: &str = "997";

/// Writes the flame graph, and gives its path.
///
/// # Errors
/// Where `perf` is not installed or may not look, and for a scenario that has no load.
pub fn draw(contender: &Contender, scenario: &Scenario, folder: &Path) -> io::Result<PathBuf> {
    let Some(&load) = scenario.kind.load() else {
        return Err(io::Error::other(
            "only scenarios with a load can be profiled",
        ));
    };
    std::fs::create_dir_all(folder)?;
    let samples = folder.join("perf.data");
    let server = Server::start(contender, load.mode)?;
    let generator = Generator::connect(load, contender.dialect, server.address)?;
    let mut perf = Command::new("perf")
        .args([
            "record",
            "-q",
            "--call-graph",
            STACKS,
            "-F",
            FREQUENCY,
            "-o",
        ])
        .arg(&samples)
        .args([
            "-p",
            &server.pid().to_string(),
            "--",
            "sleep",
            &TIME.as_secs().to_string(),
        ])
        .spawn()
        .map_err(|error| {
            io::Error::other(format!("perf (Debian: linux-perf) did not start: {error}"))
        })?;
    generator.run(Duration::ZERO, TIME + Duration::from_secs(1), |_| {})?;
    if !perf.wait()?.success() {
        return Err(io::Error::other("perf failed; see what it said above"));
    }
    let mut script = Command::new("perf")
        // Inlined functions are looked up one by one, which takes minutes.
        .args(["script", "--no-inline", "-i"])
        .arg(&samples)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stacks = script
        .stdout
        .take()
        .map(BufReader::new)
        .ok_or(io::ErrorKind::BrokenPipe)?;
    let mut collapsed = Vec::new();
    perf::Folder::from(perf::Options::default()).collapse(stacks, &mut collapsed)?;
    if !script.wait()?.success() {
        return Err(io::Error::other("perf could not read what it had recorded"));
    }
    let name: String = scenario
        .name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    let path = folder.join(format!("profile-{name}.svg"));
    let mut options = flamegraph::Options::default();
    options.title = format!("{}: {}", contender.name, scenario.name);
    let graph = BufWriter::new(File::create(&path)?);
    flamegraph::from_reader(&mut options, collapsed.as_slice(), graph).map_err(io::Error::other)?;
    Ok(path)
}
