// SPDX-License-Identifier: Apache-2.0
//! POSIX extended regular expressions (regcomp(3)), as the C library has them.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// A compiled expression.
#[derive(Debug)]
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// The C library's words for what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let pattern = CString::new(pattern).map_err(|_| "it holds a NUL byte".to_owned())?;
        // On the heap from the first: what it has compiled may point into it.
        let mut compiled: Box<MaybeUninit<libc::regex_t>> = Box::new_uninit();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the pattern is a C string, and `compiled` has room for what is written there.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), flags) };
        if code != 0 {
            return Err(words(code));
        }
        // SAFETY: regcomp(3) has written it, as it says by 0.
        Ok(Regex(unsafe { compiled.assume_init() }))
    }

    /// Whether it matches anywhere in `text`; in none with a NUL byte.
    pub fn is_match(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the expression is compiled, the text a C string, and no place of a match is asked for.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is used no more.
        unsafe { libc::regfree(&raw mut *self.0) }
    }
}

/// What an error of regcomp(3) means. Its text needs no expression.
fn words(code: libc::c_int) -> String {
    let mut text = [0_u8; 128];
    // SAFETY: `text` is as long as is said; without an expression the code alone counts.
    unsafe { libc::regerror(code, std::ptr::null(), text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text)
        .map_or_else(|_| code.to_string(), |text| text.to_string_lossy().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_and_anywhere() {
        for (pattern, text, matches) in [
            ("web", "my-web-1", true),
            ("^web[0-9]+$", "web12", true),
            ("^web[0-9]+$", "web12a", false),
            ("a|b", "xb", true),
            ("^(a.c){2}$", "abcadc", true),
            ("", "anything", true),
        ] {
            assert_eq!(Regex::new(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        }
        assert!(!Regex::new("a").unwrap().is_match("a\0"));
    }

    #[test]
    fn a_wrong_one_says_why() {
        for pattern in ["(", "[a", "a{2", "a\0"] {
            let why = Regex::new(pattern).unwrap_err();
            assert!(why.len() > 5, "{pattern}: {why}");
        }
    }
}
