// SPDX-License-Identifier: Apache-2.0
//! A thread beside this one, for a piece of work.
//!
//! The standard library's would do but for its handles: they come from the C library's allocator whatever the program's own is, and
//! where that has no memory the process is aborted in the midst of a launch (`handle_alloc_error`; seen with Rust 1.95 and mmap(2)
//! failing). Here all memory is the program's, and the one call that can fail is told.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

use crate::error::{Error, Kind, Result};

/// As much as the standard library's threads have; pages that are not touched cost nothing.
const STACK: usize = 2 << 20;

/// What the thread does, and what came of it.
struct Task<'a, T> {
    work: Option<Box<dyn FnOnce() -> T + Send + 'a>>,
    result: Option<T>,
}

/// A thread that works.
#[must_use]
pub struct ThreadAtWork<T> {
    id: libc::pthread_t,
    /// Of a `Box`, which the thread uses until it has ended.
    task: *mut Task<'static, T>,
    owns: PhantomData<T>,
}

impl<T: Send + 'static> ThreadAtWork<T> {
    /// Starts one.
    ///
    /// # Errors
    /// EAGAIN, whatever the reason is: so pthread_create(3).
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> Result<Self> {
        let task = Box::into_raw(Box::new(Task { work: Some(Box::new(work)), result: None }));
        // SAFETY: the task is freed by `finish` alone, when the thread has ended; what it does borrows nothing.
        match unsafe { create(task) } {
            Ok(id) => Ok(ThreadAtWork { id, task, owns: PhantomData }),
            Err(error) => {
                // SAFETY: it came out of a Box, and no thread has got it.
                drop(unsafe { Box::from_raw(task) });
                Err(error)
            }
        }
    }

    /// Waits for its end: what came of the work.
    ///
    /// # Errors
    /// None but of a thread that ended without having done it.
    pub fn finish(self) -> Result<T> {
        join(self.id);
        // SAFETY: it came out of a Box, and the thread that used it has ended.
        let task = unsafe { Box::from_raw(self.task) };
        task.result.ok_or_else(nothing_done)
    }
}

/// Does `work` on a thread of its own, and waits for that.
///
/// # Errors
/// As [`ThreadAtWork::start`].
pub(crate) fn on_another_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let mut task = Task { work: Some(Box::new(work)), result: None };
    // SAFETY: the thread has ended before this frame does, and so before anything that the work borrows.
    let id = unsafe { create(&raw mut task) }?;
    join(id);
    task.result.ok_or_else(nothing_done)
}

/// # Safety
/// The task, and what its work borrows, must be there until the thread has ended, and be touched by nobody else until then.
unsafe fn create<T: Send>(task: *mut Task<'_, T>) -> Result<libc::pthread_t> {
    let mut attributes = MaybeUninit::uninit();
    let mut id = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised by the first call, which cannot fail, and are used before they end; `run` is given the
    // type that it takes, by the caller's promise for as long as it needs.
    let failed = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
        let failed = libc::pthread_create(id.as_mut_ptr(), attributes.as_ptr(), run::<T>, task.cast());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    match failed {
        // SAFETY: it has been written by the call that succeeded.
        0 => Ok(unsafe { id.assume_init() }),
        errno => Err(Error::os("clone(thread)", errno)),
    }
}

extern "C" fn run<T: Send>(task: *mut c_void) -> *mut c_void {
    // SAFETY: `create` hands over a task of this type, for this thread alone.
    let task = unsafe { &mut *task.cast::<Task<'_, T>>() };
    task.result = task.work.take().map(|work| work());
    null_mut()
}

fn join(id: libc::pthread_t) {
    // SAFETY: a thread of `create` that nobody has joined; what it returned is not asked for.
    unsafe { libc::pthread_join(id, null_mut()) };
}

fn nothing_done() -> Error {
    Error::new(Kind::Os, "a thread has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_borrows_and_its_result_comes_back() {
        let mut seen = vec![1];
        let here = std::thread::current().id();
        let there = on_another_thread(|| {
            seen.push(2);
            std::thread::current().id()
        });
        assert!(there.unwrap() != here && seen == [1, 2]);
        let words = String::from("kept");
        let thread = ThreadAtWork::start(move || words + " and given back").unwrap();
        assert_eq!(thread.finish().unwrap(), "kept and given back");
    }
}
