// SPDX-License-Identifier: Apache-2.0
//! The stage's door to the kernel: raw system calls behind safe functions, no libc.
//!
//! A failed call is a [`Fault`]: its errno and its number, which is all that the host needs to word the error.
//! Descriptors are plain integers here: the stage is one short-lived thread that closes everything by range. The
//! file is longer than others because it is one list of wrappers, most of one line, and all of the stage's unsafe
//! calls stand here together.

use core::arch::asm;
use core::ffi::CStr;

use super::{nr, trace};

/// What failed: errno and system call number (or one of `wire::aux`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub errno: i32,
    pub aux: u32,
}

impl Fault {
    /// A seccomp filter of the user's that is older than the call (allow-lists answer EPERM or ENOSYS).
    pub fn is_filtered(self) -> bool {
        matches!(self.errno, EPERM | ENOSYS)
    }
}

pub type Result<T> = core::result::Result<T, Fault>;

pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const EXDEV: i32 = 18;
pub const ENOTDIR: i32 = 20;
pub const EINVAL: i32 = 22;
pub const ELOOP: i32 = 40;
pub const ERANGE: i32 = 34;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOSYS: i32 = 38;
pub const EPERM: i32 = 1;
pub const EROFS: i32 = 30;
pub const ENODATA: i32 = 61;
pub const EOPNOTSUPP: i32 = 95;

pub const AT_FDCWD: i32 = -100;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub const AT_RECURSIVE: u32 = 0x8000;
pub const AT_EACCESS: u32 = 0x200;

pub const O_RDONLY: u64 = 0;
pub const O_WRONLY: u64 = 1;
pub const O_RDWR: u64 = 2;
pub const O_CREAT: u64 = 0o100;
pub const O_EXCL: u64 = 0o200;
pub const O_NOCTTY: u64 = 0o400;
pub const O_NONBLOCK: u64 = 0o4000;
pub const O_CLOEXEC: u64 = 0o2000000;
pub const O_PATH: u64 = 0o10000000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: u64 = 0o200000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: u64 = 0o400000;
#[cfg(not(target_arch = "x86_64"))]
pub const O_DIRECTORY: u64 = 0o40000;
#[cfg(not(target_arch = "x86_64"))]
pub const O_NOFOLLOW: u64 = 0o100000;

pub const RESOLVE_NO_XDEV: u64 = 1;
pub const RESOLVE_NO_MAGICLINKS: u64 = 2;
pub const RESOLVE_NO_SYMLINKS: u64 = 4;
pub const RESOLVE_BENEATH: u64 = 8;
pub const RESOLVE_IN_ROOT: u64 = 16;

pub const S_IFMT: u32 = 0o170000;
pub const S_IFIFO: u32 = 0o010000;
pub const S_IFCHR: u32 = 0o020000;
pub const S_IFDIR: u32 = 0o040000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFLNK: u32 = 0o120000;

/// One system call.
///
/// # Safety
/// The arguments must be what the call `number` expects: pointers valid for what the kernel reads or writes.
#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves everything but rax, rcx and r11; the caller vouches for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// One system call.
///
/// # Safety
/// The arguments must be what the call `number` expects: pointers valid for what the kernel reads or writes.
#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves everything but x0; the caller vouches for the arguments.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] => result, in("x1") a[1], in("x2") a[2], in("x3") a[3],
             in("x4") a[4], in("x5") a[5], options(nostack));
    }
    result
}

/// One system call with its errno.
///
/// # Safety
/// As for [`raw`].
unsafe fn call(number: usize, a: [usize; 6]) -> Result<usize> {
    let logged = trace::call_begins(number);
    // SAFETY: passed on to the caller.
    let result = unsafe { raw(number, a) };
    trace::call_ends(logged, number, result);
    if result < 0 { Err(Fault { errno: -result as i32, aux: number as u32 }) } else { Ok(result as usize) }
}

/// A system call whose arguments are numbers, descriptors and pointers to live Rust values of the right type.
macro_rules! sys {
    ($nr:ident $(, $a:expr)*) => {{
        let arguments: &[usize] = &[$($a as usize),*];
        let mut six = [0; 6];
        let mut i = 0;
        while i < arguments.len() { six[i] = arguments[i]; i += 1; }
        // SAFETY: every pointer in the argument list was made in this function from a reference (a C string, a
        // slice with its length, a structure with its size) that outlives the call, as the call expects.
        unsafe { call(nr::$nr, six) }
    }};
}

