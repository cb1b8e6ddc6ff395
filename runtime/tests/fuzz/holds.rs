// SPDX-License-Identifier: Apache-2.0
//! What holds of every error, plan and program, whatever the input was.

use corten::Error;
use corten::error::Kind;
use corten::plan::Plan;
use corten::plan::mounts::{Mount, MountSource, MountStep};
use corten::plan::process::Process;
use corten::program::{Op, Program, StageOp, check, explain};

use crate::decoded::roundtrip;

/// An error, or a warning, is one line of text, and not an endless one.
#[track_caller]
pub fn one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "not one line: {text:?}");
    assert!(text.len() < 64 << 10, "{} bytes of message: {:.200}", text.len(), text);
}

/// An error of reading or planning: the file, the field, what is wrong.
#[track_caller]
pub fn configuration_error(file: &str, error: &Error) {
    let text = error.to_string();
    one_line(&text);
    assert!(text.starts_with(file), "the message does not name {file}: {text}");
    assert!(matches!(error.kind(), Kind::Invalid | Kind::Unsupported), "{:?}: {text}", error.kind());
}

fn plain(text: &str) {
    assert!(!text.contains('\0'), "a NUL byte: {text:?}");
}

/// An absolute path that leads nowhere else.
fn clean(path: &str) {
    plain(path);
    let parts = path.split('/').skip(1);
    assert!(
        path == "/" || path.starts_with('/') && parts.clone().all(|part| !["", ".", ".."].contains(&part)),
        "{path}"
    );
}

/// A plan of any configuration.
pub fn plan(plan: &Plan) {
    plan.warnings.iter().for_each(|warning| one_line(warning));
    for step in &plan.mounts {
        let (MountStep::Mount(Mount { target, .. })
        | MountStep::Symlink { path: target, .. }
        | MountStep::Remount { target, .. }) = step;
        clean(target);
        if let MountStep::Mount(mount) = step {
            if let MountSource::Bind { path, .. } = &mount.source {
                assert!(path.is_absolute(), "{path:?}");
                plain(&path.to_string_lossy());
            }
            assert!(mount.in_proc || target != "/proc" && !target.starts_with("/proc/"), "{target}");
        }
    }
    plan.masked.iter().chain(&plan.readonly).for_each(|path| {
        clean(&path.value);
        assert_ne!(path.value, "/");
    });
    plan.devices.iter().for_each(|device| clean(&device.path));
    for group in &plan.cgroup.record.groups {
        clean(&group.path);
        assert_ne!(group.path, "/", "the root of a hierarchy is no container's");
    }
    for write in &plan.cgroup.writes {
        plain(&write.value);
        assert!(!write.file.contains(['/', '\0']) && !write.file.is_empty(), "{}", write.file);
    }
    plan.process.iter().for_each(process);
}

/// A process of any configuration.
pub fn process(process: &Process) {
    assert!(!process.args.is_empty() && !process.candidates.is_empty());
    assert!(process.uid != u32::MAX && process.gid != u32::MAX && !process.gids.contains(&u32::MAX));
    assert!(process.umask <= 0o777);
    clean(&process.cwd);
    let mut names = std::collections::HashSet::new();
    for entry in &process.env {
        let (name, _) = entry.split_once('=').expect("an entry of the environment without =");
        assert!(!name.is_empty() && names.insert(name), "{entry:?}");
    }
    let caps = &process.caps;
    assert_eq!(
        caps.ambient & !(caps.permitted & caps.inheritable),
        0,
        "ambient beyond permitted and inheritable"
    );
    for limit in &process.rlimits {
        assert!(limit.soft <= limit.hard, "{limit:?}");
    }
}

/// A program of any plan: it passes `check`, reads back from its bytes, has a sentence for each step, and no path in it
/// leads out.
pub fn program(program: &Program) {
    assert_eq!(check::check(program), Ok(()));
    roundtrip(program);
    for (index, step) in program.steps.iter().enumerate() {
        one_line(&explain::sentence(program, step));
        let call = format!("call({})", explain::operand(program, index));
        one_line(&Error::os(call, 1).at(explain::step_name(program, index)).to_string());
        one_line(&format!("{}.", step.at));
        let Op::Stage(op) = &step.op else { continue };
        match op {
            StageOp::Target { path, .. } | StageOp::Mkdir(path) => clean(path),
            StageOp::Mknod { place, .. } | StageOp::Symlink { place, .. } => clean(&place.path),
            StageOp::Mask { place, .. } | StageOp::Readonly(place) => clean(&place.path),
            StageOp::Write { path, .. } => {
                assert!(
                    !path.starts_with('/') && path.split('/').all(|part| part != ".." && !part.is_empty()),
                    "{path}"
                );
            }
            _ => {}
        }
    }
}
