// SPDX-License-Identifier: Apache-2.0
//! Annotations that change what is done: crun's, where they make sense for us (compatibility F8). docs/annotations.md says of
//! each what was decided and why. All others are passed on and mean nothing.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::hooks::Output;
use super::text::printable;
use crate::error::{Error, Result};
use crate::facts::Permitted;
use crate::seccomp::SockFilter;

/// Names of the annotations that are obeyed, sorted: `corten features` calls them potentially unsafe. One that ends in `.`
/// is a prefix (systemd's are read in `cgroup/unit.rs`).
pub(crate) const NAMES: [&str; 10] = [
    CRIU_CONFIG,
    SYSTEMD,
    HOOKS_STDERR,
    HOOKS_STDOUT,
    KEEP_GROUPS,
    MOUNT_CONTEXT,
    PIDFD,
    RECEIVER,
    BPF,
    FAIL_UNKNOWN,
];

/// Those of them that weaken what the configuration asks for, or have the runtime open or tell something outside of the
/// container: obeyed only where the host's administrator has listed them (`host/permitted.rs`). Engines hand annotations on
/// from people who may not ask for that in any other way.
const PERMITTED: [&str; 7] = [CRIU_CONFIG, HOOKS_STDERR, HOOKS_STDOUT, KEEP_GROUPS, PIDFD, RECEIVER, BPF];

const CRIU_CONFIG: &str = "org.criu.config";
const SYSTEMD: &str = "org.systemd.property.";
const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const MOUNT_CONTEXT: &str = "run.oci.mount_context_type";
const PIDFD: &str = "run.oci.pidfd_receiver";
const RECEIVER: &str = "run.oci.seccomp.receiver";
const BPF: &str = "run.oci.seccomp_bpf_data";
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Whether one of them is to be obeyed only with permission.
#[must_use]
pub(crate) fn need_permission(annotations: &BTreeMap<String, Option<String>>) -> bool {
    PERMITTED.iter().any(|name| annotations.contains_key(*name))
}

/// What they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationSettings {
    /// Those that would have been obeyed with permission.
    pub not_permitted: Vec<&'static str>,
    /// Keep the caller's supplementary groups (rootless users with groups of their host).
    pub keep_groups: bool,
    /// Which SELinux option carries `mountLabel`.
    pub mount_context: &'static str,
    /// Who receives init's pidfd, when `--pidfd-socket` does not say.
    pub pidfd_socket: Option<PathBuf>,
    /// The seccomp agent's socket, when `listenerPath` does not say.
    pub receiver: Option<String>,
    /// A filter instead of the configuration's.
    pub bpf: Option<Vec<SockFilter>>,
    /// A system call that no table knows is an error.
    pub fail_unknown: bool,
    /// CRIU's configuration file, for a checkpoint or restore; an empty one: none.
    pub criu_config: Option<String>,
    /// Files that the output of hooks in the runtime's namespaces is appended to: stdout's and stderr's.
    pub hook_output: Output,
}

impl Default for AnnotationSettings {
    fn default() -> Self {
        AnnotationSettings {
            not_permitted: Vec::new(),
            keep_groups: false,
            mount_context: "context",
            pidfd_socket: None,
            receiver: None,
            bpf: None,
            fail_unknown: false,
            criu_config: None,
            hook_output: None,
        }
    }
}

impl AnnotationSettings {
    /// What is said of those that are not obeyed.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.not_permitted.iter().map(|name| {
            format!(
                "config.json /annotations/{name}: not obeyed: the host's administrator has not listed it in \
                 /etc/corten/annotations"
            )
        })
    }
}

/// Reads them. A switch is on unless its value is empty, `0` or `false`: crun takes its presence, which nobody who
/// wrote `0` can have meant.
///
/// # Errors
/// Values that do not read.
pub(crate) fn read(
    annotations: &BTreeMap<String, Option<String>>,
    permitted: &Permitted,
) -> Result<AnnotationSettings> {
    let mut obeyed = AnnotationSettings::default();
    if annotations.is_empty() {
        return Ok(obeyed);
    }
    let barred = |name: &str| {
        let own = permitted.groups && name == KEEP_GROUPS;
        PERMITTED.contains(&name) && !own && !permitted.listed.contains(name)
    };
    let given = |name: &str| annotations.get(name)?.as_deref().filter(|value| !value.is_empty());
    // Empty, it takes the usual one away, which weakens nothing.
    let without_criu = annotations.get(CRIU_CONFIG).is_some_and(|value| value.as_deref() == Some(""));
    let value = |name: &str| given(name).filter(|_| !barred(name));
    let refused = |name: &&str| barred(name) && given(name).is_some();
    obeyed.not_permitted = PERMITTED.into_iter().filter(refused).collect();
    let on = |name: &str| value(name).is_some_and(|value| !matches!(value, "0" | "false"));
    let wrong = |name: &str, text: String| Error::invalid(format_args!("/annotations/{name}"), text);
    let path = |name: &str| match value(name) {
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            Err(wrong(name, format!("{} is not an absolute path", printable(path))))
        }
        path => Ok(path.map(PathBuf::from)),
    };
    obeyed.keep_groups = on(KEEP_GROUPS);
    obeyed.fail_unknown = on(FAIL_UNKNOWN);
    obeyed.pidfd_socket = path(PIDFD)?;
    obeyed.criu_config = match path(CRIU_CONFIG)? {
        Some(file) => Some(file.to_string_lossy().into_owned()),
        None => without_criu.then(String::new),
    };
    obeyed.receiver = path(RECEIVER)?.map(|path| path.to_string_lossy().into_owned());
    let output = [path(HOOKS_STDOUT)?, path(HOOKS_STDERR)?];
    obeyed.hook_output = output.iter().any(Option::is_some).then(|| Arc::new(output));
    if let Some(kind) = value(MOUNT_CONTEXT) {
        let known =
            ["context", "fscontext", "defcontext", "rootcontext"].into_iter().find(|known| *known == kind);
        obeyed.mount_context = known.ok_or_else(|| {
            wrong(MOUNT_CONTEXT, format!("{} is no type of SELinux context", printable(kind)))
        })?;
    }
    if let Some(text) = value(BPF) {
        let insns = base64(text).and_then(|bytes| instructions(&bytes));
        obeyed.bpf = Some(insns.ok_or_else(|| wrong(BPF, "not a BPF program in base64".to_owned()))?);
    }
    Ok(obeyed)
}

