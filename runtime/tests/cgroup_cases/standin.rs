// SPDX-License-Identifier: Apache-2.0
//! Limits whose controllers no machine of ours has, on plain directories that stand in for the hierarchies: which file
//! gets which bytes, and what is made of the figures. Needs no root. That the kernel takes them is not shown.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use corten::ask::Manager;
use corten::cgroup::stats::Rdma;
use corten::cgroup::{Group, Hierarchies, Hierarchy, decide_groups};

const RESOURCES: &str = r#"{
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": 18446744073709551615}],
    "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 400}}"#;
const NETWORK: &str = r#", "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 7}]}"#;

/// Controller, file, what is in it afterwards.
type Written = (&'static str, &'static str, &'static str);

const V1: &[Written] = &[
    ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
    ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
    ("hugetlb", "hugetlb.1GB.limit_in_bytes", "18446744073709551615"),
    ("rdma", "rdma.max", "mlx5_0 hca_handle=3 hca_object=400"),
    ("net_cls", "net_cls.classid", "1048577"),
    ("net_prio", "net_prio.ifpriomap", "eth0 7"),
];
const V2: &[Written] = &[
    ("", "hugetlb.2MB.max", "4194304"),
    ("", "hugetlb.2MB.rsvd.max", "4194304"),
    ("", "hugetlb.1GB.max", "18446744073709551615"),
    ("", "rdma.max", "mlx5_0 hca_handle=3 hca_object=400"),
];

pub fn all() {
    let top = std::env::temp_dir().join(format!("corten-standin-{}", std::process::id()));
    let hierarchy = |controller: &str| Hierarchy {
        mount: top.join(controller).to_string_lossy().trim_end_matches('/').to_owned(),
        own: "/".to_owned(),
        controllers: Some(controller.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
    };
    let v1 = Hierarchies {
        v1: ["hugetlb", "rdma", "net_cls", "net_prio", "devices"].map(hierarchy).into(),
        ..Hierarchies::default()
    };
    let v2 = Hierarchies { v2: Some(hierarchy("")), ..Hierarchies::default() };
    written(&v1, &format!("{RESOURCES}{NETWORK}}}"), &top, V1);
    written(&v2, &format!("{RESOURCES}}}"), &top, V2);
    fs::remove_dir_all(top).unwrap();
}

fn written(h: &Hierarchies, resources: &str, top: &Path, files: &[Written]) {
    for (controller, file, _) in files {
        let dir = top.join(controller).join("x");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), "").unwrap();
        fs::write(dir.join("cgroup.procs"), "").unwrap();
        fs::write(dir.join("rdma.current"), "mlx5_0 hca_handle=2 hca_object=20\n").unwrap();
    }
    let resources = corten::spec::read("resources", resources.as_bytes()).unwrap();
    let plan = decide_groups(h, Manager::Cgroupfs, "x", Some("/x"), Some(&resources)).unwrap();
    let mut record = plan.record.clone();
    for group in &mut record.groups {
        // The one for devices is not there: nothing is written to it.
        group.inode = fs::metadata(group.full()).ok().map(|found| found.ino());
    }
    let group = Group::open(record);
    group.apply_limits(&plan).unwrap();
    for (controller, file, content) in files {
        let path = top.join(controller).join("x").join(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), *content, "{}", path.display());
        if *file == "rdma.max" {
            fs::write(path, "mlx5_0 hca_handle=3 hca_object=max\n").unwrap();
        }
    }
    let expected = Rdma { handles: 2, objects: 20, handles_limit: Some(3), objects_limit: None };
    assert_eq!(group.stats().unwrap().rdma["mlx5_0"], expected);
}
