// SPDX-License-Identifier: Apache-2.0
//! Properties of the option table, against a model that shares nothing with it.

#![forbid(unsafe_code)]

use corten::plan::mounts::options::{MountOptions, parse};
use corten::plan::mounts::{Attrs, option_names};

/// A small deterministic generator (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// On, off, MOUNT_ATTR_* bit; `r` in front means the whole tree.
const PAIRS: [(&str, &str, u64); 6] = [
    ("ro", "rw", 0x01),
    ("nosuid", "suid", 0x02),
    ("nodev", "dev", 0x04),
    ("noexec", "exec", 0x08),
    ("nodiratime", "diratime", 0x80),
    ("nosymfollow", "symfollow", 0x20_0000),
];

/// What config-linux.md (1.3) lists, and more.
const WANTED: &str = "acl async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec idmap \
    iversion lazytime loud mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
    nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime \
    rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw \
    rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave src-nofollow strictatime suid \
    symfollow sync tmpcopyup unbindable";

fn read(options: &[&str]) -> MountOptions {
    parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
}

#[test]
fn the_table_is_the_specifications_and_sorted() {
    assert_eq!(option_names().join(" "), WANTED);
    assert!(option_names().is_sorted());
}

#[test]
fn no_known_option_reaches_the_file_system() {
    for name in option_names() {
        assert!(read(&[name]).data.is_empty(), "{name}");
    }
    for unknown in ["Ro", "ro ", "size=1", "nosuid=1", "user", "x", "rdefaults"] {
        assert_eq!(read(&[unknown]).data.len(), 1, "{unknown}");
    }
    for nothing in ["", "defaults", "acl", "silent", "loud", "iversion", "noiversion"] {
        assert_eq!(read(&[nothing]), MountOptions::default(), "{nothing}");
    }
}

/// The value that the last option of a pair gives, for the mount or the tree.
fn last(options: &[&str], on: &str, off: &str) -> Option<bool> {
    options.iter().rev().find_map(|option| match *option {
        option if option == on => Some(true),
        option if option == off => Some(false),
        _ => None,
    })
}

fn tree(name: &str) -> String {
    if name == "rw" { "rrw".to_owned() } else { format!("r{name}") }
}

fn check_attrs(options: &[&str], attrs: Attrs, name: impl Fn(&str) -> String) {
    for (on, off, bit) in PAIRS {
        let want = last(options, &name(on), &name(off));
        assert_eq!(attrs.set & bit != 0, want == Some(true), "{on} set in {options:?}");
        assert_eq!(attrs.clear & bit != 0, want == Some(false), "{on} cleared in {options:?}");
    }
    // mount_setattr(2): all of the access time's bits are cleared or none, and the value is one of three.
    let (set, clear) = (attrs.set & 0x70, attrs.clear & 0x70);
    assert!(clear == 0x70 || (clear == 0 && set == 0), "{options:?}: {attrs:?}");
    assert!([0, 0x10, 0x20].contains(&set), "{options:?}: {attrs:?}");
    let others = ["noatime", "relatime", "strictatime"].map(&name);
    let all = ["atime", "norelatime", "nostrictatime"].map(&name);
    let asked = options.iter().rev().find(|o| others.iter().any(|other| other == *o));
    if let Some(asked) = asked.filter(|_| !options.iter().any(|o| all.iter().any(|other| other == o))) {
        let want = [0x10, 0, 0x20][others.iter().position(|other| other == asked).unwrap()];
        assert_eq!((set, clear), (want, 0x70), "{options:?}");
    }
}

