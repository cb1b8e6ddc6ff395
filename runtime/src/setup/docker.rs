// SPDX-License-Identifier: Apache-2.0
//! Docker's daemon.json: a runtime, by its type or by its path, and the default; those of docs/engines/docker.md. JSON has no comments,
//! and dockerd refuses a key that it does not know at the top: what setup did stands in the runtime's own object, where dockerd
//! takes no notice of it. Pure.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::SetupHost;
use super::json::JsonObject;
use crate::doctor::containerd::TYPE;
use crate::doctor::engines::is_called;
use crate::doctor::programs::SHIM;

/// The key of what setup did.
const MARK: &str = "corten-setup";
const DEFAULT: &str = "default-runtime";
/// In a file of our own, and in one that was `{}`.
const OWN: &str = "\n    ";
const WIDE: &str = "\n  ";

fn read(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let object = |value: Option<&Value>| value.is_none_or(Value::is_object);
    let (runtimes, default) = (&value["runtimes"], value.get(DEFAULT));
    let sound = value.is_object()
        && object(value.get("runtimes"))
        && object(runtimes.get("corten"))
        && object(runtimes["corten"].get(MARK))
        && default.is_none_or(Value::is_string);
    match sound {
        true => Ok(value),
        false => {
            Err("not an object with an object runtimes and a text default-runtime, as dockerd wants it"
                .into())
        }
    }
}

/// The runtime as it is written, without what setup did.
fn runtime(host: &SetupHost) -> Value {
    // dockerd before 23 takes no notice of a type, and would run runc.
    match host.docker_by_type {
        true => json!({"runtimeType": TYPE}),
        false => json!({"path": host.corten}),
    }
}

fn is_ours(runtime: &Value) -> bool {
    let text = |key: &str| runtime[key].as_str().unwrap_or_default();
    text("runtimeType").contains("corten")
        || is_called(text("path"), "corten")
        || is_called(text("path"), SHIM)
}

/// The file with Corten's runtime, and as the default if asked.
///
/// # Errors
/// What is in the way, and what is to be said by hand.
pub(super) fn set_up(before: Option<&str>, default: bool, host: &SetupHost) -> Result<String, String> {
    let empty = before.filter(|text| text.trim().is_empty());
    let text = match (before, empty) {
        (Some(text), None) => text,
        _ => &format!("{}{{}}", empty.unwrap_or_default()),
    };
    let mut config = read(text)?;
    let there = config["runtimes"].get("corten").cloned().unwrap_or_default();
    let by_hand = |key: &str, value: &Value| format!("to be said by hand: {}", json!({ key: value }));
    let old = config.get(DEFAULT).cloned().unwrap_or_default();
    let wants_default = default && old != "corten";
    if !there.is_null() && there[MARK].is_null() {
        if !is_ours(&there) {
            let name = json!({ "another-name": runtime(host) });
            return Err(format!("the runtime corten is another's; {}", by_hand("runtimes", &name)));
        }
        if wants_default {
            let what = "the runtime corten is there, not by this command, which so changes no default";
            return Err(format!("{what}; {}", by_hand(DEFAULT, &json!("corten"))));
        }
        return Ok(text.to_owned());
    }
    let mut made = there.clone();
    if there.is_null() {
        let how = match (before, &config["runtimes"]) {
            (None, _) => "file",
            (Some(_), _) if empty.is_some() => "text",
            (_, Value::Null) => "runtimes",
            _ => "runtime",
        };
        made = runtime(host);
        made[MARK] = json!({ "made": how });
    }
    if wants_default {
        made[MARK][DEFAULT] = old;
    }
    if made == there {
        return Ok(text.to_owned());
    }
    let wide = if before.is_none() || empty.is_some() { OWN } else { WIDE };
    let after = write(text, &made, wants_default, wide).ok_or("its members cannot be told apart")?;
    // The same change, made of what was read.
    config["runtimes"]["corten"] = made;
    if wants_default {
        config[DEFAULT] = json!("corten");
    }
    same(&after, &config)?;
    Ok(after + if before.is_none() { "\n" } else { "" })
}

