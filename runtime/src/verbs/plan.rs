// SPDX-License-Identifier: Apache-2.0
//! `plan`: what `create` would do.

#![forbid(unsafe_code)]

use super::create::load;
use crate::ask::{Create, Home};
use crate::error::{Result, printable};
use crate::facts::Facts;
use crate::host::permitted;
use crate::plan::{Plan, ids};
use crate::program::{HostOp, Op, check, compile, explain};
use crate::spec::{Spec, unknown_fields};

/// One line of `corten plan`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlanLine {
    /// `host`, `stage` or `CRIU`.
    pub side: &'static str,
    /// JSON pointer into config.json of the value that asked for this; empty when no field did.
    pub field: String,
    /// What is done, in words.
    pub step: String,
}

/// `plan`: every step of a `create`, or of a `restore`, in order. Touches nothing and needs no privileges.
#[doc = include_str!("examples/plan.md")]
/// # Errors
/// As `create` before it makes anything.
pub fn plan(home: &Home, ask: &Create, restore: bool) -> Result<Vec<PlanLine>> {
    let (spec, bytes, bundle) = load(ask)?;
    let mut facts = Facts::probe()?.for_rootless(home.rootless);
    facts.permitted = permitted::by(&facts, &spec.annotations)?;
    if ask.no_pivot {
        facts.probe_mounts()?;
    }
    facts.probe_sources(&spec, &bundle);
    let plan = Plan::new(&spec, &facts, home, ask, bundle)?;
    let program = if restore {
        compile::restore(&plan)
    } else {
        let program = compile::create(&plan, facts.last_cap);
        check::check(&program)?;
        program
    };
    plan.warnings.iter().for_each(|warning| (home.warn)(warning));
    tell_unknown(home, &spec, &bytes);
    if let Err(error) = ids::rootless(&plan.namespaces, &facts) {
        (home.warn)(&format!("{error}: this is what root would do"));
    }
    let mut lines = Vec::new();
    for step in &program.steps {
        let side = match step.op {
            Op::Host(_) => "host",
            Op::Stage(_) => "stage",
            Op::Criu(_) => "CRIU",
        };
        lines.push(PlanLine { side, field: step.at.clone(), step: explain::sentence(&program, step) });
        let parts = match step.op {
            Op::Host(HostOp::Cgroup) => plan.cgroup.explain(),
            Op::Host(HostOp::DeviceRules) => plan.cgroup.explain_devices(),
            _ => Vec::new(),
        };
        lines.extend(parts.into_iter().map(|(field, step)| PlanLine { side, field, step }));
    }
    Ok(lines)
}

/// A create must ignore what it does not know (config.md, "Extensibility"); who looks at a plan wants to know of a typing error.
fn tell_unknown(home: &Home, spec: &Spec, bytes: &[u8]) {
    match unknown_fields(spec, bytes) {
        Ok(fields) => {
            for field in fields {
                let field = printable(&field);
                (home.warn)(&format!(
                    "config.json {field}: no specification knows this field, and nothing is done about it"
                ));
            }
        }
        Err(error) => (home.warn)(&format!("config.json: not looked through for unknown fields: {error}")),
    }
}