pub fn exit(status: i32) -> ! {
    // A filter may refuse the first; nothing refuses an instruction that is none.
    let _ = sys!(EXIT_GROUP, status);
    let _ = sys!(EXIT, status);
    undefined()
}

/// Ends this process by SIGILL.
pub fn undefined() -> ! {
    // SAFETY: the instruction is undefined by definition: the process gets a signal that it does not handle.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("ud2", options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("brk #1", options(noreturn));
    }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    retry(|| sys!(READ, fd, buffer.as_mut_ptr(), buffer.len()))
}

pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    retry(|| sys!(WRITE, fd, bytes.as_ptr(), bytes.len()))
}

/// Repeats a call that a signal interrupted.
pub fn retry(mut one: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match one() {
            Err(Fault { errno: EINTR, .. }) => {}
            other => return other,
        }
    }
}

pub fn close(fd: i32) {
    let _ = sys!(CLOSE, fd);
}

pub fn close_range(first: u32, last: u32) -> Result<()> {
    sys!(CLOSE_RANGE, first, last, 0).map(drop)
}

/// The same for all from `first` on, none of which is above `highest`; one by one where a filter refuses the call.
pub fn close_from(first: u32, highest: u32) -> Result<()> {
    match close_range(first, u32::MAX) {
        Err(fault) if fault.is_filtered() => {
            (first..=highest).for_each(|fd| close(fd as i32));
            Ok(())
        }
        other => other,
    }
}

/// Maps a program, privately and writable: its pointer arrays are relocated in place.
pub fn map(fd: i32, length: usize) -> Result<&'static mut [u8]> {
    const READ_WRITE: usize = 3;
    const PRIVATE: usize = 2;
    let address = sys!(MMAP, 0, length, READ_WRITE, PRIVATE, fd, 0)?;
    // SAFETY: a fresh private mapping of `length` bytes that is never unmapped nor handed out twice.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut u8, length) })
}

/// Maps memory of a traced stage at a fixed place where nothing is: shared with whoever holds `shared`, or its own. Not logged.
#[cfg(traced)]
pub fn map_at(address: usize, length: usize, shared: Option<i32>) -> Result<()> {
    const READ_WRITE: usize = 3;
    const FIXED_NOREPLACE: usize = 0x10_0000;
    let (how, fd) = match shared {
        Some(fd) => (FIXED_NOREPLACE | 1, fd as usize),
        None => (FIXED_NOREPLACE | 0x22, usize::MAX),
    };
    // SAFETY: numbers only; nothing is mapped there yet, and nothing is replaced.
    let result = unsafe { raw(nr::MMAP, [address, length, READ_WRITE, how, fd, 0]) };
    if result == address as isize {
        Ok(())
    } else {
        Err(Fault { errno: -result as i32, aux: nr::MMAP as u32 })
    }
}

/// Whether a call returns twice.
#[cfg(traced)]
pub fn clones(number: usize) -> bool {
    matches!(number, nr::CLONE | nr::CLONE3)
}

