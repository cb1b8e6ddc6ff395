// SPDX-License-Identifier: Apache-2.0
//! `--trace FILE` of create, start, run and exec, and the command `trace` that reads such files: ours alone.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let all = vec![
        case("trace/create-tells-the-steps-of-the-plan", |t| {
            create_and_start(t, &t.bundle()?.probe("exit 0"))
        }),
        case("trace/create-in-a-user-namespace", |t| {
            create_and_start(t, &t.bundle()?.user_namespace().probe("exit 0"))
        }),
        case("trace/under-a-filter-that-kills-for-clocks", |t| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["clock_gettime", "gettimeofday", "time"], "action": "SCMP_ACT_KILL_PROCESS"}]});
            create_and_start(t, &t.bundle()?.set("/linux/seccomp", profile).probe("exit 0"))
        }),
        case("trace/under-a-filter-that-is-loaded-early", |t| {
            let b = t.bundle()?.set("/process/noNewPrivileges", json!(false));
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mmap", "clock_gettime"], "action": "SCMP_ACT_ERRNO"}]});
            create_and_start(t, &b.set("/linux/seccomp", profile).args(&["/probe", "exit", "0"]))
        }),
        case("trace/start-of-what-was-created-without", start_alone),
        case("trace/run-tells-all", run),
        case("trace/exec", exec),
        case("trace/hooks-are-told-and-their-calls-are-not", hooks),
        case("trace/file-that-does-not-open", unwritable),
        case("trace/failing-create-tells-the-step", failing),
        case("trace/shows-the-longest-and-draws", shown),
    ];
    all.into_iter().map(|case| case.needs(&[Need::Runtime("corten")])).collect()
}

/// A trace as it was written.
struct Trace(Value);

impl Trace {
    fn read(t: &Test, name: &str) -> Result<Trace, Trouble> {
        let text = fs::read_to_string(t.path(name))?;
        let trace = Trace(serde_json::from_str(&text).map_err(|error| format!("{name}: {error}: {text}"))?);
        trace.is_sound().map_err(|error| format!("{name}: {error:?}: {text}"))?;
        Ok(trace)
    }

    fn events(&self) -> Vec<&Value> {
        let events = self.0["traceEvents"].as_array().map(Vec::as_slice).unwrap_or_default();
        events.iter().filter(|event| event["ph"] == "X").collect()
    }

    /// Of the program's steps: which, whose, for what field, and in what words.
    fn steps(&self, side: Option<&str>) -> Vec<[String; 3]> {
        let mut steps: Vec<&Value> = self
            .events()
            .into_iter()
            .filter(|event| event["cat"] == "step" && side.is_none_or(|side| event["args"]["side"] == side))
            .collect();
        steps.sort_by_key(|event| event["args"]["step"].as_u64());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let step = |event: &&Value| {
            [text(&event["args"]["side"]), text(&event["args"]["field"]), named(&text(&event["name"]))]
        };
        steps.iter().map(step).collect()
    }

    /// What has failed.
    fn failed(&self) -> Vec<&Value> {
        self.events()
            .into_iter()
            .filter(|event| event["cat"] != "call" && event["args"]["error"].is_string())
            .collect()
    }

    /// Times are times: one after the other on each side, and calls within their steps.
    fn is_sound(&self) -> Verdict {
        check!(!self.events().is_empty(), "no event");
        for side in ["host", "stage"] {
            let mut before = 0.0;
            for event in self.events().into_iter().filter(|event| event["args"]["side"] == side) {
                let (begin, end) = times(event)?;
                check!(begin + 0.01 >= before, "{event} begins before {before}");
                before = end;
            }
        }
        let mut step: Option<&Value> = None;
        for event in self.events() {
            if event["cat"] != "call" {
                step = Some(event);
                continue;
            }
            let step = step.ok_or("a call without a step")?;
            let ((begin, end), (from, to)) = (times(event)?, times(step)?);
            check!(from <= begin + 0.01 && end <= to + 0.01, "{event} is not within {step}");
            check!(event["pid"] == step["pid"], "{event} is of another process than {step}");
        }
        Ok(())
    }
}

fn times(event: &Value) -> Result<(f64, f64), Trouble> {
    let (begin, took) = (event["ts"].as_f64(), event["dur"].as_f64());
    let (begin, took) = begin.zip(took).ok_or_else(|| format!("{event} has no times"))?;
    check!(begin >= 0.0 && took >= 0.0, "{event} has no times that are");
    Ok((begin, begin + took))
}

