//! The documents tell the truth: every row of docs/threats.md is there, and every test it names exists.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const THREATS: &str = include_str!("../docs/threats.md");

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Row name, state, names of tests.
fn rows() -> Vec<(String, String, Vec<String>)> {
    let rows = THREATS.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let name = cells[0].to_owned();
        let is_row =
            name.starts_with(['R', 'A', 'T']) && name.chars().skip(1).all(|c| c.is_ascii_digit()) && name.len() > 1;
        let tests = cells.last()?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        is_row.then(|| (name, cells[cells.len() - 2].to_owned(), tests))
    });
    rows.collect()
}

#[test]
fn every_row_is_listed_once() {
    let mut expected: BTreeSet<String> = (1..=9).map(|number| format!("R{number}")).collect();
    expected.extend((1..=33).map(|number| format!("A{number}")));
    expected.extend([1, 2, 3, 4, 5, 6, 8, 9, 10, 16, 20].map(|number| format!("T{number}")));
    let names: Vec<String> = rows().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "a row stands twice");
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn every_test_that_a_row_names_exists_and_a_row_that_holds_names_one() {
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut code);
    }
    for (name, state, tests) in rows() {
        assert!(["holds", "in part", "open"].contains(&state.as_str()), "{name}: {state:?}");
        assert_eq!(tests.is_empty(), state == "open", "{name} is {state:?} and names {tests:?}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "{name} names {test}, which does not exist");
        }
    }
}

#[test]
fn every_folder_and_file_that_the_overview_names_exists() {
    let overview = include_str!("../docs/overview.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for line in overview.lines().filter(|line| line.starts_with("| `")) {
        for name in line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            if name.contains("::") {
                continue;
            }
            let places = [root.join(name), root.join("src").join(name), root.join("src").join(format!("{name}.rs"))];
            assert!(places.iter().any(|place| place.exists()), "docs/overview.md names {name}");
            checked += 1;
        }
    }
    assert!(checked > 10);
}

#[test]
fn every_fuzz_body_of_the_library_is_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    let targets = fs::read_to_string(root.join("fuzz/fuzz_targets/any.rs")).unwrap();
    let bodies: BTreeSet<&str> =
        code.split("pub fn fuzz_").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name).collect();
    assert!(bodies.len() > 30, "only {bodies:?} were found");
    for body in bodies {
        assert!(targets.contains(&format!("fuzz_{body})")), "fuzz_{body} is missing in fuzz/fuzz_targets/any.rs");
    }
}
