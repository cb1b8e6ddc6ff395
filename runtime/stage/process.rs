// SPDX-License-Identifier: Apache-2.0
//! Operations of the process's life: descriptors, namespaces, session, gate, exec.

use super::sys::{self, Fault, Result};
use super::wire::{self, Message, Rec, aux, barrier, kind};
use super::{MALFORMED, Stage, fault, trace};

impl Stage {
    /// Closes every descriptor from 3 on but the listed ones (ascending).
    pub(super) fn keep_only(&mut self, keep: &[i64]) -> Result<()> {
        let mut next = 3_u32;
        for &fd in keep {
            let fd = fd as u32;
            if fd > next {
                sys::close_range(next, fd - 1)?;
            }
            next = next.max(fd + 1);
        }
        // New ones take the lowest numbers that are free, and are never as many.
        self.highest = next + 64;
        sys::close_range(next, u32::MAX)
    }

    /// Joins namespaces.
    pub(super) fn setns(&mut self, rec: &Rec) -> Result<()> {
        const CLONE_NEWPID: u32 = 0x2000_0000;
        self.enters |= rec.x & CLONE_NEWPID != 0;
        sys::setns(self.fd(rec.r)?, rec.x)
    }

    /// Clones the final process as a child of our parent and leaves it the program. CLONE_PARENT wants exit
    /// signal 0 (clone(2)); the pidfd goes to the host before we exit, so that it never holds a bare pid.
    #[inline(never)]
    pub(super) fn hop(&mut self, rec: &Rec) -> Result<()> {
        const CLONE_PARENT: u64 = 0x8000;
        // A filter that is loaded already allows clone(2), not clone3(2), whose flags it cannot see.
        let (pid, pidfd) = match rec.a {
            0 => sys::clone(CLONE_PARENT),
            flags => sys::clone3(flags | CLONE_PARENT, 0),
        }?;
        if pid != 0 {
            trace::end();
            let (barrier, aux) = (barrier::HOP, self.deferred);
            let message = Message { kind: kind::REACHED, barrier, op: self.op, aux, ..Default::default() };
            if let Err(fault) = sys::send(self.host, &message.bytes(), Some(pidfd)) {
                sys::pidfd_kill(pidfd);
                return Err(fault);
            }
            sys::exit(0);
        }
        self.wait_for_go()
    }

