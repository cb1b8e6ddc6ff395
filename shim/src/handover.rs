// SPDX-License-Identifier: Apache-2.0
//! What one server hands to the next, which is another program in the same process (decision 0081): a sealed memfd, and
//! descriptors that stay open over the exec.
//!
//! ```text
//! magic  version  program  memfd  descriptors  state  pieces     8 + 4 * 4 + 2 * 8 bytes, little endian
//! number of each descriptor                                      4 bytes each
//! the state, as JSON: `state.rs`                                 names descriptors by their place in the list
//! pieces of bytes, which the state names by place and length
//! ```
//! The head and the list are the same in every version, so that whoever cannot read the rest can still go back to the
//! program that wrote it. Which versions a program reads stands in [`READ`].

#![forbid(unsafe_code)]

#[cfg(test)]
mod sample;
pub mod state;

use std::cell::RefCell;
use std::ffi::CString;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use corten::error::Context;
use corten::sys::passing::{PassedFds, SpareFds, number_of, spare, take_over};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::{Errno, pread, pwrite};

use self::state::ServerState;
use crate::refusal::{Refusal, Result};

const MAGIC: &[u8; 8] = b"CORTENUP";
const HEAD: usize = 40;
/// The versions that are read; the last is the newest that is written ([`ServerState::version`]). It rises when an older
/// program would get something wrong; a field that it may pass over raises nothing.
pub const READ: RangeInclusive<u32> = 1..=2;
/// More is not believed: 20,000 events, some megabytes of messages.
const MOST: u64 = 256 << 20;

/// A descriptor, by its place in the list.
pub type FdPlace = u32;
/// Bytes: where they begin among the pieces, and how many.
pub type Piece = (u64, u64);

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// What is being handed over.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What stays open.
    pub fds: PassedFds,
    pieces: Vec<u8>,
}

impl Outgoing {
    /// Enters a descriptor, which must stay open until the exec.
    pub fn fd(&mut self, fd: impl AsFd) -> FdPlace {
        self.fds.enter(fd.as_fd())
    }

    /// Enters bytes.
    pub fn piece(&mut self, bytes: &[u8]) -> Piece {
        let at = self.pieces.len() as u64;
        self.pieces.extend_from_slice(bytes);
        (at, bytes.len() as u64)
    }

    /// The sealed memfd, which is on its own list, with the program to go back to.
    ///
    /// # Errors
    /// Those of memfd_create(2), for one: ENOMEM, or EACCES where memfds are forbidden.
    pub fn seal(&mut self, state: &ServerState, program: &OwnedFd) -> Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = match memfd_create("corten-handover", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("corten-handover", flags),
            other => other,
        };
        let memfd = memfd.call(|| "memfd_create(corten-handover)")?;
        self.fd(program);
        self.fd(&memfd);
        let [program, number] = [program, &memfd].map(|fd| number_of(fd.as_fd()));
        let bytes = self.bytes(state, program, number, &self.fds.numbers())?;
        let mut done = 0;
        while done < bytes.len() {
            done += pwrite(&memfd, &bytes[done..], done as u64).call(|| "write(memfd)")?;
        }
        fcntl_add_seals(&memfd, SEALS).call(|| "fcntl(memfd, F_ADD_SEALS)")?;
        Ok(memfd)
    }

    fn bytes(&self, state: &ServerState, program: u32, memfd: u32, numbers: &[u32]) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(state).map_err(|error| Refusal::unknown(error.to_string()))?;
        let mut bytes = Vec::with_capacity(HEAD + 4 * numbers.len() + json.len() + self.pieces.len());
        bytes.extend_from_slice(MAGIC);
        let words = [state.version(), program, memfd, numbers.len() as u32];
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        let lengths = [json.len(), self.pieces.len()];
        lengths.iter().for_each(|length| bytes.extend_from_slice(&(*length as u64).to_le_bytes()));
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(&self.pieces);
        Ok(bytes)
    }
}

/// What was read of a memfd; nothing has been taken over.
#[derive(Debug)]
pub struct Written {
    pub version: u32,
    /// The program that wrote it.
    program: u32,
    /// The memfd, as it numbers it.
    memfd: u32,
    numbers: Vec<u32>,
    state: Vec<u8>,
    pieces: Vec<u8>,
}

