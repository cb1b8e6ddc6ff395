// SPDX-License-Identifier: Apache-2.0
//! The configuration as it is written: a lenient reading of every field of the OCI runtime specification 1.3
//! (config.md, config-linux.md) that concerns Linux containers.
//!
//! This room only reads. It decides nothing, fills in no defaults of its own and never writes a configuration
//! back (what `update` made of the resources is kept in State, in the same form). An absent field and a `null` read alike; unknown fields are ignored, as the specification demands; a
//! value of the wrong type is one error that names its JSON pointer. Meaning is given by `plan/`. The file is longer
//! than others because it is one list: every structure of the specification, field by field.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Kind, Result};

/// Reads `null` as the type's empty value.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Declares a structure of the specification: camelCase names, every field optional, `null` accepted.
macro_rules! lenient {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {$(
            $(#[$fdoc])*
            #[serde(default, deserialize_with = "null_as_default")]
            pub $field: $type,
        )*}
    )*};
}

lenient! {
    /// config.md: the whole configuration.
    Spec {
        /// Version of the specification the bundle was written for.
        oci_version: String,
        /// config.md#root
        root: Option<Root>,
        /// config.md#mounts, in order.
        mounts: Vec<Mount>,
        /// config.md#process
        process: Option<Process>,
        /// config.md#hostname
        hostname: Option<String>,
        /// config.md#domainname
        domainname: Option<String>,
        /// config.md#posix-platform-hooks
        hooks: Hooks,
        /// config.md#annotations
        annotations: BTreeMap<String, Option<String>>,
        /// config-linux.md
        linux: Linux,
    }
    /// config.md#root
    Root {
        /// Path of the root file system, absolute or relative to the bundle.
        path: String,
        /// Whether the root file system is read-only inside.
        readonly: bool,
    }
    /// config.md#mounts and config-linux.md (per-mount id mappings).
    Mount {
        /// Where, inside the container.
        destination: String,
        /// File system type; optional for binds.
        #[serde(rename = "type")]
        kind: Option<String>,
        /// Device, directory or dummy name.
        source: Option<String>,
        /// Options of the file system and of the mount.
        options: Vec<String>,
        /// Mapping of user ids for this mount.
        uid_mappings: Vec<IdMapping>,
        /// Mapping of group ids for this mount.
        gid_mappings: Vec<IdMapping>,
    }
    /// config.md#process; also what `exec --process` reads.
    Process {
        /// Whether a terminal is attached.
        terminal: bool,
        /// Size of that terminal in characters.
        console_size: Option<ConsoleSize>,
        /// Working directory, absolute.
        cwd: String,
        /// `NAME=value` strings.
        env: Vec<String>,
        /// argv.
        args: Vec<String>,
        /// Windows only: accepted and ignored.
        command_line: Option<String>,
        /// config.md#posix-process
        rlimits: Vec<Rlimit>,
        /// config-linux: AppArmor profile of the process.
        apparmor_profile: Option<String>,
        /// The five capability sets.
        capabilities: Option<Capabilities>,
        /// PR_SET_NO_NEW_PRIVS.
        no_new_privileges: bool,
        /// /proc/self/oom_score_adj; absent means untouched.
        oom_score_adj: Option<i64>,
        /// config.md: scheduler
        scheduler: Option<Scheduler>,
        /// SELinux label of the process.
        selinux_label: Option<String>,
        /// config.md: ioPriority
        io_priority: Option<IoPriority>,
        /// config.md: execCPUAffinity
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<CpuAffinity>,
        /// config.md#user
        user: User,
    }
    /// Terminal size in characters.
    ConsoleSize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    }
    /// config.md#posix-platform-user
    User {
        /// User id inside the container.
        uid: u32,
        /// Group id inside the container.
        gid: u32,
        /// umask; absent means 022, as runc and crun do.
        umask: Option<u32>,
        /// Supplementary group ids.
        additional_gids: Vec<u32>,
        /// Windows only: accepted and ignored.
        username: Option<String>,
    }
    /// One resource limit.
    Rlimit {
        /// `RLIMIT_NOFILE` and so on.
        #[serde(rename = "type")]
        kind: String,
        /// Ceiling.
        hard: u64,
        /// What is enforced.
        soft: u64,
    }
    /// The five sets by capability name.
    Capabilities {
        /// Bounding set.
        bounding: Vec<String>,
        /// Effective set.
        effective: Vec<String>,
        /// Inheritable set.
        inheritable: Vec<String>,
        /// Permitted set.
        permitted: Vec<String>,
        /// Ambient set.
        ambient: Vec<String>,
    }
    /// sched_setattr(2).
    Scheduler {
        /// `SCHED_OTHER` and so on.
        policy: String,
        /// Nice value.
        nice: i32,
        /// Static priority.
        priority: i32,
        /// `SCHED_FLAG_…`
        flags: Vec<String>,
        /// Nanoseconds.
        runtime: u64,
        /// Nanoseconds.
        deadline: u64,
        /// Nanoseconds.
        period: u64,
    }
    /// ioprio_set(2).
    IoPriority {
        /// `IOPRIO_CLASS_…`
        class: String,
        /// 0 … 7.
        priority: i64,
    }
    /// CPU lists for `exec`.
    CpuAffinity {
        /// Before the process joins its cgroup.
        initial: String,
        /// For the process itself.
        #[serde(rename = "final")]
        last: String,
    }
    /// config.md#posix-platform-hooks
    Hooks {
        /// Deprecated: runs where createRuntime runs, before it.
        prestart: Vec<Hook>,
        /// In the runtime's namespaces, after those of the container exist.
        create_runtime: Vec<Hook>,
        /// In the container's namespaces, before pivot_root.
        create_container: Vec<Hook>,
        /// Inside the container, before the user's program.
        start_container: Vec<Hook>,
        /// In the runtime's namespaces, after the user's program started.
        poststart: Vec<Hook>,
        /// In the runtime's namespaces, after the container is deleted.
        poststop: Vec<Hook>,
    }
    /// One hook.
    Hook {
        /// Absolute path of the program.
        path: String,
        /// argv; empty means the path alone.
        args: Vec<String>,
        /// `NAME=value` strings; absent means an empty environment.
        env: Vec<String>,
        /// Seconds; must be positive.
        timeout: Option<i64>,
    }
    /// config-linux.md
    Linux {
        /// Namespaces to make or to join.
        namespaces: Vec<Namespace>,
        /// User id mappings of the user namespace.
        uid_mappings: Vec<IdMapping>,
        /// Group id mappings of the user namespace.
        gid_mappings: Vec<IdMapping>,
        /// Clock offsets of the time namespace, by clock.
        time_offsets: BTreeMap<String, TimeOffset>,
        /// Devices to make.
        devices: Vec<Device>,
        /// Path of the cgroup.
        cgroups_path: Option<String>,
        /// Limits.
        resources: Option<Resources>,
        /// Intel RDT.
        intel_rdt: Option<IntelRdt>,
        /// NUMA policy.
        memory_policy: Option<MemoryPolicy>,
        /// Kernel parameters.
        sysctl: BTreeMap<String, Option<String>>,
        /// System call filter.
        seccomp: Option<Seccomp>,
        /// Propagation of the root mount: slave, private, shared, unbindable.
        rootfs_propagation: Option<String>,
        /// Paths hidden inside.
        masked_paths: Vec<String>,
        /// Paths read-only inside.
        readonly_paths: Vec<String>,
        /// SELinux label of the mounts.
        mount_label: Option<String>,
        /// Execution domain.
        personality: Option<Personality>,
        /// Network devices to move into the container.
        net_devices: BTreeMap<String, Option<NetDevice>>,
    }
    /// config-linux.md#intelrdt
    IntelRdt {
        /// Class of service; absent means one of the container's own, `/` the default one.
        #[serde(rename = "closID")]
        clos_id: Option<String>,
        /// Line of the L3 cache, written first.
        l3_cache_schema: Option<String>,
        /// Line of the memory bandwidth, written second.
        mem_bw_schema: Option<String>,
        /// Lines as they are, written last.
        schemata: Vec<String>,
        /// A monitoring group of the container's own.
        enable_monitoring: bool,
        /// Until 1.2 of the specification, a half of `enableMonitoring`.
        #[serde(rename = "enableCMT")]
        enable_cmt: bool,
        /// Until 1.2 of the specification, the other half.
        #[serde(rename = "enableMBM")]
        enable_mbm: bool,
    }
    /// set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_…`
        mode: String,
        /// List of memory nodes.
        nodes: String,
        /// `MPOL_F_…`
        flags: Vec<String>,
    }
    /// One network device to move; its key is its name on the host.
    NetDevice {
        /// Name inside; absent means the same.
        name: Option<String>,
    }
    /// One namespace.
    Namespace {
        /// pid, network, mount, ipc, uts, user, cgroup or time.
        #[serde(rename = "type")]
        kind: String,
        /// Join this one instead of making one.
        path: Option<String>,
    }
    /// One line of a uid_map or gid_map.
    IdMapping {
        /// First id inside.
        #[serde(rename = "containerID")]
        container_id: u32,
        /// First id outside.
        #[serde(rename = "hostID")]
        host_id: u32,
        /// How many.
        size: u32,
    }
    /// One clock offset.
    TimeOffset {
        /// Seconds.
        secs: i64,
        /// Nanoseconds, below one second.
        nanosecs: u32,
    }
    /// One device node.
    Device {
        /// Absolute path inside.
        path: String,
        /// c, u, b or p.
        #[serde(rename = "type")]
        kind: String,
        /// Major number.
        major: i64,
        /// Minor number.
        minor: i64,
        /// Permission bits.
        file_mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    }
    /// config-linux.md#control-groups
    Resources {
        /// Allowed and denied devices, in order.
        devices: Vec<DeviceRule>,
        /// Memory controller.
        memory: Option<Memory>,
        /// CPU and cpuset controllers.
        cpu: Option<Cpu>,
        /// Pids controller.
        pids: Option<Pids>,
        /// Block I/O controller.
        #[serde(rename = "blockIO")]
        block_io: Option<BlockIo>,
        /// Huge pages.
        hugepage_limits: Vec<HugepageLimit>,
        /// net_cls and net_prio (v1).
        network: Option<Network>,
        /// RDMA by device.
        rdma: BTreeMap<String, Rdma>,
        /// cgroup v2 files and their values.
        unified: BTreeMap<String, String>,
    }
    /// One rule of the device controller.
    DeviceRule {
        /// Allow or deny.
        allow: bool,
        /// a, c or b; empty means a.
        #[serde(rename = "type")]
        kind: String,
        /// Major number; absent or -1 means every one.
        major: Option<i64>,
        /// Minor number; absent or -1 means every one.
        minor: Option<i64>,
        /// Letters of rwm; empty means all.
        access: String,
    }
    /// Memory limits, bytes; -1 means unlimited.
    Memory {
        /// Hard limit.
        limit: Option<i64>,
        /// Soft limit.
        reservation: Option<i64>,
        /// Memory plus swap.
        swap: Option<i64>,
        /// Kernel memory (obsolete).
        kernel: Option<i64>,
        /// Kernel TCP memory (obsolete).
        #[serde(rename = "kernelTCP")]
        kernel_tcp: Option<i64>,
        /// 0 … 100.
        swappiness: Option<u64>,
        /// No OOM kills (v1).
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: Option<bool>,
        /// Hierarchical accounting (v1).
        use_hierarchy: Option<bool>,
        /// Refuse a limit below the usage.
        check_before_update: Option<bool>,
    }
    /// CPU limits.
    Cpu {
        /// Relative weight, 2 … 262144.
        shares: Option<u64>,
        /// Microseconds per period; -1 means unlimited.
        quota: Option<i64>,
        /// Microseconds that may be carried over.
        burst: Option<u64>,
        /// Microseconds.
        period: Option<u64>,
        /// Real-time microseconds per period (v1).
        realtime_runtime: Option<i64>,
        /// Real-time period in microseconds (v1).
        realtime_period: Option<u64>,
        /// CPU list.
        cpus: Option<String>,
        /// Memory node list.
        mems: Option<String>,
        /// SCHED_IDLE for the group.
        idle: Option<i64>,
    }
    /// Pids limit.
    Pids {
        /// How many; -1 means unlimited, 0 is a limit.
        limit: Option<i64>,
    }
    /// Block I/O limits.
    BlockIo {
        /// 10 … 1000.
        weight: Option<u16>,
        /// 10 … 1000 (v1).
        leaf_weight: Option<u16>,
        /// Per device.
        weight_device: Vec<WeightDevice>,
        /// Bytes per second read.
        throttle_read_bps_device: Vec<ThrottleDevice>,
        /// Bytes per second written.
        throttle_write_bps_device: Vec<ThrottleDevice>,
        /// Reads per second.
        #[serde(rename = "throttleReadIOPSDevice")]
        throttle_read_iops_device: Vec<ThrottleDevice>,
        /// Writes per second.
        #[serde(rename = "throttleWriteIOPSDevice")]
        throttle_write_iops_device: Vec<ThrottleDevice>,
    }
    /// Weight of one block device.
    WeightDevice {
        /// Major number.
        major: i64,
        /// Minor number.
        minor: i64,
        /// 10 … 1000.
        weight: Option<u16>,
        /// 10 … 1000 (v1).
        leaf_weight: Option<u16>,
    }
    /// Throttle of one block device.
    ThrottleDevice {
        /// Major number.
        major: i64,
        /// Minor number.
        minor: i64,
        /// Bytes or operations per second.
        rate: u64,
    }
    /// Limit of one huge page size.
    HugepageLimit {
        /// `2MB` and so on.
        page_size: String,
        /// Bytes.
        limit: u64,
    }
    /// net_cls and net_prio.
    Network {
        /// net_cls class.
        #[serde(rename = "classID")]
        class_id: Option<u32>,
        /// net_prio priorities.
        priorities: Vec<InterfacePriority>,
    }
    /// Priority of one interface.
    InterfacePriority {
        /// Interface.
        name: String,
        /// Priority.
        priority: u32,
    }
    /// Limits of one RDMA device.
    Rdma {
        /// Handles.
        hca_handles: Option<u32>,
        /// Objects.
        hca_objects: Option<u32>,
    }
    /// config-linux.md#seccomp
    Seccomp {
        /// Action for calls without a rule; empty means no filter at all, as in runc.
        default_action: String,
        /// errno of that action.
        default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_…`
        architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_…`; absent differs from empty.
        flags: Option<Vec<String>>,
        /// Socket of the agent that receives the listener.
        listener_path: Option<String>,
        /// Opaque text for the agent.
        listener_metadata: Option<String>,
        /// Rules.
        syscalls: Vec<Syscall>,
    }
    /// One seccomp rule.
    Syscall {
        /// Names of the calls.
        names: Vec<String>,
        /// `SCMP_ACT_…`
        action: String,
        /// errno or data of the action.
        errno_ret: Option<u32>,
        /// Conditions.
        args: Vec<SyscallArg>,
    }
    /// One condition on an argument.
    SyscallArg {
        /// 0 … 5.
        index: u32,
        /// Operand (mask for SCMP_CMP_MASKED_EQ).
        value: u64,
        /// Second operand (value for SCMP_CMP_MASKED_EQ).
        value_two: u64,
        /// `SCMP_CMP_…`
        op: String,
    }
    /// personality(2).
    Personality {
        /// LINUX or LINUX32.
        domain: String,
        /// None are defined.
        flags: Vec<String>,
    }
}

