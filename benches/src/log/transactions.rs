//! What transactions of 100 ms cost, beside none.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::case::{Case, Codec, Safety};
use super::{broker, payload, side};
use crate::Failure;
use crate::measure::{Cost, Side, alternate, report};

const LENGTH: Duration = Duration::from_millis(100);

/// As many as take some seconds, so that there are some dozens of transactions.
const RECORDS: u64 = 10_000_000;

pub(crate) fn run(runs: usize) -> Result<(), Failure> {
    let mut kafka = broker(&["transaction.state.log.num.partitions=1"]);
    for durability in Safety::ALL {
        let case = Case { records: RECORDS, bytes: 100, partitions: 1, compression: Codec::None, durability };
        let folder = tempfile::tempdir()?;
        let lines = folder.path().join("payload");
        payload::write(&lines, case.bytes)?;
        let lotic = |transaction: Option<Duration>| produce(&case, folder.path(), transaction);
        let mut sides = vec![
            Side::new("Lotic, transactions", || lotic(Some(LENGTH))),
            Side::new("Lotic, none", || lotic(None)),
        ];
        if let Some(kafka) = kafka.as_mut() {
            let case = &case;
            let lines = &lines;
            sides.push(Side::new("Kafka, transactions", || {
                Ok(kafka.produce(case, lines, Some(LENGTH))?.cost)
            }));
        }
        let rows = alternate(runs, sides)?;
        report(&format!("Transactions of {LENGTH:?}: {case}"), "records", case.records, &rows);
    }
    Ok(())
}

fn produce(case: &Case, folder: &Path, transaction: Option<Duration>) -> Result<Cost, Failure> {
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let mut arguments = case.arguments();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    arguments.extend(["--payload".to_owned(), path("payload"), "--data".to_owned(), path("data")]);
    if let Some(length) = transaction {
        arguments.extend(["--transaction-ms".to_owned(), length.as_millis().to_string()]);
    }
    Ok(side::run("produce", arguments)?.cost())
}
