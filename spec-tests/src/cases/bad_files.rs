// SPDX-License-Identifier: Apache-2.0
//! Bad input that is not a field: files that are missing, cut short, or in the way.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::test::Test;

/// Part of the chapter `bad`.
pub fn cases() -> Vec<Case> {
    let mut all = configs();
    all.extend(states());
    all
}

/// A config.json that is none, and what is said of it.
fn configs() -> Vec<Case> {
    type Row = (&'static str, Option<&'static [u8]>, &'static [&'static str], &'static str);
    const ROWS: [Row; 8] = [
        ("absent", None, &["config.json", "not found|no such file or directory|ENOENT"], "does not say why"),
        ("empty", Some(b""), &["config.json|EOF|JSON|parse"], ""),
        ("cut-short", Some(b"{\"ociVersion\": \"1.0.2\", \"process\""), &["config.json|EOF|JSON|parse"], ""),
        ("no-json", Some(b"not json at all"), &["config.json|invalid character|parse"], ""),
        ("a-list", Some(b"[]"), &["config.json|cannot unmarshal|parse"], ""),
        ("trailing-text", Some(b"{} x"), &["config.json|process|version|parse"], ""),
        ("binary", Some(b"\x7fELF\x00\xff\xfe"), &["config.json|invalid character|parse"], ""),
        ("empty-object", Some(b"{}"), &["process|root|version"], ""),
    ];
    let row = |(name, text, says, crun): &'static Row| {
        case(format!("bad/config-{name}"), move |t: &Test| {
            let b = t.bundle()?;
            if let Some(text) = text {
                fs::write(b.dir.join("config.json"), text)?;
            }
            let before = t.snapshot();
            let done = t.cli(&format!("create --bundle {} {}", b.dir.display(), b.id))?;
            done.refuses(says)?;
            if t.host.name == "corten" && *name != "empty-object" {
                done.complains(&["config.json"])?;
            }
            t.unchanged_since(&before)
        })
        .peer("crun", crun)
    };
    let mut all: Vec<Case> = ROWS.iter().map(row).collect();
    all.extend([
        case("bad/config-is-a-directory", |t| {
            let (b, before) = (t.bundle()?, t.snapshot());
            fs::create_dir(b.dir.join("config.json"))?;
            let done = t.cli(&format!("create --bundle {} {}", b.dir.display(), b.id))?;
            done.refuses(&["config.json|directory"])?;
            t.unchanged_since(&before)
        }),
        case("bad/bundle-absent", |t| {
            let before = t.snapshot();
            let done = t.cli(&format!("create --bundle /no/such/bundle {}-x", t.place.mark))?;
            done.refuses(&["/no/such/bundle|config.json", "no such file or directory|ENOENT"])?;
            t.unchanged_since(&before)
        }),
        case("bad/config-with-deep-nesting", |t| {
            let b = t.bundle()?;
            let text = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
            fs::write(b.dir.join("config.json"), format!("{{\"annotations\": {text}}}"))?;
            let before = t.snapshot();
            let done = t.cli(&format!("create --bundle {} {}", b.dir.display(), b.id))?;
            check!(done.code == 1, "{done}");
            t.unchanged_since(&before)
        }),
        case("bad/config-is-huge", |t| {
            let b = t.bundle()?.set("/annotations", serde_json::json!({"k": "v".repeat(4 << 20)}));
            t.report(&b)?.is("/pid", 1)
        }),
    ]);
    all
}

fn states() -> Vec<Case> {
    [state_roots(), damaged_states(), callers()].into_iter().flatten().collect()
}

fn state_roots() -> Vec<Case> {
    vec![
        case("bad/state-root-not-a-directory", |t| {
            let b = t.bundle()?;
            fs::write(t.path("root"), "a file")?;
            let before = t.snapshot();
            t.try_create("create", &b)?.refuses(&["root", "not a directory|ENOTDIR|file exists|EEXIST"])?;
            t.unchanged_since(&before)?;
            Ok(fs::remove_file(t.path("root"))?)
        }),
        case("bad/state-root-read-only", |t| {
            // Permissions do not stop root: a read-only mount does.
            let b = t.bundle()?;
            read_only(t, "root", "")?;
            let before = t.snapshot();
            t.try_create("create", &b)?.refuses(&["root", "read-only file system|EROFS"])?;
            t.unchanged_since(&before)
        })
        .crun("does not say where or why"),
        case("bad/state-root-full", |t| {
            let b = t.bundle()?;
            read_only(t, "root", "nr_inodes=2")?;
            let before = t.snapshot();
            let done = t.try_create("create", &b)?;
            done.refuses(&["no space left|ENOSPC"])?;
            t.unchanged_since(&before)
        })
        .crun("leaves its directory"),
        damaged("cut-short", |text| text[..text.len() / 2].to_owned()),
        damaged("empty", |_| String::new()),
        damaged("other-json", |_| "[1, 2]".to_owned()),
    ]
}

