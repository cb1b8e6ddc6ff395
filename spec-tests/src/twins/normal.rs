// SPDX-License-Identifier: Apache-2.0
//! The one place where what must differ between two performances is made equal: ids, directories, pids, times, numbers of
//! pipes and namespaces, the order of what has none.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Map, Value, json};

use crate::harness::bundle::Bundle;
use crate::harness::test::Test;

/// Knows the names of one performance.
pub struct Normal {
    /// What is replaced, and with what; the longest first.
    names: Vec<(String, &'static str)>,
    /// The namespaces of the first report.
    first: Option<Value>,
}

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Normal {
    /// For the two bundles of a performance.
    pub fn new(t: &Test, bundles: &[Bundle; 2]) -> Self {
        let dir = |bundle: &Bundle| bundle.dir.to_string_lossy().into_owned();
        let names = vec![
            (dir(&bundles[0]), "$DIR"),
            (dir(&bundles[1]), "$DIR2"),
            (t.place.dir.to_string_lossy().into_owned(), "$PLACE"),
            (bundles[0].id.clone(), "$ID"),
            (bundles[1].id.clone(), "$ID2"),
            (t.place.mark.clone(), "$MARK"),
        ];
        Self { names, first: None }
    }

    /// Text without this performance's names and numbers.
    pub fn text(&self, text: &str) -> String {
        let mut text =
            self.names.iter().fold(text.to_owned(), |text, (name, stands)| text.replace(name, stands));
        for kind in ["pipe:[", "socket:["] {
            if let Some((before, rest)) = text.split_once(kind)
                && let Some((_, after)) = rest.split_once(']')
            {
                text = format!("{before}{kind}N]{after}");
            }
        }
        text
    }

    /// The same for every string of a value.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(list) => list.iter().map(|one| self.value(one)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, one)| (self.text(key), self.value(one))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }

    /// A probe's report.
    pub fn report(&mut self, report: Value) -> Value {
        let mut report = self.value(&report);
        let namespaces = report["ns"].clone();
        let first = self.first.get_or_insert_with(|| namespaces.clone()).clone();
        report["ns"] =
            KINDS.iter().map(|kind| (kind.to_string(), json!(whose(kind, &namespaces, &first)))).collect();
        let own_pids = report["ns"]["pid"] != "host";
        let pid = report["pid"].clone();
        for key in ["sid", "pgid", "ppid"] {
            let shown = if report[key] == pid { json!("pid") } else { number(&report[key], own_pids) };
            report[key] = shown;
        }
        report["pid"] = if pid == 1 { pid } else { json!("N") };
        if let Some(text) = report["keyring"].as_str() {
            report["keyring"] = json!(text.rsplit_once(';').map_or(text, |(rest, _)| rest));
        }
        report["mounts"] = mounts(&report["mounts"]);
        report["cgroup"] = memberships(&report["cgroup"]);
        if let Some(nodes) = report["dev"].as_object_mut() {
            nodes.values_mut().filter_map(Value::as_object_mut).for_each(|node| _ = node.remove("size"));
        }
        if let Some(fds) = report["fds"].as_object_mut() {
            fds.values_mut()
                .for_each(|target| *target = json!(without_terminal(target.as_str().unwrap_or("?"))));
        }
        if let Some(name) = report["tty"]["name"].as_str() {
            report["tty"]["name"] = json!(without_terminal(name));
        }
        report
    }

    /// What a hook wrote down.
    pub fn hook(&self, told: &Value) -> Value {
        let stdin = self.state(told["stdin"].as_str().unwrap_or_default());
        let mut told = self.value(told);
        let host = |kind: &str| {
            fs::read_link(format!("/proc/self/ns/{kind}")).map(|link| link.to_string_lossy().into_owned())
        };
        for kind in KINDS {
            let is_host = host(kind).is_ok_and(|host| told["ns"][kind] == host.as_str());
            told["ns"][kind] = json!(if is_host { "host" } else { "other" });
        }
        told["stdin"] = stdin;
        told
    }

    /// What `state` printed.
    pub fn state(&self, text: &str) -> Value {
        let Ok(state) = serde_json::from_str::<Value>(text) else { return json!(self.text(text)) };
        let mut state = self.value(&state);
        if let Some(state) = state.as_object_mut() {
            state.entry("created").and_modify(|time| *time = json!("T"));
            // Each says which specification it knows.
            state.entry("ociVersion").and_modify(|version| *version = json!("V"));
            state.entry("pid").and_modify(|pid| *pid = number(pid, false));
        }
        state
    }
}

/// A number of a process: 0 is 0 everywhere; another is N unless it is counted in the container.
fn number(value: &Value, counted: bool) -> Value {
    match value.as_i64() {
        Some(0 | 1) => value.clone(),
        Some(_) if counted => json!("own N"),
        Some(_) => json!("N"),
        None => value.clone(),
    }
}

/// Whose namespace a process is in.
fn whose(kind: &str, namespaces: &Value, first: &Value) -> &'static str {
    let host = fs::read_link(format!("/proc/self/ns/{kind}")).map(|link| link.to_string_lossy().into_owned());
    match namespaces[kind].as_str() {
        None => "unknown",
        Some(one) if host.is_ok_and(|host| host == one) => "host",
        Some(_) if namespaces[kind] == first[kind] => "own",
        Some(_) => "other",
    }
}

