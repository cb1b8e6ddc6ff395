// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "IntelRdt", on a tree that stands in for resctrl: hardware with RDT is rare, and no virtual machine
//! has it. The tree is a tmpfs whose mount is called `resctrl`; what the kernel would do in it is not shown.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

const ALL: &str = "L3:0=fffff;1=fffff\nMB:0=100;1=100\n";
const REASON: &str = "takes only a resctrl that is real";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let all = classes().into_iter().chain(monitoring()).chain(updates());
    let mut all: Vec<Case> = all.map(|case| case.crun(REASON)).collect();
    // runc ignores what it cannot do for want of a real one, and so this one holds.
    let ignored = "rdt/an-existing-class-with-the-same-schemata";
    for case in all.iter_mut().filter(|case| case.name != ignored) {
        case.differs("runc", REASON);
    }
    all.push(
        case("rdt/needs-resctrl", |t| {
            let b = t.bundle()?.set("/linux/intelRdt", json!({"closID": "gold"}));
            let before = t.snapshot();
            let done = t.run(&b)?;
            if t.host.name == "corten" {
                done.refuses(&["/linux/intelRdt", "no resctrl file system is mounted"])?;
            }
            check!(done.code != 0, "it runs without resctrl");
            t.unchanged_since(&before)
        })
        .runc("ignores it"),
    );
    all
}

/// The stand-in.
fn resctrl(t: &Test) -> Result<PathBuf, Trouble> {
    let root = t.path("resctrl");
    fs::create_dir(&root)?;
    t.mount("tmpfs", "resctrl", &root, MsFlags::empty(), "")?;
    fs::write(root.join("schemata"), ALL)?;
    fs::write(root.join("tasks"), "")?;
    fs::create_dir(root.join("info"))?;
    fs::create_dir(root.join("mon_groups"))?;
    Ok(root)
}

/// A class that somebody made before.
fn class(root: &Path, name: &str, schemata: &str) -> Verdict {
    fs::create_dir_all(root.join(name).join("mon_groups"))?;
    fs::write(root.join(name).join("schemata"), schemata)?;
    Ok(fs::write(root.join(name).join("tasks"), "")?)
}

fn text(path: PathBuf) -> Result<String, Trouble> {
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn classes() -> Vec<Case> {
    vec![
        case("rdt/a-class-of-its-own", |t| {
            let root = resctrl(t)?;
            let rdt = json!({"l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70", "schemata": ["L2:0=3"]});
            let b = t.bundle()?.set("/linux/intelRdt", rdt).probe("forever");
            t.create(&b)?;
            let own = root.join(&b.id);
            same(
                "schemata, in order",
                text(own.join("schemata"))?,
                "L3:0=f;1=f0\nMB:0=20;1=70\nL2:0=3\n".to_owned(),
            )?;
            same("tasks", text(own.join("tasks"))?, t.pid(&b)?.to_string())?;
            same("the root's schemata", text(root.join("schemata"))?, ALL.to_owned())?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            t.cli(&format!("delete -f {}", b.id))?.ok()?;
            check!(!own.exists(), "the class is still there");
            Ok(())
        }),
        case("rdt/a-named-class-stays", |t| {
            let root = resctrl(t)?;
            let b =
                t.bundle()?.set("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f;1=f"}));
            t.run(&b)?.ok()?;
            same("schemata", text(root.join("gold/schemata"))?, "L3:0=f;1=f\n".to_owned())
        }),
        case("rdt/an-existing-class-as-it-is", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", "L3:0=f;1=f\n")?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"closID": "gold"})).probe("forever");
            t.create(&b)?;
            same("tasks", text(root.join("gold/tasks"))?, t.pid(&b)?.to_string())?;
            same("schemata", text(root.join("gold/schemata"))?, "L3:0=f;1=f\n".to_owned())
        }),
        case("rdt/an-existing-class-with-the-same-schemata", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", "    L3:0=0000f;1=0000f\n    MB:0= 20;1= 70\n")?;
            let rdt = json!({"closID": "gold", "schemata": ["L3:0=f", "MB:1=70"]});
            t.run(&t.bundle()?.set("/linux/intelRdt", rdt))?.ok()?;
            same("schemata", text(root.join("gold/schemata"))?.lines().count(), 2)
        }),
        case("rdt/an-existing-class-with-other-schemata", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", "L3:0=ff;1=f\n")?;
            let before = t.snapshot();
            let b =
                t.bundle()?.set("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f;1=f"}));
            t.run(&b)?.refuses(&["/linux/intelRdt", "L3:0=f;1=f", "gold/schemata"])?;
            same("schemata", text(root.join("gold/schemata"))?, "L3:0=ff;1=f\n".to_owned())?;
            t.unchanged_since(&before)
        }),
        case("rdt/a-class-that-is-not-there", |t| {
            let root = resctrl(t)?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"closID": "gold"}));
            t.run(&b)?.refuses(&["/linux/intelRdt/closID", "gold"])?;
            check!(!root.join("gold").exists(), "it was made");
            Ok(())
        }),
        case("rdt/the-default-class", |t| {
            let root = resctrl(t)?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"closID": "/"})).probe("forever");
            t.create(&b)?;
            same("tasks", text(root.join("tasks"))?, t.pid(&b)?.to_string())
        }),
        case("rdt/names-that-are-no-classes", |t| {
            resctrl(t)?;
            for name in ["..", "a/b", "info", "x\ny"] {
                let b = t.bundle()?.set("/linux/intelRdt", json!({"closID": name}));
                t.run(&b)?.refuses(&["/linux/intelRdt/closID"])?;
            }
            let b = t.bundle()?.set("/linux/intelRdt", json!({"memBwSchema": "L3:0=f"}));
            t.run(&b)?.refuses(&["/linux/intelRdt/memBwSchema"])?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"schemata": ["L3:0=f\nMB:0=5"]}));
            t.run(&b)?.refuses(&["/linux/intelRdt/schemata/0"]).map(drop)
        }),
    ]
}

