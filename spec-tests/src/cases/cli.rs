// SPDX-License-Identifier: Apache-2.0
//! The command line as runc's clients know it: list, ps, features, spec, version, flags, logs, ids.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = listings();
    all.extend(logs());
    all.extend(words());
    all.extend(ids());
    all
}

fn listings() -> Vec<Case> {
    [lists(), processes(), documents()].into_iter().flatten().collect()
}

fn lists() -> Vec<Case> {
    vec![
        case("list/json", list_json).crun("prints several lines"),
        case("list/table", list_table).crun("has other columns"),
        case("list/quiet", |t| {
            let (one, two) = (t.bundle()?.probe("forever"), t.bundle()?);
            t.launch(&one)?;
            t.create(&two)?;
            let done = t.cli("list --quiet")?;
            let mut ids: Vec<_> = done.ok()?.stdout.lines().collect();
            ids.sort();
            same("the ids", ids, vec![one.id.as_str(), two.id.as_str()])?;
            same("with -q", t.cli("list -q")?.ok()?.stdout.lines().count(), 2)
        }),
        case("list/json-of-nothing", |t| {
            fs::create_dir(t.path("root"))?;
            let done = t.cli("list --format json")?;
            let text = done.ok()?.stdout.trim();
            check!(["null", "[]"].contains(&text), "it printed {text:?}");
            Ok(())
        }),
        case("list/given-root-that-is-absent", |t| {
            let done = t.cli("list")?;
            done.refuses(&["no such file or directory|ENOENT"]).map(drop)
        })
        .crun("takes it for empty"),
        case("list/unknown-format", |t| {
            fs::create_dir(t.path("root"))?;
            check!(t.cli("list --format nosuch")?.code != 0, "it was accepted");
            Ok(())
        }),
    ]
}

fn processes() -> Vec<Case> {
    vec![
        case("ps/json", |t| {
            let b = t.bundle()?.probe("spawn sleep 100 -- print up -- forever");
            t.launch(&b)?.lines(t, 1)?;
            let pids = t.cli(&format!("ps --format json {}", b.id))?.ok()?.json()?;
            let pids = pids.as_array().cloned().unwrap_or_default();
            same("processes", pids.len(), 2)?;
            check!(pids.contains(&json!(t.pid(&b)?)), "the first process is not in {pids:?}");
            Ok(())
        }),
        case("ps/table", |t| {
            let b = t.bundle()?.probe("spawn sleep 100 -- print up -- forever");
            t.launch(&b)?.lines(t, 1)?;
            let done = t.cli(&format!("ps {}", b.id))?;
            let lines: Vec<_> = done.ok()?.stdout.lines().collect();
            check!(lines.first().is_some_and(|line| line.contains("PID")), "no heading: {lines:?}");
            same("lines", lines.len(), 3)?;
            let pid = t.pid(&b)?.to_string();
            check!(
                lines.iter().any(|l| l.split_whitespace().any(|word| word == pid)),
                "no {pid} in {lines:?}"
            );
            Ok(())
        })
        .needs(&[crate::harness::host::Need::File("/bin/ps")]),
        case("ps/without-a-ps", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let mut command = t.runtime();
            command.env("PATH", "/nowhere").args(["ps", &b.id]);
            t.complete(command)?.ok()?.prints(&format!("PID\n{}", t.pid(&b)?)).map(drop)
        })
        .runc("needs one"),
        case("ps/unknown-id", |t| {
            t.cli("ps --format json nobody-knows-me")?.refuses(&["does not exist|no such file"]).map(drop)
        })
        .crun("exits with 253"),
    ]
}

