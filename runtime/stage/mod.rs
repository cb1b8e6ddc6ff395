// SPDX-License-Identifier: Apache-2.0
//! The stage: performs a program inside the container, then becomes the user's process.
//!
//! An interpreter of one `match`; each operation is a small function in the file of its subject. It uses `core`
//! alone: no allocator, no standard library, no environment, nothing parsed but the program that our own host
//! side wrote (and, bounded, /etc/passwd). It must never read host memory, format a string or return. It is
//! compiled twice: as the sealed program `main.rs`, and into the std crate for hosts that refuse memfd
//! execution. Its counterpart is `runtime/src/host/`; the order of operations is `program/compile.rs`.

mod console;
mod copy;
mod files;
mod hold;
mod hook;
mod identity;
mod line;
pub mod locks;
mod mounts;
mod nr;
mod passwd;
mod process;
mod procfs;
mod remount;
mod sys;
mod target;
mod trace;
pub mod wire;

use core::ffi::CStr;

pub use process::loopback_up;
#[allow(unused_imports, reason = "the sealed stage's panic handler ends by it")]
pub use sys::undefined;
use sys::{Fault, Pointers, Result};
pub use trace::ticks;
use wire::{Header, Message, Rec, aux, code, kind};

/// Where a program stands in memory.
#[derive(Clone, Copy)]
struct MappedProgram {
    base: *mut u8,
    length: usize,
}

/// The stage while it runs.
struct Stage {
    program: MappedProgram,
    /// Descriptors that operations opened; -1 is empty.
    slots: [i32; wire::SLOTS],
    /// Whether the target in that slot was made by us.
    made: [bool; wire::SLOTS],
    /// Where look-ups start; never below the host's root once set.
    root: i32,
    /// The socket to the host: first the launcher's, later that of `start`.
    host: i32,
    /// The listening socket at which `start` knocks, or the FIFO that it writes to, once CLOSE has put it in its place.
    gate: i32,
    /// Where `start` listens, if the gate is a FIFO.
    outcome: i32,
    /// The caller's file mode mask, later the user's: for hooks, while our own is 0.
    umask: u32,
    /// A pid namespace was joined: our children are in it.
    enters: bool,
    /// CLOSE has been here, and has left the descriptors below this one to the user's program.
    kept: Option<i32>,
    /// Our pid, once a filter may refuse to say it.
    pid: Option<i32>,
    /// Index of the operation under way.
    op: u32,
    /// The program's path, chosen by LOOKUP.
    chosen: Option<&'static CStr>,
    /// No descriptor of ours is above this one.
    highest: u32,
    /// The first CHDIR was refused.
    chdir_refused: bool,
    /// Resource limits that only the host may raise, a bit each.
    deferred: u32,
    /// The tmpfs that covers masked directories.
    mask: Option<i32>,
}

/// A fault that is no failed system call.
const fn fault(errno: i32, aux: u32) -> Fault {
    Fault { errno, aux }
}

const MALFORMED: Fault = fault(sys::EINVAL, aux::PROGRAM);

impl MappedProgram {
    /// The bytes from `offset` on must hold `count` values of T.
    fn array<T>(self, offset: u32, count: usize) -> Result<*mut T> {
        let offset = offset as usize;
        let size = count.checked_mul(size_of::<T>()).ok_or(MALFORMED)?;
        let end = offset.checked_add(size).ok_or(MALFORMED)?;
        if end > self.length || !offset.is_multiple_of(align_of::<T>()) {
            return Err(MALFORMED);
        }
        // SAFETY: the offset is within the mapping.
        Ok(unsafe { self.base.add(offset) }.cast())
    }

    /// A copy of the plain value at `offset`.
    fn get<T: Copy>(self, offset: u32) -> Result<T> {
        let at = self.array::<T>(offset, 1)?;
        // SAFETY: in bounds and aligned; all wire types are plain integers, for which any bytes are a value.
        Ok(unsafe { at.read() })
    }

