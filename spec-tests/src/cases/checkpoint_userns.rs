// SPDX-License-Identifier: Apache-2.0
//! Checkpoints of containers with a user namespace: CRIU does part of its work as that namespace's root.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::checkpoint::{CRUN, FREEZER, checkpoint, counter, launched, lost_nothing, round, try_restore};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// A container that counts, as the host's user 100000.
fn mapped(t: &Test) -> Result<Bundle, Trouble> {
    let b = counter(t)?.user_namespace();
    fs::set_permissions(b.rootfs(""), fs::Permissions::from_mode(0o777))?;
    launched(t, &b)?;
    Ok(b)
}

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = vec![
        case("checkpoint/user-namespace", |t| {
            let b = mapped(t)?;
            round(t, &b, "")?;
            t.exec(&b, "", "/bin/touch /made")?.ok()?;
            same("who an exec is on the host", fs::metadata(b.rootfs("made"))?.uid(), 100_000)?;
            lost_nothing(&b)
        })
        .runc("its restore is refused access to the images"),
        case("checkpoint/user-namespace-with-other-ids-is-refused", |t| {
            let b = mapped(t)?;
            checkpoint(t, &b, "")?;
            let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
            let b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            let done = try_restore(t, &b, "")?;
            check!(done.code != 0 && done.stderr.contains("user namespace has other mappings"), "{done}");
            check!(t.cli(&format!("state {}", b.id))?.code != 0, "a container is left");
            Ok(())
        })
        .needs(&[Need::Runtime("corten")]),
        case("checkpoint/user-namespace-that-the-bundle-lacks", |t| {
            let b = mapped(t)?;
            checkpoint(t, &b, "")?;
            let none = json!([]);
            let b = b
                .without_namespace("user")
                .set("/linux/uidMappings", none.clone())
                .set("/linux/gidMappings", none);
            check!(try_restore(t, &b, "")?.code != 0, "it is restored");
            check!(t.cli(&format!("state {}", b.id))?.code != 0, "a container is left");
            Ok(())
        })
        .needs(&[Need::Runtime("corten")]),
    ];
    for case in &mut all {
        case.needs.extend([Need::Criu, Need::Busybox, CRUN]);
        case.differs("runc", FREEZER);
    }
    all
}
