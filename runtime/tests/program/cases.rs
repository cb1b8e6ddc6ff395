// SPDX-License-Identifier: Apache-2.0
//! Configurations to compile: a few by hand, and any number at random.

use corten::ask::Create;
use corten::cgroup::WayIn;
use corten::facts::Facts;
use corten::plan::Plan;
use corten::plan::namespaces::NsKind;
use corten::program::compile::{self, Entry};
use corten::program::{Op, Program, StageOp};
use corten::spec::{self, Spec};
use serde_json::{Value, json};

use crate::hosts;

/// The last capability of the kernel that is planned for.
const LAST_CAP: u32 = 40;

fn base() -> Value {
    serde_json::from_str(include_str!("../data/plan/default.json")).unwrap()
}

fn read(config: &Value) -> Spec {
    spec::read("config.json", config.to_string().as_bytes()).unwrap()
}

/// The default configuration after `change`, planned for a v2 host with `ask`.
pub fn plan(ask: &Create, change: impl FnOnce(&mut Value)) -> Plan {
    let mut config = base();
    change(&mut config);
    with_run(hosts::plan_for(&read(&config), &hosts::v2(), ask).unwrap(), ask.run)
}

fn with_run(mut plan: Plan, run: bool) -> Plan {
    plan.ask.run = run;
    plan
}

fn program(change: impl FnOnce(&mut Value)) -> Program {
    compile::create(&plan(&Create::default(), change), LAST_CAP)
}

pub fn user_namespace(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
}

pub fn joined(config: &mut Value, kinds: &[&str]) {
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        let kind = namespace["type"].as_str().unwrap().to_owned();
        if kinds.contains(&kind.as_str()) {
            namespace["path"] = json!(format!("/run/ns/{kind}"));
        }
    }
}

fn seccomp() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]})
}

pub fn listener() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "listenerMetadata": "m",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})
}

fn hooks() -> Value {
    let one = |kind: &str| json!([{"path": format!("/bin/{kind}"), "args": [kind, "x"], "env": ["A=b"], "timeout": 3}]);
    json!({"prestart": one("prestart"), "createRuntime": one("createRuntime"), "createContainer": one("createContainer"),
        "startContainer": one("startContainer"), "poststart": one("poststart"), "poststop": one("poststop")})
}

/// What `corten spec --rootless` writes, after `change`, planned for a user without privileges.
fn rootless(change: impl FnOnce(&mut Value)) -> Program {
    let mut config: Value = serde_json::from_str(include_str!("../data/plan/rootless.json")).unwrap();
    config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
    change(&mut config);
    let mut user = hosts::user();
    (user.apparmor, user.selinux) = (false, false);
    compile::create(&hosts::plan_for(&read(&config), &user, &Create::default()).unwrap(), LAST_CAP)
}

/// What few configurations have.
fn fields(config: &mut Value) {
    let linux = &mut config["linux"];
    linux["intelRdt"] = json!({"l3CacheSchema": "L3:0=f", "enableMonitoring": true});
    linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0-1"});
    linux["netDevices"] = json!({"eth0": {"name": "net%d"}});
    linux["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5}]);
    config["annotations"] = json!({"run.oci.keep_original_groups": "1"});
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 9}]);
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/link", "type": "bind", "source": "/src/link", "options": ["copy-symlink", "ro"]}));
    mounts.push(
        json!({"destination": "/mapped", "type": "tmpfs", "source": "t", "options": ["mode=700", "nodev"],
        "uidMappings": map, "gidMappings": map}),
    );
}

/// The default configuration after `change`, planned for that host.
pub fn planned_for(host: &Facts, change: impl FnOnce(&mut Value)) -> Plan {
    let mut config = base();
    change(&mut config);
    hosts::plan_for(&read(&config), host, &Create::default()).unwrap()
}

/// Before Linux 5.12.
fn old_kernel() -> Plan {
    planned_for(&Facts { mount_setattr: false, ..hosts::v2() }, |c| {
        c["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/b", "type": "bind", "source": "/src", "options": ["rbind", "ro", "rshared"]}),
        );
    })
}

fn no_pivot() -> Plan {
    let mounts = ["/dev", "/proc", "/proc", "/sys"].map(str::to_owned).to_vec();
    let facts = Facts { mounts, ..hosts::v2() };
    let ask = Create { no_pivot: true, ..Create::default() };
    hosts::plan_for(&read(&base()), &facts, &ask).unwrap()
}

