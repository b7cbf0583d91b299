//! `lotic repair`: cuts a damaged partition off before its damage.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lotic_log::{
    Log, LogOptions, Offset, PartitionId, Repair, RepairReport, TouchedTransaction, TransactionFate,
    batch::MarkerKind,
};
use serde_json::json;

use crate::Failure;
use crate::args::RepairOptions;

pub(crate) fn run(data: &Path, options: &RepairOptions) -> Result<ExitCode, Failure> {
    let repair = Repair {
        topic: options.topic.clone(),
        partition: PartitionId(options.partition),
        truncate_at: Offset(options.truncate_at),
        dry_run: options.dry_run,
    };
    let report = Log::repair(data, &LogOptions::disk()?, &repair)?;
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", describe(&report))?;
    } else {
        tell(&mut out, &report, options.dry_run)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(out: &mut impl Write, report: &RepairReport, dry_run: bool) -> io::Result<()> {
    let RepairReport { partition, cut_at, position, segments, bytes, records, .. } = report;
    let would = if dry_run { "would end" } else { "ends" };
    writeln!(
        out,
        "{partition} {would} at offset {cut_at}, in {} at position {position}",
        report.file.display()
    )?;
    write!(out, "lost: {records} records in {} batches, {bytes} bytes", report.batches)?;
    if let Some(upto) = report.lost_upto {
        write!(out, ", up to offset {upto}")?;
    }
    writeln!(out, "; {segments} whole segments; {} damaged bytes", report.damaged_bytes)?;
    for TouchedTransaction { producer_id, producer_epoch, fate } in &report.transactions {
        let fate = match fate {
            TransactionFate::Lost => "all of its records here are lost",
            TransactionFate::Aborted => "some of its records are lost; opening the log aborts it here",
            TransactionFate::MarkedAgain(MarkerKind::Commit) => {
                "its commit marker is lost; opening the log writes it again"
            }
            TransactionFate::MarkedAgain(MarkerKind::Abort) => {
                "its abort marker is lost; opening the log writes it again"
            }
            TransactionFate::Unmarked => "it has no marker; opening the log ends it",
        };
        writeln!(out, "transaction of producer {producer_id}, epoch {producer_epoch}: {fate}")?;
    }
    match &report.kept_in {
        Some(folder) => writeln!(out, "kept in {}", folder.display()),
        None => Ok(()),
    }
}

fn describe(report: &RepairReport) -> serde_json::Value {
    let fate = |fate| match fate {
        TransactionFate::Lost => "lost",
        TransactionFate::Aborted => "aborted",
        TransactionFate::MarkedAgain(MarkerKind::Commit) => "committed again",
        TransactionFate::MarkedAgain(MarkerKind::Abort) => "aborted again",
        TransactionFate::Unmarked => "unmarked",
    };
    let transaction = |touched: &TouchedTransaction| {
        json!({
            "producer_id": touched.producer_id.0,
            "producer_epoch": touched.producer_epoch.0,
            "fate": fate(touched.fate),
        })
    };
    json!({
        "topic": report.partition.topic,
        "partition": report.partition.partition.0,
        "cut_at": report.cut_at.0,
        "file": report.file,
        "position": report.position,
        "segments": report.segments,
        "bytes": report.bytes,
        "damaged_bytes": report.damaged_bytes,
        "batches": report.batches,
        "records": report.records,
        "lost_upto": report.lost_upto.map(|upto| upto.0),
        "transactions": report.transactions.iter().map(transaction).collect::<Vec<_>>(),
        "kept_in": report.kept_in,
    })
}
