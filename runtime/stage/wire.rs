// SPDX-License-Identifier: Apache-2.0
//! What the host and the stage say to each other: the encoded program and the 16-byte messages.
//!
//! Compiled twice: into the sealed stage (core only) and into the std crate, so that one definition serves both.
//! The program lies in a sealed memfd: [`Header`], then [`Rec`]s, then a blob of NUL-terminated strings and of
//! 8-byte aligned arrays. All offsets count from the start of the file.

/// First word of a program: "CRTN".
pub const MAGIC: u32 = 0x4e54_5243;
/// Layout version; host and stage are built together, so they must agree exactly.
pub const VERSION: u32 = 1;
/// A reference to no descriptor.
pub const NONE: i32 = i32::MIN;
/// How many slots the stage has for descriptors that it opens itself.
pub const SLOTS: usize = 16;

/// A slot as a reference: references >= 0 are inherited descriptors, negative ones are slots.
pub const fn slot(n: usize) -> i32 {
    -1 - (n as i32)
}

/// Start of a program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
    /// How many records follow.
    pub ops: u32,
    /// Offset of the sorted array (i64) of descriptors to keep; all others from 3 on are closed at the start.
    pub keep: u32,
    /// Its length.
    pub keep_len: u32,
    /// The socket to the host.
    pub sync: i32,
    /// Memory for the [`log`] of a traced stage, or [`NONE`].
    pub log: i32,
    /// Its length in 64-bit words.
    pub log_words: u32,
}

/// The log of a traced stage: 64-bit words, zero until something is known, which are readings of the processor's counter
/// ([`super::ticks`]) and numbers of calls, and nothing else.
pub mod log {
    /// How many operations the program has. The host writes it.
    pub const OPS: usize = 0;
    /// When the stage began.
    pub const BEGUN: usize = 1;
    /// When operation n ended: at `ENDS + n`. Behind the last of these are the system calls in the order in which they were made.
    pub const ENDS: usize = 2;
    /// Words of a system call: when it began; when it ended; its number << 32 | errno.
    pub const CALL: usize = 3;
}

/// One operation; what the fields mean is said at each code.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Rec {
    /// Operation, one of [`code`].
    pub code: u16,
    /// Small flags of the operation.
    pub y: u16,
    /// First descriptor reference.
    pub r: i32,
    /// Second descriptor reference.
    pub q: i32,
    /// 32-bit operand.
    pub x: u32,
    /// 64-bit operand.
    pub a: u64,
    /// 64-bit operand.
    pub b: u64,
    /// Offset of the first string or array.
    pub s: u32,
    /// Offset of the second string or array.
    pub t: u32,
}

