//! Each comparison in small: whether measuring works and nobody fails, not how fast anything is.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Each takes both cores.
static ONE: Mutex<()> = Mutex::new(());

/// Runs it with `--quick` against the freshet beside it, which `--workspace` builds.
fn quick(what: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(what);
    // What an earlier run left is no report of this one.
    let _ = std::fs::remove_dir_all(&out);
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let output = command.args([what, "--quick", "--out"]).arg(&out).output().expect("it starts");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}: {}", output.status, said.concat());
    let json = std::fs::read(out.join(format!("{what}.json"))).expect("a report");
    assert!(json.len() > 2, "a report of nothing");
}

#[test]
fn peers() {
    quick("peers");
}

#[test]
fn attack() {
    quick("attack");
}

#[test]
fn hold() {
    quick("hold");
}

#[test]
fn push_day() {
    quick("push-day");
}
