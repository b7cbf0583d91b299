//! A real Kafka broker and its own performance tools (`tests/peers/kafka`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::measure::{Cost, cpu_time_of};
use crate::programs::{in_repository, timed};

/// The port the broker listens on; the controller takes the next one.
const PORT: u16 = 29_192;

/// A broker that is stopped when this is dropped.
pub(crate) struct Kafka {
    script: PathBuf,
    address: String,
    topics: u32,
}

impl Kafka {
    /// Starts a broker, or says why there is none: Java or Maven missing is no failure of ours.
    pub(crate) fn start() -> Result<Self, Failure> {
        let script = in_repository("tests/peers/kafka/kafka");
        let (_, printed) = timed(Command::new(&script).args(["start", &PORT.to_string()]))?;
        let address = printed.trim().to_owned();
        Ok(Self { script, address, topics: 0 })
    }

    /// Produces the lines of `payload`, at random, until `records` are written; to a new topic of one
    /// partition, which is returned. The tool's own clock, without the start of its JVM.
    pub(crate) fn produce(&mut self, payload: &Path, records: u64) -> Result<(Cost, String), Failure> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        let broker = self.broker_cpu();
        let (cost, printed) = timed(
            Command::new(&self.script)
                .args(["tool", "org.apache.kafka.tools.ProducerPerformance"])
                .args(["--bootstrap-server", &self.address, "--topic", &topic])
                .args(["--num-records", &records.to_string(), "--throughput", "-1"])
                .arg("--payload-file")
                .arg(payload)
                .args(["--command-property", "acks=1", "batch.size=262144", "linger.ms=5"]),
        )?;
        let cpu = cost.cpu + (self.broker_cpu() - broker);
        // The last line: "1000000 records sent, 854700.9 records/sec (…), …".
        let rate = printed
            .lines()
            .rev()
            .find_map(|line| {
                line.split_once("records sent, ")?.1.split_whitespace().next()?.parse::<f64>().ok()
            })
            .ok_or_else(|| format!("no rate in what ProducerPerformance printed: {printed}"))?;
        Ok((Cost { wall: Duration::from_secs_f64(records as f64 / rate), cpu }, topic))
    }

    /// Consumes `records` of `topic`.
    pub(crate) fn consume(&self, topic: &str, records: u64) -> Result<Cost, Failure> {
        let broker = self.broker_cpu();
        let (cost, printed) = timed(
            Command::new(&self.script)
                .args(["tool", "org.apache.kafka.tools.ConsumerPerformance"])
                .args(["--bootstrap-server", &self.address, "--topic", topic])
                .args(["--num-records", &records.to_string()]),
        )?;
        let cpu = cost.cpu + (self.broker_cpu() - broker);
        let rate = fetch_rate(&printed)
            .ok_or_else(|| format!("no rate in what ConsumerPerformance printed: {printed}"))?;
        Ok(Cost { wall: Duration::from_secs_f64(records as f64 / rate), cpu })
    }

    fn broker_cpu(&self) -> Duration {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let file = cache.unwrap_or_default().join(format!("lotic-peers/kafka/run/{PORT}/pid"));
        let pid = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        pid.map_or(Duration::ZERO, cpu_time_of)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // A broker that does not stop is killed by the script; there is nothing more to do here.
        let _ = Command::new(&self.script).args(["stop", &PORT.to_string()]).output();
    }
}

/// Records per second of fetching, without joining the group: a table with a header line, the columns
/// named `fetch.nMsg.sec` among them.
fn fetch_rate(printed: &str) -> Option<f64> {
    let mut lines = printed.lines().skip_while(|line| !line.contains("fetch.nMsg.sec"));
    let column = lines.next()?.split(',').position(|name| name.trim() == "fetch.nMsg.sec")?;
    lines.find_map(|line| line.split(',').nth(column)?.trim().parse().ok())
}