/// Operation codes.
pub mod code {
    /// setns(r, x).
    pub const SETNS: u16 = 1;
    /// unshare(x).
    pub const UNSHARE: u16 = 2;
    /// Clone a child of our parent into the namespaces `a`, hand its pidfd to the host, exit; the child goes on.
    pub const HOP: u16 = 3;
    /// setresgid(0), setresuid(0): become root of the user namespace.
    pub const BECOME_ROOT: u16 = 4;
    /// Join the session keyring named `s`; `y`: it must be a new one.
    pub const KEYRING: u16 = 5;
    /// setsid().
    pub const SETSID: u16 = 6;
    /// Bring `lo` up.
    pub const LOOPBACK: u16 = 7;
    /// Tell the host that barrier `x` is reached, with descriptor `r` if any; wait for its word.
    pub const BARRIER: u16 = 8;
    /// sethostname(s).
    pub const HOSTNAME: u16 = 9;
    /// setdomainname(s).
    pub const DOMAINNAME: u16 = 10;
    /// mount("", path s, flags a): change propagation.
    pub const PROPAGATE: u16 = 11;
    /// move_mount(r, onto q).
    pub const ATTACH: u16 = 12;
    /// move_mount(r, onto host path s), before pivot_root only.
    pub const ATTACH_HOST: u16 = 13;
    /// Make r the root of all further look-ups.
    pub const ROOT: u16 = 14;
    /// Find or make the mount target s; y: TARGET_* flags; into slot r. q: the mount's source, whose type it takes.
    pub const TARGET: u16 = 15;
    /// fsopen(s) into slot r.
    pub const FS_OPEN: u16 = 16;
    /// fsconfig(r, SET_STRING, s, t).
    pub const FS_SET: u16 = 17;
    /// fsconfig(r, SET_FLAG, s).
    pub const FS_FLAG: u16 = 18;
    /// fsconfig(r, CREATE), fsmount(r, attributes a); slot r then holds the mount.
    pub const FS_MOUNT: u16 = 19;
    /// fsconfig(r, mode = mode of q) unless the target q was made by us.
    pub const FS_MODE: u16 = 20;
    /// mount_setattr(r, set a, clear b, propagation x, y = 1: whole tree); q: user namespace for an id mapping; s: cleared as
    /// well, but for what is locked.
    pub const SET_ATTR: u16 = 21;
    /// Copy the content of directory q into directory r.
    pub const COPY_UP: u16 = 22;
    /// mknod(t in directory s of the mount r, or of the root, made if missing; mode x, device a), owned by b >> 32 :
    /// b & 0xffffffff.
    pub const MKNOD: u16 = 23;
    /// symlink(t, at the name that offset x tells in directory s of the mount r, or of the root, made if missing).
    pub const SYMLINK: u16 = 24;
    /// Hide path s, looked up as x from the mount r, if any; t: the label of what covers a directory, 0 for none.
    pub const MASK: u16 = 25;
    /// Make path s read-only, looked up as x from the mount r, if any.
    pub const READONLY: u16 = 26;
    /// pivot_root into the root.
    pub const PIVOT: u16 = 27;
    /// Move the root onto /, take the x mounts of the string array s below it away (relative paths), and chroot.
    pub const MOVE_ROOT: u16 = 28;
    /// Open s below r and write t.
    pub const WRITE: u16 = 29;
    /// Open a terminal of the container's devpts: master into slot r, its other side into slot q; a: 0 or
    /// 1 << 32 | rows << 16 | columns.
    pub const CONSOLE: u16 = 30;
    /// Bind terminal q onto /dev/console.
    pub const CONSOLE_BIND: u16 = 31;
    /// Make terminal r descriptors 0, 1 and 2.
    pub const CONSOLE_STDIO: u16 = 32;
    /// Give descriptors 0, 1, 2 to user x.
    pub const CHOWN_STDIO: u16 = 33;
    /// umask(x).
    pub const UMASK: u16 = 34;
    /// personality(x).
    pub const PERSONALITY: u16 = 35;
    /// PR_SET_NO_NEW_PRIVS.
    pub const NO_NEW_PRIVS: u16 = 36;
    /// Change to directory s; y = 1: a refusal is tried again later; y = 2: this is that later.
    pub const CHDIR: u16 = 37;
    /// setgroups(array s of x u32). y = 1: a denial is passed over.
    pub const GROUPS: u16 = 38;
    /// PR_SET_KEEPCAPS, setresgid(b), setresuid(a).
    pub const SET_IDS: u16 = 39;
    /// Drop every capability up to x that is not in mask a from the bounding set.
    pub const BOUND: u16 = 40;
    /// capset(effective a, permitted b, inheritable s | t << 32).
    pub const CAPSET: u16 = 41;
    /// Raise the ambient capabilities in mask a.
    pub const AMBIENT: u16 = 42;
    /// seccomp(filter s of x instructions, flags a); the listener, if any, into slot r.
    pub const SECCOMP: u16 = 43;
    /// Choose the first executable among the strings of array s (x of them).
    pub const LOOKUP: u16 = 44;
    /// Find the home directory of user x in /etc/passwd and put it at index a of the string array s.
    pub const HOME: u16 = 45;
    /// Wait at the gate that CLOSE kept for `start`; from here on talk to it (or to what CLOSE kept for that).
    pub const GATE: u16 = 46;
    /// Run the hook described at s (`HookRec`); y: its number.
    pub const HOOK: u16 = 47;
    /// Keep descriptors below x, the one to the host (at x), the gate r, if any (at x + 1), what slot q holds, if
    /// any (at x + 2), and s, which GATE is to talk to then, if any (at x + 3); close all others.
    pub const CLOSE: u16 = 48;
    /// execve(the chosen string, argv array s, environment array t).
    pub const EXEC: u16 = 49;
    /// chroot to directory r (exec into a container without pivot_root).
    pub const CHROOT: u16 = 50;
    /// close(r).
    pub const CLOSE_FD: u16 = 51;
    /// All signals back to their defaults, none blocked.
    pub const SIGNALS: u16 = 52;
    /// mount(source t, on r, type s, flags a, data b as offset): for options that fsconfig cannot carry.
    pub const MOUNT_CLASSIC: u16 = 53;
    /// Resource limits: array s of x `RlimitRec`s. y = 1: raise hard limits that are too low, and leave to the
    /// host what is refused (a bit for each in the next barrier's `aux`); y = 2: set them.
    pub const RLIMITS: u16 = 54;
    /// chdir(host path s), before pivot_root only.
    pub const CHDIR_HOST: u16 = 55;
    /// Make directory s and what is missing before it, if that can be done.
    pub const MKDIR: u16 = 56;
    /// Make descriptor 0 the controlling terminal of our session.
    pub const CONSOLE_CONTROL: u16 = 57;
    /// set_mempolicy(x, array s of a words).
    pub const MEM_POLICY: u16 = 58;
    /// setxattr("." in the mount r, security.selinux, s).
    pub const LABEL: u16 = 59;
    /// Wait for the namespace that the host made meanwhile, and join it: setns(it, x).
    pub const JOIN_SENT: u16 = 60;
    /// move_mount(q, onto the target s, which goes into slot r; y: TARGET_* flags), or, if q is a symbolic link, make
    /// the same link at name x in directory t.
    pub const ATTACH_OR_LINK: u16 = 61;
    /// Keep the caller's groups: nothing to do.
    pub const KEEP_GROUPS: u16 = 62;
    /// Copy the mount tree at host path s (open_tree flags x) to descriptor r; y: what its top must be ([`super::TREE_DIR`] …).
    pub const OPEN_TREE: u16 = 63;
    /// setgroups() of none.
    pub const DROP_GROUPS: u16 = 64;
    /// Copy the mount tree at path s of the root (open_tree flags x) into slot r; y: [`super::TREE_PROC`] and
    /// [`super::TREE_LINK`] as its top demands, [`super::TARGET_LINK`]: a link at the end is meant itself.
    pub const COPY_INSIDE: u16 = 65;
    /// As CAPSET, with CAP_SYS_ADMIN effective and permitted besides.
    pub const LEND_ADMIN: u16 = 66;
    /// The context of a procfs of pid namespace q, into slot r.
    pub const PROC_OF: u16 = 67;
    /// Children that end, and orphans that come to us, leave no zombie.
    pub const DISOWN: u16 = 68;
    /// Be called s, and wait for ever.
    pub const HOLD: u16 = 69;
    /// dup3(r, q), which s is a path of in the procfs x; umount2(that, with all below it).
    pub const UNMOUNT: u16 = 70;
}