/// Reads a configuration. `name` is the file's name for messages.
///
/// # Errors
/// `Kind::Invalid` with the JSON pointer of the first value that does not read, or the line and column of the
/// first byte that is not JSON.
pub fn read<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    // serde reads a list as a structure, field by field; no document of the specification is a list.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::new(Kind::Invalid, "expected an object, found a list").at(name.to_owned()));
    }
    // The quick reading first; the one that tracks the path costs twice as much and is for the message only.
    match serde_json::from_slice(bytes) {
        // Of two values the last wins, as for Go and jq, whose configurations others can read (RFC 8259, section 4).
        Err(error) if error.to_string().starts_with("duplicate field") => last_of_each(name, bytes),
        other => other.map_err(|error| describe::<T>(name, bytes, &error)),
    }
}

/// Reads a document in which keys stand twice: as a map each keeps the place's last value.
fn last_of_each<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| describe::<T>(name, bytes, &error))?;
    serde_path_to_error::deserialize(value).map_err(|tracked| {
        let pointer = pointer(tracked.path());
        Error::new(Kind::Invalid, tracked.into_inner().to_string()).at(format!("{name} {pointer}"))
    })
}

fn describe<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8], error: &serde_json::Error) -> Error {
    if error.classify() != serde_json::error::Category::Data {
        return Error::new(Kind::Invalid, format!("malformed JSON: {error}")).at(name.to_owned());
    }
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes));
    match tracked {
        Err(tracked) => {
            let pointer = pointer(tracked.path());
            Error::new(Kind::Invalid, tracked.into_inner().to_string()).at(format!("{name} {pointer}"))
        }
        Ok(_) => Error::new(Kind::Invalid, error.to_string()).at(name.to_owned()),
    }
}

