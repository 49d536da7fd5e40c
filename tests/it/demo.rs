//! The first thing that a newcomer runs.

use super::support::said;
use std::process::Command;

#[test]
fn the_demo_keeps_all_its_promises() {
    let output = Command::new(env!("CARGO_BIN_EXE_freshet")).args(["demo", "--once"]).output().unwrap();
    let text = said(&output);
    println!("{text}");
    assert!(output.status.success(), "{text}");
    for step in ["detected", "warmed", "offered", "fresh", "closed", "redirected"] {
        assert!(text.contains(step), "no {step} in\n{text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
}