    /// A session keyring of the container's own (y: a new one). Besides those who possess it, its user may find it, which is
    /// how an `exec` joins it, but not see it: neither its name nor what is in it is anybody else's to read.
    #[inline(never)]
    pub(super) fn keyring(&self, rec: &Rec) -> Result<()> {
        // keyctl_setperm(3): all for the possessor, search for the user.
        const OURS: usize = 0x3f08_0000;
        const KEYCTL_SETPERM: u32 = 5;
        match sys::join_session_keyring(self.text(rec.s)?) {
            // A kernel without keyrings has nothing to isolate.
            Err(Fault { errno: sys::ENOSYS, .. }) => Ok(()),
            Ok(serial) if rec.y == 1 => {
                if searchable(serial)? {
                    return Err(fault(sys::EEXIST, aux::MISMATCH));
                }
                sys::keyctl(KEYCTL_SETPERM, serial, OURS).map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Waits for `start`; the socket that it comes by replaces the launcher's.
    pub(super) fn gate(&mut self) -> Result<()> {
        if self.outcome >= 0 {
            // A FIFO: read(2) is all that the filter has to allow.
            self.host = self.gate;
            let heard = self.wait_for_go();
            self.host = self.outcome;
            return heard;
        }
        let listener = self.gate;
        // The launcher goes away by design; its end is not ours to watch any more.
        sys::close(self.host);
        self.host = sys::accept(listener)?;
        sys::close(listener);
        self.wait_for_go()
    }

    /// Leaves 0 to x - 1 and behind them, in this order, the socket to the host, the gate, one descriptor of a slot (a
    /// terminal on its way to the host), and where the gate's guest listens. The exec closes what is still there of these.
    #[inline(never)]
    pub(super) fn close_from(&mut self, rec: &Rec) -> Result<()> {
        const F_DUPFD_CLOEXEC: u32 = 1030;
        let first = rec.x as i32;
        let mut kept = [self.host, -1, -1, -1];
        let outcome = rec.s as i32;
        let after = if outcome == wire::NONE { 3 } else { 4 };
        for (place, reference) in [(1, rec.r), (2, rec.q), (3, outcome)] {
            if reference != wire::NONE {
                kept[place] = self.fd(reference)?;
            }
        }
        // Out of each other's way first: copies above all places.
        for fd in kept.iter_mut().filter(|fd| (first..first + after).contains(*fd)) {
            *fd = sys::fcntl(*fd, F_DUPFD_CLOEXEC, (first + after) as usize)? as i32;
        }
        for (place, fd) in (first..first + after).zip(kept) {
            if fd >= 0 {
                sys::dup3(fd, place, true)?;
            } else {
                sys::close(place);
            }
        }
        self.host = first;
        self.kept = Some(first);
        self.gate = first + 1;
        self.slots = [-1; wire::SLOTS];
        if let Some(slot) = self.slots.get_mut(super::slot_index(rec.q)).filter(|_| rec.q != wire::NONE) {
            *slot = first + 2;
        }
        if outcome != wire::NONE {
            self.outcome = first + 3;
        }
        let rest = (first + after) as u32;
        sys::close_from(rest, self.highest.max(rest))
    }

    /// Changes to the working directory. The first attempt is root's; where that is refused (a directory of the user's
    /// on a file system that does not know root), the second is the user's. Once there, nothing more is asked: a filter
    /// of the user's may be at work by the second.
    #[inline(never)]
    pub(super) fn chdir(&mut self, rec: &Rec) -> Result<()> {
        const FIRST: u16 = 1;
        let first = rec.y == FIRST;
        if !first && !self.chdir_refused {
            return Ok(());
        }
        let path = self.text(rec.s)?;
        match self.find(path, sys::O_DIRECTORY, 0).and_then(|fd| sys::fchdir(fd).map(|()| sys::close(fd))) {
            Err(Fault { errno: sys::EACCES, .. }) if first => {
                self.chdir_refused = true;
                return Ok(());
            }
            // The root is the container's by then, and where the path leads is looked at below.
            Err(fault) if !first && fault.is_filtered() => sys::chdir(path)?,
            other => other?,
        }
        inside()
    }

    /// Chooses the first candidate that may be executed; says why none could, as execvp(3) would.
    #[inline(never)]
    pub(super) fn lookup(&mut self, rec: &Rec) -> Result<()> {
        const EISDIR: i32 = 21;
        let mut errno = sys::ENOENT;
        for &offset in self.program.slice::<u64>(rec.s, rec.x as usize)? {
            let path = self.text(offset as u32)?;
            match sys::executable(path).and_then(|()| sys::is_directory(path)) {
                Err(fault) if fault.errno == sys::EACCES => errno = sys::EACCES,
                Err(fault) if fault.errno == sys::ENOENT => {}
                // What is no file on the way to a PATH entry is just not there; alone, it is the answer.
                Err(fault) => errno = if rec.x == 1 { fault.errno } else { errno },
                Ok(false) => {
                    self.chosen = Some(path);
                    return Ok(());
                }
                Ok(true) => errno = if rec.x == 1 { EISDIR } else { sys::EACCES },
            }
        }
        Err(fault(errno, aux::LOOKUP))
    }

    /// Becomes the user's program; returns only with why not.
    pub(super) fn exec(&mut self, rec: &Rec) -> Result<()> {
        let path = self.chosen.ok_or(MALFORMED)?;
        Err(sys::execve(path, self.program.pointers(rec.s)?, self.program.pointers(rec.t)?))
    }

    /// Loads the filter; a listener, if asked for, goes into a slot.
    pub(super) fn seccomp(&mut self, rec: &Rec) -> Result<()> {
        let filter = self.program.slice::<u64>(rec.s, rec.x as usize)?;
        self.pid = Some(sys::getpid());
        let listener = sys::seccomp(filter, rec.a)?;
        if rec.r != wire::NONE {
            self.put(rec.r, listener as i32);
        }
        Ok(())
    }

    /// Writes t into the file s below r, which must be the file system of r itself.
    pub(super) fn write(&self, rec: &Rec) -> Result<()> {
        let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_XDEV | sys::RESOLVE_NO_MAGICLINKS;
        let file = sys::openat2(self.fd(rec.r)?, self.text(rec.s)?, sys::O_WRONLY, 0, resolve)?;
        let written = sys::write(file, self.text(rec.t)?.to_bytes());
        sys::close(file);
        written.map(drop)
    }
}

/// Whether others than its possessor may search a keyring. KEYCTL_JOIN_SESSION_KEYRING finds by name only such ones, and those
/// that it makes are not (security/keys/process_keys.c, keyring.c): whoever is told no has made it just now.
fn searchable(serial: usize) -> Result<bool> {
    const KEYCTL_DESCRIBE: u32 = 6;
    const SEARCH: u32 = 0x8_0808;
    // `keyring;uid;gid;perm;name`, whole or not at all; an id has at most 1,024 bytes.
    let mut text = [0_u8; 1280];
    let length = sys::keyctl_into(KEYCTL_DESCRIBE, serial, &mut text)?;
    let text = text.get(..length).ok_or(MALFORMED)?;
    let permissions = text.split(|&byte| byte == b';').nth(3).ok_or(MALFORMED)?;
    let digit = |value: u32, byte: &u8| value << 4 | (*byte as char).to_digit(16).unwrap_or(0xf);
    Ok(permissions.iter().fold(0, digit) & SEARCH != 0)
}

/// The working directory is below the root: getcwd(2) says `(unreachable)` otherwise (CVE-2024-21626).
#[inline(never)]
fn inside() -> Result<()> {
    let mut path = [0; 256];
    match sys::getcwd(&mut path) {
        // Only how it begins matters; a long one is asked for again with room for it.
        Err(Fault { errno: sys::ERANGE, .. }) => return inside_long(),
        other => other?,
    };
    if path[0] == b'/' { Ok(()) } else { Err(fault(sys::ENOENT, aux::OUTSIDE)) }
}

#[inline(never)]
fn inside_long() -> Result<()> {
    let mut path = [0; 4096];
    sys::getcwd(&mut path)?;
    if path[0] == b'/' { Ok(()) } else { Err(fault(sys::ENOENT, aux::OUTSIDE)) }
}

/// Brings `lo` up: a fresh network namespace has it down.
pub fn loopback_up() -> Result<()> {
    const SIOCSIFFLAGS: u32 = 0x8914;
    const IFF_UP: u8 = 1;
    // struct ifreq: 16 bytes of name, then the flags.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = IFF_UP;
    let socket = sys::socket_inet_dgram()?;
    let done = sys::ioctl_on(socket, SIOCSIFFLAGS, &mut request);
    sys::close(socket);
    done.map(drop)
}

/// Every signal at its default and none blocked: Rust ignores SIGPIPE, and a caller under nohup(1) others, which
/// execve(2) would keep.
pub(super) fn default_signals(ignored: u64) -> Result<()> {
    // What has a handler loses it by execve(2).
    for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        sys::default_signal(signal);
    }
    sys::unblock_signals()
}
