//! Produce and consume.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::case::{Case, Codec, Safety, TOPIC};
use super::{broker, payload, side};
use crate::Failure;
use crate::kafka::{Kafka, Produced};
use crate::measure::{Cost, Side, alternate, report, report_bytes};

/// Records of a case, by the size of one: up to a gigabyte, and fewer where each batch is synced.
const SIZES: [(usize, u64, u64); 2] = [(100, 5_000_000, 3_000_000), (1_000, 1_000_000, 500_000)];

/// Appends and reads records of 100 B and 1 KB, as they come and in one partition.
pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let simple = |case: &Case| {
        case.partitions == 1 && case.compression == Codec::None && case.durability == Safety::Os
    };
    run_cases(runs, cases().filter(simple))
}

/// All sizes, numbers of partitions, codecs and durabilities.
pub(crate) fn run_grid(runs: usize) -> Result<(), Failure> {
    run_cases(runs, cases())
}

fn cases() -> impl Iterator<Item = Case> {
    let durabilities = Safety::ALL.into_iter();
    durabilities.flat_map(|durability| {
        SIZES.into_iter().flat_map(move |(bytes, records, synced)| {
            let records = if durability == Safety::Sync { synced } else { records };
            [1, 6].into_iter().flat_map(move |partitions| {
                Codec::ALL.map(|compression| Case { records, bytes, partitions, compression, durability })
            })
        })
    })
}

fn run_cases(runs: usize, cases: impl Iterator<Item = Case>) -> Result<(), Failure> {
    let mut kafka = broker(&[]);
    for case in cases {
        measure(&case, runs, kafka.as_mut())?;
    }
    if let Some(kafka) = kafka {
        println!("\nKafka's broker, at its peak: {} MB of memory", kafka.peak_memory() >> 20);
    }
    Ok(())
}

/// The folder that one case is measured in.
struct Bench<'a> {
    folder: TempDir,
    case: &'a Case,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn produce(&self) -> Result<Cost, Failure> {
        let data = self.path("data");
        if Path::new(&data).exists() {
            fs::remove_dir_all(&data)?;
        }
        let mut arguments = self.case.arguments();
        arguments.extend(["--payload".to_owned(), self.path("payload"), "--data".to_owned(), data]);
        Ok(side::run("produce", arguments)?.cost())
    }

    fn consume(&self) -> Result<Cost, Failure> {
        let (records, data) = (self.case.records.to_string(), self.path("data"));
        Ok(side::run("consume", ["--records", &records, "--data", &data])?.cost())
    }

    fn write(&self) -> Result<Cost, Failure> {
        // What the log has written, headers of batches and of records and compression included.
        let bytes = side::segment_bytes(&self.folder.path().join("data"), TOPIC)?.to_string();
        let mut arguments = self.plain_files();
        arguments.extend(["--bytes", &bytes, "--durability", self.case.durability.name()].map(str::to_owned));
        Ok(side::run("write", arguments)?.cost())
    }

    fn read(&self) -> Result<Cost, Failure> {
        Ok(side::run("read", self.plain_files())?.cost())
    }

    /// What the plain loop writes and reads: a file for each partition.
    fn plain_files(&self) -> Vec<String> {
        let files = (0..self.case.partitions).map(|partition| self.path(&format!("plain-{partition}")));
        files.flat_map(|file| ["--file".to_owned(), file]).collect()
    }
}

fn measure(case: &Case, runs: usize, mut kafka: Option<&mut Kafka>) -> Result<(), Failure> {
    let bench = Bench { folder: tempfile::tempdir()?, case };
    payload::write(&bench.folder.path().join("payload"), case.bytes)?;
    let mut written = None;

    let mut sides = vec![Side::new("Lotic", || bench.produce()), Side::new("plain loop", || bench.write())];
    if let Some(kafka) = kafka.as_deref_mut() {
        sides.push(Side::new("Kafka", || {
            let Produced { cost, topic } = kafka.produce(case, &bench.folder.path().join("payload"), None)?;
            written = Some(topic);
            Ok(cost)
        }));
    }
    let produced = alternate(runs, sides)?;
    report(&format!("Produce: {case}"), "records", case.records, &produced);
    let own = side::segment_bytes(&bench.folder.path().join("data"), TOPIC)?;
    let theirs = match (&kafka, &written) {
        (Some(kafka), Some(topic)) => Some(side::segment_bytes(&kafka.data()?, topic)?),
        _ => None,
    };
    report_bytes(case.records, own, theirs, &produced);

    let mut sides = vec![Side::new("Lotic", || bench.consume()), Side::new("plain loop", || bench.read())];
    if let (Some(kafka), Some(topic)) = (kafka, &written) {
        sides.push(Side::new("Kafka", || kafka.consume(topic, case.records)));
    }
    let consumed = alternate(runs, sides)?;
    report(&format!("Consume: {case}"), "records", case.records, &consumed);
    Ok(())
}