    fn slice<T>(self, offset: u32, count: usize) -> Result<&'static [T]> {
        let at = self.array::<T>(offset, count)?;
        // SAFETY: in bounds and aligned; the arrays read this way are never written.
        Ok(unsafe { core::slice::from_raw_parts(at, count) })
    }

    fn text(self, offset: u32) -> Result<&'static CStr> {
        let rest = self.slice::<u8>(offset, self.length.saturating_sub(offset as usize))?;
        CStr::from_bytes_until_nul(rest).map_err(|_| MALFORMED)
    }

    /// The offsets of a zero-terminated string array become pointers, in place.
    fn pointers(self, offset: u32) -> Result<Pointers> {
        let mut at = offset;
        loop {
            let entry = self.array::<u64>(at, 1)?;
            // SAFETY: in bounds and aligned; the array belongs to this call and is relocated once in this process.
            unsafe {
                if *entry == 0 {
                    break;
                }
                *entry = self.text(*entry as u32)?.as_ptr() as u64;
            }
            at = at.checked_add(8).ok_or(MALFORMED)?;
        }
        Ok(Pointers(self.array::<*const u8>(offset, 1)?))
    }
}

/// Runs the program of `length` bytes at `base` and never returns.
///
/// # Safety
/// `base` must be 8-byte aligned, readable and writable for `length` bytes, and used by nobody else.
pub unsafe fn run(base: *mut u8, length: usize) -> ! {
    let program = MappedProgram { base, length };
    let Ok(header) = program.get::<Header>(0) else { sys::exit(1) };
    if header.magic != wire::MAGIC || header.version != wire::VERSION {
        sys::exit(1);
    }
    let mut stage = Stage::over(program, header.sync, -1);
    match stage.perform(&header) {
        Err(fault) => stage.fail(fault, &[]),
        Ok(()) => sys::exit(1),
    }
}

/// Maps the program that descriptor `fd` holds and runs it; `host` is the socket to the host.
#[allow(dead_code, reason = "the sealed stage starts here, the linked-in one at `run`")]
pub fn start(fd: i32, host: i32) -> ! {
    trace::prepare();
    let mapped = sys::fstat(fd).map(|stat| stat.size as usize);
    match mapped.and_then(|length| sys::map(fd, length).map(|program| (program, length))) {
        // SAFETY: a fresh mapping is page-aligned, ours alone, and never unmapped.
        Ok((program, length)) => unsafe { run(program.as_mut_ptr(), length) },
        Err(fault) => {
            let Fault { errno, aux } = fault;
            let message = Message { kind: kind::FAULT, op: wire::NO_OP, errno, aux, ..Default::default() };
            let told = sys::write(host, &message.bytes());
            sys::exit(status_of(told.map(drop)))
        }
    }
}

/// What the stage ends with when it has said why, or could not: all that is left then is the errno of that.
fn status_of(told: Result<()>) -> i32 {
    told.map_or_else(|fault| fault.errno, |()| 1)
}

impl Stage {
    /// A stage that has done nothing yet.
    fn over(program: MappedProgram, host: i32, root: i32) -> Stage {
        Stage {
            program,
            slots: [-1; wire::SLOTS],
            made: [false; wire::SLOTS],
            root,
            host,
            gate: -1,
            outcome: -1,
            umask: 0o077,
            enters: false,
            kept: None,
            pid: None,
            op: wire::NO_OP,
            chosen: None,
            highest: 1024,
            chdir_refused: false,
            deferred: 0,
            mask: None,
        }
    }

    fn perform(&mut self, header: &Header) -> Result<()> {
        const PR_SET_DUMPABLE: u32 = 4;
        trace::begin(header.log, header.log_words, header.ops)?;
        sys::prctl(PR_SET_DUMPABLE, 0, 0)?;
        self.keep_only(self.program.slice::<i64>(header.keep, header.keep_len as usize)?)?;
        self.umask = sys::umask(0);
        let records = self.program.slice::<Rec>(size_of::<Header>() as u32, header.ops as usize)?;
        for (index, rec) in records.iter().enumerate() {
            self.op = index as u32;
            self.perform_one(rec)?;
            trace::op_ends(index);
        }
        Err(MALFORMED)
    }

