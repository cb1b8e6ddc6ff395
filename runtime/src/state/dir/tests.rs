// SPDX-License-Identifier: Apache-2.0
//! The directory's name, and who may act on what it names.

use super::*;

/// Found by review: a state root may hold anything's name.
#[test]
fn ids_are_checked_where_they_become_paths() {
    let root = std::env::temp_dir();
    for id in ["..", "a/b", "", "."] {
        assert_eq!(Dir::open(&root, id).err().map(|error| error.kind()), Some(Kind::Invalid), "{id:?}");
        assert_eq!(Dir::create(&root, id).err().map(|error| error.kind()), Some(Kind::Invalid), "{id:?}");
    }
}

#[test]
fn a_removed_directory_is_not_the_one_that_has_its_name_now() {
    let path = std::env::temp_dir().join(format!("corten-state-dir-{}", std::process::id()));
    let old = Dir::create(&path, "one").unwrap();
    let late = Dir::open(&path, "one").unwrap();
    old.remove().unwrap();
    drop(old);
    let new = Dir::create(&path, "one").unwrap();
    assert_eq!(late.lock().err().map(|error| error.kind()), Some(Kind::NotFound));
    assert!(new.is_named().unwrap() && !late.is_named().unwrap());
    new.remove().unwrap();
    assert!(!new.is_named().unwrap());
    std::fs::remove_dir(path).unwrap();
}