/// struct open_how.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), always close-on-exec; EAGAIN (a rename or mount happened meanwhile) is retried a bounded while.
pub fn openat2(dir: i32, path: &CStr, flags: u64, mode: u32, resolve: u64) -> Result<i32> {
    let how = OpenHow { flags: flags | O_CLOEXEC, mode: mode as u64, resolve };
    let mut tries = 0;
    loop {
        let result = sys!(OPENAT2, dir, path.as_ptr(), &raw const how, size_of::<OpenHow>());
        match result {
            Err(Fault { errno: EAGAIN, .. }) if tries < 4096 => tries += 1,
            Err(Fault { errno: EINTR, .. }) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}

pub fn mkdirat(dir: i32, name: &CStr, mode: u32) -> Result<()> {
    sys!(MKDIRAT, dir, name.as_ptr(), mode).map(drop)
}

pub fn mknodat(dir: i32, name: &CStr, mode: u32, device: u64) -> Result<()> {
    sys!(MKNODAT, dir, name.as_ptr(), mode, device).map(drop)
}

pub fn symlinkat(target: &CStr, dir: i32, name: &CStr) -> Result<()> {
    sys!(SYMLINKAT, target.as_ptr(), dir, name.as_ptr()).map(drop)
}

pub fn readlinkat(dir: i32, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    sys!(READLINKAT, dir, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

/// fchmodat(2) of a name in `dir`; follows a symbolic link, so only for names just made by us.
pub fn fchmodat(dir: i32, name: &CStr, mode: u32) -> Result<()> {
    sys!(FCHMODAT, dir, name.as_ptr(), mode).map(drop)
}

pub fn fchown(fd: i32, uid: u32, gid: u32) -> Result<()> {
    sys!(FCHOWN, fd, uid, gid).map(drop)
}

/// fchownat(2) of `name` in `dir` (or of `dir` itself with AT_EMPTY_PATH).
pub fn fchownat(dir: i32, name: &CStr, uid: u32, gid: u32, flags: u32) -> Result<()> {
    sys!(FCHOWNAT, dir, name.as_ptr(), uid, gid, flags).map(drop)
}

/// The part of struct statx that is used, padded to its 256 bytes.
#[repr(C)]
pub struct Statx {
    pub mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pad: u16,
    pub ino: u64,
    pub size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: [u64; 2],
    btime: [u64; 2],
    ctime: [u64; 2],
    pub mtime: [u64; 2],
    pub rdev_major: u32,
    pub rdev_minor: u32,
    dev: [u32; 2],
    rest: [u64; 14],
}

impl Statx {
    pub fn kind(&self) -> u32 {
        self.mode as u32 & S_IFMT
    }

    /// The device of the file system that holds it.
    pub fn device(&self) -> [u32; 2] {
        self.dev
    }

    pub fn is_char(&self, major: u32, minor: u32) -> bool {
        self.kind() == S_IFCHR && self.rdev_major == major && self.rdev_minor == minor
    }
}

const _: () = assert!(size_of::<Statx>() == 256);

/// statx(2) of a descriptor.
pub fn fstat(fd: i32) -> Result<Statx> {
    statx(fd, c"")
}

/// statx(2) of `name` in `dir`, never following a symbolic link.
pub fn statx(dir: i32, name: &CStr) -> Result<Statx> {
    const BASIC_STATS: usize = 0x7ff;
    let mut stat = core::mem::MaybeUninit::<Statx>::zeroed();
    sys!(STATX, dir, name.as_ptr(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, BASIC_STATS, stat.as_mut_ptr())?;
    // SAFETY: all fields are integers, zeroed above.
    Ok(unsafe { stat.assume_init() })
}

/// File system type of a descriptor (statfs.f_type).
pub fn fs_magic(fd: i32) -> Result<u64> {
    let mut buffer = [0_u64; 16];
    sys!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[0])
}

/// Flags of the mount behind a descriptor (statfs.f_flags, ST_*).
pub fn fs_flags(fd: i32) -> Result<u64> {
    let mut buffer = [0_u64; 16];
    sys!(FSTATFS, fd, buffer.as_mut_ptr())?;
    Ok(buffer[10])
}

pub fn getdents(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    sys!(GETDENTS64, fd, buffer.as_mut_ptr(), buffer.len())
}

pub fn sendfile(out: i32, from: i32, count: usize) -> Result<usize> {
    retry(|| sys!(SENDFILE, out, from, 0, count))
}

pub fn flistxattr(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    sys!(FLISTXATTR, fd, buffer.as_mut_ptr(), buffer.len())
}

pub fn fgetxattr(fd: i32, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    sys!(FGETXATTR, fd, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

pub fn fsetxattr(fd: i32, name: &CStr, value: &[u8]) -> Result<()> {
    sys!(FSETXATTR, fd, name.as_ptr(), value.as_ptr(), value.len(), 0).map(drop)
}

/// Sets both time stamps of `name` in `dir` to `mtime`.
pub fn utimens(dir: i32, name: &CStr, mtime: [u64; 2]) -> Result<()> {
    let times = [mtime, mtime];
    sys!(UTIMENSAT, dir, name.as_ptr(), &raw const times, AT_SYMLINK_NOFOLLOW).map(drop)
}

pub fn dup3(from: i32, to: i32, cloexec: bool) -> Result<()> {
    sys!(DUP3, from, to, if cloexec { O_CLOEXEC } else { 0 }).map(drop)
}

/// fcntl(2) with a number as its argument.
pub fn fcntl(fd: i32, command: u32, argument: usize) -> Result<usize> {
    sys!(FCNTL, fd, command, argument)
}

/// ioctl(2) with a number as its argument.
pub fn ioctl(fd: i32, request: u32, argument: usize) -> Result<usize> {
    sys!(IOCTL, fd, request, argument)
}

/// ioctl(2) on a structure.
pub fn ioctl_on<T>(fd: i32, request: u32, argument: &mut T) -> Result<usize> {
    sys!(IOCTL, fd, request, core::ptr::from_mut(argument))
}

pub fn pipe() -> Result<[i32; 2]> {
    let mut ends = [0_i32; 2];
    sys!(PIPE2, ends.as_mut_ptr(), O_CLOEXEC)?;
    Ok(ends)
}

/// struct pollfd.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Poll {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

pub const POLLIN: i16 = 1;

/// struct timespec.
#[repr(C)]
pub struct Time {
    seconds: u64,
    nanoseconds: u64,
}

impl Time {
    pub fn of_millis(millis: u64) -> Time {
        Time { seconds: millis / 1000, nanoseconds: millis % 1000 * 1_000_000 }
    }
}

/// ppoll(2); `left` is the time there is, `None` for ever, and what is left of it afterwards: the kernel counts it down.
/// Returns how many are ready, 0 when the time is over.
pub fn poll(fds: &mut [Poll], left: Option<&mut Time>) -> Result<usize> {
    let time = left.map_or(core::ptr::null_mut(), core::ptr::from_mut);
    retry(|| sys!(PPOLL, fds.as_mut_ptr(), fds.len(), time, 0, 0))
}

/// mount(2); the empty string stands for an absent source, type or data.
pub fn mount(source: &CStr, target: &CStr, fstype: &CStr, flags: u64, data: &CStr) -> Result<()> {
    sys!(MOUNT, source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr()).map(drop)
}

/// umount2(2) with MNT_DETACH; the last name is not followed.
pub fn umount_detach_nofollow(target: &CStr) -> Result<()> {
    const DETACH_NOFOLLOW: usize = 2 | 8;
    sys!(UMOUNT2, target.as_ptr(), DETACH_NOFOLLOW).map(drop)
}

pub fn umount_detach(target: &CStr) -> Result<()> {
    const MNT_DETACH: usize = 2;
    sys!(UMOUNT2, target.as_ptr(), MNT_DETACH).map(drop)
}

pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    sys!(PIVOT_ROOT, new.as_ptr(), old.as_ptr()).map(drop)
}

pub fn chroot(path: &CStr) -> Result<()> {
    sys!(CHROOT, path.as_ptr()).map(drop)
}

pub fn chdir(path: &CStr) -> Result<()> {
    sys!(CHDIR, path.as_ptr()).map(drop)
}

pub fn fchdir(fd: i32) -> Result<()> {
    sys!(FCHDIR, fd).map(drop)
}

pub fn getcwd(buffer: &mut [u8]) -> Result<usize> {
    sys!(GETCWD, buffer.as_mut_ptr(), buffer.len())
}

pub const OPEN_TREE_CLONE: u32 = 1;

/// open_tree(2), close-on-exec.
pub fn open_tree(dir: i32, path: &CStr, flags: u32) -> Result<i32> {
    sys!(OPEN_TREE, dir, path.as_ptr(), flags as u64 | O_CLOEXEC).map(|fd| fd as i32)
}

/// move_mount(2) of a mount descriptor onto a path below `dir`; an empty path means `dir` itself.
pub fn move_mount(mount: i32, dir: i32, path: &CStr) -> Result<()> {
    const F_EMPTY_PATH: usize = 4;
    const T_SYMLINKS: usize = 0x10;
    const T_EMPTY_PATH: usize = 0x40;
    let flags = F_EMPTY_PATH | if path.is_empty() { T_EMPTY_PATH } else { T_SYMLINKS };
    sys!(MOVE_MOUNT, mount, c"".as_ptr(), dir, path.as_ptr(), flags).map(drop)
}

pub fn fsopen(fstype: &CStr) -> Result<i32> {
    const FSOPEN_CLOEXEC: usize = 1;
    sys!(FSOPEN, fstype.as_ptr(), FSOPEN_CLOEXEC).map(|fd| fd as i32)
}

pub fn fsconfig_string(fs: i32, key: &CStr, value: &CStr) -> Result<()> {
    const SET_STRING: usize = 1;
    sys!(FSCONFIG, fs, SET_STRING, key.as_ptr(), value.as_ptr(), 0).map(drop)
}

pub fn fsconfig_flag(fs: i32, key: &CStr) -> Result<()> {
    sys!(FSCONFIG, fs, 0, key.as_ptr(), 0, 0).map(drop)
}

pub fn fsconfig_fd(fs: i32, key: &CStr, value: i32) -> Result<()> {
    const SET_FD: usize = 5;
    sys!(FSCONFIG, fs, SET_FD, key.as_ptr(), 0, value).map(drop)
}

pub fn fsconfig_create(fs: i32) -> Result<()> {
    const CMD_CREATE: usize = 6;
    sys!(FSCONFIG, fs, CMD_CREATE, 0, 0, 0).map(drop)
}

pub fn fsmount(fs: i32, attributes: u64) -> Result<i32> {
    const FSMOUNT_CLOEXEC: usize = 1;
    sys!(FSMOUNT, fs, FSMOUNT_CLOEXEC, attributes).map(|fd| fd as i32)
}

/// struct mount_attr.
#[repr(C)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub userns: u64,
}

pub fn mount_setattr(mount: i32, flags: u32, attr: &MountAttr) -> Result<()> {
    let attr = core::ptr::from_ref(attr);
    sys!(MOUNT_SETATTR, mount, c"".as_ptr(), flags | AT_EMPTY_PATH, attr, size_of::<MountAttr>()).map(drop)
}

/// struct clone_args up to `cgroup`.
#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// clone3(2) without CLONE_VM: the child goes on with a copy of everything. Returns 0 in the child, else the pid;
/// the pidfd comes second.
pub fn clone3(flags: u64, exit_signal: u64) -> Result<(i32, i32)> {
    const CLONE_PIDFD: u64 = 0x1000;
    let mut pidfd = -1_i32;
    let args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal,
        ..Default::default()
    };
    let pid = sys!(CLONE3, &raw const args, size_of::<CloneArgs>())?;
    // SAFETY: `pidfd` is a live local that the kernel may have written behind the compiler's back.
    Ok((pid as i32, unsafe { core::ptr::read_volatile(&raw const pidfd) }))
}

/// clone(2) without CLONE_VM, otherwise as [`clone3`].
pub fn clone(flags: u64) -> Result<(i32, i32)> {
    const CLONE_PIDFD: u64 = 0x1000;
    let mut pidfd = -1_i32;
    let pid = sys!(CLONE, flags | CLONE_PIDFD, 0, &raw mut pidfd, 0, 0)?;
    // SAFETY: `pidfd` is a live local that the kernel may have written behind the compiler's back.
    Ok((pid as i32, unsafe { core::ptr::read_volatile(&raw const pidfd) }))
}

pub fn unshare(flags: u64) -> Result<()> {
    sys!(UNSHARE, flags).map(drop)
}

pub fn setns(fd: i32, kinds: u32) -> Result<()> {
    sys!(SETNS, fd, kinds).map(drop)
}

/// How a child ended.
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// Waits for a child; by its pid where a filter refuses waitid(2).
pub fn reap(pid: i32, pidfd: i32) -> Result<Ended> {
    const P_PIDFD: usize = 3;
    const EXITED: usize = 4;
    const WALL: usize = 0x4000_0000;
    const CLD_EXITED: i32 = 1;
    // struct siginfo: signal, errno, code, padding; then for SIGCHLD pid, uid, status.
    let mut info = [0_i32; 32];
    match retry(|| sys!(WAITID, P_PIDFD, pidfd, info.as_mut_ptr(), EXITED | WALL, 0)) {
        Err(fault) if fault.is_filtered() => {}
        other => {
            other?;
            return Ok(if info[2] == CLD_EXITED { Ended::Code(info[6]) } else { Ended::Signal(info[6]) });
        }
    }
    let mut status = 0_i32;
    retry(|| sys!(WAIT4, pid, &raw mut status, WALL, 0))?;
    Ok(match status & 0x7f {
        0 => Ended::Code(status >> 8 & 0xff),
        signal => Ended::Signal(signal),
    })
}

/// SIGKILL through a pidfd.
pub fn pidfd_kill(pidfd: i32) {
    const SIGKILL: usize = 9;
    let _ = sys!(PIDFD_SEND_SIGNAL, pidfd, SIGKILL, 0, 0);
}

pub fn getpid() -> i32 {
    sys!(GETPID).unwrap_or(0) as i32
}

/// A NULL-terminated array of pointers to C strings, as execve(2) wants it.
#[derive(Clone, Copy)]
pub struct Pointers(pub(super) *const *const u8);

pub fn execve(path: &CStr, argv: Pointers, env: Pointers) -> Fault {
    match sys!(EXECVE, path.as_ptr(), argv.0, env.0) {
        Err(fault) => fault,
        Ok(_) => Fault { errno: EINVAL, aux: nr::EXECVE as u32 },
    }
}

pub fn setsid() -> Result<()> {
    sys!(SETSID).map(drop)
}

pub fn sethostname(name: &CStr) -> Result<()> {
    sys!(SETHOSTNAME, name.as_ptr(), name.count_bytes()).map(drop)
}

pub fn setdomainname(name: &CStr) -> Result<()> {
    sys!(SETDOMAINNAME, name.as_ptr(), name.count_bytes()).map(drop)
}

pub fn umask(mask: u32) -> u32 {
    sys!(UMASK, mask).unwrap_or(0) as u32
}

pub fn personality(persona: u32) -> Result<()> {
    sys!(PERSONALITY, persona).map(drop)
}

/// set_mempolicy(2); the kernel takes one bit less than it is told (mm/mempolicy.c: get_nodes).
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    let (pointer, bits) =
        if nodes.is_empty() { (core::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    sys!(SET_MEMPOLICY, mode, pointer, bits).map(drop)
}

/// prctl(2) with numbers as its arguments.
pub fn prctl(option: u32, a: u64, b: u64) -> Result<usize> {
    sys!(PRCTL, option, a, b, 0, 0)
}

/// Effective, permitted and inheritable sets of this thread (capset(2), version 3).
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = [0x2008_0522_u32, 0];
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data = [half(0), half(32)];
    sys!(CAPSET, header.as_ptr(), data.as_ptr()).map(drop)
}

/// prlimit(2) of this process: sets `new` if given, returns what was before.
pub fn rlimit(resource: u64, new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let mut old = [0_u64; 2];
    let new = new.as_ref().map_or(core::ptr::null(), |new| new.as_ptr());
    sys!(PRLIMIT64, 0, resource, new, old.as_mut_ptr())?;
    Ok(old)
}

pub fn setgroups(groups: &[u32]) -> Result<()> {
    sys!(SETGROUPS, groups.len(), groups.as_ptr()).map(drop)
}

pub fn setresuid(uid: u32) -> Result<()> {
    sys!(SETRESUID, uid, uid, uid).map(drop)
}

pub fn setresgid(gid: u32) -> Result<()> {
    sys!(SETRESGID, gid, gid, gid).map(drop)
}

/// struct sock_fprog.
#[repr(C)]
struct FilterProgram {
    length: u16,
    filter: *const u64,
}

/// seccomp(SECCOMP_SET_MODE_FILTER) with instructions of 8 bytes each; returns the listener, if one was asked for.
pub fn seccomp(filter: &[u64], flags: u64) -> Result<usize> {
    const SET_MODE_FILTER: usize = 1;
    let program = FilterProgram { length: filter.len() as u16, filter: filter.as_ptr() };
    sys!(SECCOMP, SET_MODE_FILTER, flags, &raw const program)
}

/// keyctl(2) with numbers as its arguments.
pub fn keyctl(operation: u32, a: usize, b: usize) -> Result<usize> {
    sys!(KEYCTL, operation, a, b, 0, 0)
}

/// keyctl(2) that fills a buffer if there is room for all; returns how much there is.
pub fn keyctl_into(operation: u32, key: usize, buffer: &mut [u8]) -> Result<usize> {
    sys!(KEYCTL, operation, key, buffer.as_mut_ptr(), buffer.len(), 0)
}

/// keyctl(KEYCTL_JOIN_SESSION_KEYRING): the keyring's serial number.
pub fn join_session_keyring(name: &CStr) -> Result<usize> {
    sys!(KEYCTL, 1, name.as_ptr(), 0, 0, 0)
}

/// Default disposition for `signal`.
pub fn default_signal(signal: u32) {
    let action = [0_u64; 4];
    let _ = sys!(RT_SIGACTION, signal, action.as_ptr(), 0, 8);
}

pub fn ignore_signal(signal: u32) {
    const SIG_IGN: u64 = 1;
    let action = [SIG_IGN, 0, 0, 0];
    let _ = sys!(RT_SIGACTION, signal, action.as_ptr(), 0, 8);
}

/// SIGKILL to the process group of `pid`.
pub fn kill_group(pid: i32) {
    const SIGKILL: usize = 9;
    let _ = sys!(KILL, -(pid as isize), SIGKILL);
}

/// Blocks no signal.
pub fn unblock_signals() -> Result<()> {
    const SETMASK: usize = 2;
    let mask = 0_u64;
    sys!(RT_SIGPROCMASK, SETMASK, &raw const mask, 0, 8).map(drop)
}

pub fn socket_inet_dgram() -> Result<i32> {
    sys!(SOCKET, 2, 2 | O_CLOEXEC, 0).map(|fd| fd as i32)
}

pub fn accept(listener: i32) -> Result<i32> {
    retry(|| sys!(ACCEPT4, listener, 0, 0, O_CLOEXEC)).map(|fd| fd as i32)
}

/// Whether the effective ids may execute `path`. Where a filter refuses the call, the real ids are asked, which are the
/// same by then.
pub fn executable(path: &CStr) -> Result<()> {
    match sys!(FACCESSAT2, AT_FDCWD, path.as_ptr(), 1, AT_EACCESS) {
        Err(fault) if fault.is_filtered() => sys!(FACCESSAT, AT_FDCWD, path.as_ptr(), 1).map(drop),
        other => other.map(drop),
    }
}

/// Whether `path` is a directory: newfstatat(2), which every filter allows.
pub fn is_directory(path: &CStr) -> Result<bool> {
    // struct stat (asm/stat.h): 128 or 144 bytes; st_mode follows three words on x86_64, two elsewhere.
    const MODE: usize = if cfg!(target_arch = "x86_64") { 6 } else { 4 };
    let mut stat = [0_u32; 36];
    sys!(NEWFSTATAT, AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0)?;
    Ok(stat[MODE] & S_IFMT == S_IFDIR)
}

/// Both ends of a socket that keeps messages apart.
pub fn socketpair() -> Result<[i32; 2]> {
    const AF_UNIX: usize = 1;
    const SEQPACKET: u64 = 5;
    let mut ends = [0_i32; 2];
    sys!(SOCKETPAIR, AF_UNIX, SEQPACKET | O_CLOEXEC, 0, ends.as_mut_ptr())?;
    Ok(ends)
}

/// struct iovec.
#[repr(C)]
struct IoVec {
    base: *const u8,
    length: usize,
}

/// struct msghdr.
#[repr(C)]
struct MsgHdr {
    name: usize,
    name_length: usize,
    iov: *const IoVec,
    iov_length: usize,
    control: *mut Control,
    control_length: usize,
    flags: usize,
}

/// One SCM_RIGHTS control message with one descriptor.
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    fd: i32,
    pad: i32,
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;

/// Receives one message with one descriptor, which is closed by exec; `None` for a message without.
pub fn receive(socket: i32, buffer: &mut [u8]) -> Result<(usize, Option<i32>)> {
    const CMSG_CLOEXEC: usize = 0x4000_0000;
    let iov = IoVec { base: buffer.as_mut_ptr(), length: buffer.len() };
    let mut control = Control { length: 0, level: 0, kind: 0, fd: -1, pad: 0 };
    let mut message = MsgHdr {
        name: 0,
        name_length: 0,
        iov: &raw const iov,
        iov_length: 1,
        control: &raw mut control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    let length = retry(|| sys!(RECVMSG, socket, &raw mut message, CMSG_CLOEXEC))?;
    let one = (control.length, control.level, control.kind) == (20, SOL_SOCKET, SCM_RIGHTS);
    Ok((length, one.then_some(control.fd)))
}

/// Sends one message with at most one descriptor; SIGPIPE is never raised.
pub fn send(socket: i32, bytes: &[u8], fd: Option<i32>) -> Result<()> {
    const NOSIGNAL: usize = 0x4000;
    let iov = IoVec { base: bytes.as_ptr(), length: bytes.len() };
    let mut control =
        Control { length: 20, level: SOL_SOCKET, kind: SCM_RIGHTS, fd: fd.unwrap_or(-1), pad: 0 };
    let (control_at, control_length) =
        if fd.is_some() { (&raw mut control, size_of::<Control>()) } else { (core::ptr::null_mut(), 0) };
    let message = MsgHdr {
        name: 0,
        name_length: 0,
        iov: &raw const iov,
        iov_length: 1,
        control: control_at,
        control_length,
        flags: 0,
    };
    retry(|| sys!(SENDMSG, socket, &raw const message, NOSIGNAL)).map(drop)
}
