//! The head of the page.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command};

/// What was measured how, and what it ran on.
pub fn head(rounds: usize, seconds: f64) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let tool = |name: &str| {
        let output = Command::new(name).arg("--version").output();
        output
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rounds = match rounds {
        1 => "one round".to_owned(),
        rounds => format!("{rounds} rounds"),
    };
    let mut lines = format!(
        "- commit {}, {rounds} of {seconds} s\n- {model}, {cores} cores, Linux {}",
        commit(),
        kernel.trim()
    );
    for name in ["rustc", "node", "nats-server"] {
        if let Some(version) = tool(name) {
            let prefix = if version.starts_with(name) {
                String::new()
            } else {
                format!("{name} ")
            };
            let _ = write!(lines, "\n- {prefix}{version}");
        }
    }
    let _ = writeln!(lines, "\n- {}", versions().join(", "));
    lines
}

/// The commit that was measured, and whether something was changed since.
fn commit() -> String {
    let described = Command::new("git")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// The libraries that are measured, by the files that lock them.
fn versions() -> Vec<String> {
    let lock = serde_json::from_str(include_str!("../../node/package-lock.json"));
    let lock: serde_json::Value = lock.unwrap_or_default();
    let mut versions = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../../Cargo.lock").lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        }
        if let Some(value) = line.strip_prefix("version = ") {
            versions.insert(name, value.trim_matches('"'));
        }
    }
    for name in ["ws", "socket.io"] {
        let package = &lock["packages"][format!("node_modules/{name}")];
        versions.extend(package["version"].as_str().map(|version| (name, version)));
    }
    let measured = [
        "tokio",
        "axum",
        "tokio-tungstenite",
        "fastwebsockets",
        "actix-web",
        "actix-ws",
        "socketioxide",
        "ws",
        "socket.io",
    ];
    let known = |name: &&str| Some(format!("{name} {}", versions.get(name)?));
    measured.iter().filter_map(known).collect()
}