/// The stage's steps.
pub fn stage(program: &Program) -> Vec<&StageOp> {
    let ops = program.steps.iter().map(|step| &step.op);
    ops.filter_map(|op| if let Op::Stage(op) = op { Some(op) } else { None }).collect()
}

/// A way into the control groups.
pub fn way_in(joins: bool) -> WayIn {
    if joins { WayIn::JoinsItself } else { WayIn::Born }
}

/// What `exec` knows about a container with these namespaces.
pub fn entry(plan: &Plan, way_in: WayIn) -> Entry {
    let has = |kind| plan.namespaces.has(kind);
    let kinds = NsKind::ALL.into_iter().filter(|kind| *kind != NsKind::Pid && has(*kind));
    Entry {
        id: plan.id.clone(),
        kinds: kinds.fold(0, |flags, kind| flags | kind.flag()),
        pid: has(NsKind::Pid),
        user: has(NsKind::User),
        chroot: plan.ask.no_pivot || !has(NsKind::Mount),
        keyring: plan.ask.keyring.clone(),
        way_in,
        unprivileged: false,
        drops_groups: has(NsKind::User),
        ignored: 1 << 12,
        last_cap: LAST_CAP,
        rdt: plan.rdt.is_some(),
        keep_groups: plan.obeyed.keep_groups,
        seccomp: plan.seccomp.clone(),
        keep_fds: plan.ask.keep_fds,
    }
}

fn exec(change: impl FnOnce(&mut Value)) -> Program {
    let plan = plan(&Create::default(), change);
    compile::exec(&entry(&plan, WayIn::Born), plan.process.as_ref().unwrap())
}

/// What holds a pod's namespaces. A pod's configuration has some of the kinds.
fn hold(change: impl FnOnce(&mut Value)) -> Program {
    compile::hold(&plan(&Create::default(), change), LAST_CAP)
}

/// The programs that were reviewed once, by name.
pub fn golden() -> Vec<(&'static str, Program)> {
    let terminal = |c: &mut Value| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    };
    vec![
        ("default", program(|_| {})),
        ("run", compile::create(&plan(&Create { run: true, ..Create::default() }, |_| {}), LAST_CAP)),
        ("userns", program(user_namespace)),
        ("rootless", rootless(|_| {})),
        (
            "rootless-time",
            rootless(|c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}))),
        ),
        ("rootless-range", rootless(|c| c["linux"]["uidMappings"][0]["size"] = json!(5))),
        ("hold", hold(|c| joined(c, &["network"]))),
        (
            "hold-shared-pids",
            hold(|c| {
                user_namespace(c);
                joined(c, &["user", "network"]);
                c["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
                c["linux"]["sysctl"] = json!({"net.ipv4.tcp_syncookies": "2", "kernel.shmmax": "1"});
            }),
        ),
        ("joined", program(|c| joined(c, &["network", "ipc", "uts", "pid"]))),
        (
            "joined-user",
            program(|c| {
                user_namespace(c);
                joined(c, &["user", "network", "ipc", "uts"]);
            }),
        ),
        (
            "time",
            program(|c| {
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
                c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 7, "nanosecs": 8}});
            }),
        ),
        ("terminal", program(terminal)),
        (
            "seccomp-without-nnp",
            program(|c| {
                c["linux"]["seccomp"] = seccomp();
                c["process"]["noNewPrivileges"] = json!(false);
            }),
        ),
        ("seccomp-with-nnp", program(|c| c["linux"]["seccomp"] = seccomp())),
        ("hooks", program(|c| c["hooks"] = hooks())),
        ("no-process", program(|c| c["process"] = Value::Null)),
        ("fields", program(fields)),
        ("fields-in-userns", {
            program(|c| {
                user_namespace(c);
                fields(c);
            })
        }),
        ("old-kernel", compile::create(&old_kernel(), LAST_CAP)),
        ("no-pivot", compile::create(&no_pivot(), LAST_CAP)),
        ("exec", exec(terminal)),
        ("exec-fields", exec(fields)),
        (
            "exec-selinux",
            exec(|c| {
                c["process"]["oomScoreAdj"] = json!(-5);
                c["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
            }),
        ),
        ("exec-apparmor", exec(|c| c["process"]["apparmorProfile"] = json!("profile"))),
        (
            "delegated",
            program(|c| {
                user_namespace(c);
                c["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]);
            }),
        ),
        (
            "exec-userns-listener",
            exec(|c| {
                user_namespace(c);
                c["linux"]["seccomp"] = listener();
            }),
        ),
    ]
}

