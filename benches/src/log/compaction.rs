//! How fast a topic is compacted, beside a plain copy of its bytes.

use super::side;
use crate::Failure;
use crate::measure::{Side, alternate, report};

const RECORDS: u64 = 2_000_000;

/// Each key is written ten times.
const KEYS: u64 = RECORDS / 10;

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, file) = (path("data"), path("plain"));
    let mut bytes = 0.0;
    let lotic = || {
        if folder.path().join("data").exists() {
            std::fs::remove_dir_all(folder.path().join("data"))?;
        }
        let (records, keys) = (RECORDS.to_string(), KEYS.to_string());
        let told = side::run("compact", ["--records", &records, "--keys", &keys, "--data", &data])?;
        bytes = told.more.first().copied().unwrap_or_default();
        Ok(told.cost())
    };
    let plain = || {
        let size = side::segment_bytes(folder.path().join("data").as_path(), super::case::TOPIC)?.to_string();
        Ok(side::run("write", ["--bytes", &size, "--durability", "os", "--file", &file])?.cost())
    };
    let rows =
        alternate(runs, vec![Side::new("Lotic", lotic), Side::new("plain loop, what is left", plain)])?;
    report("Compaction: every key written ten times", "records", RECORDS, &rows);
    if let Some((_, median)) = rows.first() {
        println!("  Lotic: {:.0} MB/s", bytes / median.wall / 1e6);
    }
    Ok(())
}