/// The tree's top must be a directory.
pub const TREE_DIR: u16 = 1;
/// The tree must be a procfs.
pub const TREE_PROC: u16 = 2;
/// If it is a symbolic link, that itself is opened (`ATTACH_OR_LINK`).
pub const TREE_LINK: u16 = 4;

/// The target must be a directory.
pub const TARGET_DIR: u16 = 1;
/// No symbolic link on the way.
pub const TARGET_NOFOLLOW: u16 = 2;
/// The target may lie in a procfs.
pub const TARGET_IN_PROC: u16 = 4;
/// Nothing is made: a missing target is an error.
pub const TARGET_EXISTING: u16 = 8;
/// The last component is not followed if it is a symbolic link.
pub const TARGET_LINK: u16 = 16;

/// A hook for the stage: offsets of strings and string arrays.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct HookRec {
    /// The program's path.
    pub path: u32,
    /// argv array.
    pub argv: u32,
    /// Environment array.
    pub env: u32,
    /// What precedes the pid in the state given on stdin.
    pub before: u32,
    /// What follows it.
    pub after: u32,
    /// Milliseconds; 0 for no limit.
    pub timeout: u32,
    /// AVOID_*: calls that the filter kills for or refuses.
    pub avoid: u32,
}

/// A hook gets no session of its own.
pub const AVOID_SETSID: u32 = 1;
/// A hook is waited for without poll, and so without a timeout.
pub const AVOID_PPOLL: u32 = 2;

