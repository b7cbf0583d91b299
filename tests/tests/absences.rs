//! Dependencies point one way only, and what has one place is found in one place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// The packages that `package` needs to be built and run, itself not among them.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env::var_os("CARGO").expect("cargo sets CARGO for a test"))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("names of packages are UTF-8");
    let mut names: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.remove(package), "cargo tree lists {package} itself");
    names
}

#[track_caller]
fn check_absent(package: &str, absent: &[&str]) {
    let dependencies = dependencies(package);
    for name in absent {
        assert!(
            !dependencies.contains(*name),
            "{package} must not depend on {name}; see `cargo tree -i {name}`"
        );
    }
}

/// The Rust files below `folder` that have `text` in a line which is not a comment.
fn files_with(folder: &str, text: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = fs::read_to_string(&path).expect("source is UTF-8");
                if code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(text)) {
                    found.insert(path.strip_prefix(root()).expect("below the root").to_owned());
                }
            }
        }
    }
    found
}

const PRODUCT: [&str; 5] = ["log/src", "engine/src", "dsl/src", "connectors/src", "cli/src"];

#[track_caller]
fn check_only_in(text: &str, places: &[&str]) {
    let found: BTreeSet<_> = PRODUCT.iter().flat_map(|folder| files_with(folder, text)).collect();
    for file in found {
        assert!(places.iter().any(|place| file.starts_with(place)), "{} has `{text}`", file.display());
    }
}

#[test]
fn the_log_knows_no_rocksdb_no_tokio_and_no_user_type() {
    check_absent("lotic-log", &["rocksdb", "librocksdb-sys", "tokio", "serde", "lotic-engine", "lotic"]);
}

#[test]
fn the_engine_knows_no_tokio_and_no_front_door() {
    check_absent("lotic-engine", &["tokio", "lotic", "lotic-connectors", "lotic-cli"]);
}

#[test]
fn the_front_door_knows_no_external_system() {
    check_absent("lotic", &["tokio", "lotic-connectors", "lotic-cli"]);
}

#[test]
fn connectors_do_not_know_the_front_door() {
    check_absent("lotic-connectors", &["lotic", "lotic-cli"]);
}

#[test]
fn the_command_knows_the_log_alone() {
    let absent = ["lotic-engine", "lotic", "lotic-connectors", "rocksdb", "librocksdb-sys", "tokio"];
    check_absent("lotic-cli", &absent);
}

#[test]
fn nothing_depends_on_examples_tests_and_benchmarks() {
    for package in ["lotic-log", "lotic-engine", "lotic", "lotic-connectors", "lotic-cli"] {
        check_absent(package, &["lotic-examples", "lotic-tests", "lotic-benches"]);
    }
}

#[test]
fn rocksdb_is_imported_in_one_file_and_its_tests() {
    check_only_in("rocksdb::", &["engine/src/state/rocks.rs", "engine/src/state/rocks/tests.rs"]);
}

#[test]
fn clocks_sleeping_and_threads_have_one_place_each() {
    check_only_in("Instant::now(", &["log/src/clock.rs"]);
    check_only_in("SystemTime::now(", &["log/src/clock.rs"]);
    check_only_in("thread::sleep(", &[]);
    check_only_in("thread::spawn(", &["log/src/spawn.rs"]);
    check_only_in("thread::Builder", &["log/src/spawn.rs"]);
}

#[test]
fn a_ban_that_is_lifted_says_why() {
    for folder in PRODUCT {
        for file in files_with(folder, "clippy::disallowed_methods") {
            let code = fs::read_to_string(root().join(&file)).expect("source is UTF-8");
            for line in code.lines().filter(|line| line.contains("clippy::disallowed_methods")) {
                assert!(line.contains("reason ="), "{}: {line}", file.display());
            }
        }
    }
}
