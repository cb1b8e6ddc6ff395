// SPDX-License-Identifier: Apache-2.0
//! What differs between two performances of a plan.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde_json::Value;

use super::perform::SHOWN_ONLY;

/// One field that differs. Values are JSON, or `absent`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The step's verb and the way to the value: `exec/report/caps/bounding`.
    pub field: String,
    pub ours: String,
    pub theirs: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ours {}, theirs {}", self.field, self.ours, self.theirs)
    }
}

/// All differences, the same field of the same verb only once. Where a command succeeds, or ends, on one side only, this is the
/// last difference: what follows has no common ground.
pub fn differences(ours: &[Value], theirs: &[Value]) -> Vec<Difference> {
    let mut found = BTreeMap::new();
    for (one, other) in ours.iter().zip(theirs) {
        let verb = one["step"].as_str().unwrap_or_default();
        let way = |seen: &Value| (seen["code"] == 0, seen["code"].is_string());
        if way(one) != way(other) {
            let field = format!("{verb}/code");
            let difference = Difference {
                field: field.clone(),
                ours: one["code"].to_string(),
                theirs: other["code"].to_string(),
            };
            found.entry(field).or_insert(difference);
            break;
        }
        descend(verb, one, other, &mut found);
    }
    found.into_values().collect()
}

/// Goes down where both are objects. An object beside nothing is one difference, not many.
fn descend(path: &str, ours: &Value, theirs: &Value, found: &mut BTreeMap<String, Difference>) {
    if let (Some(left), Some(right)) = (ours.as_object(), theirs.as_object()) {
        let keys = left.keys().chain(right.keys().filter(|key| !left.contains_key(*key)));
        for key in keys.filter(|key| *key != SHOWN_ONLY) {
            descend(&format!("{path}/{key}"), &ours[key], &theirs[key], found);
        }
    } else if ours != theirs {
        let text = |value: &Value| match value {
            Value::Null => "absent".to_owned(),
            Value::Object(_) => "present".to_owned(),
            value => value.to_string(),
        };
        let difference = Difference { field: path.to_owned(), ours: text(ours), theirs: text(theirs) };
        found.entry(path.to_owned()).or_insert(difference);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_told_by_verb_and_path() {
        let ours = [json!({"step": "run", "code": 0, "report": {"uid": [0], "gone": 1}})];
        let theirs = [json!({"step": "run", "code": 0, "report": {"uid": [1]}})];
        let told: Vec<_> = differences(&ours, &theirs).iter().map(Difference::to_string).collect();
        assert_eq!(told, ["run/report/gone: ours 1, theirs absent", "run/report/uid: ours [0], theirs [1]"]);
    }

    #[test]
    fn after_a_command_that_only_one_can_there_is_nothing_to_compare() {
        let ours = [json!({"step": "create", "code": 0}), json!({"step": "start", "code": 0})];
        let theirs = [json!({"step": "create", "code": 1}), json!({"step": "start", "code": 1})];
        let told = differences(&ours, &theirs);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].to_string(), "create/code: ours 0, theirs 1");
    }
}
