// SPDX-License-Identifier: Apache-2.0
//! CRIU's messages (its images/rpc.proto): requests, responses, and the options of a dump and a restore.

#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::protobuf::{FieldValue, MessageReader, MessageWriter};
use crate::ask::{CgroupMode, NetworkLock};
use crate::error::{Error, Kind, printable};

/// What is asked, and what an answer is about (criu_req_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Dump = 1,
    Restore = 2,
    Check = 3,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl RequestKind {
    const ALL: [RequestKind; 7] = [
        RequestKind::Dump,
        RequestKind::Restore,
        RequestKind::Check,
        RequestKind::PreDump,
        RequestKind::Notify,
        RequestKind::FeatureCheck,
        RequestKind::Version,
    ];
}

/// What a kernel may lack (criu_features).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CriuFeature {
    MemTrack = 1,
    LazyPages = 2,
}

/// The options of a dump or restore (criu_opts).
#[derive(Debug, Clone, Default)]
pub(crate) struct CriuOptions(MessageWriter);

impl CriuOptions {
    pub(crate) fn images_dir(&mut self, dir: BorrowedFd<'_>) {
        self.0.int(1, dir.as_raw_fd());
    }

    pub(crate) fn work_dir(&mut self, dir: BorrowedFd<'_>) {
        self.0.int(17, dir.as_raw_fd());
    }

    pub(crate) fn pid(&mut self, pid: i32) {
        self.0.int(2, pid);
    }

    /// Everything is told, into this file of the work directory, and we are told at each step.
    pub(crate) fn tell(&mut self, log_file: &str) {
        const DEBUG: i32 = 4;
        self.0.int(9, DEBUG);
        self.text(10, log_file);
        self.on(12, true);
    }

    pub(crate) fn leave_running(&mut self, on: bool) {
        self.on(3, on);
    }

    pub(crate) fn ext_unix_sk(&mut self, on: bool) {
        self.on(4, on);
    }

    pub(crate) fn tcp_established(&mut self, on: bool) {
        self.on(5, on);
    }

    pub(crate) fn tcp_close(&mut self, on: bool) {
        self.on(52, on);
    }

    pub(crate) fn tcp_skip_in_flight(&mut self, on: bool) {
        self.on(46, on);
    }

    /// A device that is not the one that was dumped is opened by its path.
    pub(crate) fn evasive_devices(&mut self) {
        self.on(6, true);
    }

    pub(crate) fn shell_job(&mut self, on: bool) {
        self.on(7, on);
    }

    pub(crate) fn file_locks(&mut self, on: bool) {
        self.on(8, on);
    }

    pub(crate) fn link_remap(&mut self, on: bool) {
        self.on(18, on);
    }

    pub(crate) fn auto_dedup(&mut self, on: bool) {
        self.on(16, on);
    }

    pub(crate) fn lazy_pages(&mut self, on: bool) {
        self.on(48, on);
    }

    pub(crate) fn page_server(&mut self, address: &str, port: u16) {
        let mut server = MessageWriter::default();
        server.bytes(1, address.as_bytes());
        server.int(2, i32::from(port));
        self.0.message(11, &server);
    }

    pub(crate) fn root(&mut self, path: &str) {
        self.text(13, path);
    }

    /// Relative to the images' directory.
    pub(crate) fn parent(&mut self, path: &str) {
        self.text(14, path);
    }

    pub(crate) fn track_mem(&mut self) {
        self.on(15, true);
    }

    /// A mount that is not dumped: on dump, what it is called by its mount point; on restore, the host's path by that name.
    pub(crate) fn external_mount(&mut self, key: &str, value: &str) {
        let mut pair = MessageWriter::default();
        pair.bytes(1, key.as_bytes());
        pair.bytes(2, value.as_bytes());
        self.0.message(23, &pair);
    }

    /// Anything else that is not dumped: `net[4026532000]:KEY`.
    pub(crate) fn external(&mut self, what: &str) {
        self.text(37, what);
    }

    /// What is not dumped comes from this descriptor of CRIU's.
    pub(crate) fn inherit(&mut self, key: &str, fd: i32) {
        let mut pair = MessageWriter::default();
        pair.bytes(1, key.as_bytes());
        pair.int(2, fd);
        self.0.message(27, &pair);
    }

