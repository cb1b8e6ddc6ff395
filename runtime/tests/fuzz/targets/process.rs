// SPDX-License-Identifier: Apache-2.0
//! `exec --process FILE`, and the flags laid over a process object. The first byte chooses the container and the flags.

use corten::ask::Overlay;
use corten::plan::ids::Setgroups;
use corten::plan::namespaces;
use corten::plan::process::{self, ProcessContext};
use corten::plan::{Plan, ids};
use corten::program::compile;
use corten::spec::{self, Spec};
use serde_json::Value;

use crate::mutate::Shape;
use crate::targets::Target;
use crate::{cases, holds, hosts};

pub const TARGET: Target = Target { name: "process", shape: Shape::Json, seeds, run, short: 3000 };

/// The containers: one plain, one with a user namespace.
const CONTAINERS: [&str; 2] =
    [include_str!("../../data/plan/default.json"), include_str!("../../data/plan/userns.json")];

fn containers() -> Vec<(Spec, Plan)> {
    let of = |text: &&str| {
        let spec: Spec = spec::read("config.json", text.as_bytes()).unwrap();
        let plan = hosts::plan(&spec, &hosts::v2()).unwrap();
        (spec, plan)
    };
    CONTAINERS.iter().map(of).collect()
}

thread_local! {
    static KNOWN: Vec<(Spec, Plan)> = containers();
}

fn overlay() -> Overlay {
    let text = |text: &str| text.to_owned();
    Overlay {
        args: vec![text("sh"), text("-c")],
        env: vec![text("A=1"), text("HOME=/x"), text("PATH=:/b")],
        cwd: Some(text("/tmp/../x")),
        user: Some((7, Some(8))),
        additional_gids: vec![9, 0],
        terminal: true,
        caps: vec![text("CAP_CHOWN"), text("CAP_NONE")],
        no_new_privileges: true,
        apparmor: Some(text("profile")),
        process_label: Some(text("u:r:t:s0")),
    }
}

fn run(input: &[u8]) -> bool {
    KNOWN.with(|known| check(input, known))
}

fn check(input: &[u8], known: &[(Spec, Plan)]) -> bool {
    let Some((choice, json)) = input.split_first() else { return false };
    let (spec, container) = &known[usize::from(*choice & 1)];
    let mut object = match spec::read::<spec::Process>("process.json", json) {
        Ok(object) => object,
        Err(error) => {
            holds::configuration_error("process.json", &error);
            return false;
        }
    };
    let laid_over = *choice & 2 != 0;
    if laid_over {
        object = process::overlay(object, &overlay());
    }
    let namespaces = namespaces::decide_namespaces(spec).unwrap();
    let ids = ids::decide_id_maps(spec, &namespaces).unwrap();
    let facts = if *choice & 4 != 0 { hosts::nested() } else { hosts::v2() };
    let setgroups = if *choice & 32 != 0 { Setgroups::Denied } else { Setgroups::Allowed };
    let listen_fds = u32::from(*choice >> 3 & 1);
    let context = ProcessContext { facts: &facts, ids: ids.as_ref(), setgroups, spec, listen_fds };
    let mut warnings = Vec::new();
    let process = match process::decide_process_object(
        &object,
        if laid_over { "/process" } else { "" },
        &context,
        &mut warnings,
    ) {
        Ok(process) => process,
        Err(error) => {
            holds::configuration_error("config.json /", &error);
            return false;
        }
    };
    warnings.iter().for_each(|warning| holds::one_line(warning));
    holds::process(&process);
    if let Some(ids) = &ids {
        assert!(ids.host_uid(process.uid).is_some() && ids.host_gid(process.gid).is_some());
        assert!(process.gids.iter().all(|gid| ids.host_gid(*gid).is_some()));
    }
    if laid_over {
        let last = |name: &str| process.env.iter().rfind(|entry| entry.starts_with(name)).cloned();
        assert_eq!(last("A=").as_deref(), Some("A=1"));
        assert!(process.no_new_privileges && process.terminal.is_some());
        assert_eq!((process.uid, process.gid, process.cwd.as_str()), (7, 8, "/x"));
    }
    let way_in = cases::way_in(*choice & 16 != 0);
    holds::program(&compile::exec(&cases::entry(container, way_in), &process));
    true
}

/// The processes of the golden configurations.
fn seeds() -> Vec<Vec<u8>> {
    let all = [
        CONTAINERS[0],
        CONTAINERS[1],
        include_str!("../../data/plan/docker.json"),
        include_str!("../../data/plan/odd.json"),
        include_str!("../../data/plan/podman.json"),
    ];
    let process = |(text, choice): (&str, u8)| {
        let config: Value = serde_json::from_str(text).unwrap();
        [&[choice][..], config["process"].to_string().as_bytes()].concat()
    };
    all.into_iter().zip([0, 33, 2, 11, 16]).map(process).collect()
}
