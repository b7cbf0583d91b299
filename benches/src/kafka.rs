//! A real Kafka broker and its own performance tools (`tests/peers/kafka`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::Failure;
use crate::log::case::{BATCH_BYTES, Case, Safety};
use crate::measure::{Cost, cpu_time_of, peak_memory};
use crate::programs::{in_repository, timed};

/// The port the broker listens on; the controller takes the next one.
const PORT: u16 = 29_192;

/// Bytes of a segment of a topic that is compacted: the last one is not.
const COMPACTED_SEGMENT_BYTES: u64 = 32 << 20;

/// A broker that is stopped when this is dropped.
pub(crate) struct Kafka {
    script: PathBuf,
    settings: Vec<String>,
    /// Where it keeps its data; where the script says if absent.
    data: Option<PathBuf>,
    address: String,
    topics: u32,
}

/// What it took to start a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// From the start of its process until it answers.
    pub(crate) wall: Duration,
    /// Of this, loading its partitions.
    pub(crate) loading: Duration,
}

/// What producing took, and where the records are: a topic, new each time.
pub(crate) struct Produced {
    pub(crate) cost: Cost,
    pub(crate) topic: String,
}

impl Kafka {
    /// Starts a broker with these `name=value` settings, or says why there is none.
    pub(crate) fn start(settings: &[&str]) -> Result<Self, Failure> {
        Self::start_in(None, settings)
    }

    /// The same, with its data in this folder.
    pub(crate) fn start_in(data: Option<&Path>, settings: &[&str]) -> Result<Self, Failure> {
        let mut kafka = Self {
            script: in_repository("tests/peers/kafka/kafka"),
            settings: settings.iter().map(ToString::to_string).collect(),
            data: data.map(Path::to_path_buf),
            address: String::new(),
            topics: 0,
        };
        kafka.run()?;
        Ok(kafka)
    }

    fn run(&mut self) -> Result<Duration, Failure> {
        let mut command = Command::new(&self.script);
        command.args(["start", &PORT.to_string()]).args(&self.settings);
        if let Some(data) = &self.data {
            command.env("KAFKA_DATA", data);
        }
        let (cost, printed) = timed(&mut command)?;
        printed.trim().clone_into(&mut self.address);
        Ok(cost.wall)
    }

    /// Kills the broker with SIGKILL and starts it again. It needs a folder of its own for its data.
    pub(crate) fn kill_and_start(&mut self) -> Result<Started, Failure> {
        let pid = self.broker_pid().ok_or("the broker has no process")?;
        let pid = rustix::process::Pid::from_raw(pid as i32).ok_or("a process has a number above 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        // The controller, which has been killed too, takes the new broker for another than the old one until
        // that one's session is over. Starting takes longer than a short session.
        let wall = self.run()?;
        let said = std::fs::read_to_string(run_folder().join("log"))?;
        let loading = loading(&said).ok_or("the broker does not say how long it has loaded its logs")?;
        Ok(Started { wall, loading })
    }

    /// Produces lines of `payload` at random to a new topic; in transactions of some length if one is
    /// given. By the tool's own clock, without the start of its JVM.
    pub(crate) fn produce(
        &mut self,
        case: &Case,
        payload: &Path,
        transaction: Option<Duration>,
    ) -> Result<Produced, Failure> {
        let topic = self.create_topic(case)?;
        let broker = self.broker_cpu();
        let mut command = self.tool("ProducerPerformance");
        command
            .args(["--topic", &topic, "--num-records", &case.records.to_string(), "--throughput", "-1"])
            .arg("--payload-file")
            .arg(payload);
        if let Some(length) = transaction {
            command.args(["--transactional-id", &topic]);
            command.args(["--transaction-duration-ms", &length.as_millis().to_string()]);
        }
        command
            .args(["--command-property", if transaction.is_some() { "acks=all" } else { "acks=1" }])
            .args([&format!("batch.size={BATCH_BYTES}"), "linger.ms=5"])
            .arg(format!("compression.type={}", case.compression.name()));
        let (cost, printed) = timed(&mut command)?;
        let cpu = cost.cpu + (self.broker_cpu() - broker);
        // The last line: "1000000 records sent, 854700.9 records/sec (…), …".
        let rate = printed
            .lines()
            .rev()
            .find_map(|line| {
                line.split_once("records sent, ")?.1.split_whitespace().next()?.parse::<f64>().ok()
            })
            .ok_or_else(|| format!("no rate in what ProducerPerformance printed: {printed}"))?;
        let wall = Duration::from_secs_f64(case.records as f64 / rate);
        Ok(Produced { cost: Cost { wall, cpu, peak: cost.peak }, topic })
    }

    /// Consumes `records` of `topic`.
    pub(crate) fn consume(&self, topic: &str, records: u64) -> Result<Cost, Failure> {
        let broker = self.broker_cpu();
        let mut command = self.tool("ConsumerPerformance");
        let (cost, printed) = timed(command.args(["--topic", topic, "--num-records", &records.to_string()]))?;
        let cpu = cost.cpu + (self.broker_cpu() - broker);
        let rate = fetch_rate(&printed)
            .ok_or_else(|| format!("no rate in what ConsumerPerformance printed: {printed}"))?;
        Ok(Cost { wall: Duration::from_secs_f64(records as f64 / rate), cpu, peak: cost.peak })
    }

    /// The 50th, 99th and 99.9th percentile in microseconds, though the tool counts whole milliseconds.
    pub(crate) fn latency(&self, records: u64) -> Result<Vec<f64>, Failure> {
        let mut command = Command::new(&self.script);
        command.args(["tool", "org.apache.kafka.tools.EndToEndLatency", &self.address, "latency"]);
        let (_, printed) = timed(command.args([&records.to_string(), "1", "100"]))?;
        let line = printed.lines().find(|line| line.contains("99.9th"));
        let line =
            line.ok_or_else(|| format!("no percentiles in what EndToEndLatency printed: {printed}"))?;
        let figures = line.split('=').skip(1).filter_map(|part| {
            let digits = part.trim().split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<f64>().ok()
        });
        Ok(figures.map(|milliseconds| milliseconds * 1e3).collect())
    }

    /// Writes each of `keys` keys again and again, and has the broker compact all but the last segment: by the
    /// cleaner's own clock, as if it had compacted the last one too.
    pub(crate) fn compact(&mut self, records: u64, keys: u64, value_bytes: usize) -> Result<Cost, Failure> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        let segments = json!({"segment.bytes": COMPACTED_SEGMENT_BYTES.to_string()});
        let producer = json!({"linger.ms": "5", "batch.size": BATCH_BYTES.to_string(), "acks": "1"});
        self.client(&[
            json!({"do": "create", "topic": topic, "partitions": 1, "config": segments}),
            json!({"do": "producer", "producer": "p", "config": producer}),
            json!({"do": "fill", "producer": "p", "topic": topic, "records": records, "keys": keys,
                "bytes": value_bytes}),
        ])?;
        let before = self.broker_cpu();
        self.client(&[
            json!({"do": "alter", "topic": topic, "config": {"cleanup.policy": "compact"}}),
            json!({"do": "await-cleaned", "data": self.data()?, "topic": topic}),
        ])?;
        let cpu = self.broker_cpu() - before;
        let said = std::fs::read_to_string(run_folder().join("log"))?;
        let (seconds, compacted) = cleaned(&said, &topic)
            .ok_or_else(|| format!("the broker does not say how it compacted {topic}"))?;
        let wall = Duration::from_secs_f64(seconds * records as f64 / compacted);
        Ok(Cost { wall, cpu, peak: 0 })
    }

