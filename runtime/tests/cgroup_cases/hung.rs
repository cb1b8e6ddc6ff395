// SPDX-License-Identifier: Apache-2.0
//! A FUSE file system that does not answer: whoever looks at it sleeps uninterruptibly, SIGKILL or not, until it goes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The mounted file system; [`Hung::release`] (or dropping) lets its victims go.
pub struct Hung {
    dir: PathBuf,
    device: Option<File>,
}

impl Hung {
    /// `None` where there is no FUSE.
    pub fn new(name: &str) -> Option<Hung> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        if let Err(errno) = mount(name, &dir, "fuse", MountFlags::NOSUID, options.as_c_str()) {
            std::fs::remove_dir(&dir).unwrap();
            println!("cannot mount FUSE: {errno}");
            return None;
        }
        let mut hung = Hung { dir, device: Some(device) };
        let unique = hung.take_request();
        // fuse_out_header, then fuse_init_out of 64 bytes: version 7.31 and one page a write (linux/fuse.h).
        let mut reply = [0u8; 80];
        reply[0] = 80;
        reply[8..16].copy_from_slice(&unique);
        reply[16] = 7;
        reply[20] = 31;
        reply[37] = 16;
        reply[40] = 1;
        hung.device.as_mut().unwrap().write_all(&reply).unwrap();
        Some(hung)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Waits until somebody asks for something; that request is never answered.
    pub fn take_request(&mut self) -> [u8; 8] {
        let mut request = vec![0; 1 << 16];
        let n = self.device.as_mut().unwrap().read(&mut request).unwrap();
        assert!(n >= 16);
        request[8..16].try_into().unwrap()
    }

    /// Ends the connection: every waiting process gets an error.
    pub fn release(&mut self) {
        self.device = None;
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.release();
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.dir);
    }
}
