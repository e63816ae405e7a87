//! What is generated from the code is what stands in the repository. `UPDATE=1 cargo test --test it generated` rewrites
//! it.

use std::{env, fs, path::Path};

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