/// RFC 6901: `/mounts/3/options`.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_accepted() {
        let spec: Spec = read(
            "config.json",
            br#"{"ociVersion":"1.3.0","process":null,"mounts":null,"vm":{"x":1},
                 "linux":{"resources":{"pids":{},"devices":null},"seccomp":null}}"#,
        )
        .unwrap();
        assert_eq!(spec.process, None);
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.linux.resources.unwrap().pids.unwrap().limit, None);
    }

    #[test]
    fn of_two_values_the_last_wins() {
        let json =
            br#"{"hostname":"a","linux":{"maskedPaths":["/x"]},"hostname":"b","linux":{"cgroupsPath":"/c"}}"#;
        let spec: Spec = read("config.json", json).unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("b"));
        assert_eq!((spec.linux.cgroups_path.as_deref(), spec.linux.masked_paths.len()), (Some("/c"), 0));
        let error = read::<Spec>("config.json", br#"{"hostname":"a","hostname":7}"#).unwrap_err();
        assert!(error.to_string().starts_with("config.json /hostname: "), "{error}");
    }

    #[test]
    fn a_wrong_type_names_its_pointer() {
        let error = read::<Spec>("config.json", br#"{"mounts":[{},{"options":["ro",7]}]}"#).unwrap_err();
        assert!(error.to_string().starts_with("config.json /mounts/1/options/1: "), "{error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }

    #[test]
    fn broken_json_names_line_and_column() {
        let error = read::<Spec>("config.json", b"{\"root\":").unwrap_err();
        assert!(error.to_string().contains("line 1 column 8"), "{error}");
    }
}