fn monitoring() -> Vec<Case> {
    vec![
        case("rdt/a-monitoring-group", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", ALL)?;
            let rdt = json!({"closID": "gold", "enableMonitoring": true});
            let b = t.bundle()?.set("/linux/intelRdt", rdt).probe("forever");
            t.create(&b)?;
            let group = root.join("gold/mon_groups").join(&b.id);
            same("tasks", text(group.join("tasks"))?, t.pid(&b)?.to_string())?;
            t.cli(&format!("delete -f {}", b.id))?.ok()?;
            check!(
                !group.exists() && root.join("gold").exists(),
                "the group is still there, or the class is gone"
            );
            Ok(())
        }),
        case("rdt/monitoring-by-its-old-names", |t| {
            let root = resctrl(t)?;
            for name in ["enableCMT", "enableMBM"] {
                let b = t.bundle()?.set(&format!("/linux/intelRdt/{name}"), json!(true)).probe("forever");
                t.create(&b)?;
                check!(root.join(&b.id).join("mon_groups").join(&b.id).exists(), "{name} makes no group");
                t.cli(&format!("delete -f {}", b.id))?.ok()?;
                check!(!root.join(&b.id).exists(), "the class is still there");
            }
            Ok(())
        }),
        case("rdt/figures", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", "    L3:0=000f;1=0000f\n    MB:0=  20;1=  70\n")?;
            let rdt = json!({"closID": "gold", "enableMonitoring": true});
            let b = t.bundle()?.set("/linux/intelRdt", rdt).probe("forever");
            t.launch(&b)?;
            let data = root.join("gold/mon_groups").join(&b.id).join("mon_data");
            for (dir, file, content) in [
                (root.join("info/L3"), "cbm_mask", "fffff\n"),
                (root.join("info/L3"), "min_cbm_bits", "2\n"),
                (root.join("info/L3"), "num_closids", "16\n"),
                (root.join("info/MB"), "bandwidth_gran", "10\n"),
                (root.join("info/MB"), "min_bandwidth", "20\n"),
                (root.join("info/MB"), "num_closids", "8\n"),
                (data.join("mon_L3_01"), "mbm_total_bytes", "400\n"),
                (data.join("mon_L3_01"), "llc_occupancy", "7\n"),
                (data.join("mon_L3_00"), "mbm_total_bytes", "300\n"),
                (data.join("mon_L3_00"), "mbm_local_bytes", "200\n"),
                (data.join("mon_L3_00"), "llc_occupancy", "Unavailable\n"),
            ] {
                fs::create_dir_all(&dir)?;
                fs::write(dir.join(file), content)?;
            }
            let told = t.cli(&format!("events --stats {}", b.id))?.ok()?.json()?["data"]["intel_rdt"].take();
            fs::remove_dir_all(data)?;
            let expected = json!({
                "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=fffff;1=fffff",
                "l3_cache_schema": "L3:0=000f;1=0000f",
                "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 0, "min_bandwidth": 20, "num_closids": 8},
                "mem_bw_schema_root": "MB:0=100;1=100",
                "mem_bw_schema": "MB:0=  20;1=  70",
                "mbm_stats": [
                    {"mbm_total_bytes": 300, "mbm_local_bytes": 200},
                    {"mbm_total_bytes": 400, "mbm_local_bytes": 0},
                ],
                "cmt_stats": [{"llc_occupancy": 7}],
            });
            same("intel_rdt", told, expected)
        }),
        case("rdt/exec-joins-the-groups", |t| {
            let root = resctrl(t)?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"enableMonitoring": true})).probe("forever");
            t.launch(&b)?;
            let group = root.join(&b.id);
            let init = text(group.join("tasks"))?;
            t.exec(&b, "", "/probe exit 0")?.ok()?;
            // A file of a tmpfs holds what was written last.
            let last = text(group.join("tasks"))?;
            check!(
                last != init && last == text(group.join("mon_groups").join(&b.id).join("tasks"))?,
                "tasks: {last}"
            );
            Ok(())
        }),
        case("rdt/a-failed-create-leaves-no-class", |t| {
            let root = resctrl(t)?;
            let before = t.snapshot();
            for rdt in
                [json!({"enableMonitoring": true}), json!({"closID": "new", "l3CacheSchema": "L3:0=f"})]
            {
                let b = t.bundle()?.set("/linux/intelRdt", rdt).args(&["/nothing"]);
                t.run(&b)?.refuses(&["/nothing"])?;
                check!(!root.join(&b.id).exists() && !root.join("new").exists(), "a class is left");
            }
            t.unchanged_since(&before)
        })
        .needs(&[Need::Runtime("corten")]),
    ]
}

