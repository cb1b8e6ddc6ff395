// SPDX-License-Identifier: Apache-2.0
//! Mount options, one a line, against an oracle that reads the list from its end where the parser reads it from its start.

use corten::plan::mounts::options::{MountOptions, parse};
use corten::plan::mounts::{Attrs, Propagation};

use crate::mutate::Shape;
use crate::targets::Target;

pub const TARGET: Target = Target { name: "options", shape: Shape::Bytes(WORDS), seeds, run, short: 6000 };

const WORDS: &[&str] = &[
    "\n",
    "acl",
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "size=64k",
    "mode=755",
    "context=\"a,b\"",
    "lowerdir=/a\\,b:/c",
    ",",
    "=",
    "\"",
    "\\",
    "a=b=c",
    "x,y=1,,z",
];

/// `ro`-like options: on, off, bit.
const PAIRS: [(&str, &str, u64); 6] = [
    ("ro", "rw", 0x1),
    ("nosuid", "suid", 0x2),
    ("nodev", "dev", 0x4),
    ("noexec", "exec", 0x8),
    ("nodiratime", "diratime", 0x80),
    ("nosymfollow", "symfollow", 0x20_0000),
];
/// Options that take effect but say no more, or nothing at all.
const SWITCHES: [&str; 5] = ["remount", "tmpcopyup", "src-nofollow", "copy-symlink", "dest-nofollow"];
const NOTHING: [&str; 6] = ["acl", "defaults", "silent", "loud", "iversion", "noiversion"];
/// Names of the superblock's flags, with what turns them off (dirsync: nothing).
const SUPERBLOCK: [(&str, &str); 4] =
    [("sync", "async"), ("dirsync", "\n"), ("lazytime", "nolazytime"), ("mand", "nomand")];

fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let options: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let read = parse(&options);
    assert_eq!(read, expected(&options), "{options:?}");
    assert_eq!(parse(&options), read, "read twice, different each time");
    read.data.is_empty()
}

