// SPDX-License-Identifier: Apache-2.0
//! What of the host a container could change, read before and after.
//!
//! Looked at: the mount table, cgroup directories, processes below the case's own, the state root, unix sockets,
//! session keyrings, `/dev`, some global sysctls, and a canary tree beside the bundles. On a machine others use too,
//! only things that bear the case's mark count among cgroups, sockets and keyrings.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::host::Host;

/// Where a case works.
#[derive(Debug, Clone)]
pub struct Place {
    /// The case's own directory.
    pub dir: PathBuf,
    /// The state root given to the runtime.
    pub root: PathBuf,
    /// A text that is in every name the case makes.
    pub mark: String,
}

impl Place {
    /// The tree beside the bundles that no container may touch.
    pub fn outside(&self) -> PathBuf {
        self.dir.join("outside")
    }
}

/// The host at one moment: aspect → thing → description.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(BTreeMap<&'static str, BTreeMap<String, String>>);

impl Snapshot {
    /// Looks.
    pub fn take(host: &Host, place: &Place) -> Self {
        let ours = |name: &String| host.alone || name.contains(&place.mark);
        let marked = |names: BTreeSet<String>| -> BTreeMap<String, String> {
            names.into_iter().filter(ours).map(|name| (name, String::new())).collect()
        };
        let mut all = BTreeMap::new();
        all.insert("mount", mounts());
        all.insert("cgroup", marked(cgroups(host)));
        all.insert("process", processes());
        all.insert("state", state(host, &place.root));
        all.insert("socket", marked(sockets()));
        all.insert("keyring", marked(keyrings(host)));
        all.insert("device", tree(Path::new("/dev"), false));
        all.insert("sysctl", sysctls());
        all.insert("outside", tree(&place.outside(), true));
        Self(all)
    }

    /// What is different `now`, one line each; empty when nothing is.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (aspect, after) in &now.0 {
            let before = &self.0[aspect];
            for (name, text) in after {
                match before.get(name) {
                    None => found.push(format!("new {aspect} {name} {text}")),
                    Some(old) if compared(old) != compared(text) => {
                        found.push(format!("{aspect} {name}: {old} became {text}"))
                    }
                    Some(_) => {}
                }
            }
            // Keyrings end when the kernel finds the time.
            let may_go = |old: &str| *aspect == "keyring" || others_may_end(old);
            let gone = before.iter().filter(|(name, old)| !after.contains_key(*name) && !may_go(old));
            found.extend(gone.map(|(name, old)| format!("{aspect} {name} {old} is gone")));
        }
        found
    }
}

/// The mount table by mount number. Where something is mounted changes when anybody renames a directory above it, so
/// the place comes after the mark, where it is shown but not compared.
fn mounts() -> BTreeMap<String, String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').map(|word| word.split(':').next().unwrap_or(word)).collect();
        let (place, options) = (words.get(4)?, words.get(5..)?.join(" "));
        Some((words[0].to_owned(), format!("{} {options}{SHOWN_ONLY}{place}", words[3])))
    };
    table.lines().filter_map(line).collect()
}

/// Removing a directory elsewhere ends what is mounted on it here: mounts on what others may remove are not counted.
fn others_may_end(mount: &str) -> bool {
    let place = mount.split_once(SHOWN_ONLY).map_or("", |(_, place)| place);
    let ours = place.contains(&format!("corten-test-{}-", std::process::id()));
    !ours && ["/tmp/", "/root/", "/home/", "/work/", "/var/"].iter().any(|top| place.starts_with(top))
}

/// What follows this in a description is for people and not compared.
const SHOWN_ONLY: &str = " at ";

fn compared(text: &str) -> &str {
    text.split(SHOWN_ONLY).next().unwrap_or(text)
}

fn cgroups(host: &Host) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut todo = host.mounted_hierarchies();
    while let Some(dir) = todo.pop() {
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        todo.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        all.insert(dir.to_string_lossy().into_owned());
    }
    all
}

/// One process of the host.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub zombie: bool,
    pub name: String,
}

/// All processes that can be seen.
pub fn all_processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| process(e.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let mut words = tail.split_whitespace();
    let zombie = words.next()? == "Z";
    let name = head.split_once('(')?.1.to_owned();
    Some(Process { pid, parent: words.next()?.parse().ok()?, zombie, name })
}