    pub(crate) fn join_namespace(&mut self, kind: &str, path: &str) {
        let mut join = MessageWriter::default();
        join.bytes(1, kind.as_bytes());
        join.bytes(2, path.as_bytes());
        self.0.message(39, &join);
    }

    /// CLONE_NEW* flags of namespaces of which only the existence is restored.
    pub(crate) fn empty_namespaces(&mut self, flags: u32) {
        if flags != 0 {
            self.0.number(38, u64::from(flags));
        }
    }

    pub(crate) fn manage_cgroups(&mut self, mode: CgroupMode) {
        self.on(24, true);
        self.0.int(34, mode as i32);
    }

    /// Where the container's group of this controller (empty: of cgroup2) is now.
    pub(crate) fn cgroup_root(&mut self, controller: &str, path: &str) {
        let mut root = MessageWriter::default();
        if !controller.is_empty() {
            root.bytes(1, controller.as_bytes());
        }
        root.bytes(2, path.as_bytes());
        self.0.message(25, &root);
    }

    /// Only the groups of these controllers are dumped: as they are called in /proc/PID/cgroup.
    pub(crate) fn dump_controller(&mut self, controllers: &str) {
        self.text(43, controllers);
    }

    /// The group by which the tasks are frozen.
    pub(crate) fn freeze_cgroup(&mut self, path: &str) {
        self.text(44, path);
    }

    /// What the restored tasks are children of is CRIU's parent.
    pub(crate) fn restore_sibling(&mut self) {
        self.on(26, true);
    }

    /// A terminal whose other side is not dumped is sent to us.
    pub(crate) fn orphan_pts_master(&mut self) {
        self.on(50, true);
    }

    pub(crate) fn config_file(&mut self, path: &str) {
        self.text(51, path);
    }

    pub(crate) fn lsm_profile(&mut self, profile: &str) {
        self.text(53, profile);
    }

    pub(crate) fn lsm_mount_context(&mut self, context: &str) {
        self.text(63, context);
    }

    pub(crate) fn network_lock(&mut self, method: NetworkLock) {
        self.0.int(64, method as i32);
    }

    fn on(&mut self, field: u32, on: bool) {
        if on {
            self.0.number(field, 1);
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        self.0.bytes(field, text.as_bytes());
    }
}

/// A request's bytes.
pub(super) fn request(kind: RequestKind, options: Option<&CriuOptions>) -> Vec<u8> {
    let mut request = MessageWriter::default();
    request.int(1, kind as i32);
    if let Some(options) = options {
        request.message(2, &options.0);
    }
    request.as_bytes().to_vec()
}

/// In a request: the connection stays for another one (criu_req.keep_open).
const KEEP_OPEN: u32 = 4;

/// Asks for the version.
pub(super) fn version_request() -> Vec<u8> {
    let mut request = MessageWriter::default();
    request.int(1, RequestKind::Version as i32);
    request.number(KEEP_OPEN, 1);
    request.as_bytes().to_vec()
}

/// Asks whether these are there.
pub(super) fn feature_request(feature: CriuFeature) -> Vec<u8> {
    let (mut request, mut features) = (MessageWriter::default(), MessageWriter::default());
    request.int(1, RequestKind::FeatureCheck as i32);
    request.number(KEEP_OPEN, 1);
    features.number(feature as u32, 1);
    request.message(5, &features);
    request.as_bytes().to_vec()
}

/// The answer to a notification.
pub(super) fn notify_answer() -> Vec<u8> {
    let mut request = MessageWriter::default();
    request.int(1, RequestKind::Notify as i32);
    request.number(3, 1);
    request.as_bytes().to_vec()
}

/// What CRIU says (criu_resp).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CriuResponse {
    pub(crate) kind: Option<RequestKind>,
    pub(crate) success: bool,
    /// A notification: its name, and the pid that it is about.
    pub(crate) script: String,
    pub(crate) pid: i32,
    /// The root task of a restore.
    pub(crate) restored: i32,
    pub(crate) errno: i32,
    pub(crate) message: String,
    /// Bit by [`CriuFeature`].
    pub(crate) features: u64,
    /// 40201 for 4.2.1.
    pub(crate) version: u32,
}