fn expected(options: &[String]) -> MountOptions {
    let has = |name: &str| options.iter().any(|option| option == name);
    // The last of these, with its place.
    let last = |names: &[&str]| options.iter().rposition(|option| names.contains(&option.as_str()));
    let attrs = |prefix: &str| {
        let name = |name: &str| match (prefix, name) {
            ("r", "rw") => "rrw".to_owned(),
            _ => format!("{prefix}{name}"),
        };
        let mut attrs = Attrs::default();
        for (on, off, bit) in PAIRS {
            let (on, off) = (name(on), name(off));
            match last(&[&on, &off]) {
                Some(at) if options[at] == on => attrs.set |= bit,
                Some(_) => attrs.clear |= bit,
                None => {}
            }
        }
        access_time(options, &name, &mut attrs);
        attrs
    };
    let mut superblock: Vec<(usize, &'static str)> = Vec::new();
    for (on, off) in SUPERBLOCK {
        let at = last(&[on, off]).filter(|at| options[*at] == on);
        superblock.extend(at.map(|at| (at, on)));
    }
    superblock.sort_unstable();
    let propagation = |option: &String| {
        let (name, recursive) = match option.strip_prefix('r') {
            Some(rest) if ["shared", "slave", "private", "unbindable"].contains(&rest) => (rest, true),
            _ => (option.as_str(), false),
        };
        let flag = [("unbindable", 1 << 17), ("private", 1 << 18), ("slave", 1 << 19), ("shared", 1 << 20)];
        let flag = flag.iter().find(|(word, _)| *word == name)?.1;
        Some(Propagation { flag, recursive })
    };
    let known = |option: &str| {
        let pair = |(on, off, _): &(&str, &str, u64)| {
            [*on, *off].contains(&option)
                || *on != "ro" && option.strip_prefix('r').is_some_and(|o| [*on, *off].contains(&o))
        };
        let times = option.strip_prefix('r').filter(|rest| !rest.starts_with("elatime")).unwrap_or(option);
        PAIRS.iter().any(pair)
            || ["rro", "rrw"].contains(&option)
            || TIMES.iter().any(|(name, ..)| *name == option || *name == times)
            || SUPERBLOCK.iter().any(|(on, off)| *on == option || *off == option)
            || ["bind", "rbind", "idmap", "ridmap"].contains(&option)
            || SWITCHES.contains(&option)
            || NOTHING.contains(&option)
            || propagation(&option.to_owned()).is_some()
    };
    let data = options.iter().enumerate().filter(|(_, option)| !known(option));
    MountOptions {
        attrs: attrs(""),
        tree: attrs("r"),
        superblock: superblock.into_iter().map(|(_, name)| name).collect(),
        propagation: options.iter().filter_map(propagation).collect(),
        bind: if has("rbind") { Some(true) } else { has("bind").then_some(false) },
        idmap: last(&["idmap", "ridmap"]).map(|at| options[at] == "ridmap"),
        remount: has("remount"),
        copy_up: has("tmpcopyup"),
        source_nofollow: has("src-nofollow"),
        copy_symlink: has("copy-symlink"),
        target_nofollow: has("dest-nofollow"),
        about_mount: PAIRS.iter().any(|(on, off, _)| has(on) || has(off))
            || TIMES.iter().any(|(name, ..)| has(name))
            || SUPERBLOCK.iter().any(|(on, off)| has(on) || has(off)),
        gives_atime: TIMES.iter().any(|(name, taken, _)| *taken && has(name)),
        data: data
            .flat_map(|(at, option)| pieces(option).into_iter().map(move |(k, v)| (at, k, v)))
            .collect(),
    }
}

/// Access time: option, what it takes (`true`) or declines, value. 0 is relatime, the kernel's default.
const TIMES: [(&str, bool, u64); 6] = [
    ("relatime", true, 0),
    ("norelatime", false, 0),
    ("noatime", true, 0x10),
    ("atime", false, 0x10),
    ("strictatime", true, 0x20),
    ("nostrictatime", false, 0x20),
];

/// A value that was taken holds until another is taken or it is declined; declining what does not hold asks for the default,
/// unless something else was asked for; declining the default asks for nothing.
fn access_time(options: &[String], name: &impl Fn(&str) -> String, attrs: &mut Attrs) {
    let mut asked: Option<u64> = None;
    for option in options {
        let Some((_, takes, value)) = TIMES.iter().find(|(time, ..)| name(time) == *option) else { continue };
        asked = match (takes, value, asked) {
            (true, value, _) => Some(*value),
            (false, 0, Some(0) | None) => None,
            (false, 0, held) => held,
            (false, value, Some(held)) if held != *value => Some(held),
            (false, ..) => Some(0),
        };
    }
    if let Some(value) = asked {
        attrs.set |= value;
        attrs.clear |= 0x70;
    }
}

/// A file system's data: `key[=value]` between commas.
fn pieces(option: &str) -> Vec<(String, Option<String>)> {
    let (mut pieces, mut piece, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = option.chars();
    loop {
        let next = letters.next();
        match next {
            Some(',') if !quoted => pieces.push(std::mem::take(&mut piece)),
            None => break pieces.push(piece),
            Some('\\') => {
                piece.push('\\');
                piece.extend(letters.next());
            }
            Some(letter) => {
                quoted ^= letter == '"';
                piece.push(letter);
            }
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    let unquoted = |value: &str| match value.as_bytes() {
        [b'"', .., b'"'] => value[1..value.len() - 1].to_owned(),
        _ => value.to_owned(),
    };
    let pair = |piece: String| match piece.find('=') {
        Some(at) => (piece[..at].to_owned(), Some(unquoted(&piece[at + 1..]))),
        None => (piece, None),
    };
    pieces.into_iter().map(pair).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "nosuid\nnoexec\nnodev\nmode=755\nsize=65536k",
        "rbind\nrw\nrslave\nrprivate",
        "lowerdir=/a\\,b:/c,upperdir=/u\nworkdir=/w\ncontext=\"a,b\"",
        "noatime\natime\nnorelatime\nrstrictatime\nsync\nasync\nsync",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
