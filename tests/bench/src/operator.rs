//! The operator as a process, and what it costs.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    error::{Error, Result},
    load::{LOOK, until},
    world::HOME,
};

/// For a start or an end.
const PATIENCE: Duration = Duration::from_secs(300);
/// For how long nothing happens before it is at rest.
const QUIET: Duration = Duration::from_secs(3);
/// How much of a log is shown when it has ended.
const TAIL_LINES: usize = 15;
/// The reasons of a resource that is as it should be.
const GOOD: [&str; 5] = ["Created", "Updated", "Rotated", "Adopted", "InSync"];

/// The programs, which are built beside this one.
pub struct Programs {
    pub operator: PathBuf,
    controlplane: PathBuf,
    /// Where the logs of operators go.
    logs: PathBuf,
}

impl Programs {
    /// Looks beside this program.
    pub fn find(logs: PathBuf) -> Result<Self> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| {
            let path = own.with_file_name(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Error::Wrong(format!("{} is not there: run `make bench`", path.display())))
        };
        Ok(Self { operator: beside("toolzz-operator")?, controlplane: beside("controlplane")?, logs })
    }

    /// The log of one of several: that of the last with this number is kept.
    pub fn log(&self, number: usize) -> PathBuf {
        self.logs.join(format!("operator-{number}.log"))
    }
}

/// A running operator; killed when dropped, and when this process ends.
pub struct Operator {
    child: Child,
    log: PathBuf,
    http: reqwest::Client,
    address: Option<SocketAddr>,
    /// When it was executed.
    pub began: Instant,
}

/// Resident memory, in megabytes of 10^6 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

impl Operator {
    /// To be called on the main thread: the process ends with the thread that started it.
    pub fn start(
        programs: &Programs,
        path: PathBuf,
        arguments: &[String],
        kubeconfig: &Path,
        http: &reqwest::Client,
    ) -> Result<Self> {
        let log = File::create(&path).map_err(Error::file(&path))?;
        let began = Instant::now();
        let child = Command::new(&programs.controlplane)
            .arg("tied")
            .arg(std::process::id().to_string())
            .arg(&programs.operator)
            .args(arguments)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", HOME)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, log: path, http: http.clone(), address: None, began })
    }

    /// Waits until it works: it leads and its caches are filled.
    pub async fn until_working(&mut self) -> Result<Duration> {
        // A process that stands by is ready too: to lead comes first.
        until("the operator leads", PATIENCE, LOOK / 5, async || {
            Ok((self.metric("toolzz_operator_leader").await? == Some(1.0)).then_some(()))
        })
        .await?;
        self.until_ready().await?;
        Ok(self.began.elapsed())
    }

    /// Waits until it is ready to work when another ends.
    pub async fn until_ready(&mut self) -> Result<()> {
        until("the operator is ready", PATIENCE, LOOK / 5, async || {
            Ok((self.get("/readyz").await?.is_some_and(|(code, _)| code == 200)).then_some(()))
        })
        .await
    }

    /// Status code and body; `None` while it does not listen.
    async fn get(&mut self, path: &str) -> Result<Option<(u16, String)>> {
        self.assert_alive()?;
        let Some(address) = self.listens()? else { return Ok(None) };
        let Ok(answer) = self.http.get(format!("http://{address}{path}")).send().await else { return Ok(None) };
        Ok(Some((answer.status().as_u16(), answer.text().await?)))
    }