/// A resource limit for the stage.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RlimitRec {
    /// RLIMIT_* number.
    pub resource: u64,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// `Message::op` of a fault before the first operation.
pub const NO_OP: u32 = u32::MAX;

/// Barriers: where host and stage meet.
pub mod barrier {
    /// The hop's pidfd is in the message.
    pub const HOP: u8 = 2;
    /// prestart and createRuntime hooks may run; network devices may be moved.
    pub const HOOKS: u8 = 3;
    /// The terminal's master is in the message.
    pub const CONSOLE: u8 = 4;
    /// The seccomp listener is in the message.
    pub const LISTENER: u8 = 5;
    /// Everything is ready for the user's program.
    pub const READY: u8 = 6;
    /// The network namespace is there: devices may be moved into it.
    pub const NETWORK: u8 = 7;
    /// Before the stage: it has joined its groups by itself, or `aux` is the errno that says why not.
    pub const JOINED: u8 = 8;
    /// The container's device nodes are made: rules that would have refused them may come.
    pub const DEVICES: u8 = 9;
    /// As LISTENER, under a filter that refuses sendmsg(2): `errno` is the descriptor's number in the stage.
    pub const LISTENER_NUMBER: u8 = 10;
    /// The user namespace is there: it may be mapped.
    pub const MAPPED: u8 = 11;
}

/// Kinds of messages.
pub mod kind {
    /// stage → host: `barrier` is reached.
    pub const REACHED: u8 = 1;
    /// host → stage: go on.
    pub const GO: u8 = 2;
    /// stage → host: operation `op` failed in system call `aux` with `errno`. What a failed hook wrote follows.
    pub const FAULT: u8 = 3;
    /// stage → host: operation `op` could not be done fully; the stage goes on.
    pub const WARNING: u8 = 4;
}

/// `aux` of a fault that is no system call.
pub mod aux {
    /// A hook ended with exit status `errno`.
    pub const HOOK_STATUS: u32 = 0x1_0001;
    /// A hook was killed by signal `errno`.
    pub const HOOK_SIGNAL: u32 = 0x1_0002;
    /// A hook ran out of time.
    pub const HOOK_TIMEOUT: u32 = 0x1_0003;
    /// No candidate for the user's program is executable.
    pub const LOOKUP: u32 = 0x1_0004;
    /// The working directory is outside the root.
    pub const OUTSIDE: u32 = 0x1_0005;
    /// What was found is not what the plan demands (type, device number, file system).
    pub const MISMATCH: u32 = 0x1_0006;
    /// The program itself is malformed.
    pub const PROGRAM: u32 = 0x1_0007;
    /// A user namespace has locked flags of the mount: these ([`super::super::locks`]), beside this bit.
    pub const LOCKED: u32 = 0x100_0000;
}

/// One message.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`barrier`].
    pub barrier: u8,
    /// Zero.
    pub zero: u16,
    /// Index of the operation.
    pub op: u32,
    /// errno, exit status or signal.
    pub errno: i32,
    /// Number of the failed system call, or one of [`aux`].
    pub aux: u32,
}

impl Message {
    /// The message's bytes, as both sides (one machine) lay them out.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.kind;
        bytes[1] = self.barrier;
        bytes[4..8].copy_from_slice(&self.op.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.errno.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.aux.to_ne_bytes());
        bytes
    }

    /// Reads a message.
    pub fn from_bytes(b: [u8; 16]) -> Message {
        Message {
            kind: b[0],
            barrier: b[1],
            zero: 0,
            op: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            errno: i32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            aux: u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        }
    }
}
