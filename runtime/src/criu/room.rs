// SPDX-License-Identifier: Apache-2.0
//! Whether a dump's memory fits where it is to be written.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::procfs;

/// Bits of an entry of /proc/PID/pagemap (Linux, admin-guide/mm/pagemap.rst).
const SOFT_DIRTY: u64 = 1 << 55;
const OF_A_FILE: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Compares the memory that only these processes have with what is free there; after an earlier dump, the memory that was
/// written to since.
///
/// # Errors
/// ENOSPC, with both figures.
pub(crate) fn check(images: BorrowedFd<'_>, path: &Path, pids: &[i32], since_earlier: bool) -> Result<()> {
    let needed: u64 = pids
        .iter()
        .map(|pid| match since_earlier.then(|| written(*pid)).flatten() {
            Some(bytes) => bytes,
            None => own_memory(*pid),
        })
        .sum();
    let stat = rustix::fs::fstatvfs(images).call(|| format!("statvfs({})", path.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let text = format!("needs {} MiB for the memory, and {} MiB are free", mib(needed), mib(free));
    Err(Error::os(text, libc::ENOSPC).at(path.display().to_string()))
}

/// Anonymous and swapped-out memory, in bytes; none of a process that has ended.
fn own_memory(pid: i32) -> u64 {
    let status = procfs::read(&format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default()
    };
    (kib("RssAnon:") + kib("VmSwap:")) << 10
}

/// Of that, what was written to since it was last dumped, in bytes.
fn written(pid: i32) -> Option<u64> {
    let maps = procfs::read(&format!("/proc/{pid}/maps")).ok()?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok()?;
    let page = rustix::param::page_size() as u64;
    let mut pages = 0;
    for line in maps.lines().filter(|line| !line.ends_with("[vsyscall]")) {
        let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok().map(|address| address / page);
        pages += dirty_pages(&pagemap, number(begin)?..number(end)?)?;
    }
    Some(pages * page)
}

fn dirty_pages(pagemap: &File, range: std::ops::Range<u64>) -> Option<u64> {
    const AT_ONCE: u64 = 8192;
    const ENTRY: u64 = size_of::<u64>() as u64;
    let mut bytes = vec![0; (AT_ONCE * ENTRY) as usize];
    let mut count = 0;
    let mut at = range.start;
    while at < range.end {
        let wanted = (range.end - at).min(AT_ONCE);
        let into = bytes.get_mut(..(wanted * ENTRY) as usize)?;
        pagemap.read_exact_at(into, at * ENTRY).ok()?;
        let (entries, _) = into.as_chunks::<8>();
        count += entries.iter().filter(|entry| is_dirty(u64::from_ne_bytes(**entry))).count() as u64;
        at += wanted;
    }
    Some(count)
}

/// Whether a dump writes this page although an earlier one has it.
fn is_dirty(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & SOFT_DIRTY != 0 && entry & OF_A_FILE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_and_clean_ones_need_no_room() {
        assert!(is_dirty(PRESENT | SOFT_DIRTY) && is_dirty(SWAPPED | SOFT_DIRTY));
        assert!(!is_dirty(PRESENT) && !is_dirty(SOFT_DIRTY) && !is_dirty(PRESENT | SOFT_DIRTY | OF_A_FILE));
    }

    #[test]
    fn what_was_written_is_no_more_than_what_there_is() {
        let pid = std::process::id() as i32;
        // Stacks and heaps may grow between the two.
        let slack = 8 << 20;
        assert!(written(pid).is_some_and(|bytes| bytes <= own_memory(pid) + slack));
    }
}
