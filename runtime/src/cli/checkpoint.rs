// SPDX-License-Identifier: Apache-2.0
//! `checkpoint` (compatibility S17), and the flags that it shares with `restore`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use corten::ask::{CgroupMode, Checkpoint, CriuSettings, NetworkLock};
use corten::plan::namespaces::NsKind;
use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::values;

/// checkpoint a running container
///
/// CRIU writes the container's processes into a directory, from which "restore" makes
/// them again, here or on another machine. The container ends and is deleted, unless it
/// is to be left running.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct CheckpointCommand {
    #[command(flatten)]
    criu: CriuFlags,
    /// path of an earlier dump's images (--pre-dump), relative to the new ones
    #[arg(long)]
    parent_path: Option<String>,
    /// leave the container running after the checkpoint
    #[arg(long)]
    leave_running: bool,
    /// leave TCP connections out that are not established yet
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// give a name to files that are open and have none any more
    #[arg(long)]
    link_remap: bool,
    /// a descriptor on which CRIU writes \0 once pages can be fetched (--lazy-pages)
    #[arg(long)]
    status_fd: Option<i32>,
    /// ADDRESS:PORT of the page server
    #[arg(long)]
    page_server: Option<String>,
    /// write the container's memory only, and leave the container running
    #[arg(long)]
    pre_dump: bool,
    id: String,
}

/// Flags of `checkpoint` and `restore`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct CriuFlags {
    /// path of the directory of CRIU's image files (default: "checkpoint")
    #[arg(long)]
    image_path: Option<OsString>,
    /// path of the directory of CRIU's logs and statistics (default: that of the images)
    #[arg(long)]
    work_path: Option<OsString>,
    /// allow open TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// allow UNIX sockets that are connected to the outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// allow shell jobs: the terminal is the caller's
    #[arg(long)]
    shell_job: bool,
    /// handle file locks
    #[arg(long)]
    file_locks: bool,
    /// cgroups mode: soft|full|strict|ignore (default: soft)
    #[arg(long)]
    manage_cgroups_mode: Option<String>,
    /// create a namespace of this kind (network), but don't restore its properties
    #[arg(long)]
    empty_ns: Vec<String>,
    /// cut pages out of earlier images that later ones have, too
    #[arg(long)]
    auto_dedup: bool,
    /// fetch memory pages when they are needed (userfaultfd)
    #[arg(long)]
    lazy_pages: bool,
    /// how packets are held off meanwhile: iptables|nftables|skip
    #[arg(long)]
    network_lock: Option<String>,
}

impl CriuFlags {
    /// The request.
    ///
    /// # Errors
    /// A value that is none.
    pub fn settings(self) -> Result<CriuSettings, Failure> {
        let cgroups = self.manage_cgroups_mode.unwrap_or_default();
        let cgroups = CgroupMode::parse(&cgroups)
            .ok_or_else(|| Failure::new("Invalid manage-cgroups-mode value (soft|full|strict|ignore)"))?;
        let lock = values::text(self.network_lock);
        let network_lock = lock.map(|name| {
            NetworkLock::parse(&name)
                .ok_or_else(|| Failure::new("invalid --network-lock value (iptables|nftables|skip)"))
        });
        if let Some(other) = self.empty_ns.iter().find(|name| *name != "network") {
            return Err(Failure::new(format!("namespace {other:?} is not supported")));
        }
        // The network is whoever's who gave the container one (a CNI plugin, `docker network`), and is set up by them again.
        let empty_namespaces = NsKind::Network.flag() as u32;
        Ok(CriuSettings {
            image_path: values::path(self.image_path).unwrap_or_else(|| "checkpoint".into()),
            work_path: values::path(self.work_path),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            cgroups,
            empty_namespaces,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            network_lock: network_lock.transpose()?,
        })
    }
}

impl Verb for CheckpointCommand {
    const NAME: &'static str = "checkpoint";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let id = self.id.clone();
        let ask = self.ask()?;
        verbs::checkpoint(&session.home, &id, &ask)?;
        if !ask.leave_running && !ask.pre_dump {
            verbs::delete(&session.home, &id, true)?;
        }
        Ok(0)
    }
}

impl CheckpointCommand {
    fn ask(self) -> Result<Checkpoint, Failure> {
        let criu = self.criu.settings()?;
        Ok(Checkpoint {
            parent_path: values::text(self.parent_path),
            pre_dump: self.pre_dump,
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            page_server: values::text(self.page_server).map(|text| page_server(&text)).transpose()?,
            status_fd: status_fd(self.status_fd, criu.lazy_pages)?,
            criu,
        })
    }
}

fn page_server(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::new("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    if address.is_empty() { Err(wrong()) } else { Ok((address.to_owned(), port)) }
}

/// The caller's descriptor, which is ours to close.
fn status_fd(number: Option<i32>, lazy: bool) -> Result<Option<OwnedFd>, Failure> {
    let Some(number) = number.filter(|number| lazy && *number >= 0) else { return Ok(None) };
    corten::sys::tty::take_handed_down(number)
        .map(Some)
        .ok_or_else(|| Failure::new(format!("invalid --status-fd argument {number}: not open for writing")))
}