impl Written {
    /// Reads a memfd that nobody can change any more.
    ///
    /// # Errors
    /// InvalidArgument naming what is wrong with it: the seals, the magic, a length.
    pub fn read(memfd: BorrowedFd<'_>) -> Result<Written> {
        match fcntl_get_seals(memfd) {
            Ok(seals) if seals.contains(SEALS) => {}
            Ok(_) => return Err(Refusal::invalid("the hand-over is not sealed")),
            Err(errno) => return Err(Refusal::invalid(format!("the hand-over is no memfd: {errno}"))),
        }
        let length = fstat(memfd).call(|| "fstat(memfd)")?.st_size as u64;
        if length > MOST {
            return Err(Refusal::invalid(format!("the hand-over has {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        let mut done = 0;
        while done < bytes.len() {
            match pread(memfd, &mut bytes[done..], done as u64).call(|| "read(memfd)")? {
                0 => return Err(Refusal::invalid("the hand-over is cut off")),
                count => done += count,
            }
        }
        Written::parse(&bytes)
    }

    /// The parts of these bytes.
    ///
    /// # Errors
    /// As `read`.
    pub fn parse(bytes: &[u8]) -> Result<Written> {
        let cut = || Refusal::invalid("the hand-over is cut off");
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| Refusal::invalid("this is no hand-over"))?;
        let mut take = |count: u64| {
            let count = usize::try_from(count).ok().filter(|count| *count <= rest.len())?;
            let (taken, left) = rest.split_at(count);
            rest = left;
            Some(taken)
        };
        let word = |bytes: Option<&[u8]>| bytes?.try_into().ok().map(u32::from_le_bytes);
        let long = |bytes: Option<&[u8]>| bytes?.try_into().ok().map(u64::from_le_bytes);
        let mut words = [0; 4];
        for place in &mut words {
            *place = word(take(4)).ok_or_else(cut)?;
        }
        let [version, program, memfd, count] = words;
        let state = long(take(8)).ok_or_else(cut)?;
        let pieces = long(take(8)).ok_or_else(cut)?;
        let numbers = take(4 * u64::from(count)).ok_or_else(cut)?;
        let numbers = numbers.chunks_exact(4).filter_map(|bytes| word(Some(bytes))).collect();
        let state = take(state).ok_or_else(cut)?.to_vec();
        let pieces = take(pieces).ok_or_else(cut)?.to_vec();
        Ok(Written { version, program, memfd, numbers, state, pieces })
    }

    /// The state.
    ///
    /// # Errors
    /// Unimplemented for a version that we do not read, by name; InvalidArgument for a state that does not read, or that
    /// names what is not there.
    pub fn state(&self) -> Result<ServerState> {
        if !READ.contains(&self.version) {
            let (first, last) = (READ.start(), READ.end());
            let text =
                format!("a hand-over of version {}: this program reads {first} to {last}", self.version);
            return Err(Refusal::unimplemented(text));
        }
        let state: ServerState = serde_json::from_slice(&self.state)
            .map_err(|error| Refusal::invalid(format!("the hand-over's state: {error}")))?;
        let whole =
            |(at, length): Piece| at.checked_add(length).is_some_and(|end| end <= self.pieces.len() as u64);
        let mut wrong = None;
        state.each_piece(&mut |piece| {
            if !whole(piece) {
                wrong = Some(format!("the hand-over has no bytes {} to {}", piece.0, piece.1));
            }
        });
        state.each_fd(&mut |place| {
            if place as usize >= self.numbers.len() {
                wrong = Some(format!("the hand-over has no descriptor {place}"));
            }
        });
        wrong.map_or(Ok(state), |text| Err(Refusal::invalid(text)))
    }

    /// Copies of all descriptors, to go back with.
    ///
    /// # Errors
    /// EBADF naming the number; EMFILE.
    pub fn spare(&self) -> Result<SpareFds> {
        Ok(spare(&self.numbers)?)
    }

    /// Goes back to the program that wrote it, with these arguments before the memfd's number and `refusal`. Returns when that
    /// failed, and this process can but end.
    pub fn go_back(&self, spares: SpareFds, arguments: Vec<CString>, refusal: &Refusal) -> corten::Error {
        let text = refusal.text.replace('\0', "");
        let more = [self.memfd.to_string(), "-refused".to_owned(), text];
        let more = more.into_iter().filter_map(|word| CString::new(word).ok());
        spares.execute(self.program, &arguments.into_iter().chain(more).collect::<Vec<_>>())
    }

    /// Takes the descriptors over.
    ///
    /// # Errors
    /// EBADF naming the number.
    pub fn take_over(&self) -> Result<Handed> {
        let fds = take_over(&self.numbers)?.into_iter().map(|fd| Some(Rc::new(fd))).collect();
        Ok(Handed { fds: RefCell::new(fds), pieces: self.pieces.clone() })
    }
}

/// What was taken over. What is left of it when it is dropped is closed.
pub struct Handed {
    fds: RefCell<Vec<Option<Rc<OwnedFd>>>>,
    pieces: Vec<u8>,
}

impl Handed {
    /// A descriptor that several may have.
    ///
    /// # Errors
    /// InvalidArgument for one that is not there, or was taken alone.
    pub fn shared(&self, place: FdPlace) -> Result<Rc<OwnedFd>> {
        let fds = self.fds.borrow();
        let found = fds.get(place as usize).and_then(Option::clone);
        found.ok_or_else(|| Refusal::invalid(format!("the hand-over has no descriptor {place}")))
    }

    /// A descriptor that one alone has.
    ///
    /// # Errors
    /// The same.
    pub fn fd(&self, place: FdPlace) -> Result<OwnedFd> {
        let taken = self.fds.borrow_mut().get_mut(place as usize).and_then(Option::take);
        let alone = taken.and_then(|fd| Rc::try_unwrap(fd).ok());
        alone
            .ok_or_else(|| Refusal::invalid(format!("the hand-over has no descriptor {place} for one alone")))
    }

    /// Bytes; the state's pieces are known to be there.
    pub fn piece(&self, (at, length): Piece) -> &[u8] {
        let range = at as usize..at.saturating_add(length) as usize;
        self.pieces.get(range).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{sample, second_sample};
    use super::*;

    /// What the first version wrote. Kept for ever: it is read as long as it stands in [`READ`], and refused by name after that.
    const FIRST: &[u8] = include_bytes!("../../spec-tests/hand-overs/1");
    /// And the second, with a sandbox.
    const SECOND: &[u8] = include_bytes!("../../spec-tests/hand-overs/2");

    type Sample = fn(&mut dyn FnMut(&[u8]) -> Piece) -> ServerState;

    fn written_of(sample: Sample) -> Vec<u8> {
        let mut to = Outgoing::default();
        let state = sample(&mut |bytes| to.piece(bytes));
        to.bytes(&state, 90, 91, &(10..40).collect::<Vec<_>>()).unwrap()
    }

    fn written() -> Vec<u8> {
        written_of(sample)
    }

    #[test]
    fn every_version_is_read() {
        for (kept, version, sample) in [(FIRST, 1, sample as Sample), (SECOND, 2, second_sample)] {
            let read = Written::parse(kept).unwrap();
            assert_eq!((read.version, read.program, read.memfd, read.numbers.len()), (version, 90, 91, 30));
            let mut to = Outgoing::default();
            assert_eq!(read.state().unwrap(), sample(&mut |bytes| to.piece(bytes)));
            assert_eq!(read.pieces, to.pieces);
        }
    }

    /// Whoever changes what is written finds out here. If an older program could get it wrong, the version rises and its bytes
    /// are kept beside these; if it could not (a further field), these stay for the test above, and new ones come beside them.
    #[test]
    fn what_is_written_is_what_was_kept() {
        assert_eq!(String::from_utf8_lossy(&written()), String::from_utf8_lossy(FIRST));
        assert_eq!(String::from_utf8_lossy(&written_of(second_sample)), String::from_utf8_lossy(SECOND));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = written();
        for length in 0..whole.len() {
            let refusal = Written::parse(&whole[..length]).err();
            assert!(refusal.is_some_and(|refusal| refusal.text.contains("hand-over")), "{length} bytes");
        }
        let mut newer = whole.clone();
        newer[8] = 3;
        let refusal = Written::parse(&newer).unwrap().state().unwrap_err();
        assert_eq!(refusal.text, "a hand-over of version 3: this program reads 1 to 2");
        for (count, what) in [(7_u32, "descriptor"), (u32::MAX, "cut off")] {
            let mut fewer = whole.clone();
            fewer[20..24].copy_from_slice(&count.to_le_bytes());
            if count == 7 {
                fewer.drain(HEAD + 4 * 7..HEAD + 4 * 30);
            }
            let refusal = Written::parse(&fewer).and_then(|written| written.state()).unwrap_err();
            assert!(refusal.text.contains(what), "{refusal}");
        }
        let mut shorter = Written::parse(&whole).unwrap();
        shorter.pieces.pop();
        assert!(shorter.state().unwrap_err().text.contains("has no bytes"));
    }

    #[test]
    fn a_memfd_that_can_be_changed_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let open = memfd_create("open", flags).unwrap();
        assert!(Written::read(open.as_fd()).unwrap_err().text.contains("not sealed"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Written::read(file.as_fd()).unwrap_err().text.contains("no memfd"));
        let program = OwnedFd::from(file);
        let mut to = Outgoing::default();
        let state = sample(&mut |bytes| to.piece(bytes));
        let sealed = to.seal(&state, &program).unwrap();
        let read = Written::read(sealed.as_fd()).unwrap();
        assert_eq!(read.memfd, number_of(sealed.as_fd()));
    }
}
