// SPDX-License-Identifier: Apache-2.0
//! One line of /etc/passwd, byte by byte: the home directory of a user. Pure, and free of the stage's own things, so that
//! the fuzzer can have it as well (tests/fuzz/targets/passwd.rs).

/// PATH_MAX: longer homes are cut.
pub const HOME: usize = 4096;

// Fields of a line, from 0.
const UID: u8 = 2;
const HOME_FIELD: u8 = 5;

/// A home directory as far as it was read.
pub struct PasswdHome {
    text: [u8; HOME],
    length: usize,
}

impl Default for PasswdHome {
    fn default() -> PasswdHome {
        PasswdHome { text: [0; HOME], length: 0 }
    }
}

impl PasswdHome {
    /// What it is: no NUL among it.
    pub fn bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }

    /// Where nothing better is known.
    pub fn root(&mut self) {
        self.text[0] = b'/';
        self.length = 1;
    }
}

/// One line as far as it was read: which field, and the number in the third.
#[derive(Default)]
pub struct PasswdLine {
    field: u8,
    number: Option<u64>,
    broken: bool,
}

impl PasswdLine {
    /// Takes the next byte; true when the home directory of `uid` is complete.
    pub fn push(&mut self, byte: u8, uid: u32, home: &mut PasswdHome) -> bool {
        match byte {
            // The shell may be missing, as for glibc and runc.
            b'\n' if self.field == HOME_FIELD && self.is(uid) => return true,
            b'\n' => {
                *self = PasswdLine::default();
                home.length = 0;
            }
            b':' if self.field == HOME_FIELD => {
                if self.is(uid) {
                    return true;
                }
                self.field += 1;
            }
            b':' => self.field = self.field.saturating_add(1),
            _ if self.field == UID => {
                let digit = u64::from(byte.wrapping_sub(b'0'));
                self.broken |= digit > 9;
                self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            _ if self.field == HOME_FIELD
                && self.is(uid)
                && byte != 0
                && home.length < home.text.len() - 16 =>
            {
                home.text[home.length] = byte;
                home.length += 1;
            }
            _ => {}
        }
        false
    }

    /// The file ends here; true when the home directory of `uid` is complete by that.
    pub fn end(&self, uid: u32) -> bool {
        self.field == HOME_FIELD && self.is(uid)
    }

    fn is(&self, uid: u32) -> bool {
        !self.broken && self.number == Some(u64::from(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of(uid: u32, text: &str) -> Option<String> {
        let mut home = PasswdHome::default();
        let mut line = PasswdLine::default();
        let found = text.bytes().any(|byte| line.push(byte, uid, &mut home)) || line.end(uid);
        found.then(|| String::from_utf8_lossy(home.bytes()).into_owned())
    }

    #[test]
    fn finds_the_home_of_a_uid() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\n\nbad\nx:x:1x:1::/wrong:/bin/sh\nme:x:1:1::/home/me:/bin/sh\n";
        assert_eq!(home_of(0, text).as_deref(), Some("/root"));
        assert_eq!(home_of(1, text).as_deref(), Some("/home/me"));
        assert_eq!(home_of(2, text), None);
        assert_eq!(home_of(4, "a:x:4:4::/last").as_deref(), Some("/last"));
        assert_eq!(home_of(3, "a:x:3:3::/short\nb:x:4:4::/next:/bin/sh\n").as_deref(), Some("/short"));
    }

    #[test]
    fn an_overlong_home_is_cut_not_overrun() {
        let text = format!("a:x:7:7::/{}:/bin/sh\n", "h".repeat(9000));
        assert_eq!(home_of(7, &text).map(|home| home.len()), Some(HOME - 16));
    }
}