/// struct sock_filter by struct sock_filter; the kernel takes at most 4096 (BPF_MAXINSNS).
fn instructions(bytes: &[u8]) -> Option<Vec<SockFilter>> {
    let insn = |b: &[u8]| {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = b.try_into().ok()?;
        Some(SockFilter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
    };
    let whole = !bytes.is_empty() && bytes.len().is_multiple_of(8) && bytes.len() / 8 <= 4096;
    bytes.chunks(8).map(insn).collect::<Option<Vec<_>>>().filter(|_| whole)
}

/// RFC 4648, section 4; blanks and lines' ends are skipped.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    let mut digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).peekable();
    while let Some(digit) = digits.next_if(|byte| *byte != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    // What pads must pad to a multiple of four digits, and no digit stands alone.
    let padding = digits.clone().count();
    (digits.all(|byte| byte == b'=') && padding < 3 && held < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (text, want) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(want.as_bytes()), "{text}");
        }
        for wrong in ["Z", "Zg==x", "Z*==", "Zm9v====", "="] {
            assert!(base64(wrong).is_none_or(|bytes| bytes.is_empty() && wrong == "="), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_read_is_named() {
        let read = |name: &str, value: &str| {
            let all = Permitted::of(&PERMITTED.join("\n"), false);
            super::read(&BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]), &all)
        };
        for (name, value) in
            [(PIDFD, "x"), (RECEIVER, "./x"), (MOUNT_CONTEXT, "label"), (BPF, "Zg=="), (HOOKS_STDERR, "x")]
        {
            let text = read(name, value).unwrap_err().to_string();
            assert!(text.starts_with(&format!("config.json /annotations/{name}: ")), "{text}");
        }
        assert!(read(KEEP_GROUPS, "1").unwrap().keep_groups);
        assert!(!read(KEEP_GROUPS, "0").unwrap().keep_groups);
        assert_eq!(read("org.example", "x").unwrap(), AnnotationSettings::default());
        let insns = read(BPF, "BgAAAAAA/38=").unwrap().bpf.unwrap();
        assert_eq!(insns, [SockFilter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }]);
        assert!(NAMES.is_sorted());
    }

    /// CRIU's configuration can name programs to run: so a file needs permission; none at all weakens nothing.
    #[test]
    fn criu_is_configured_by_permission() {
        let read = |value: &str, permitted: &str| {
            let all = BTreeMap::from([(CRIU_CONFIG.to_owned(), Some(value.to_owned()))]);
            super::read(&all, &Permitted::of(permitted, false)).unwrap().criu_config
        };
        assert_eq!(read("/etc/criu.conf", CRIU_CONFIG).as_deref(), Some("/etc/criu.conf"));
        assert_eq!(read("/etc/criu.conf", ""), None);
        assert_eq!((read("", "").as_deref(), read("", CRIU_CONFIG).as_deref()), (Some(""), Some("")));
        assert_eq!(super::read(&BTreeMap::new(), &Permitted::default()).unwrap().criu_config, None);
    }

    fn barred_but(name: &str) -> Vec<&'static str> {
        PERMITTED.into_iter().filter(|barred| *barred != name).collect()
    }

    #[test]
    fn nothing_outside_of_the_container_without_permission() {
        let all: BTreeMap<_, _> = NAMES.map(|name| (name.to_owned(), Some("/x".to_owned()))).into();
        let all = BTreeMap::from_iter(all.into_iter().filter(|(name, _)| name != MOUNT_CONTEXT));
        assert!(need_permission(&all));
        let obeyed = super::read(&all, &Permitted::default()).unwrap();
        let none = AnnotationSettings {
            not_permitted: PERMITTED.to_vec(),
            fail_unknown: true,
            ..AnnotationSettings::default()
        };
        assert_eq!(obeyed, none);
        assert_eq!(obeyed.warnings().count(), PERMITTED.len());
        let text = format!("# of this host\n  {PIDFD} # because\n{BPF}x\n#{RECEIVER}\norg.example\n");
        let listed = super::read(&all, &Permitted::of(&text, false)).unwrap();
        assert_eq!(
            listed,
            AnnotationSettings {
                pidfd_socket: Some("/x".into()),
                not_permitted: barred_but(PIDFD),
                ..none.clone()
            }
        );
        let own = super::read(&all, &Permitted::of("", true)).unwrap();
        assert_eq!(
            own,
            AnnotationSettings { keep_groups: true, not_permitted: barred_but(KEEP_GROUPS), ..none }
        );
    }
}