fn documents() -> Vec<Case> {
    vec![
        case("features/what-engines-read", features),
        case("spec/is-the-default", spec_default).crun("has ambient capabilities"),
        case("spec/does-not-overwrite", |t| {
            fs::write(t.path("config.json"), "precious")?;
            let refused = t.cli(&format!("spec --bundle {}", t.file("")))?;
            refused.refuses(&["config.json", "exists"])?;
            same("the file", fs::read_to_string(t.path("config.json"))?, "precious")
        }),
        case("spec/runs-as-it-is", |t| {
            let b = t.bundle()?;
            let mut command = t.runtime();
            command.arg("spec").current_dir(&b.dir);
            t.complete(command)?.ok()?;
            let mut made: Value = serde_json::from_str(&fs::read_to_string(b.dir.join("config.json"))?)?;
            made["process"]["args"] = json!(["/probe", "exit", "3"]);
            made["process"]["terminal"] = json!(false);
            made["linux"]["cgroupsPath"] = json!(format!("/{}", b.id));
            let b = crate::harness::bundle::Bundle { config: made, ..b };
            t.run(&b)?.exits(3).map(drop)
        }),
        case("spec/rootless", |t| {
            let mut command = t.runtime();
            command.args(["spec", "--rootless"]).current_dir(t.path(""));
            t.complete(command)?.ok()?;
            let made: Value = serde_json::from_str(&fs::read_to_string(t.path("config.json"))?)?;
            let kinds: Vec<_> = made["linux"]["namespaces"].as_array().into_iter().flatten().collect();
            check!(kinds.contains(&&json!({"type": "user"})), "no user namespace in {kinds:?}");
            check!(!kinds.contains(&&json!({"type": "network"})), "a network namespace in {kinds:?}");
            check!(made["linux"]["uidMappings"][0]["containerID"] == 0, "no uidMappings");
            check!(made["linux"]["resources"].is_null(), "there are resources");
            Ok(())
        })
        .crun("keeps the network namespace"),
    ]
}

fn list_json(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever").set("/annotations", json!({"a": "b"}));
    t.launch(&b)?;
    let done = t.cli("list --format json")?;
    same("lines", done.ok()?.stdout.lines().count(), 1)?;
    let list = done.json()?;
    same("containers", list.as_array().map(Vec::len), Some(1))?;
    let state = t.state(&b)?;
    for key in ["ociVersion", "id", "pid", "status", "bundle", "created", "annotations"] {
        same(key, &list[0][key], &state[key])?;
    }
    // runc's own tests match the text with the fields in this order.
    let start = format!("[{{\"ociVersion\":{},\"id\":\"{}\",\"pid\":", state["ociVersion"], b.id);
    check!(
        done.stdout.starts_with(&start),
        "it begins {:?}",
        &done.stdout[..start.len().min(done.stdout.len())]
    );
    Ok(())
}

