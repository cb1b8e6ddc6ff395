// SPDX-License-Identifier: Apache-2.0
//! Files that are read and written whole.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

/// No configuration and no state comes near it; it bounds what a file that grows, or never ends, can do, and keeps every
/// offset of an encoded program within 32 bits.
const LARGEST: usize = 16 << 20;

/// Reads a file, or a pipe, to its end.
///
/// # Errors
/// EFBIG for more than 16 MiB.
pub(crate) fn read_all(file: BorrowedFd<'_>) -> Result<Vec<u8>, rustix::io::Errno> {
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size.min(LARGEST) + 1];
    let mut length = 0;
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut bytes[length..]))? {
            0 => break,
            count => length += count,
        }
        if length > LARGEST {
            return Err(rustix::io::Errno::FBIG);
        }
        // More was asked for and there was no more. (What procfs has is of size 0.)
        if length == size {
            break;
        }
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Writes it all.
pub(crate) fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), rustix::io::Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::write(file, bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// Found by review: a name in a state root may be that of an endless file.
    #[test]
    fn files_are_read_to_their_end_and_bounded() {
        let read = |path: &str| read_all(File::open(path).unwrap().as_fd());
        assert_eq!(read("/dev/zero"), Err(rustix::io::Errno::FBIG));
        assert_eq!(read("/dev/null"), Ok(Vec::new()));
        // Of a size that is not true, and of one that is.
        assert_eq!(read("/proc/self/maps").unwrap().last(), Some(&b'\n'));
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(read(own), Ok(std::fs::read(own).unwrap()));
    }
}
