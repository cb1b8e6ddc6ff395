// SPDX-License-Identifier: Apache-2.0
//! Waiting for children, whatever they ended by.

/// Takes a child (-1: any) that has ended: its exit code, a signal counts 128 more. Never waits: a process whose first thread has ended
/// is a zombie to see, and not to be had before its other threads have ended, too.
pub fn reaped(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: numbers, and a status of this frame.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } > 0;
    let code = match libc::WIFSIGNALED(status) {
        true => 128 + libc::WTERMSIG(status),
        false => libc::WEXITSTATUS(status),
    };
    ended.then_some(code)
}

/// A child with this pid, which must be free, that only waits to be killed (clone3(2), `set_tid`).
///
/// # Errors
/// EEXIST when somebody has it.
pub fn child_with_pid(pid: i32) -> std::io::Result<()> {
    let wanted = [pid];
    // SAFETY: all zeroes is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = wanted.as_ptr() as u64;
    args.set_tid_size = 1;
    // SAFETY: without CLONE_VM the child has a copy of everything; it makes one call, with no memory, again and again.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) {
            -1 => Err(std::io::Error::last_os_error()),
            0 => loop {
                libc::pause();
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::harness::hostdiff::all_processes;
    use crate::harness::test::reap_orphans;

    extern "C" fn stay(_: *mut libc::c_void) -> *mut libc::c_void {
        loop {
            // SAFETY: no memory is involved.
            unsafe { libc::pause() };
        }
    }

    /// A child whose first thread has ended while another stays.
    fn headless() -> i32 {
        // SAFETY: the child makes a thread that only waits, and ends its own; it never returns. musl's clone(3) makes no threads.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let mut thread = std::mem::zeroed();
                if libc::pthread_create(&raw mut thread, std::ptr::null(), stay, std::ptr::null_mut()) != 0 {
                    libc::_exit(99);
                }
                libc::syscall(libc::SYS_exit, 0);
            }
            pid
        }
    }

    fn ended_by(signal: i32) -> i32 {
        // SAFETY: the child makes calls with numbers only.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::kill(libc::getpid(), signal);
                libc::_exit(0);
            }
            pid
        }
    }

    /// Reaps until `pid` is among what is reaped. Other tests' children are theirs.
    fn until_reaped(pid: i32) -> i32 {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match reap_orphans(|other| other != pid).first() {
                Some((_, code)) => return *code,
                None => assert!(Instant::now() < end, "{pid} is not reaped"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn whoever_has_ended_in_part_is_not_waited_for() {
        let pid = headless();
        while !all_processes().iter().any(|process| process.pid == pid && process.zombie) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reap_orphans(|other| other != pid), []);
        // SAFETY: our own child, which nobody has waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        assert_eq!(until_reaped(pid), 128 + libc::SIGKILL);
    }

    #[test]
    fn ends_by_any_signal_are_seen() {
        for signal in [libc::SIGKILL, libc::SIGRTMIN() + 3] {
            assert_eq!(until_reaped(ended_by(signal)), 128 + signal);
        }
    }
}
