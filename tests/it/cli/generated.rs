//! Completions, manual pages and help.

use std::{fs, path::Path, process::Command};

use super::printed;
use crate::process::command;

const COMMANDS: [&str; 6] = ["pub", "sub", "topics", "bench", "completions", "man"];

fn run(arguments: &[&str]) -> String {
    printed(&command(&[]).args(arguments).output().unwrap())
}

#[test]
fn completions_are_valid() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        for word in ["expected-offset", "fail-on-gap", "consumer", "topics"] {
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("pub-sub.bash");
    fs::write(&file, run(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&file).output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    // As a shell completes: the commands, and the flags of one.
    let complete = |words: &str, at: &str| {
        let script = format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD={at}; _pub__sub pub-sub \"${{COMP_WORDS[{at}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file = file.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("pub-sub to", "1").trim(), "topics");
    assert_eq!(complete("pub-sub sub --fail", "2").trim(), "--fail-on-gap");
    assert_eq!(complete("pub-sub topics cr", "2").trim(), "create");
}

/// The pages are what `man` understands; without it, at least what such a page has.
#[test]
fn manual_pages_are_valid() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = directory.path().join("man1");
    run(&["man", pages.to_str().unwrap()]);
    for name in std::iter::once("pub-sub".to_owned()).chain(COMMANDS.map(|name| format!("pub-sub-{name}"))) {
        let page = pages.join(format!("{name}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{name}: {error}"));
        for part in [".TH", ".SH NAME", ".SH SYNOPSIS"] {
            assert!(text.lines().any(|line| line.starts_with(part)), "{name} has no {part}");
        }
        assert_groff_is_content(&page);
    }
}

fn assert_groff_is_content(page: &Path) {
    let groff = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output();
    // Not every machine has it.
    if let Ok(checked) = groff {
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.is_empty(), "{}: {said}", page.display());
    }
}

/// Every command has help with its exit codes, in lines that fit a terminal.
#[test]
fn every_command_has_help() {
    for name in COMMANDS {
        let help = run(&[name, "--help"]);
        assert_eq!(help, run(&["help", name]), "{name}");
        assert!(help.contains("Usage: pub-sub") && help.contains("-h, --help"), "{help}");
        if ["pub", "sub", "topics", "bench"].contains(&name) {
            assert!(help.contains("Exit codes") && help.contains("--url"), "{help}");
        }
    }
    let all = run(&["--help"]);
    assert!(COMMANDS.iter().all(|name| all.contains(&format!("\n  {name} "))), "{all}");
}