    /// The whole vocabulary.
    fn perform_one(&mut self, rec: &Rec) -> Result<()> {
        match rec.code {
            code::SETNS => self.setns(rec),
            code::UNSHARE => sys::unshare(rec.a),
            code::HOP => self.hop(rec),
            code::BECOME_ROOT => sys::setresgid(0).and_then(|()| sys::setresuid(0)),
            code::KEYRING => self.keyring(rec),
            code::SETSID => sys::setsid(),
            code::LOOPBACK => loopback_up(),
            code::JOIN_SENT => self.join_sent(rec.x),
            code::BARRIER => self.barrier(rec.x as u8, rec.r),
            code::HOSTNAME => sys::sethostname(self.text(rec.s)?),
            code::DOMAINNAME => sys::setdomainname(self.text(rec.s)?),
            code::PROPAGATE => sys::mount(c"", self.text(rec.s)?, c"", rec.a, c""),
            code::ATTACH => sys::move_mount(self.fd(rec.r)?, self.fd(rec.q)?, c""),
            code::ATTACH_OR_LINK => self.attach_or_link(rec),
            code::ATTACH_HOST => sys::move_mount(self.fd(rec.r)?, sys::AT_FDCWD, self.text(rec.s)?),
            code::OPEN_TREE => self.host_tree(rec),
            code::COPY_INSIDE => self.copy_inside(rec),
            code::CHDIR_HOST => sys::chdir(self.text(rec.s)?),
            code::ROOT => self.set_root(rec),
            code::TARGET => self.target(rec),
            code::FS_OPEN => sys::fsopen(self.text(rec.s)?).map(|fd| self.put(rec.r, fd)),
            code::PROC_OF => self.proc_of(rec),
            code::FS_SET => sys::fsconfig_string(self.fd(rec.r)?, self.text(rec.s)?, self.text(rec.t)?),
            code::FS_FLAG => sys::fsconfig_flag(self.fd(rec.r)?, self.text(rec.s)?),
            code::FS_MOUNT => self.fs_mount(rec),
            code::FS_MODE => self.fs_mode(rec),
            code::SET_ATTR => self.set_attr(rec),
            code::LABEL => self.label(rec),
            code::COPY_UP => copy::tree(self.fd(rec.q)?, self.fd(rec.r)?),
            code::MKNOD => self.mknod(rec),
            code::SYMLINK => self.symlink(rec),
            code::MKDIR => self.mkdir(rec),
            code::MASK => self.mask(rec),
            code::READONLY => self.readonly(rec),
            code::UNMOUNT => self.unmount(rec),
            code::PIVOT => self.pivot(),
            code::MOVE_ROOT => self.move_root(rec),
            code::WRITE => self.write(rec),
            code::CONSOLE => self.console(rec),
            code::CONSOLE_BIND => self.console_bind(rec),
            code::CONSOLE_STDIO => console::stdio(self.fd(rec.r)?),
            code::CONSOLE_CONTROL => console::control(),
            code::CHOWN_STDIO => console::chown_stdio(rec.x),
            code::MOUNT_CLASSIC => self.mount_classic(rec),
            _ => self.identity(rec),
        }
    }

