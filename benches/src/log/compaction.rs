//! How fast a topic is compacted, beside a plain copy of what is left and beside Kafka's log cleaner.

use super::{broker, side};
use crate::Failure;
use crate::measure::{Side, alternate, report};

const RECORDS: u64 = 2_000_000;

/// Each key is written ten times.
const KEYS: u64 = RECORDS / 10;

/// Bytes of each value.
const VALUE_BYTES: usize = 200;

/// How often Kafka's cleaner looks whether there is something to do.
const KAFKA_LOOKS: &str = "log.cleaner.backoff.ms=100";

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let mut kafka = broker(&[KAFKA_LOOKS]);
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, file) = (path("data"), path("plain"));
    let mut bytes = 0.0;
    let lotic = || {
        if folder.path().join("data").exists() {
            std::fs::remove_dir_all(folder.path().join("data"))?;
        }
        let [records, keys, value] = [RECORDS, KEYS, VALUE_BYTES as u64].map(|number| number.to_string());
        let arguments = ["--records", &records, "--keys", &keys, "--value-bytes", &value, "--data", &data];
        let told = side::run("compact", arguments)?;
        bytes = told.more.first().copied().unwrap_or_default();
        Ok(told.cost())
    };
    let plain = || {
        let size = side::segment_bytes(folder.path().join("data").as_path(), super::case::TOPIC)?.to_string();
        Ok(side::run("write", ["--bytes", &size, "--durability", "os", "--file", &file])?.cost())
    };
    let mut sides = vec![Side::new("Lotic", lotic), Side::new("plain loop, what is left", plain)];
    if let Some(kafka) = &mut kafka {
        sides.push(Side::new("Kafka's log cleaner", || kafka.compact(RECORDS, KEYS, VALUE_BYTES)));
    }
    let rows = alternate(runs, sides)?;
    report("Compaction: every key written ten times", "records", RECORDS, &rows);
    if let Some((_, median)) = rows.first() {
        println!("  Lotic: {:.0} MB/s", bytes / median.wall / 1e6);
    }
    Ok(())
}