    /// Has Kafka's own clients do what `steps` say (`tests/peers/kafka/Client.java`).
    fn client(&self, steps: &[serde_json::Value]) -> Result<(), Failure> {
        let mut script = tempfile::NamedTempFile::new()?;
        for step in steps {
            writeln!(script, "{step}")?;
        }
        timed(Command::new(&self.script).arg("client").arg(script.path()).arg(&self.address))?;
        Ok(())
    }

    /// Where the broker keeps its partitions.
    pub(crate) fn data(&self) -> Result<PathBuf, Failure> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        Ok(std::fs::read_to_string(run_folder().join("temporary-data"))?.trim().into())
    }

    /// The most memory that the broker has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.broker_pid().map_or(0, |pid| peak_memory(&pid.to_string()))
    }

    fn create_topic(&mut self, case: &Case) -> Result<String, Failure> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        let mut command = self.tool("TopicCommand");
        command.args(["--create", "--topic", &topic, "--partitions", &case.partitions.to_string()]);
        if case.durability == Safety::Sync {
            command.args(["--config", "flush.messages=1"]);
        }
        timed(&mut command)?;
        Ok(topic)
    }

    fn tool(&self, class: &str) -> Command {
        let mut command = Command::new(&self.script);
        let class = format!("org.apache.kafka.tools.{class}");
        command.args(["tool", &class, "--bootstrap-server", &self.address]);
        command
    }

    fn broker_pid(&self) -> Option<u32> {
        std::fs::read_to_string(run_folder().join("pid")).ok()?.trim().parse().ok()
    }

    fn broker_cpu(&self) -> Duration {
        self.broker_pid().map_or(Duration::ZERO, cpu_time_of)
    }
}

/// Where the broker's script keeps what it knows of this broker.
fn run_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.unwrap_or_default().join(format!("lotic-peers/kafka/run/{PORT}"))
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // A broker that does not stop is killed by the script; there is nothing more to do here.
        let _ = Command::new(&self.script).args(["stop", &PORT.to_string()]).output();
    }
}

/// How long loading the partitions took: the broker's log has a line that ends with `Loaded 1 logs in 75ms`.
fn loading(said: &str) -> Option<Duration> {
    let took = |line: &str| {
        let (_, rest) = line.split_once("Loaded ")?.1.split_once(" logs in ")?;
        rest.split_once("ms")?.0.parse().ok()
    };
    said.lines().find_map(took).map(Duration::from_millis)
}

/// The seconds that compacting `topic` took, and the records that it had: lines of the broker's log that begin
/// with `Log cleaner thread 0 cleaned log bench-1-0`, and go on with `95.7 MB of log processed in 1.4 seconds`
/// and `Start size: 95.7 MB (416,384 messages)`.
fn cleaned(said: &str, topic: &str) -> Option<(f64, f64)> {
    let (_, report) = said.split_once(&format!("cleaned log {topic}-0 "))?;
    let number = |text: &str| text.replace(',', "").parse::<f64>().ok();
    let (_, seconds) = report.split_once("of log processed in ")?;
    let (_, records) = report.split_once("Start size:")?;
    let records = records.split_once('(')?.1.split_once(" messages")?.0;
    Some((number(seconds.split_once(" seconds")?.0)?, number(records)?))
}

/// Records per second of fetching, without joining the group: a table with a header line, the columns
/// named `fetch.nMsg.sec` among them.
fn fetch_rate(printed: &str) -> Option<f64> {
    let mut lines = printed.lines().skip_while(|line| !line.contains("fetch.nMsg.sec"));
    let column = lines.next()?.split(',').position(|name| name.trim() == "fetch.nMsg.sec")?;
    lines.find_map(|line| line.split(',').nth(column)?.trim().parse().ok())
}