    /// The second half of the vocabulary: what the process is and becomes.
    fn identity(&mut self, rec: &Rec) -> Result<()> {
        const PR_SET_NO_NEW_PRIVS: u32 = 38;
        match rec.code {
            code::UMASK => {
                self.umask = rec.x;
                sys::umask(rec.x);
                Ok(())
            }
            code::PERSONALITY => sys::personality(rec.x),
            code::MEM_POLICY => sys::set_mempolicy(rec.x, self.program.slice(rec.s, rec.a as usize)?),
            code::NO_NEW_PRIVS => sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).map(drop),
            code::CHDIR => self.chdir(rec),
            code::DROP_GROUPS => sys::setgroups(&[]),
            code::GROUPS => self.groups(rec),
            code::KEEP_GROUPS => Ok(()),
            code::SET_IDS => identity::set_ids(rec.a as u32, rec.b as u32),
            code::BOUND => identity::bound(rec.a, rec.x),
            code::CAPSET => identity::capset(rec, 0),
            code::LEND_ADMIN => identity::capset(rec, identity::ADMIN),
            code::RLIMITS => self.rlimits(rec),
            code::AMBIENT => self.ambient(rec.a),
            code::SECCOMP => self.seccomp(rec),
            code::LOOKUP => self.lookup(rec),
            code::HOME => self.home(rec),
            code::DISOWN => self.disown(),
            code::HOLD => self.hold(rec),
            code::GATE => self.gate(),
            code::HOOK => self.hook(rec),
            code::CLOSE => self.close_from(rec),
            code::EXEC => self.exec(rec),
            code::CHROOT => self.chroot(rec),
            code::CLOSE_FD => {
                self.close_ref(rec.r);
                Ok(())
            }
            code::SIGNALS => process::default_signals(rec.a),
            _ => Err(MALFORMED),
        }
    }

    fn text(&self, offset: u32) -> Result<&'static CStr> {
        self.program.text(offset)
    }

    /// The descriptor behind a reference.
    fn fd(&self, reference: i32) -> Result<i32> {
        if reference >= 0 {
            return Ok(reference);
        }
        match self.slots.get(slot_index(reference)) {
            Some(&fd) if fd >= 0 => Ok(fd),
            _ => Err(MALFORMED),
        }
    }

    /// Fills a slot, closing what it held.
    fn put(&mut self, reference: i32, fd: i32) {
        if let Some(slot) = self.slots.get_mut(slot_index(reference)) {
            if *slot >= 0 {
                sys::close(*slot);
            }
            *slot = fd;
        }
    }

    fn close_ref(&mut self, reference: i32) {
        if reference >= 0 {
            sys::close(reference);
        } else {
            self.put(reference, -1);
        }
    }

    /// Tells the host of a fault, with what a hook wrote, if anything, and ends.
    fn fail(&self, fault: Fault, output: &[u8]) -> ! {
        sys::exit(status_of(self.tell(kind::FAULT, fault, output)))
    }

    #[inline(never)]
    fn tell(&self, kind: u8, fault: Fault, output: &[u8]) -> Result<()> {
        let message = Message { kind, op: self.op, errno: fault.errno, aux: fault.aux, ..Default::default() };
        let mut bytes = [0; 16 + hook::OUTPUT];
        let length = 16 + output.len().min(hook::OUTPUT);
        bytes[..16].copy_from_slice(&message.bytes());
        bytes[16..length].copy_from_slice(&output[..length - 16]);
        // Under a filter only write(2) may be left; a message needs no more.
        sys::write(self.host, &bytes[..length]).map(drop)
    }

    /// Meets the host: says what was reached (with a descriptor, if any) and waits for its word.
    #[inline(never)]
    fn barrier(&mut self, barrier: u8, reference: i32) -> Result<()> {
        let fd = if reference == wire::NONE { None } else { Some(self.fd(reference)?) };
        let mut message =
            Message { kind: kind::REACHED, barrier, op: self.op, aux: self.deferred, ..Default::default() };
        match fd {
            Some(fd) if barrier != wire::barrier::LISTENER_NUMBER => {
                sys::send(self.host, &message.bytes(), Some(fd))?;
            }
            fd => {
                message.errno = fd.unwrap_or(0);
                sys::write(self.host, &message.bytes())?;
            }
        }
        self.wait_for_go()
    }

    /// Waits for a namespace of the host's making, and joins it.
    #[inline(never)]
    fn join_sent(&self, flag: u32) -> Result<()> {
        let mut bytes = [0; 16];
        match sys::receive(self.host, &mut bytes)? {
            (16, Some(namespace)) if bytes[0] == kind::GO => {
                sys::setns(namespace, flag)?;
                sys::close(namespace);
                Ok(())
            }
            _ => sys::exit(1),
        }
    }

    /// Waits for the host's word; a host that goes away ends the container before it began.
    fn wait_for_go(&self) -> Result<()> {
        let mut bytes = [0; 16];
        match sys::read(self.host, &mut bytes)? {
            16 if bytes[0] == kind::GO => Ok(()),
            _ => sys::exit(1),
        }
    }
}

fn slot_index(reference: i32) -> usize {
    (-1_i32).wrapping_sub(reference) as usize
}