/// A keyring's name has something in it that nobody can guess, and `plan` cannot either.
fn named(step: &str) -> String {
    match step.split_once("keyring ") {
        Some((before, _)) => format!("{before}keyring"),
        None => step.to_owned(),
    }
}

/// What `corten plan` says of the bundle.
fn planned(t: &Test, b: &Bundle) -> Result<Vec<[String; 3]>, Trouble> {
    b.write()?;
    let dir = b.dir.to_string_lossy().into_owned();
    let lines = t.cli_words(&["plan", "--json", "--bundle", &dir, &b.id])?.ok()?.json()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = lines.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(lines
        .iter()
        .map(|line| [text(&line["side"]), text(&line["field"]), named(&text(&line["step"]))])
        .collect())
}

/// `done` are those of the planned steps that were to be done, all of them; lines that say what a step consists of aside.
fn are_all(planned: &[[String; 3]], done: &[[String; 3]]) -> Verdict {
    let mut next = done.iter();
    let mut expected = next.next();
    let mut in_parts = false;
    for line in planned {
        if Some(line) == expected {
            in_parts =
                line[2].starts_with("make the control group") || line[2].starts_with("put the device rules");
            expected = next.next();
        } else {
            check!(in_parts && line[0] == "host", "{line:?} was not told; next was {expected:?}");
        }
    }
    check!(expected.is_none(), "{expected:?} is no step of the plan's");
    Ok(())
}

fn create_and_start(t: &Test, b: &Bundle) -> Verdict {
    let plan = planned(t, b)?;
    let gate = plan.iter().position(|line| line[2].starts_with("wait at the gate")).ok_or("no gate")?;
    t.try_create(&format!("create --trace {}", t.file("create.json")), b)?.ok()?;
    let created = Trace::read(t, "create.json")?;
    check!(created.0["otherData"]["missing"].is_null(), "{}", created.0["otherData"]);
    are_all(&plan[..gate], &created.steps(None))?;
    check!(created.failed().is_empty(), "{:?}", created.failed());
    let calls = created.events().into_iter().filter(|event| event["cat"] == "call").count();
    check!(calls > created.steps(Some("stage")).len(), "{calls} system calls");
    t.cli(&format!("start --trace {} {}", t.file("start.json"), b.id))?.ok()?;
    let started = Trace::read(t, "start.json")?;
    check!(started.0["otherData"]["missing"].is_null(), "{}", started.0["otherData"]);
    are_all(&plan[gate..], &started.steps(None))?;
    t.await_status(b, "stopped")?;
    t.cli(&format!("delete {}", b.id))?.ok().map(drop)
}

fn start_alone(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("exit 0");
    t.create(&b)?;
    t.cli(&format!("start --trace {} {}", t.file("start.json"), b.id))?.ok()?;
    let trace = Trace::read(t, "start.json")?;
    let missing = trace.0["otherData"]["missing"].as_str().unwrap_or_default();
    check!(missing.contains("created without --trace"), "{missing:?}");
    check!(trace.steps(None).is_empty(), "{:?}", trace.steps(None));
    t.await_status(&b, "stopped")
}

fn run(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("exit 7");
    t.try_create(&format!("run --trace {}", t.file("run.json")), &b)?.exits(7)?;
    let trace = Trace::read(t, "run.json")?;
    let steps = trace.steps(Some("stage"));
    check!(steps.last().is_some_and(|step| step[2].starts_with("execute /probe")), "{:?}", steps.last());
    let host = trace.steps(Some("host"));
    check!(host.iter().any(|step| step[2].starts_with("clone the container's first process")), "{host:?}");
    let execve = trace
        .events()
        .into_iter()
        .any(|event| event["name"] == "execve" && event["args"]["returns"] == false);
    check!(execve, "no execve that does not return");
    Ok(())
}