/// The living processes below this one, the nearest first.
pub fn descendants() -> Vec<Process> {
    let mut rest = all_processes();
    let mut parents = vec![std::process::id() as i32];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|p| p.parent == parent);
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        rest = others;
    }
    found.into_iter().filter(|p| !p.zombie).collect()
}

fn processes() -> BTreeMap<String, String> {
    descendants().into_iter().map(|p| (p.pid.to_string(), format!("{SHOWN_ONLY}{}", p.name))).collect()
}

/// What is below the state root, but for what crun keeps there for all its containers.
fn state(host: &Host, root: &Path) -> BTreeMap<String, String> {
    let kept: &[&str] = if host.name == "crun" { &[".cache", ".empty-directory"] } else { &[] };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !kept.contains(&name.as_str())).map(|name| (name, String::new())).collect()
}

fn sockets() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = |line: &str| line.split_whitespace().nth(7).map(str::to_owned);
    table.lines().skip(1).filter_map(path).collect()
}

/// Session keyrings that may be seen, and how many keys each user has: a keyring may be nobody's to see but its possessor's
/// (keyrings(7), proc_key-users(5)). Only where nobody else uses the machine the number says something.
fn keyrings(host: &Host) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/keys").unwrap_or_default();
    let session = |line: &&str| line.contains("_ses");
    let name = |line: &str| line.split_whitespace().skip(8).collect::<Vec<_>>().join(" ");
    let mut all: BTreeSet<String> = table.lines().filter(session).map(name).collect();
    if host.alone {
        let users = fs::read_to_string("/proc/key-users").unwrap_or_default();
        for line in users.lines() {
            let (user, rest) = line.split_once(':').unwrap_or_default();
            let keys = rest.split_whitespace().nth(1).and_then(|keys| keys.split('/').next());
            let keys: usize = keys.and_then(|keys| keys.parse().ok()).unwrap_or(0);
            all.extend((1..=keys).map(|key| format!("key {key} of user {}", user.trim())));
        }
    }
    all
}

/// Files below `dir`: kind, numbers, mode, owner, and (for the canary) content and change time.
fn tree(dir: &Path, closely: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
        let mut text = format!("{:o} {} {}:{}", meta.mode(), meta.rdev(), meta.uid(), meta.gid());
        if let Ok(target) = fs::read_link(&path) {
            text += &format!(" -> {}", target.display());
        }
        if closely {
            text += &format!(" {}.{}", meta.ctime(), meta.ctime_nsec());
            if meta.is_file() {
                text += &format!(" {:?}", fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()));
            }
            all.extend(if meta.is_dir() { tree(&path, true) } else { BTreeMap::new() });
        }
        all.insert(path.to_string_lossy().into_owned(), text);
    }
    all
}

fn sysctls() -> BTreeMap<String, String> {
    let names = [
        "kernel/core_pattern",
        "kernel/domainname",
        "kernel/hostname",
        "kernel/modprobe",
        "kernel/msgmax",
        "kernel/shmmax",
        "kernel/sysrq",
        "net/ipv4/ip_forward",
        "vm/overcommit_memory",
    ];
    let value = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    names.iter().map(|name| (name.to_string(), value(name).trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(things: &[(&str, &str)]) -> Snapshot {
        let things = things.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Snapshot(BTreeMap::from([("thing", things)]))
    }

    #[test]
    fn new_changed_and_gone_are_told() {
        let before = snapshot(&[("a", "1"), ("b", "2 at x"), ("c", "3")]);
        let after = snapshot(&[("a", "9"), ("b", "2 at y"), ("d", "4")]);
        let told = before.differences(&after);
        assert_eq!(told, ["thing a: 1 became 9", "new thing d 4", "thing c 3 is gone"]);
        assert!(before.differences(&before).is_empty());
    }

    #[test]
    fn the_canary_tree_is_compared_closely() {
        let dir = std::env::temp_dir().join(format!("hostdiff-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "one").unwrap();
        let before = tree(&dir, true);
        fs::write(dir.join("sub/file"), "two").unwrap();
        let after = tree(&dir, true);
        fs::remove_dir_all(&dir).unwrap();
        assert_ne!(before, after);
    }
}
