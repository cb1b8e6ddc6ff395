// SPDX-License-Identifier: Apache-2.0
//! The sandbox service as containerd's CRI uses it: a pod that a shim holds, what is asked of it, and what it looks like.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

use super::daemon::{Daemon, Reply, call, read_reply};
use super::task::{Io, Shim, Task};
use super::ttrpc::{Answer, Pending};
use super::wire::Message;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict, same};
use crate::harness::test::Test;

pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// NamespaceMode of the CRI.
pub const POD: u64 = 0;
pub const CONTAINER: u64 = 1;
pub const NODE: u64 = 2;
/// The first id of the host in a user namespace.
const HOST_ID: u64 = 100_000;

/// What a pod is asked to be.
#[derive(Clone)]
pub struct PodConfig {
    pub hostname: String,
    pub network: PathBuf,
    pub network_mode: u64,
    pub pid_mode: u64,
    pub ipc_mode: u64,
    pub user: bool,
    pub sysctls: Vec<(String, String)>,
    pub servers: Vec<String>,
}

impl PodConfig {
    /// With a network namespace of its own, and a pid namespace for each container.
    pub fn usual(t: &Test) -> Result<Self, Trouble> {
        Ok(Self {
            hostname: "pod-host".into(),
            network: network(t, "netns")?,
            network_mode: POD,
            pid_mode: CONTAINER,
            ipc_mode: POD,
            user: false,
            sysctls: Vec::new(),
            servers: Vec::new(),
        })
    }

    fn message(&self) -> Message {
        let range = Message::new().number(1, HOST_ID).number(3, 65536);
        let user = Message::new().message(2, &range).message(3, &range);
        let modes =
            Message::new().number(1, self.network_mode).number(2, self.pid_mode).number(3, self.ipc_mode);
        let modes = if self.user { modes.message(5, &user) } else { modes };
        let mut linux = Message::new().text(1, "/pods/pod").message(2, &Message::new().message(1, &modes));
        for (key, value) in &self.sysctls {
            linux = linux.message(3, &Message::new().text(1, key).text(2, value));
        }
        let dns = self.servers.iter().fold(Message::new(), |dns, server| dns.text(1, server));
        let metadata = Message::new().text(1, "pod").text(2, "uid").text(3, "default");
        Message::new().message(1, &metadata).text(2, &self.hostname).message(4, &dns).message(8, &linux)
    }
}

/// A network namespace, kept by a mount until the case is over.
pub fn network(t: &Test, name: &str) -> Result<PathBuf, Trouble> {
    let mut path = t.path(name);
    while path.exists() {
        path.as_mut_os_string().push("-");
    }
    fs::write(&path, "")?;
    let at = path.clone();
    let make = move || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    std::thread::spawn(make).join().map_err(|_| "no thread")??;
    unmounted_at_end(t, &path);
    Ok(path)
}

/// The same in a user namespace that maps the host's ids from 100000 on.
pub fn network_of_user(t: &Test) -> Result<PathBuf, Trouble> {
    let path = t.path("user-netns");
    fs::write(&path, "")?;
    let mut child = Command::new("unshare")
        .args(["--user", "--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Trouble::NotRun(format!("unshare(1): {error}")))?;
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let ours = fs::read_link("/proc/self/ns/net")?;
    let there = || Ok(fs::read_link(proc.join("ns/net")).is_ok_and(|link| link != ours).then_some(()));
    t.until(|| "its namespaces".into(), there)?;
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), format!("0 {HOST_ID} 65536"))?;
    }
    mount(Some(&proc.join("ns/net")), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    unmounted_at_end(t, &path);
    drop(child.stdin.take());
    child.wait()?;
    Ok(path)
}

fn unmounted_at_end(t: &Test, path: &Path) {
    let path = path.to_owned();
    t.at_end(move || {
        umount2(&path, MntFlags::MNT_DETACH).ok();
    });
}

/// A pod, and the connection to the shim that holds it.
pub struct Pod<'d, 't> {
    pub d: &'d Daemon<'t>,
    pub bundle: Bundle,
    pub shim: Arc<Shim>,
    pub config: PodConfig,
    /// What `start` told.
    pub version: u64,
}

/// What SandboxStatus tells.
#[derive(Debug, Clone, PartialEq)]
pub struct PodStatus {
    pub pid: u64,
    pub state: String,
    pub created_at: f64,
    pub exited_at: f64,
}

impl<'d, 't> Pod<'d, 't> {
    /// Its shim runs; nothing is asked yet.
    pub fn begin(d: &'d Daemon<'t>, config: PodConfig) -> Result<Self, Trouble> {
        let bundle = d.bundle("forever")?;
        // containerd writes no configuration for a sandbox, and makes no root for it.
        fs::remove_file(bundle.dir.join("config.json"))?;
        fs::create_dir_all(d.t.path("containerd-root"))?;
        let work = d.t.path("containerd-root").join("plugin").join(&d.namespace).join(&bundle.id);
        symlink(work, bundle.dir.join("work"))?;
        let reply = start(d, &bundle)?;
        let shim = Arc::new(Shim::connect(&reply.address, reply.version, &bundle.id)?);
        Ok(Self { d, bundle, shim, config, version: reply.version })
    }

    /// One that is ready: its first process.
    pub fn ready(d: &'d Daemon<'t>, config: PodConfig) -> Result<(Self, u64), Trouble> {
        let pod = Self::begin(d, config)?;
        pod.create()?;
        let pid = pod.call("StartSandbox")?.number(1);
        Ok((pod, pid))
    }

