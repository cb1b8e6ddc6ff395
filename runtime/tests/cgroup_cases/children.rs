// SPDX-License-Identifier: Apache-2.0
//! Processes to put into groups: shells, and this program again in a role.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A shell that waits for [`Waiting::go`] and then runs its script; killed when dropped.
pub struct Waiting(pub Child);

impl Waiting {
    pub fn new(script: &str) -> Waiting {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read go; {script}")]);
        Waiting(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Lets it run to its end; what it wrote.
    pub fn output(mut self) -> String {
        self.go();
        let mut text = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut text).unwrap();
        self.0.wait().unwrap();
        text
    }

    /// Waits for its death.
    pub fn dies_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell that becomes this program in `role` once it is told to go.
pub fn role(role: &str) -> Waiting {
    let me = std::env::current_exe().unwrap();
    Waiting::new(&format!("CORTEN_TEST_ROLE={role} exec {} --exact role --nocapture", me.display()))
}

/// The roles.
pub fn play(role: &str) {
    // SAFETY: fork, _exit and pause in a process whose only other thread is the test harness waiting for this one; the
    // child uses nothing but these.
    unsafe {
        match role {
            // One process at a time, but always another one: it forks and leaves.
            "comet" => loop {
                if libc::fork() > 0 {
                    libc::_exit(0);
                }
            },
            // As many as may be; each tries for ever.
            "bomb" => loop {
                libc::fork();
            },
            _ => loop {
                libc::pause();
            },
        }
    }
}

/// A process born in the group, by clone3(CLONE_INTO_CGROUP): it pauses until killed.
pub fn born_in(group: std::os::fd::BorrowedFd<'_>) -> std::io::Result<i32> {
    use std::os::fd::AsRawFd;
    let mut args = [0u64; 11];
    args[0] = 0x2_0000_0000; // CLONE_INTO_CGROUP
    args[4] = 17; // SIGCHLD
    args[10] = group.as_raw_fd() as u64;
    // SAFETY: the structure is clone_args of 88 bytes; without CLONE_VM the child is a copy, as after fork, and makes raw
    // system calls only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, 88) };
    match pid {
        ..0 => Err(std::io::Error::last_os_error()),
        0 => loop {
            // SAFETY: as above.
            unsafe { libc::pause() };
        },
        pid => Ok(i32::try_from(pid).unwrap()),
    }
}

/// Kills and reaps.
pub fn reap(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL);
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
}