/// `made` and the default into the text.
fn write(text: &str, made: &Value, default: bool, wide: &str) -> Option<String> {
    let mut text = text.to_owned();
    let written = spaced(made);
    let top = JsonObject::read(&text, 0)?;
    text = match top.member("runtimes") {
        None => top.with(&text, "runtimes", &format!("{{\"corten\": {written}}}"), Some(wide)),
        Some(runtimes) => {
            let object = JsonObject::read(&text, runtimes.value.start)?;
            match object.member("corten") {
                Some(corten) => replaced(&text, corten.value.clone(), &written),
                None => object.with(&text, "corten", &written, None),
            }
        }
    };
    if default {
        let (top, as_written) = (JsonObject::read(&text, 0)?, made[MARK][DEFAULT].to_string());
        text = match top.member(DEFAULT) {
            // Written otherwise than it would come back.
            Some(member) if text.get(member.value.clone())? != as_written => {
                return None;
            }
            Some(member) => replaced(&text, member.value.clone(), "\"corten\""),
            None => top.with(&text, DEFAULT, "\"corten\"", Some(wide)),
        };
    }
    Some(text)
}

fn replaced(text: &str, span: std::ops::Range<usize>, by: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(span, by);
    text
}

/// On one line, with blanks as people write them.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let all = members.iter().map(|(name, value)| format!("{}: {}", json!(name), spaced(value)));
            format!("{{{}}}", all.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

fn same(text: &str, wanted: &Value) -> Result<(), String> {
    match read(text)? == *wanted {
        true => Ok(()),
        false => Err("a key stands in it twice: set it right by hand first".into()),
    }
}

/// The file without what setup did: nothing where that was all; as it is where that was nothing.
///
/// # Errors
/// What is in the way.
pub(super) fn take_out(text: &str) -> Result<Option<String>, String> {
    let mut config = read(text)?;
    let mark = config["runtimes"]["corten"][MARK].clone();
    if mark.is_null() {
        return Ok(Some(text.to_owned()));
    }
    let default = mark.get(DEFAULT).filter(|_| config[DEFAULT] == "corten").cloned();
    if config[DEFAULT] == "corten" && default.is_none() {
        return Err(
            "default-runtime is corten, and not by this command: change it first, or dockerd does not start"
                .into(),
        );
    }
    let cannot = "its members cannot be told apart";
    let mut text = text.to_owned();
    if let Some(old) = &default {
        let top = JsonObject::read(&text, 0).ok_or(cannot)?;
        let member = top.member(DEFAULT).ok_or(cannot)?;
        text = match old {
            Value::Null => top.without(&text, DEFAULT, None),
            old => replaced(&text, member.value.clone(), &old.to_string()),
        };
    }
    let members = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
    let all = mark["made"] != "runtime" && members(&config["runtimes"]) == 1;
    let top = JsonObject::read(&text, 0).ok_or(cannot)?;
    let runtimes = top.member("runtimes").ok_or(cannot)?;
    text = match all {
        true => top.without(&text, "runtimes", Some(WIDE)),
        false => {
            let object = JsonObject::read(&text, runtimes.value.start).ok_or(cannot)?;
            object.without(&text, "corten", None)
        }
    };
    if let Some(object) = config.as_object_mut() {
        match &default {
            Some(Value::Null) => _ = object.remove(DEFAULT),
            Some(old) => _ = object.insert(DEFAULT.into(), old.clone()),
            None => {}
        }
        match object.get_mut("runtimes").and_then(Value::as_object_mut).filter(|_| !all) {
            Some(runtimes) => _ = runtimes.remove("corten"),
            None => _ = object.remove("runtimes"),
        }
    }
    same(&text, &config)?;
    Ok(match mark["made"].as_str() {
        Some("file") if members(&config) == 0 => None,
        Some("text") if members(&config) == 0 => text.split('{').next().map(str::to_owned),
        _ => Some(text),
    })
}
