// SPDX-License-Identifier: Apache-2.0
//! What was recorded, in the Trace Event Format of Chrome's trace viewer, which Perfetto reads as well: complete events ("X") with
//! times in microseconds, one on a line.

#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};

use super::{LoggedCall, Recorder, Side, Span};
use crate::error::printable;

/// The whole file.
pub(super) fn file(recorder: &Recorder) -> String {
    let recorded = recorder.recorded.borrow();
    let host = [i64::from(std::process::id()), i64::from(rustix::thread::gettid().as_raw_nonzero().get())];
    let pid = recorded.stage.unwrap_or(0);
    let stage = [i64::from(pid), i64::from(pid)];
    let title = format!("corten {} {}", recorder.verb, recorder.id);
    let mut lines = vec![name_of_process(host[0], &format!("{title}: host"))];
    if recorded.stage.is_some() {
        lines.push(name_of_process(stage[0], &format!("{title}: stage, in the container")));
    }
    let mut spans: Vec<&Span> = recorded.spans.iter().collect();
    spans.sort_by_key(|span| (span.begin, std::cmp::Reverse(span.end)));
    for span in spans {
        let who = if span.side == Side::Host { host } else { stage };
        lines.push(of_span(span, who, recorder.begun));
        lines.extend(span.calls.iter().map(|call| of_call(call, span, who, recorder.begun)));
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let mut about = json!({"program": format!("corten {}", env!("CARGO_PKG_VERSION")), "verb": recorder.verb, "container": recorder.id});
    if let (Some(missing), Some(about)) = (&recorded.missing, about.as_object_mut()) {
        about.insert("missing".to_owned(), missing.as_str().into());
    }
    format!(
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[\n{}\n]}}\n",
        lines.join(",\n")
    )
}

fn name_of_process(pid: i64, name: &str) -> Value {
    json!({"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}})
}

/// Nanoseconds as microseconds.
fn micros(nanos: u64) -> Value {
    (nanos as f64 / 1000.0).into()
}

fn event(
    name: &str,
    category: &str,
    (begin, end): (u64, u64),
    [pid, tid]: [i64; 2],
    zero: u64,
) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("ph".into(), "X".into());
    event.insert("name".into(), printable(name).into());
    event.insert("cat".into(), category.into());
    event.insert("ts".into(), micros(begin.saturating_sub(zero)));
    event.insert("dur".into(), micros(end.saturating_sub(begin)));
    event.insert("pid".into(), pid.into());
    event.insert("tid".into(), tid.into());
    event
}

fn of_span(span: &Span, who: [i64; 2], zero: u64) -> Value {
    let category = if span.step.is_some() { "step" } else { "verb" };
    let mut event = event(&span.name, category, (span.begin, span.end), who, zero);
    let mut args = Map::new();
    args.insert("side".into(), span.side.name().into());
    if let Some(step) = span.step {
        args.insert("step".into(), step.into());
        args.insert("field".into(), printable(&span.field).into());
    }
    if let Some(cpu) = span.cpu {
        args.insert("cpu_us".into(), micros(cpu));
    }
    if span.side == Side::Stage && span.step.is_some() {
        args.insert("calls".into(), span.calls.len().into());
        let inside = |call: &LoggedCall| call.end.unwrap_or(span.end).saturating_sub(call.begin);
        args.insert("calls_us".into(), micros(span.calls.iter().map(inside).sum()));
    }
    if span.waits {
        args.insert("waits".into(), true.into());
    }
    if let Some(error) = &span.error {
        args.insert("error".into(), printable(error).into());
    }
    event.insert("args".into(), args.into());
    event.into()
}

fn of_call(call: &LoggedCall, span: &Span, who: [i64; 2], zero: u64) -> Value {
    let mut event = event(&call.name, "call", (call.begin, call.end.unwrap_or(span.end)), who, zero);
    let mut args = Map::new();
    match (call.errno, call.end) {
        (0, Some(_)) => {}
        (0, None) => drop(args.insert("returns".into(), false.into())),
        (errno, _) => drop(args.insert("error".into(), crate::error::Words(errno).to_string().into())),
    }
    event.insert("args".into(), args.into());
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ticks::Moment;

    /// The form is what other programs read: it is held as it is.
    #[test]
    fn the_file_is_as_it_was() {
        let recorder = Recorder::new("create", "c1");
        let zero = recorder.begun;
        let call = |name: &str, begin, end: Option<u64>, errno| LoggedCall {
            name: name.into(),
            begin: zero + begin,
            end: end.map(|end| zero + end),
            errno,
        };
        let spans = vec![
            Span {
                step: Some(2),
                field: "/mounts/0".into(),
                calls: vec![
                    call("fsopen", 3_100, Some(4_000), 0),
                    call("openat2", 4_000, Some(4_500), libc::ENOENT),
                ],
                ..Span::new(Side::Stage, "prepare a proc file system", (zero + 3_000, zero + 5_000))
            },
            Span {
                step: Some(3),
                error: Some("exec /x: no".into()),
                calls: vec![call("execve", 5_000, None, 0)],
                ..Span::new(Side::Stage, "execute \"/x\"", (zero + 5_000, zero + 7_001))
            },
            Span {
                cpu: Some(700),
                step: Some(1),
                waits: true,
                ..Span::new(Side::Host, "wait", (zero + 1_000, zero + 9_000))
            },
            Span::new(Side::Host, "read config.json", (zero, zero + 1_000)),
        ];
        recorder.stage(42, spans, Some("why".into()));
        let text = file(&recorder);
        let pid = std::process::id().to_string();
        let tid = rustix::thread::gettid().as_raw_nonzero().to_string();
        let text = text
            .replace(&format!("\"pid\":{pid}"), "\"pid\":1")
            .replace(&format!("\"tid\":{pid}"), "\"tid\":1");
        let text = text
            .replace(&format!("\"tid\":{tid}"), "\"tid\":1")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION");
        assert_eq!(text, include_str!("sample.json"));
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    /// Whatever happens in a verb, what it was about is told once.
    #[test]
    fn a_failure_is_told_once() {
        let error = Error::new(crate::error::Kind::Invalid, "no");
        let recorder = Recorder::new("run", "x");
        recorder.mark("read config.json");
        let text = recorder.finish(Some(&error));
        assert_eq!(text.matches("\"error\":\"no\"").count(), 1, "{text}");
        let recorder = Recorder::new("run", "x");
        recorder.end(
            Recorder::begin(),
            Span { error: Some("no".into()), ..Span::new(Side::Host, "step", (0, 0)) },
        );
        let text = recorder.finish(Some(&error));
        assert_eq!(text.matches("\"error\":\"no\"").count(), 1, "{text}");
    }

    use crate::error::Error;

    #[test]
    fn a_recorder_without_a_counter_still_records() {
        let mut recorder = Recorder::new("run", "x");
        recorder.moment = None::<Moment>;
        recorder.mark("read config.json");
        assert!(recorder.finish(None).contains("read config.json"));
    }
}