fn updates() -> Vec<Case> {
    vec![
        case("rdt/update-writes-schemata", |t| {
            let root = resctrl(t)?;
            class(&root, "gold", "L3:0=f;1=f\n")?;
            for (rdt, schemata) in [
                (json!({"l3CacheSchema": "L3:0=1"}), None),
                (json!({"closID": "gold"}), Some("gold/schemata")),
                (json!({"closID": "/"}), Some("schemata")),
            ] {
                let b = t.bundle()?.set("/linux/intelRdt", rdt).probe("forever");
                t.launch(&b)?;
                let file = schemata.map_or(root.join(&b.id).join("schemata"), |name| root.join(name));
                for (words, lines) in [
                    ("--l3-cache-schema L3:0=3;1=30", "L3:0=3;1=30\n"),
                    ("--mem-bw-schema MB:0=20", "MB:0=20\n"),
                    ("--mem-bw-schema MB:0=30 --l3-cache-schema L3:0=7", "L3:0=7\nMB:0=30\n"),
                ] {
                    t.cli(&format!("update {words} {}", b.id))?.ok()?;
                    same(words, text(file.clone())?, lines.to_owned())?;
                }
                t.cli(&format!("delete -f {}", b.id))?.ok()?;
            }
            Ok(())
        }),
        case("rdt/a-failed-update-takes-schemata-back", |t| {
            let root = resctrl(t)?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"})).probe("forever");
            t.launch(&b)?;
            let update = format!("update --l3-cache-schema L3:0=3 --cpuset-cpus 4000 {}", b.id);
            t.cli(&update)?.refuses(&["cpuset|cpu/cpus"])?;
            same("schemata", text(root.join(&b.id).join("schemata"))?, "L3:0=f\n".to_owned())
        }),
        case("rdt/update-checks-schemata", |t| {
            let root = resctrl(t)?;
            let b = t.bundle()?.set("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"})).probe("forever");
            t.launch(&b)?;
            let update = |words: &str| t.cli(&format!("update {words} {}", b.id));
            update("--mem-bw-schema L3:0=3")?.refuses(&["--mem-bw-schema", "L3:0=3"])?;
            same("schemata", text(root.join(&b.id).join("schemata"))?, "L3:0=f\n".to_owned())?;
            fs::remove_file(root.join(&b.id).join("schemata"))?;
            update("--l3-cache-schema L3:0=3")?.refuses(&["schemata", "ENOENT|no such file"]).map(drop)
        }),
    ]
}
