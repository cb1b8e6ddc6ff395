// SPDX-License-Identifier: Apache-2.0
//! `update` (compatibility S16, U1 to U9).

use std::ffi::OsString;
use std::io::Read;

use corten::ask::Update as Ask;
use corten::spec::{self, BlockIo, Cpu, IntelRdt, Memory, Pids, Resources};
use corten::state;
use corten::{Error, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::{amounts, values};

/// update container resource constraints
///
/// What is not given stays as it is. Either all of it is changed, or, after an error, nothing.
///
/// The file given with -r holds the "resources" object of a configuration (its "linux.resources"), with the values to
/// be changed only; all other options but those of Intel RDT are ignored then. Device rules in it replace the
/// container's, at once.
///
/// Schemata of Intel RDT are for the class that the container has been in since its create ("intelRdt"), and so for
/// all that are in it.
///
///    # echo '{"memory":{"limit":268435456},"pids":{"limit":64}}' | corten update -r - web
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct UpdateCommand {
    /// path to the file containing the resources to update or '-' to read from the standard input
    #[arg(long, short)]
    resources: Option<OsString>,
    /// block IO weight, from 10 to 1000
    #[arg(long)]
    blkio_weight: Option<String>,
    /// CPU CFS period to be used for hardcapping (in usecs), 0 to keep it
    #[arg(long)]
    cpu_period: Option<String>,
    /// CPU CFS hardcap limit (in usecs): allowed CPU time in a given period, -1 for no limit
    #[arg(long)]
    cpu_quota: Option<String>,
    /// CPU time (in usecs) that may be saved up and used beyond the limit
    #[arg(long)]
    cpu_burst: Option<String>,
    /// CPU shares (relative weight vs. other containers)
    #[arg(long)]
    cpu_share: Option<String>,
    /// CPU realtime period to be used for hardcapping (in usecs), 0 to keep it (cgroup v1)
    #[arg(long)]
    cpu_rt_period: Option<String>,
    /// CPU realtime hardcap limit (in usecs): allowed CPU time in a given period (cgroup v1)
    #[arg(long)]
    cpu_rt_runtime: Option<String>,
    /// CPU(s) to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// memory node(s) to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// 1 to run only when nothing else does (SCHED_IDLE), 0 for the default behaviour
    #[arg(long)]
    cpu_idle: Option<String>,
    /// kernel memory limit (obsolete: ignored)
    #[arg(long)]
    kernel_memory: Option<String>,
    /// kernel memory limit for TCP buffers (obsolete: ignored)
    #[arg(long)]
    kernel_memory_tcp: Option<String>,
    /// memory limit (in bytes, or with k, m, g), -1 for none
    #[arg(long)]
    memory: Option<String>,
    /// memory reservation or soft limit (in bytes, or with k, m, g)
    #[arg(long)]
    memory_reservation: Option<String>,
    /// total memory usage (memory + swap), -1 for unlimited swap
    #[arg(long)]
    memory_swap: Option<String>,
    /// maximum number of processes, -1 for no limit
    #[arg(long)]
    pids_limit: Option<String>,
    /// Intel RDT/CAT L3 cache schema
    #[arg(long)]
    l3_cache_schema: Option<String>,
    /// Intel RDT/MBA memory bandwidth schema
    #[arg(long)]
    mem_bw_schema: Option<String>,
    id: String,
}

impl Verb for UpdateCommand {
    const NAME: &'static str = "update";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let resources = match self.resources.as_ref().filter(|file| !file.is_empty()) {
            Some(file) => read(file)?,
            None => self.flags()?,
        };
        let rdt = IntelRdt {
            l3_cache_schema: self.l3_cache_schema,
            mem_bw_schema: self.mem_bw_schema,
            ..IntelRdt::default()
        };
        verbs::update(&session.home, &self.id, &Ask { resources, rdt })?;
        Ok(0)
    }
}

impl UpdateCommand {
    fn flags(&self) -> Result<Resources, Failure> {
        let memory = Memory {
            limit: bytes("memory", &self.memory)?,
            reservation: bytes("memory-reservation", &self.memory_reservation)?,
            swap: bytes("memory-swap", &self.memory_swap)?,
            kernel: bytes("kernel-memory", &self.kernel_memory)?,
            kernel_tcp: bytes("kernel-memory-tcp", &self.kernel_memory_tcp)?,
            ..Memory::default()
        };
        let cpu = Cpu {
            shares: parse_number("cpu-share", &self.cpu_share)?,
            quota: parse_number("cpu-quota", &self.cpu_quota)?,
            burst: parse_number("cpu-burst", &self.cpu_burst)?,
            period: parse_number("cpu-period", &self.cpu_period)?,
            realtime_runtime: parse_number("cpu-rt-runtime", &self.cpu_rt_runtime)?,
            realtime_period: parse_number("cpu-rt-period", &self.cpu_rt_period)?,
            cpus: values::text(self.cpuset_cpus.clone()),
            mems: values::text(self.cpuset_mems.clone()),
            idle: parse_number("cpu-idle", &self.cpu_idle)?,
        };
        let weight = parse_number("blkio-weight", &self.blkio_weight)?;
        let limit = parse_number("pids-limit", &self.pids_limit)?;
        Ok(Resources {
            memory: some(memory),
            cpu: some(cpu),
            block_io: some(BlockIo { weight, ..BlockIo::default() }),
            pids: some(Pids { limit }),
            ..Resources::default()
        })
    }
}

/// Nothing set is nothing asked for.
fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn read(file: &OsString) -> Result<Resources, Failure> {
    let mut bytes = Vec::new();
    let (name, read) = if file == "-" {
        ("the standard input".to_owned(), std::io::stdin().lock().read_to_end(&mut bytes))
    } else {
        let opened = std::fs::File::open(file);
        (file.to_string_lossy().into_owned(), opened.and_then(|mut file| file.read_to_end(&mut bytes)))
    };
    read.map_err(|error| Error::os(format!("open({name})"), error).at("--resources"))?;
    Ok(spec::read("resources", &bytes)?)
}

fn parse_number<T: std::str::FromStr>(flag: &str, text: &Option<String>) -> Result<Option<T>, Failure> {
    // FromStr takes a plus sign, Go too.
    value(flag, text, |text| text.parse().ok(), "a whole number")
}

fn bytes(flag: &str, text: &Option<String>) -> Result<Option<i64>, Failure> {
    let read = |text: &str| if text == "-1" { Some(-1) } else { amounts::size(text) };
    value(flag, text, read, "a size such as 512m, or -1")
}

fn value<T>(
    flag: &str,
    text: &Option<String>,
    read: impl Fn(&str) -> Option<T>,
    what: &str,
) -> Result<Option<T>, Failure> {
    let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    match read(text) {
        Some(value) => Ok(Some(value)),
        None => Err(Failure::new(format!("invalid value for {flag}: {text:?} is not {what}"))),
    }
}
