// SPDX-License-Identifier: Apache-2.0
//! The configuration as it is written: a lenient reading of every field of the OCI runtime specification 1.3
//! (config.md, config-linux.md) that concerns Linux containers.
//!
//! This room only reads. It decides nothing, fills in no defaults of its own and never writes a configuration
//! back (what `update` made of the resources is kept in State, in the same form). An absent field and a `null` read
//! alike; unknown fields are ignored, as the specification demands; a value of the wrong type is one error that names
//! its JSON pointer. Meaning is given by `plan/`. The file is longer than others because it is one list: every structure
//! of the specification, field by field, with the key that each has in JSON.

#![forbid(unsafe_code)]

mod json;
mod unknown;

use std::collections::BTreeMap;

pub use self::json::read;
pub(crate) use self::unknown::unknown_fields;

json::lenient! {
    /// config.md: the whole configuration.
    Spec {
        /// Version of the specification the bundle was written for.
        "ociVersion" oci_version: String,
        /// config.md#root
        "root" root: Option<Root>,
        /// config.md#mounts, in order.
        "mounts" mounts: Vec<Mount>,
        /// config.md#process
        "process" process: Option<Process>,
        /// config.md#hostname
        "hostname" hostname: Option<String>,
        /// config.md#domainname
        "domainname" domainname: Option<String>,
        /// config.md#posix-platform-hooks
        "hooks" hooks: Hooks,
        /// config.md#annotations
        "annotations" annotations: BTreeMap<String, Option<String>>,
        /// config-linux.md
        "linux" linux: Linux,
    }
    /// config.md#root
    Root {
        /// Path of the root file system, absolute or relative to the bundle.
        "path" path: String,
        /// Whether the root file system is read-only inside.
        "readonly" readonly: bool,
    }
    /// config.md#mounts and config-linux.md (per-mount id mappings).
    Mount {
        /// Where, inside the container.
        "destination" destination: String,
        /// File system type; optional for binds.
        "type" kind: Option<String>,
        /// Device, directory or dummy name.
        "source" source: Option<String>,
        /// Options of the file system and of the mount.
        "options" options: Vec<String>,
        /// Mapping of user ids for this mount.
        "uidMappings" uid_mappings: Vec<IdMapping>,
        /// Mapping of group ids for this mount.
        "gidMappings" gid_mappings: Vec<IdMapping>,
    }
    /// config.md#process; also what `exec --process` reads.
    Process {
        /// Whether a terminal is attached.
        "terminal" terminal: bool,
        /// Size of that terminal in characters.
        "consoleSize" console_size: Option<ConsoleSize>,
        /// Working directory, absolute.
        "cwd" cwd: String,
        /// `NAME=value` strings.
        "env" env: Vec<String>,
        /// argv.
        "args" args: Vec<String>,
        /// Windows only: accepted and ignored.
        "commandLine" command_line: Option<String>,
        /// config.md#posix-process
        "rlimits" rlimits: Vec<Rlimit>,
        /// config-linux: AppArmor profile of the process.
        "apparmorProfile" apparmor_profile: Option<String>,
        /// The five capability sets.
        "capabilities" capabilities: Option<Capabilities>,
        /// PR_SET_NO_NEW_PRIVS.
        "noNewPrivileges" no_new_privileges: bool,
        /// /proc/self/oom_score_adj; absent means untouched.
        "oomScoreAdj" oom_score_adj: Option<i64>,
        /// config.md: scheduler
        "scheduler" scheduler: Option<Scheduler>,
        /// SELinux label of the process.
        "selinuxLabel" selinux_label: Option<String>,
        /// config.md: ioPriority
        "ioPriority" io_priority: Option<IoPriority>,
        /// config.md: execCPUAffinity
        "execCPUAffinity" exec_cpu_affinity: Option<CpuAffinity>,
        /// config.md#user
        "user" user: User,
    }
    /// Terminal size in characters.
    ConsoleSize {
        /// Rows.
        "height" height: u16,
        /// Columns.
        "width" width: u16,
    }
    /// config.md#posix-platform-user
    User {
        /// User id inside the container.
        "uid" uid: u32,
        /// Group id inside the container.
        "gid" gid: u32,
        /// umask; absent means 022, as runc and crun do.
        "umask" umask: Option<u32>,
        /// Supplementary group ids.
        "additionalGids" additional_gids: Vec<u32>,
        /// Windows only: accepted and ignored.
        "username" username: Option<String>,
    }
    /// One resource limit.
    Rlimit {
        /// `RLIMIT_NOFILE` and so on.
        "type" kind: String,
        /// Ceiling.
        "hard" hard: u64,
        /// What is enforced.
        "soft" soft: u64,
    }
    /// The five sets by capability name.
    Capabilities {
        /// Bounding set.
        "bounding" bounding: Vec<String>,
        /// Effective set.
        "effective" effective: Vec<String>,
        /// Inheritable set.
        "inheritable" inheritable: Vec<String>,
        /// Permitted set.
        "permitted" permitted: Vec<String>,
        /// Ambient set.
        "ambient" ambient: Vec<String>,
    }
    /// sched_setattr(2).
    Scheduler {
        /// `SCHED_OTHER` and so on.
        "policy" policy: String,
        /// Nice value.
        "nice" nice: i32,
        /// Static priority.
        "priority" priority: i32,
        /// `SCHED_FLAG_…`
        "flags" flags: Vec<String>,
        /// Nanoseconds.
        "runtime" runtime: u64,
        /// Nanoseconds.
        "deadline" deadline: u64,
        /// Nanoseconds.
        "period" period: u64,
    }
    /// ioprio_set(2).
    IoPriority {
        /// `IOPRIO_CLASS_…`
        "class" class: String,
        /// 0 … 7.
        "priority" priority: i64,
    }
    /// CPU lists for `exec`.
    CpuAffinity {
        /// Before the process joins its cgroup.
        "initial" initial: String,
        /// For the process itself.
        "final" last: String,
    }
    /// config.md#posix-platform-hooks
    Hooks {
        /// Deprecated: runs where createRuntime runs, before it.
        "prestart" prestart: Vec<Hook>,
        /// In the runtime's namespaces, after those of the container exist.
        "createRuntime" create_runtime: Vec<Hook>,
        /// In the container's namespaces, before pivot_root.
        "createContainer" create_container: Vec<Hook>,
        /// Inside the container, before the user's program.
        "startContainer" start_container: Vec<Hook>,
        /// In the runtime's namespaces, after the user's program started.
        "poststart" poststart: Vec<Hook>,
        /// In the runtime's namespaces, after the container is deleted.
        "poststop" poststop: Vec<Hook>,
    }
    /// One hook.
    Hook {
        /// Absolute path of the program.
        "path" path: String,
        /// argv; empty means the path alone.
        "args" args: Vec<String>,
        /// `NAME=value` strings; an empty list is an empty environment, absent is none of its own (decisions/0074).
        "env" env: Option<Vec<String>>,
        /// Seconds; must be positive.
        "timeout" timeout: Option<i64>,
    }
    /// config-linux.md
    Linux {
        /// Namespaces to make or to join.
        "namespaces" namespaces: Vec<Namespace>,
        /// User id mappings of the user namespace.
        "uidMappings" uid_mappings: Vec<IdMapping>,
        /// Group id mappings of the user namespace.
        "gidMappings" gid_mappings: Vec<IdMapping>,
        /// Clock offsets of the time namespace, by clock.
        "timeOffsets" time_offsets: BTreeMap<String, TimeOffset>,
        /// Devices to make.
        "devices" devices: Vec<Device>,
        /// Path of the cgroup.
        "cgroupsPath" cgroups_path: Option<String>,
        /// Limits.
        "resources" resources: Option<Resources>,
        /// Intel RDT.
        "intelRdt" intel_rdt: Option<IntelRdt>,
        /// NUMA policy.
        "memoryPolicy" memory_policy: Option<MemoryPolicy>,
        /// Kernel parameters.
        "sysctl" sysctl: BTreeMap<String, Option<String>>,
        /// System call filter.
        "seccomp" seccomp: Option<Seccomp>,
        /// Propagation of the root mount: slave, private, shared, unbindable.
        "rootfsPropagation" rootfs_propagation: Option<String>,
        /// Paths hidden inside.
        "maskedPaths" masked_paths: Vec<String>,
        /// Paths read-only inside.
        "readonlyPaths" readonly_paths: Vec<String>,
        /// SELinux label of the mounts.
        "mountLabel" mount_label: Option<String>,
        /// Execution domain.
        "personality" personality: Option<Personality>,
        /// Network devices to move into the container.
        "netDevices" net_devices: BTreeMap<String, Option<NetDevice>>,
    }
    /// config-linux.md#intelrdt
    IntelRdt {
        /// Class of service; absent means one of the container's own, `/` the default one.
        "closID" clos_id: Option<String>,
        /// Line of the L3 cache, written first.
        "l3CacheSchema" l3_cache_schema: Option<String>,
        /// Line of the memory bandwidth, written second.
        "memBwSchema" mem_bw_schema: Option<String>,
        /// Lines as they are, written last.
        "schemata" schemata: Vec<String>,
        /// A monitoring group of the container's own.
        "enableMonitoring" enable_monitoring: bool,
        /// Until 1.2 of the specification, a half of `enableMonitoring`.
        "enableCMT" enable_cmt: bool,
        /// Until 1.2 of the specification, the other half.
        "enableMBM" enable_mbm: bool,
    }
    /// set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_…`
        "mode" mode: String,
        /// List of memory nodes.
        "nodes" nodes: String,
        /// `MPOL_F_…`
        "flags" flags: Vec<String>,
    }
    /// One network device to move; its key is its name on the host.
    NetDevice {
        /// Name inside; absent means the same.
        "name" name: Option<String>,
    }
    /// One namespace.
    Namespace {
        /// pid, network, mount, ipc, uts, user, cgroup or time.
        "type" kind: String,
        /// Join this one instead of making one.
        "path" path: Option<String>,
    }
    /// One line of a uid_map or gid_map.
    IdMapping {
        /// First id inside.
        "containerID" container_id: u32,
        /// First id outside.
        "hostID" host_id: u32,
        /// How many.
        "size" size: u32,
    }
    /// One clock offset.
    TimeOffset {
        /// Seconds.
        "secs" secs: i64,
        /// Nanoseconds, below one second.
        "nanosecs" nanosecs: u32,
    }
    /// One device node.
    Device {
        /// Absolute path inside.
        "path" path: String,
        /// c, u, b or p.
        "type" kind: String,
        /// Major number.
        "major" major: i64,
        /// Minor number.
        "minor" minor: i64,
        /// Permission bits.
        "fileMode" file_mode: Option<u32>,
        /// Owner.
        "uid" uid: Option<u32>,
        /// Group.
        "gid" gid: Option<u32>,
    }
    /// config-linux.md#control-groups
    Resources {
        /// Allowed and denied devices, in order.
        "devices" devices: Vec<DeviceRule>,
        /// Memory controller.
        "memory" memory: Option<Memory>,
        /// CPU and cpuset controllers.
        "cpu" cpu: Option<Cpu>,
        /// Pids controller.
        "pids" pids: Option<Pids>,
        /// Block I/O controller.
        "blockIO" block_io: Option<BlockIo>,
        /// Huge pages.
        "hugepageLimits" hugepage_limits: Vec<HugepageLimit>,
        /// net_cls and net_prio (v1).
        "network" network: Option<Network>,
        /// RDMA by device.
        "rdma" rdma: BTreeMap<String, Rdma>,
        /// cgroup v2 files and their values.
        "unified" unified: BTreeMap<String, String>,
    }
    /// One rule of the device controller.
    DeviceRule {
        /// Allow or deny.
        "allow" allow: bool,
        /// a, c or b; empty means a.
        "type" kind: String,
        /// Major number; absent or -1 means every one.
        "major" major: Option<i64>,
        /// Minor number; absent or -1 means every one.
        "minor" minor: Option<i64>,
        /// Letters of rwm; empty means all.
        "access" access: String,
    }
    /// Memory limits, bytes; -1 means unlimited.
    Memory {
        /// Hard limit.
        "limit" limit: Option<i64>,
        /// Soft limit.
        "reservation" reservation: Option<i64>,
        /// Memory plus swap.
        "swap" swap: Option<i64>,
        /// Kernel memory (obsolete).
        "kernel" kernel: Option<i64>,
        /// Kernel TCP memory (obsolete).
        "kernelTCP" kernel_tcp: Option<i64>,
        /// 0 … 100.
        "swappiness" swappiness: Option<u64>,
        /// No OOM kills (v1).
        "disableOOMKiller" disable_oom_killer: Option<bool>,
        /// Hierarchical accounting (v1).
        "useHierarchy" use_hierarchy: Option<bool>,
        /// Refuse a limit below the usage.
        "checkBeforeUpdate" check_before_update: Option<bool>,
    }
    /// CPU limits.
    Cpu {
        /// Relative weight, 2 … 262144.
        "shares" shares: Option<u64>,
        /// Microseconds per period; -1 means unlimited.
        "quota" quota: Option<i64>,
        /// Microseconds that may be carried over.
        "burst" burst: Option<u64>,
        /// Microseconds.
        "period" period: Option<u64>,
        /// Real-time microseconds per period (v1).
        "realtimeRuntime" realtime_runtime: Option<i64>,
        /// Real-time period in microseconds (v1).
        "realtimePeriod" realtime_period: Option<u64>,
        /// CPU list.
        "cpus" cpus: Option<String>,
        /// Memory node list.
        "mems" mems: Option<String>,
        /// SCHED_IDLE for the group.
        "idle" idle: Option<i64>,
    }
    /// Pids limit.
    Pids {
        /// How many; -1 means unlimited, 0 is a limit.
        "limit" limit: Option<i64>,
    }
    /// Block I/O limits.
    BlockIo {
        /// 10 … 1000.
        "weight" weight: Option<u16>,
        /// 10 … 1000 (v1).
        "leafWeight" leaf_weight: Option<u16>,
        /// Per device.
        "weightDevice" weight_device: Vec<WeightDevice>,
        /// Bytes per second read.
        "throttleReadBpsDevice" throttle_read_bps_device: Vec<ThrottleDevice>,
        /// Bytes per second written.
        "throttleWriteBpsDevice" throttle_write_bps_device: Vec<ThrottleDevice>,
        /// Reads per second.
        "throttleReadIOPSDevice" throttle_read_iops_device: Vec<ThrottleDevice>,
        /// Writes per second.
        "throttleWriteIOPSDevice" throttle_write_iops_device: Vec<ThrottleDevice>,
    }
    /// Weight of one block device.
    WeightDevice {
        /// Major number.
        "major" major: i64,
        /// Minor number.
        "minor" minor: i64,
        /// 10 … 1000.
        "weight" weight: Option<u16>,
        /// 10 … 1000 (v1).
        "leafWeight" leaf_weight: Option<u16>,
    }
    /// Throttle of one block device.
    ThrottleDevice {
        /// Major number.
        "major" major: i64,
        /// Minor number.
        "minor" minor: i64,
        /// Bytes or operations per second.
        "rate" rate: u64,
    }
    /// Limit of one huge page size.
    HugepageLimit {
        /// `2MB` and so on.
        "pageSize" page_size: String,
        /// Bytes.
        "limit" limit: u64,
    }
    /// net_cls and net_prio.
    Network {
        /// net_cls class.
        "classID" class_id: Option<u32>,
        /// net_prio priorities.
        "priorities" priorities: Vec<InterfacePriority>,
    }
    /// Priority of one interface.
    InterfacePriority {
        /// Interface.
        "name" name: String,
        /// Priority.
        "priority" priority: u32,
    }
    /// Limits of one RDMA device.
    Rdma {
        /// Handles.
        "hcaHandles" hca_handles: Option<u32>,
        /// Objects.
        "hcaObjects" hca_objects: Option<u32>,
    }
    /// config-linux.md#seccomp
    Seccomp {
        /// Action for calls without a rule; empty means no filter at all, as in runc.
        "defaultAction" default_action: String,
        /// errno of that action.
        "defaultErrnoRet" default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_…`
        "architectures" architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_…`; absent differs from empty.
        "flags" flags: Option<Vec<String>>,
        /// Socket of the agent that receives the listener.
        "listenerPath" listener_path: Option<String>,
        /// Opaque text for the agent.
        "listenerMetadata" listener_metadata: Option<String>,
        /// Rules.
        "syscalls" syscalls: Vec<Syscall>,
    }
    /// One seccomp rule.
    Syscall {
        /// Names of the calls.
        "names" names: Vec<String>,
        /// `SCMP_ACT_…`
        "action" action: String,
        /// errno or data of the action.
        "errnoRet" errno_ret: Option<u32>,
        /// Conditions.
        "args" args: Vec<SyscallArg>,
    }
    /// One condition on an argument.
    SyscallArg {
        /// 0 … 5.
        "index" index: u32,
        /// Operand (mask for SCMP_CMP_MASKED_EQ).
        "value" value: u64,
        /// Second operand (value for SCMP_CMP_MASKED_EQ).
        "valueTwo" value_two: u64,
        /// `SCMP_CMP_…`
        "op" op: String,
    }
    /// personality(2).
    Personality {
        /// LINUX or LINUX32.
        "domain" domain: String,
        /// None are defined.
        "flags" flags: Vec<String>,
    }
}