/// Numbers of terminals of the host differ.
fn without_terminal(path: &str) -> String {
    if path.starts_with("/dev/pts/") { "/dev/pts/N".to_owned() } else { path.to_owned() }
}

/// Mounts by place, `#2` for the second on the same. Their order in the table is that of making them: what lies on what is told
/// by the places.
fn mounts(list: &Value) -> Value {
    let mut all = Map::new();
    let mut order: Vec<String> = Vec::new();
    for mount in list.as_array().into_iter().flatten() {
        let mut mount = mount.clone();
        let place = mount["dest"].as_str().unwrap_or_default().to_owned();
        for key in ["options", "super"] {
            if let Some(list) = mount[key].as_array_mut() {
                list.sort_by_key(|option| option.to_string());
            }
        }
        let kinds = mount["propagation"].as_array().into_iter().flatten().filter_map(Value::as_str);
        mount["propagation"] = kinds.map(|kind| kind.split(':').next().unwrap_or(kind)).collect();
        let count = order.iter().filter(|one| **one == place).count();
        let name = if count == 0 { place.clone() } else { format!("{place}#{}", count + 1) };
        if let Some(mount) = mount.as_object_mut() {
            mount.remove("dest");
        }
        all.insert(name, mount);
        order.push(place);
    }
    all.into()
}

/// Lines of /proc/self/cgroup by controllers, without the numbers of hierarchies.
fn memberships(list: &Value) -> Value {
    let lines = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    let pair = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some((format!("controllers {controllers}"), json!(path)))
    };
    lines.filter_map(pair).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal() -> Normal {
        let names = vec![("/tmp/m/bundle-1".into(), "$DIR"), ("m-1".into(), "$ID"), ("m".into(), "$MARK")];
        Normal { names, first: None }
    }

    #[test]
    fn names_and_numbers_go() {
        assert_eq!(normal().text("/tmp/m/bundle-1/rootfs m-1 m"), "$DIR/rootfs $ID $MARK");
        assert_eq!(normal().text("pipe:[123]"), "pipe:[N]");
        let state = normal().state(r#"{"id":"m-1","pid":77,"created":"2026"}"#);
        assert_eq!(state, json!({"id": "$ID", "pid": "N", "created": "T"}));
    }

    #[test]
    fn mounts_are_told_by_place() {
        let one = json!({"dest": "/a", "options": ["rw", "nodev"], "propagation": ["master:3"]});
        let told = mounts(&json!([one, one]));
        assert_eq!(told["/a#2"]["options"], json!(["nodev", "rw"]));
        assert_eq!(told["/a"]["propagation"], json!(["master"]));
    }
}
