// SPDX-License-Identifier: Apache-2.0
//! A procfs of a pid namespace that the stage is not in: whoever is in there must not find the stage, which has the host's tree
//! and all its privileges while it sets a container up (decisions/0066).

use super::sys::{self, Fault, Result};
use super::wire::Rec;
use super::{MALFORMED, Stage, identity};

const SIGCHLD: u64 = 17;
const CLONE_NEWNS: u64 = 0x2_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWPID: u32 = 0x2000_0000;
const MS_REC: u64 = 0x4000;
const MS_SLAVE: u64 = 1 << 19;

impl Stage {
    /// The context of a procfs of namespace q, into slot r. Linux 6.17 and later take the namespace by its descriptor; before, a
    /// context belongs to the namespace of its maker, so that one must go there.
    #[inline(never)]
    pub(super) fn proc_of(&mut self, rec: &Rec) -> Result<()> {
        let namespace = self.fd(rec.q)?;
        let context = sys::fsopen(c"proc")?;
        let context = match sys::fsconfig_fd(context, c"pidns", namespace) {
            // Once our children are in there, none of them may be one that still has everything.
            Err(Fault { errno: sys::EINVAL, .. }) if !self.enters => {
                sys::close(context);
                made_inside(namespace)?
            }
            other => other.map(|()| context)?,
        };
        self.put(rec.r, context);
        Ok(())
    }
}

/// Has a context made by a process that is in the namespace and has nothing else.
fn made_inside(namespace: i32) -> Result<i32> {
    let [ours, theirs] = sys::socketpair()?;
    let (pid, pidfd) = sys::clone(SIGCHLD)?;
    if pid == 0 {
        let made = send_from_inside(namespace, theirs);
        if let Err(fault) = made {
            let words = [fault.errno.to_ne_bytes(), fault.aux.to_ne_bytes()];
            let _ = sys::send(theirs, words.as_flattened(), None);
        }
        sys::exit(i32::from(made.is_err()));
    }
    sys::close(theirs);
    let mut words = [0; 8];
    let received = sys::receive(ours, &mut words);
    sys::reap(pid, pidfd)?;
    sys::close(ours);
    sys::close(pidfd);
    let [errno, aux] = [[0, 1, 2, 3], [4, 5, 6, 7]].map(|at: [usize; 4]| at.map(|i| words[i]));
    match received? {
        (_, Some(context)) => Ok(context),
        (8, None) => Err(Fault { errno: i32::from_ne_bytes(errno), aux: u32::from_ne_bytes(aux) }),
        _ => Err(MALFORMED),
    }
}

/// Still outside: gives away tree, descriptors and capabilities, then clones the one that goes inside.
fn send_from_inside(namespace: i32, socket: i32) -> Result<()> {
    sys::setns(namespace, CLONE_NEWPID)?;
    keep_alone(socket)?;
    // In a user namespace of its own, what it still has is worth nothing outside of that. Where none may be made, it is
    // CAP_SYS_ADMIN alone.
    if sys::unshare(CLONE_NEWUSER | CLONE_NEWNS).is_err() {
        sys::unshare(CLONE_NEWNS)?;
    }
    leave_tree()?;
    identity::only_admin()?;
    let (pid, pidfd) = sys::clone(SIGCHLD)?;
    if pid != 0 {
        return sys::reap(pid, pidfd).map(drop);
    }
    let context = sys::fsopen(c"proc")?;
    sys::send(socket, b"context", Some(context))
}

/// Closes every descriptor but this one.
fn keep_alone(fd: i32) -> Result<()> {
    if fd > 0 {
        sys::close_range(0, fd as u32 - 1)?;
    }
    sys::close_range(fd as u32 + 1, u32::MAX)
}

/// An empty file system becomes all there is.
fn leave_tree() -> Result<()> {
    sys::mount(c"", c"/", c"", MS_SLAVE | MS_REC, c"")?;
    let context = sys::fsopen(c"tmpfs")?;
    sys::fsconfig_create(context)?;
    let empty = sys::fsmount(context, 0)?;
    sys::move_mount(empty, sys::AT_FDCWD, c"/")?;
    sys::fchdir(empty)?;
    // The old root comes to lie on the new one, and `.` is looked up from the top (pivot_root(2), NOTES).
    sys::pivot_root(c".", c".")?;
    sys::umount_detach(c".")?;
    sys::close(context);
    sys::close(empty);
    sys::chdir(c"/")
}