fn exec(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("sleep 1000");
    t.launch(&b)?;
    t.exec(&b, &format!("--trace {}", t.file("exec.json")), "/probe exit 3")?.exits(3)?;
    let trace = Trace::read(t, "exec.json")?;
    let steps = trace.steps(Some("stage"));
    for begin in ["join the", "clone the final process", "execute /probe exit 3"] {
        check!(steps.iter().any(|step| step[2].starts_with(begin)), "{begin:?} is not among {steps:?}");
    }
    t.exec(&b, &format!("--trace {}", t.file("no.json")), "/no/such")?.exits(255)?;
    let failed = Trace::read(t, "no.json")?;
    check!(failed.failed().len() == 1, "{:?}", failed.failed());
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

/// A hook inside is another process: its calls are not the stage's, and it finds no memory of ours.
fn hooks(t: &Test) -> Verdict {
    let hook = json!([{"path": "/probe", "args": ["/probe", "exit", "0"]}]);
    let b = t.bundle()?.probe("exit 0").set("/hooks/startContainer", hook);
    t.try_create(&format!("run --trace {}", t.file("run.json")), &b)?.ok()?;
    let trace = Trace::read(t, "run.json")?;
    let hook = trace.events().into_iter().find(|event| {
        event["name"].as_str().is_some_and(|name| name.starts_with("run the startContainer hook"))
    });
    let hook = hook.ok_or("the hook is not told")?;
    check!(hook["args"]["field"] == "/hooks/startContainer/0", "{hook}");
    let calls = |name: &str| trace.events().into_iter().filter(|event| event["name"] == name).count();
    check!(calls("execve") == 1, "{} execve", calls("execve"));
    Ok(())
}

fn unwritable(t: &Test) -> Verdict {
    let b = t.bundle()?;
    let before = t.snapshot();
    for verb in ["create", "run"] {
        t.try_create(&format!("{verb} --trace /no/such/file"), &b)?.refuses(&[
            "--trace",
            "open(/no/such/file)",
            "no such file or directory",
        ])?;
    }
    t.unchanged_since(&before)?;
    t.create(&b)?;
    t.cli(&format!("start --trace {} {}", t.file("."), b.id))?.refuses(&["--trace", "is a directory"])?;
    t.has_status(&b, "created")?;
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

/// A failure: its name, how the bundle gets wrong, whose step it is, and how that begins.
type FailingRow = (&'static str, fn(Bundle) -> Bundle, &'static str, &'static str);

fn failing(t: &Test) -> Verdict {
    let rows: [FailingRow; 4] = [
        ("lookup", |b| b.args(&["/no/such"]), "stage", "find the executable"),
        ("mount", |b| b.mount("nosuchfs", "x", "/mnt", &[]), "stage", "prepare a nosuchfs"),
        (
            "bind",
            |b| b.mount("bind", "/no/such", "/mnt", &["bind"]),
            "host",
            "copy the mount tree at /no/such",
        ),
        ("decision", |b| b.set("/process/cwd", json!("relative")), "host", "what failed"),
    ];
    for (name, spoil, side, step) in rows {
        let before = t.snapshot();
        let b = spoil(t.bundle()?.writable());
        let file = format!("{name}.json");
        let done = t.try_create(&format!("create --trace {}", t.file(&file)), &b)?;
        done.exits(1)?;
        let trace = Trace::read(t, &file)?;
        let failed = trace.failed();
        check!(failed.len() == 1, "{name}: {failed:?}");
        let (event, error) = (failed[0], failed[0]["args"]["error"].as_str().unwrap_or_default());
        check!(event["args"]["side"] == side, "{name}: {event}");
        let stderr = done.stderr.replace("\\\"", "\"");
        check!(event["name"].as_str().is_some_and(|name| name.starts_with(step)), "{name}: {event}");
        check!(stderr.contains(error.split(':').next_back().unwrap_or_default()), "{name}: {error}: {done}");
        t.unchanged_since(&before)?;
    }
    Ok(())
}

fn shown(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("exit 0");
    let (file, svg) = (t.file("run.json"), t.file("run.svg"));
    t.try_create(&format!("run --trace {file}"), &b)?.ok()?;
    let done = t.cli_words(&["trace", "--svg", &svg, &file])?;
    let text = &done.ok()?.stdout;
    check!(text.starts_with(&format!("run {}: ", b.id)), "{text}");
    let longest = text.lines().skip_while(|line| !line.ends_with("STEP")).skip(1).count();
    check!(longest == 10, "{longest} lines: {text}");
    let drawn = fs::read_to_string(&svg)?;
    check!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    check!(drawn.contains("execute /probe"), "{drawn}");
    t.cli_words(&["trace", &t.file("run.svg")])?.refuses(&["run.svg", "malformed JSON"])?;
    let config = b.dir.join("config.json");
    t.cli_words(&["trace", &config.to_string_lossy()])?.refuses(&[
        "config.json",
        "holds no step",
        "--trace of create",
    ])?;
    t.cli_words(&["trace", "/no/such"])?.refuses(&["open(/no/such)", "no such file"]).map(drop)
}