impl CriuResponse {
    /// `None` for what is no such message.
    pub(super) fn read(bytes: &[u8]) -> Option<CriuResponse> {
        let mut response = CriuResponse::default();
        for field in MessageReader::new(bytes) {
            let (number, value) = field?;
            match number {
                1 => {
                    let kind = value.number()?;
                    response.kind = RequestKind::ALL.into_iter().find(|known| *known as u64 == kind);
                }
                2 => response.success = value.number()? != 0,
                4 => {
                    response.restored =
                        first(value, 1)?.and_then(FieldValue::number).unwrap_or_default() as i32
                }
                5 => {
                    let script = first(value, 1)?.and_then(FieldValue::bytes).unwrap_or_default();
                    response.script = String::from_utf8_lossy(script).into_owned();
                    response.pid = first(value, 2)?.and_then(FieldValue::number).unwrap_or_default() as i32;
                }
                7 => response.errno = value.number()? as i32,
                8 => {
                    for feature in [CriuFeature::MemTrack, CriuFeature::LazyPages] {
                        let there = first(value, feature as u32)?.and_then(FieldValue::number) == Some(1);
                        response.features |= u64::from(there) << feature as u32;
                    }
                }
                9 => response.message = String::from_utf8_lossy(value.bytes()?).into_owned(),
                10 => {
                    let part = |number| -> Option<u32> {
                        Some(first(value, number)?.and_then(FieldValue::number).unwrap_or_default().min(99)
                            as u32)
                    };
                    response.version = part(1)? * 10_000 + part(2)? * 100 + part(4)?;
                }
                _ => {}
            }
        }
        Some(response)
    }

    /// What its refusal is by itself; CRIU's log says more.
    pub(crate) fn refusal(&self) -> Error {
        let said = self.message.trim_start_matches("Error ").trim();
        let said = if said.is_empty() { "it failed without a word" } else { said };
        let text = printable(said).into_owned();
        match self.errno {
            0 => Error::new(Kind::Peer, text).at("criu"),
            errno => Error::os(text, errno.saturating_abs()).at("criu").with_kind(Kind::Peer),
        }
    }

    pub(crate) fn has(&self, feature: CriuFeature) -> bool {
        self.features >> feature as u32 & 1 == 1
    }
}

/// The last value of a field in the message that `value` is; `None` when that does not read.
fn first(value: FieldValue<'_>, field: u32) -> Option<Option<FieldValue<'_>>> {
    let mut found = None;
    for entry in MessageReader::new(value.bytes()?) {
        let (number, value) = entry?;
        if number == field {
            found = Some(value);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read() {
        let mut notify = MessageWriter::default();
        notify.bytes(1, b"post-restore");
        notify.int(2, 4711);
        let mut version = MessageWriter::default();
        [(1, 4), (2, 2), (4, 1)].into_iter().for_each(|(field, part)| version.int(field, part));
        let mut features = MessageWriter::default();
        features.number(2, 1);
        let mut message = MessageWriter::default();
        message.int(1, 6);
        message.number(2, 1);
        message.message(5, &notify);
        message.message(8, &features);
        message.message(10, &version);
        message.int(7, -1);
        let response = CriuResponse::read(message.as_bytes()).unwrap();
        assert_eq!((response.kind, response.success), (Some(RequestKind::Notify), true));
        assert_eq!((&*response.script, response.pid, response.version), ("post-restore", 4711, 40_201));
        assert_eq!(
            (response.has(CriuFeature::MemTrack), response.has(CriuFeature::LazyPages)),
            (false, true)
        );
        assert_eq!(response.errno, -1);
        // An end in the middle, and a number where a message belongs.
        assert_eq!(CriuResponse::read(&message.as_bytes()[..9]), None);
        assert_eq!(CriuResponse::read(&[5 << 3, 1]), None);
    }

    #[test]
    fn options_that_are_off_are_absent() {
        let mut options = CriuOptions::default();
        options.leave_running(false);
        options.empty_namespaces(0);
        assert_eq!(request(RequestKind::Dump, Some(&options)), [0x08, 1, 0x12, 0]);
        options.leave_running(true);
        assert_eq!(request(RequestKind::Dump, Some(&options)), [0x08, 1, 0x12, 2, 0x18, 1]);
    }
}