fn damaged_states() -> Vec<Case> {
    vec![
        case("bad/state-directory-without-state", |t| {
            // What a runtime killed during create leaves: `delete --force` must clear it away.
            fs::create_dir(t.path("root"))?;
            let id = format!("{}-half", t.place.mark);
            fs::create_dir(t.path("root").join(&id))?;
            let done = t.cli(&format!("state {id}"))?;
            check!(
                done.code == 1 || done.stdout.contains("creating") || done.stdout.contains("stopped"),
                "{done}"
            );
            t.cli(&format!("delete --force {id}"))?.ok()?;
            check!(!t.path("root").join(&id).exists(), "the directory is left");
            Ok(())
        }),
        case("bad/list-survives-a-damaged-state", |t| {
            let (good, other) = (t.bundle()?.probe("forever"), t.bundle()?.probe("forever"));
            t.launch(&good)?;
            t.launch(&other)?;
            let (path, text) = state_file(t, &other.id)?;
            fs::write(&path, "{")?;
            let done = t.cli("list --quiet")?;
            fs::write(&path, text)?;
            check!(done.stdout.contains(&good.id), "{done}");
            Ok(())
        }),
    ]
}

fn callers() -> Vec<Case> {
    vec![
        case("bad/pid-file-cannot-be-written", |t| {
            let (b, before) = (t.bundle()?, t.snapshot());
            let done = t.try_create("create --pid-file /no/such/dir/pid", &b)?;
            done.refuses(&["/no/such/dir|pid-file|pid file", "no such file or directory|ENOENT"])?;
            t.unchanged_since(&before)
        }),
        case("bad/not-root", |t| {
            let b = t.bundle()?;
            b.write()?;
            let mut command = std::process::Command::new(t.path("runtime"));
            fs::copy(&t.host.runtime, t.path("runtime"))?;
            command.arg("--root").arg(t.path("root")).args(["create", "--bundle"]).arg(&b.dir).arg(&b.id);
            crate::sys::as_user(&mut command, 4242);
            let before = t.snapshot();
            let Ok(running) = t.spawn(command) else {
                return Err(Trouble::NotRun("an ordinary user cannot execute this runtime".into()));
            };
            let done = t.finish(running)?;
            check!(done.code != 0, "an ordinary user made a container without a user namespace");
            t.unchanged_since(&before)
        }),
        case("bad/output-closed", |t| {
            // Writing to a full device must be an error, not a crash or a success.
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let mut command = t.runtime();
            command.args(["state", &b.id]);
            let out = t.path("out/full");
            command
                .stdin(std::process::Stdio::null())
                .stdout(fs::OpenOptions::new().write(true).open("/dev/full")?);
            command.stderr(fs::File::create(out.with_extension("err"))?);
            let running = t.spawn_as_it_is(command, out)?;
            let done = t.finish(running)?;
            check!(done.code == 1, "{done}");
            Ok(())
        })
        .crun("does not look")
        .runc("does not look"),
    ]
}

/// A tmpfs at `name` of the case's directory: read-only, or with these options.
fn read_only(t: &Test, name: &str, options: &str) -> Verdict {
    use nix::mount::MsFlags;
    let at = t.path(name);
    fs::create_dir(&at)?;
    fs::set_permissions(&at, fs::Permissions::from_mode(0o700))?;
    let flags = if options.is_empty() { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    // For its owner alone: another would be refused for that.
    t.mount("tmpfs", "tmpfs", &at, flags, &format!("mode=700,{options}"))
}

/// The file in which the runtime keeps a container's state, and its text.
fn state_file(t: &Test, id: &str) -> Result<(std::path::PathBuf, String), Trouble> {
    let dir = t.path("root").join(id);
    for name in ["state.json", "status"] {
        if let Ok(text) = fs::read_to_string(dir.join(name)) {
            return Ok((dir.join(name), text));
        }
    }
    Err(Trouble::NotRun("no state file of a known name".into()))
}

/// A state file that is damaged must give one line of error; what becomes of it is said by `own/record-that-cannot-be-read-stays`.
fn damaged(name: &'static str, damage: fn(&str) -> String) -> Case {
    case(format!("bad/state-file-{name}"), move |t: &Test| {
        let b = t.bundle()?.probe("forever");
        t.launch(&b)?;
        let (path, text) = state_file(t, &b.id)?;
        fs::write(&path, damage(&text))?;
        let done = t.cli(&format!("state {}", b.id))?;
        check!(done.code == 1, "{done}");
        done.complains(&["state|status|parse|json|eof|cannot unmarshal"])?;
        Ok(fs::write(&path, text)?)
    })
}