fn list_table(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let done = t.cli("list")?;
    let rows: Vec<Vec<_>> = done.ok()?.stdout.lines().map(|l| l.split_whitespace().collect()).collect();
    same("the heading", &rows[0], &vec!["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])?;
    same("rows", rows.len(), 2)?;
    let pid = t.pid(&b)?.to_string();
    same("the row", &rows[1][..3], &[b.id.as_str(), pid.as_str(), "running"][..])
}

fn features(t: &Test) -> Verdict {
    let all = t.cli("features")?.ok()?.json()?;
    for pointer in ["/ociVersionMin", "/ociVersionMax"] {
        check!(all.pointer(pointer).is_some_and(Value::is_string), "{pointer} is no text");
    }
    let has = |pointer: &str, wanted: &[&str]| -> Verdict {
        let list = all.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        for want in wanted {
            check!(list.iter().any(|one| one == want), "{pointer} lacks {want}");
        }
        Ok(())
    };
    has(
        "/hooks",
        &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    )?;
    has("/mountOptions", &["ro", "rro", "bind", "rbind", "nosuid", "nodev", "noexec", "tmpcopyup"])?;
    has("/linux/namespaces", &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"])?;
    has("/linux/capabilities", &["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"])?;
    has("/linux/seccomp/actions", &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"])?;
    has("/linux/seccomp/operators", &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"])?;
    for pointer in ["/linux/cgroup/v1", "/linux/cgroup/v2", "/linux/seccomp/enabled"] {
        check!(all.pointer(pointer).is_some_and(Value::is_boolean), "{pointer} is neither true nor false");
    }
    Ok(())
}

fn spec_default(t: &Test) -> Verdict {
    t.cli(&format!("spec --bundle {}", t.file("")))?.ok()?;
    let text = fs::read_to_string(t.path("config.json"))?;
    check!(text.contains("\n\t\"process\": {"), "it is not indented with tabs");
    let mut made: Value = serde_json::from_str(&text)?;
    let mut want =
        t.bundle()?.set("/process/terminal", json!(true)).args(&["sh"]).remove("/linux/cgroupsPath").config;
    for config in [&mut made, &mut want] {
        config["ociVersion"].take();
        config["hostname"].take();
        for list in ["/process/capabilities/bounding", "/linux/maskedPaths", "/linux/readonlyPaths"] {
            if let Some(Value::Array(list)) = config.pointer_mut(list) {
                list.sort_by_key(ToString::to_string);
            }
        }
    }
    for key in ["process", "root", "mounts"] {
        same(key, &made[key], &want[key])?;
    }
    if t.host.is_v2()
        && let Some(list) = want["linux"]["namespaces"].as_array_mut()
    {
        list.push(json!({"type": "cgroup"}));
    }
    for key in ["namespaces", "resources", "readonlyPaths"] {
        same(key, &made["linux"][key], &want["linux"][key])?;
    }
    let masked = made["linux"]["maskedPaths"].as_array().cloned().unwrap_or_default();
    for path in want["linux"]["maskedPaths"].as_array().into_iter().flatten() {
        check!(masked.contains(path), "maskedPaths lacks {path}");
    }
    Ok(())
}

fn logs() -> Vec<Case> {
    [log_files(), log_lines()].into_iter().flatten().collect()
}

fn log_files() -> Vec<Case> {
    vec![
        case("log/json-has-one-error-and-it-is-last", log_json).crun("an object takes several lines"),
        case("log/text", |t| {
            let done = t.cli(&format!("--log {} state nobody-knows-me", t.file("log")))?;
            done.refuses(&["does not exist|no such file"])?;
            let text = fs::read_to_string(t.path("log"))?;
            let last = text.lines().last().unwrap_or_default();
            check!(last.contains("does not exist") || last.contains("No such file"), "the log is {text:?}");
            check!(last.contains("time=\"") && last.contains("level=error"), "no logfmt: {last}");
            Ok(())
        })
        .crun("not logfmt"),
        case("log/made-even-when-nothing-is-logged", |t| {
            fs::create_dir(t.path("root"))?;
            t.cli(&format!("--log {} --log-format json list", t.file("log")))?.ok()?;
            check!(t.path("log").exists(), "no log file");
            Ok(())
        }),
        case("log/appends", |t| {
            fs::write(
                t.path("log"),
                "{\"level\":\"info\",\"msg\":\"mine\",\"time\":\"2024-01-01T00:00:00Z\"}\n",
            )?;
            t.cli(&format!("--log {} --log-format json state nobody-knows-me", t.file("log")))?
                .refuses(&[])?;
            let text = fs::read_to_string(t.path("log"))?;
            check!(
                text.starts_with("{\"level\":\"info\",\"msg\":\"mine\"") && text.lines().count() == 2,
                "{text:?}"
            );
            Ok(())
        })
        .crun("an object takes several lines"),
    ]
}

fn log_lines() -> Vec<Case> {
    vec![
        case("log/cannot-be-opened", |t| {
            let done = t.cli("--log /no/such/dir/log list")?;
            done.refuses(&["/no/such/dir/log", "no such file or directory|ENOENT"]).map(drop)
        }),
        case("log/debug-adds-lines-but-no-errors", |t| {
            let b = t.bundle()?.probe("exit 0");
            b.write()?;
            let words = format!(
                "--debug --log {} --log-format json run -b {} {}",
                t.file("log"),
                b.dir.display(),
                b.id
            );
            t.cli(&words)?.ok()?;
            for line in fs::read_to_string(t.path("log"))?.lines() {
                let line: Value = serde_json::from_str(line)?;
                check!(line["level"] != "error", "an error: {line}");
            }
            Ok(())
        })
        .crun("an object takes several lines"),
        case("log/newlines-are-escaped", |t| {
            let b = t.bundle()?.args(&["no\nsuch\nprogram \"quoted\""]);
            b.write()?;
            let words =
                format!("--log {} --log-format json run -b {} {}", t.file("log"), b.dir.display(), b.id);
            let done = t.cli(&words)?;
            check!(done.code == 1, "{done}");
            for line in fs::read_to_string(t.path("log"))?.lines() {
                serde_json::from_str::<Value>(line)?;
            }
            Ok(())
        })
        .crun("an object takes several lines"),
    ]
}

fn log_json(t: &Test) -> Verdict {
    let b = t.bundle()?.args(&["/no/such/program"]);
    b.write()?;
    let words = format!("--log {} --log-format json create -b {} {}", t.file("log"), b.dir.display(), b.id);
    let words = words.replacen("create", "run", 1);
    let done = t.cli(&words)?;
    check!(done.code == 1, "{done}");
    let text = fs::read_to_string(t.path("log"))?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "error").collect();
    same("errors in the log", errors.len(), 1)?;
    check!(lines.last() == errors.last().copied(), "the error is not last: {text}");
    let message = errors[0]["msg"].as_str().unwrap_or_default();
    check!(message.to_lowercase().contains("no such file or directory"), "msg is {message:?}");
    let time = errors[0]["time"].as_str().unwrap_or_default();
    check!(time.len() >= 20 && time.as_bytes()[10] == b'T', "time is {time:?}");
    check!(done.stderr.to_lowercase().contains("no such file or directory"), "stderr is {:?}", done.stderr);
    Ok(())
}

fn words() -> Vec<Case> {
    [help_and_errors(), flags()].into_iter().flatten().collect()
}

fn help_and_errors() -> Vec<Case> {
    vec![
        case("cli/version", |t| {
            for word in ["--version", "-v"] {
                let done = t.cli_words(&[word])?;
                let lines: Vec<_> = done.ok()?.stdout.lines().collect();
                let name =
                    t.host.runtime.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                check!(lines[0].starts_with(&format!("{name} version ")), "line 1 is {:?}", lines[0]);
                check!(lines.iter().any(|l| l.starts_with("spec: 1.")), "no spec line: {lines:?}");
                check!(lines.iter().any(|l| l.starts_with("commit: ")), "no commit line: {lines:?}");
            }
            Ok(())
        }),
        case("cli/help", |t| {
            for words in
                [vec!["--help"], vec!["-h"], vec!["help"], vec!["create", "--help"], vec!["run", "-h"]]
            {
                let done = t.cli_words(&words)?;
                let text = done.ok()?.stdout.to_lowercase();
                check!(text.contains("usage"), "{words:?} printed {text:?}");
            }
            Ok(())
        })
        .crun("has no -h"),
        case("cli/unknown-flag", |t| {
            for words in ["--nosuch list", "create --nosuch x", "state --nosuch x", "exec --nosuch x y"] {
                let done = t.cli(words)?;
                check!([1, 255].contains(&done.code), "{done}");
                check!(done.stderr.contains("nosuch"), "the error does not name it: {done}");
            }
            Ok(())
        })
        .crun("exits with 64"),
        case("cli/unknown-command", |t| {
            check!(t.cli("nosuchcommand")?.code != 0, "it was accepted");
            Ok(())
        }),
        case("cli/number-of-arguments", |t| {
            for words in
                ["create", "create a b", "start", "state", "state a b", "delete", "delete a b", "kill", "run"]
            {
                let done = t.cli(words)?;
                check!(done.code == 1, "{done}");
                check!(!done.stderr.trim().is_empty(), "`{words}` says nothing");
            }
            t.cli("state a b")?.complains(&["\"|`", "state", "requires exactly 1 argument"]).map(drop)
        })
        .crun("exits with 64 and accepts surplus words"),
    ]
}

fn flags() -> Vec<Case> {
    vec![
        case("cli/single-dash-and-equals", |t| {
            let b = t.bundle()?.probe("forever");
            b.write()?;
            let pid_file = t.file("pid");
            let words = format!("run -detach=true -pid-file={pid_file} -bundle={} {}", b.dir.display(), b.id);
            t.cli(&words)?.ok()?;
            same("the pid file", fs::read_to_string(&pid_file)?, t.pid(&b)?.to_string())?;
            t.cli(&format!("delete --force=true {}", b.id))?.ok().map(drop)
        })
        .crun("knows two dashes only"),
        case("cli/false-means-off", |t| {
            let b = t.bundle()?.probe("exit 7");
            b.write()?;
            t.cli(&format!("run --detach=false --bundle {} {}", b.dir.display(), b.id))?.exits(7).map(drop)
        })
        .crun("flags take no value"),
        case("cli/global-options-of-other-runtimes", |t| {
            fs::create_dir(t.path("root"))?;
            for words in ["--systemd-cgroup=false list", "--rootless auto list", "--debug list"] {
                t.cli(words)?.ok()?;
            }
            Ok(())
        })
        .crun("has no --rootless"),
        case("cli/default-root-is-not-needed-for-list", |t| {
            // Whoever used a runtime here before may have made it.
            t.mount("tmpfs", "tmpfs", std::path::Path::new("/run"), nix::mount::MsFlags::empty(), "")?;
            let mut command = std::process::Command::new(&t.host.runtime);
            command.args(["list", "--format", "json"]).env_remove("PATH");
            t.complete(command)?.ok().map(drop)
        })
        .runc("needs it"),
        case("cli/root-may-not-be-the-root-directory", |t| {
            let mut command = std::process::Command::new(&t.host.runtime);
            command.args(["--root", "/", "list"]);
            let done = t.complete(command)?;
            check!(!done.stdout.contains("boot"), "it lists the root directory");
            Ok(())
        }),
    ]
}

/// S42: what an id may be.
fn ids() -> Vec<Case> {
    const GOOD: [&str; 5] = ["plus+dot.under_score-9", "0", "...a", "A", "_"];
    const BAD: [&str; 11] = ["", ".", "..", "../x", "a/b", "/", "a b", "a\nb", "ä", "a:b", "%s$(touch x)"];
    vec![
        case("id/good", |t| {
            for id in GOOD {
                let mut b = t.bundle()?.probe("exit 2");
                b.id = id.to_owned();
                t.run(&b)?.exits(2)?;
            }
            Ok(())
        })
        .crun("refuses a leading dot"),
        case("id/bad", |t| {
            let b = t.bundle()?;
            b.write()?;
            fs::create_dir(t.path("root"))?;
            let before = t.snapshot();
            let long = "x".repeat(4096);
            for id in BAD.into_iter().chain([long.as_str()]) {
                for verb in ["create", "run"] {
                    let bundle = b.dir.to_string_lossy();
                    let done = t.cli_words(&[verb, "--bundle", &bundle, id])?;
                    done.refuses(&[
                        "invalid container ID format|container id cannot be empty|too long|invalid id",
                    ])?;
                }
                t.unchanged_since(&before)?;
            }
            Ok(())
        })
        .crun("its words are others"),
        case("id/bad-for-every-verb", |t| {
            fs::create_dir(t.path("root"))?;
            fs::create_dir(t.path("victim"))?;
            fs::write(t.path("victim/state.json"), "{}")?;
            for verb in ["state", "start", "kill", "delete", "delete --force", "exec", "ps"] {
                let more = if verb == "exec" { "/probe" } else { "" };
                let done = t.cli(&format!("{verb} ../victim {more}"))?;
                check!(done.code != 0 || verb == "delete --force", "{done}");
                check!(
                    t.path("victim/state.json").exists(),
                    "`{verb}` removed what is outside the state root"
                );
            }
            Ok(())
        }),
    ]
}