    /// Where it serves, as it logged.
    fn listens(&mut self) -> Result<Option<SocketAddr>> {
        if self.address.is_none() {
            let log = fs::read_to_string(&self.log).map_err(Error::file(&self.log))?;
            let line = log.lines().find(|line| line.contains("http server listening"));
            let address = line
                .and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["addr"].as_str()?.parse().ok());
            self.address = address;
        }
        Ok(self.address)
    }

    fn assert_alive(&mut self) -> Result<()> {
        self.child.try_wait()?.map_or(Ok(()), |status| Err(self.ended(status)))
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        Error::Ended { status, log: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n") }
    }

    pub async fn metrics(&mut self) -> Result<Metrics> {
        Ok(Metrics(self.get("/metrics").await?.map(|(_, text)| text).unwrap_or_default()))
    }

    async fn metric(&mut self, name: &str) -> Result<Option<f64>> {
        Ok(self.metrics().await?.value(name))
    }

    /// Waits until so many resources are as they should be.
    pub async fn until_good(&mut self, count: usize, limit: Duration) -> Result<()> {
        let what = format!("{count} resources are as they should be");
        until(&what, limit, LOOK, async || Ok((self.metrics().await?.good() >= count as f64).then_some(()))).await
    }

    /// Waits until so many have this reason.
    pub async fn until_reason(&mut self, reason: &str, count: usize, limit: Duration) -> Result<()> {
        let what = format!("{count} resources are {reason}");
        until(&what, limit, LOOK, async || Ok((self.metrics().await?.of_reason(reason) >= count as f64).then_some(())))
            .await
    }

    /// Waits until so many passes were made since it began, and then nobody waits, no call is made and nothing is told. When
    /// that began. Routine passes may go on: of very many resources it is always somebody's turn.
    pub async fn until_quiet(&mut self, passes: usize, limit: Duration) -> Result<Instant> {
        let (mut last, mut since) = ((None, None), Instant::now());
        until("the operator is at rest", limit, LOOK * 4, async || {
            let metrics = self.metrics().await?;
            let value = |name: &str| metrics.value(name);
            // Events are written in the background, and may be late.
            let now = (value("toolzz_operator_remote_calls_total"), value("toolzz_operator_events_total"));
            let busy = [value("toolzz_operator_queue_length"), value("toolzz_operator_reconciles_running")];
            if now != last || busy != [Some(0.0); 2] {
                (last, since) = (now, Instant::now());
            }
            Ok((metrics.passes() >= passes as f64 && since.elapsed() >= QUIET).then_some(since))
        })
        .await
    }

    pub fn memory(&self) -> Result<Memory> {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        memory(&text).ok_or_else(|| Error::Wrong(format!("{} has no VmRSS and VmHWM", path.display())))
    }

    /// Processor time used since it began.
    pub fn cpu(&self) -> Result<Duration> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.child.id()));
        let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        let ticks = ticks(&text).ok_or_else(|| Error::Wrong(format!("{} cannot be read", path.display())))?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// SIGTERM, as a rollout does; waits until it has ended.
    pub async fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(std::io::Error::from)?;
        let status = until("the operator ends", PATIENCE, LOOK, async || Ok(self.child.try_wait()?)).await?;
        if status.success() { Ok(()) } else { Err(self.ended(status)) }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the operator says of itself. It is asked when to stop the clock; what came of it is verified elsewhere.
pub struct Metrics(String);

impl Metrics {
    /// The sum over the lines of this name.
    fn value(&self, name: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let (labelled, value) = line.rsplit_once(' ')?;
            (labelled.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// How many resources have this reason.
    pub fn of_reason(&self, reason: &str) -> f64 {
        let line = format!("toolzz_operator_resources{{reason=\"{reason}\"}} ");
        self.0.lines().find_map(|one| one.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
    }

    /// How many resources are as they should be.
    pub fn good(&self) -> f64 {
        GOOD.iter().map(|reason| self.of_reason(reason)).sum()
    }

    /// How many resources there are; `None`: it did not answer.
    pub fn resources(&self) -> Option<f64> {
        self.value("toolzz_operator_resources")
    }

    /// How many shards it works on.
    pub fn shards(&self) -> f64 {
        self.value("toolzz_operator_shard").unwrap_or_default()
    }

    pub fn passes(&self) -> f64 {
        self.value("toolzz_operator_reconciles_total").unwrap_or_default()
    }
}

/// From `/proc/PID/status`, which has kilobytes of 1024 bytes.
fn memory(status: &str) -> Option<Memory> {
    let value = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(rest.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0 / 1e6)
    };
    Some(Memory { now: value("VmRSS:")?, peak: value("VmHWM:")? })
}

/// User and system time of `/proc/PID/stat`: fields 14 and 15. The second is the name, which may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tx\nVmHWM:\t   50000 kB\nVmRSS:\t   40000 kB\n";
        assert_eq!(memory(status), Some(Memory { now: 40.96, peak: 51.2 }));
        assert_eq!(memory("Name:\tx\n"), None);
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 4 0 12345 1000 200";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks(""), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(ticks(&own).is_some() && memory(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let metrics = Metrics(
            "# TYPE toolzz_operator_reconciles counter\n\
             toolzz_operator_reconciles_total{outcome=\"settled\"} 7\n\
             toolzz_operator_reconciles_total{outcome=\"retry\"} 2\n\
             toolzz_operator_resources{reason=\"Created\"} 5\n\
             toolzz_operator_resources{reason=\"InSync\"} 1\n\
             toolzz_operator_resources{reason=\"Pending\"} 3\n\
             toolzz_operator_leader 1\n"
                .to_owned(),
        );
        assert_eq!((metrics.passes(), metrics.good(), metrics.resources()), (9.0, 6.0, Some(9.0)));
        assert_eq!(
            (metrics.value("toolzz_operator_leader"), metrics.value("toolzz_operator_ready")),
            (Some(1.0), None)
        );
    }
}