    pub fn id(&self) -> Message {
        Message::new().text(1, &self.bundle.id)
    }

    pub fn create_request(&self) -> Message {
        let request = self.id().text(2, &self.bundle.dir.to_string_lossy());
        let request = request.any(4, "runtime.v1.PodSandboxConfig", &self.config.message().0);
        let network =
            if self.config.network_mode == NODE { "".into() } else { self.config.network.to_string_lossy() };
        request.text(5, &network)
    }

    pub fn create(&self) -> Answer {
        self.ask("CreateSandbox", &self.create_request())
    }

    pub fn ask(&self, method: &str, message: &Message) -> Answer {
        self.begin_call(method, message).within(20.0)
    }

    pub fn begin_call(&self, method: &str, message: &Message) -> Pending {
        self.shim.client.begin(SERVICE, method, message)
    }

    /// A request that says nothing but the id.
    pub fn call(&self, method: &str) -> Answer {
        self.ask(method, &self.id())
    }

    pub fn status(&self) -> Result<PodStatus, Trouble> {
        let told = self.call("SandboxStatus")?;
        same("the id that it tells", &told.text(1), &self.bundle.id)?;
        Ok(PodStatus {
            pid: told.number(2),
            state: told.text(3),
            created_at: told.time(5)?,
            exited_at: told.time(6)?,
        })
    }

    /// Where hostname, hosts and resolv.conf are.
    pub fn root(&self) -> PathBuf {
        self.d.t.path("containerd-root/io.containerd.grpc.v1.cri/sandboxes").join(&self.bundle.id)
    }

    pub fn shm(&self) -> PathBuf {
        self.d.t.path("io.containerd.grpc.v1.cri/sandboxes").join(&self.bundle.id).join("shm")
    }

    /// A container of it, as containerd 2.1 configures one: the namespaces of the pod's first process.
    pub fn container(&self, pid: u64, probe: &str) -> Result<(Bundle, Task), Trouble> {
        let mut bundle = self.d.bundle(probe)?;
        bundle.config["annotations"] = json!({"io.kubernetes.cri.sandbox-id": self.bundle.id});
        bundle.config.as_object_mut().map(|config| config.remove("hostname"));
        let mut joined = vec![("ipc", "ipc"), ("uts", "uts"), ("network", "net")];
        if self.config.pid_mode != CONTAINER {
            joined.push(("pid", "pid"));
        }
        if self.config.user {
            joined.push(("user", "user"));
            // containerd lets the group of its root in.
            fs::set_permissions(&bundle.dir, fs::Permissions::from_mode(0o711))?;
            let map = json!([{"containerID": 0, "hostID": HOST_ID, "size": 65536}]);
            bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        }
        for (kind, file) in joined {
            bundle = bundle.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
        }
        let reply = self.d.start(&bundle)?;
        same("the address told for a container", &reply.address, &self.shim.address)?;
        let task = Task::new(self.shim.clone(), &bundle.id);
        task.create(self.d, &bundle, &Io::null())?;
        task.start("")?;
        Ok((bundle, task))
    }

    /// The end of a container, as a client has it; the shim stays.
    pub fn end_container(&self, bundle: &Bundle, task: &Task) -> Verdict {
        task.kill("", 9, true).ok();
        task.exit("")?;
        task.delete("")?;
        self.shim.call("Shutdown", &Message::new().text(1, &task.id))?;
        self.d.delete(bundle)?;
        self.d.remove(bundle)
    }

    /// The pod's end, as containerd has it; nothing is left.
    pub fn end(&self) -> Verdict {
        self.call("StopSandbox")?;
        self.call("ShutdownSandbox").or_else(|failure| {
            if failure.code == super::ttrpc::CLOSED { Ok(Default::default()) } else { Err(failure) }
        })?;
        self.d.is_gone(&self.shim)?;
        self.delete()?;
        self.nothing_left()
    }

    /// The binary's `delete`, and the bundle's end.
    pub fn delete(&self) -> Verdict {
        self.d.delete(&self.bundle)?;
        self.d.t.reap();
        self.d.remove(&self.bundle)
    }

    /// Neither files nor mounts.
    pub fn nothing_left(&self) -> Verdict {
        for path in [self.root(), self.shm()] {
            check!(!path.exists(), "{} is left", path.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let left = mounts.lines().find(|line| line.contains(&format!("sandboxes/{}", self.bundle.id)));
        check!(left.is_none(), "a mount is left: {left:?}");
        Ok(())
    }
}

/// `start` for a bundle without a configuration.
pub fn start(d: &Daemon, bundle: &Bundle) -> Result<Reply, Trouble> {
    let mut command = d.command(bundle);
    command.arg("start");
    let called = call(command, &d.stdin(bundle, Some(&d.options())), true)?;
    check!(called.code == Some(0), "start ended with {:?}: {}", called.code, called.text());
    read_reply(&called.output, d.dialect.get())
}

/// What `look` sees in the namespaces of these kinds of a process.
pub fn inside<T: Send + 'static>(
    pid: u64,
    kinds: &[&str],
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let files: Vec<_> = kinds
        .iter()
        .map(|kind| fs::File::open(format!("/proc/{pid}/ns/{kind}")))
        .collect::<Result<_, _>>()?;
    let there = move || -> nix::Result<T> {
        for file in &files {
            setns(file, CloneFlags::empty())?;
        }
        Ok(look())
    };
    Ok(std::thread::spawn(there).join().map_err(|_| "no thread")??)
}

/// A namespace's name.
pub fn namespace(pid: u64, kind: &str) -> Result<PathBuf, Trouble> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?)
}