#[test]
fn the_last_of_contradicting_options_wins() {
    let names = option_names();
    let mut random = Random(0x5EED_C0DE);
    for _ in 0..20_000 {
        let options: Vec<&str> = (0..random.below(12)).map(|_| names[random.below(names.len())]).collect();
        let parsed = read(&options);
        check_attrs(&options, parsed.attrs, str::to_owned);
        check_attrs(&options, parsed.tree, tree);
        for flag in ["sync", "dirsync", "lazytime", "mand"] {
            let off = if flag == "sync" { "async".to_owned() } else { format!("no{flag}") };
            let want = last(&options, flag, &off) == Some(true);
            assert_eq!(
                parsed.superblock.iter().filter(|name| **name == flag).count(),
                usize::from(want),
                "{options:?}"
            );
        }
        let count = options.iter().filter(|o| o.ends_with("shared") || o.ends_with("slave")).count();
        let kept =
            parsed.propagation.iter().filter(|p| [libc::MS_SHARED, libc::MS_SLAVE].contains(&p.flag)).count();
        assert_eq!(count, kept, "{options:?}");
        let bind = options.contains(&"bind") || options.contains(&"rbind");
        assert_eq!(parsed.bind, bind.then(|| options.contains(&"rbind")), "{options:?}");
    }
}

/// Data between the options changes nothing about them, and keeps its own order.
#[test]
fn data_and_options_do_not_mix() {
    let names = option_names();
    let mut random = Random(42);
    for _ in 0..5_000 {
        let options: Vec<&str> = (0..random.below(8)).map(|_| names[random.below(names.len())]).collect();
        let mut mixed = options.clone();
        for data in ["size=1", "flag", "uid=0"] {
            mixed.insert(random.below(mixed.len() + 1), data);
        }
        let (plain, mut with_data) = (read(&options), read(&mixed));
        let keys: Vec<String> = with_data
            .data
            .drain(..)
            .map(|(index, key, _)| {
                assert!(mixed[index].starts_with(&key));
                key
            })
            .collect();
        assert_eq!(plain, with_data, "{mixed:?}");
        let data = mixed.iter().filter(|option| ["size=1", "flag", "uid=0"].contains(option));
        let order: Vec<&str> = data.map(|option| option.split('=').next().unwrap()).collect();
        assert_eq!(keys, order);
    }
}

#[test]
fn access_times() {
    for (options, set, clear) in [
        (vec!["atime"], 0, 0x70),
        (vec!["noatime", "atime"], 0, 0x70),
        (vec!["strictatime", "atime"], 0x20, 0x70),
        (vec!["noatime", "nostrictatime"], 0x10, 0x70),
        (vec!["strictatime", "nostrictatime"], 0, 0x70),
        (vec!["norelatime"], 0, 0),
        (vec!["relatime", "norelatime"], 0, 0),
        (vec!["noatime", "norelatime"], 0x10, 0x70),
        (vec!["noatime", "strictatime"], 0x20, 0x70),
        (vec!["strictatime", "relatime"], 0, 0x70),
        (vec!["noatime", "nodiratime"], 0x90, 0x70),
    ] {
        assert_eq!(read(&options).attrs, Attrs { set, clear, implied: 0 }, "{options:?}");
        let recursive: Vec<String> = options.iter().map(|option| format!("r{option}")).collect();
        let recursive: Vec<&str> = recursive.iter().map(String::as_str).collect();
        assert_eq!(read(&recursive).tree, Attrs { set, clear, implied: 0 }, "{recursive:?}");
    }
}

#[test]
fn data_is_split_as_mount_would() {
    let pair = |key: &str, value: Option<&str>| (0, key.to_owned(), value.map(str::to_owned));
    for (option, want) in [
        ("mode=755,size=1k", vec![pair("mode", Some("755")), pair("size", Some("1k"))]),
        (",,x,", vec![pair("x", None)]),
        (r#"context="a:b:c1,c2",x"#, vec![pair("context", Some("a:b:c1,c2")), pair("x", None)]),
        (
            r"lowerdir=/a\,b:/c,upperdir=/d",
            vec![pair("lowerdir", Some(r"/a\,b:/c")), pair("upperdir", Some("/d"))],
        ),
        ("a=b=c", vec![pair("a", Some("b=c"))]),
        ("a=", vec![pair("a", Some(""))]),
        (r#"a=""#, vec![pair("a", Some("\""))]),
    ] {
        assert_eq!(read(&[option]).data, want, "{option}");
    }
}