/// A generator of numbers (xorshift*): the same seeds give the same configurations everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|_| self.one_in(2)).collect()
    }
}

/// Any configuration, and flags. Some are refused by the plan: `None`.
pub fn random(random: &mut Random) -> Option<Plan> {
    let mut config = base();
    namespaces(random, &mut config);
    process(random, &mut config);
    mounts(random, &mut config);
    if random.one_in(3) {
        config["hooks"] = hooks();
    }
    match random.below(4) {
        0 => config["linux"]["seccomp"] = seccomp(),
        1 => config["linux"]["seccomp"] = listener(),
        _ => {}
    }
    if random.one_in(4) {
        fields(&mut config);
    }
    let facts = match random.below(3) {
        0 => hosts::v1(),
        1 => hosts::nested(),
        _ => hosts::v2(),
    };
    let facts = Facts { mount_setattr: !random.one_in(4), mounts: vec!["/sys".to_owned()], ..facts };
    let fds = random.below(3) as u32;
    let ask = Create { no_pivot: random.one_in(6), listen_fds: fds, preserve_fds: fds, ..Create::default() };
    let run = random.one_in(2) && !config["process"].is_null();
    hosts::plan_for(&read(&config), &facts, &ask).ok().map(|plan| with_run(plan, run))
}

fn namespaces(random: &mut Random, config: &mut Value) {
    if random.one_in(3) {
        user_namespace(config);
    }
    if random.one_in(4) {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": -3}});
    }
    let kinds = random.some(&["network", "ipc", "uts", "pid", "user", "cgroup", "time", "mount"]);
    if random.one_in(2) {
        joined(config, &kinds);
    }
    if random.one_in(4) {
        let kind = ["network", "ipc", "pid", "cgroup"][random.below(4) as usize];
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
    }
    if random.one_in(2) {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "7"});
    }
}

fn process(random: &mut Random, config: &mut Value) {
    if random.one_in(12) {
        config["process"] = Value::Null;
        return;
    }
    let process = &mut config["process"];
    process["terminal"] = json!(random.one_in(3));
    process["noNewPrivileges"] = json!(random.one_in(2));
    process["user"] = json!({"uid": random.below(3), "gid": random.below(3), "additionalGids": [5, 6]});
    process["cwd"] = json!(["/", "/work/dir"][random.below(2) as usize]);
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"];
    let held = random.some(&all);
    process["capabilities"] = json!({"bounding": random.some(&all), "permitted": held, "effective": held,
        "inheritable": random.some(&all), "ambient": random.some(&held)});
    if random.one_in(2) {
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 9}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
        process["oomScoreAdj"] = json!(100);
        process["env"] = json!(["PATH=/bin", "HOME=/root"]);
    }
    match random.below(3) {
        0 => process["apparmorProfile"] = json!("corten"),
        1 => process["selinuxLabel"] = json!("system_u:system_r:container_t:s0"),
        _ => {}
    }
}

fn mounts(random: &mut Random, config: &mut Value) {
    config["root"]["readonly"] = json!(random.one_in(2));
    if random.one_in(4) {
        config["linux"]["rootfsPropagation"] =
            json!(["shared", "rslave", "private"][random.below(3) as usize]);
    }
    for number in 0..random.below(5) {
        let long = format!("lowerdir={}", "/l:".repeat(100));
        let target = if random.one_in(9) { "/".to_owned() } else { format!("/m/{number}") };
        let mount = match random.below(4) {
            0 => {
                json!({"destination": target, "type": "bind", "source": "/src", "options": ["rbind", "rro", "rslave"]})
            }
            1 => {
                json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup", "noatime"]})
            }
            2 => {
                json!({"destination": target, "type": "overlay", "source": "overlay", "options": [long, "noatime", "rshared"]})
            }
            _ => {
                json!({"destination": "/proc/cpuinfo", "type": "bind", "source": "/src/cpuinfo", "options": ["bind"]})
            }
        };
        config["mounts"].as_array_mut().unwrap().push(mount);
    }
    if random.one_in(2) {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, {"path": "/dev/pipe", "type": "p"}]);
    }
}
