//! What is generated from the code is what stands in the repository. `UPDATE=1 cargo test --test it generated` rewrites
//! it.

use std::{env, fs, path::Path, process::Command};

fn compare(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "{file} is out of date; UPDATE=1 cargo test --test it generated rewrites it");
}

#[test]
fn schema() {
    compare("schema.graphql", &pub_sub::graphql::sdl(false));
}

/// Every type, field, argument and value says what it is.
#[test]
fn the_schema_is_described() {
    let sdl = pub_sub::graphql::sdl(false);
    let lines: Vec<_> = sdl.lines().map(str::trim).collect();
    let mut text = false;
    for (at, line) in lines.iter().enumerate() {
        if *line == "\"\"\"" {
            text = !text;
        }
        // What is no text and closes nothing is a definition.
        let bare = text || line.is_empty() || line.starts_with([')', '}', '"']) || line.contains("schema {");
        let root = ["query:", "mutation:", "subscription:"].iter().any(|root| line.starts_with(root));
        assert!(bare || root || lines[at - 1] == "\"\"\"", "no description: {line}");
    }
}

#[test]
fn settings_table() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (before, rest) = readme.split_once("<!-- settings -->\n").expect("the README has the table's marker");
    let (_, after) = rest.split_once("<!-- /settings -->").expect("the README has the table's end marker");
    let table = pub_sub::config::settings_table();
    compare("README.md", &format!("{before}<!-- settings -->\n{table}<!-- /settings -->{after}"));
}

#[test]
fn error_codes() {
    let protocol = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")).unwrap();
    for code in pub_sub::problem::Code::ALL {
        let cell = format!("| `{}` |", code.as_str());
        assert!(protocol.contains(&cell), "docs/protocol.md has no row for {}", code.as_str());
    }
}

/// The image builds its dependencies from the manifest and stand-ins for what that names: nothing may be missing there.
#[test]
fn the_image_has_every_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let (_, rest) = dockerfile.split_once("COPY Cargo.toml Cargo.lock ./\nRUN ").expect("a layer of dependencies");
    let (stand_ins, _) = rest.split_once("&& cargo build").expect("a build of them");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root.join(file), directory.path().join(file)).unwrap();
    }
    let script =
        format!("{} && exec \"$0\" metadata --no-deps --offline --format-version 1", stand_ins.replace("\\\n", ""));
    let output = Command::new("sh").arg("-ec").arg(script).arg(env!("CARGO")).current_dir(directory.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // This command leaves out what is not there; a build fails for it.
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found["packages"][0]["targets"].as_array().unwrap();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let sections = manifest.split("\n[[").skip(1).map(|section| section.split('"').nth(1).unwrap());
    for name in sections.chain(["pub-sub", "pub_sub"]) {
        assert!(found.iter().any(|target| target["name"] == name), "no file for {name}: {found:?}");
    }
}
