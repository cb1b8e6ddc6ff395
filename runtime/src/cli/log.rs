// SPDX-License-Identifier: Apache-2.0
//! Messages (compatibility G2 to G6): where they go and how a line looks.
//!
//! containerd reads the log file after a failure and keeps the last message of level `error`; one line that is not
//! a JSON object makes it give up on the whole file. So a line is written by one call, and the error that ends a
//! call is logged once, last.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use corten::error::Words;

use super::failure::Failure;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// Nothing of ours has this level; it is the default threshold, as in runc.
    Info,
    /// Something was not done as asked, and the call goes on.
    Warning,
    /// The call failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// syslog(3)'s number.
    fn priority(self) -> u8 {
        match self {
            Level::Debug => 7,
            Level::Info => 6,
            Level::Warning => 4,
            Level::Error => 3,
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// logfmt: `time="…" level=error msg="…"`
    Text,
    /// One object a line.
    Json,
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Stderr,
    File(RefCell<File>),
    Journal { socket: UnixDatagram, identifier: String },
    Syslog { socket: UnixDatagram, identifier: String },
}

/// The receiver of messages.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    format: Format,
    level: Level,
}

impl Default for Log {
    fn default() -> Self {
        Log { sink: Sink::Stderr, format: Format::Text, level: Level::Info }
    }
}

impl Log {
    /// Opens `target`: a file (made when absent, even if nothing is ever logged) or one of crun's prefixes
    /// `file:`, `journald:` and `syslog:`. Without a journal or a syslog daemon, stderr takes its place.
    ///
    /// # Errors
    /// The file does not open.
    pub fn open(target: Option<&OsStr>, format: Format, level: Level) -> Result<Self, Failure> {
        let bytes = target.unwrap_or_default().as_bytes();
        let daemon = |prefix: &[u8], path: &str| {
            let identifier = String::from_utf8_lossy(bytes.strip_prefix(prefix)?).into_owned();
            let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
            Some((socket.ok(), identifier))
        };
        let sink = if bytes.is_empty() || bytes == b"/dev/stderr" {
            Sink::Stderr
        } else if let Some((socket, identifier)) = daemon(b"journald:", JOURNAL) {
            socket.map_or(Sink::Stderr, |socket| Sink::Journal { socket, identifier })
        } else if let Some((socket, identifier)) = daemon(b"syslog:", SYSLOG) {
            socket.map_or(Sink::Stderr, |socket| Sink::Syslog { socket, identifier })
        } else {
            let path = Path::new(OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes)));
            let file = corten::host::append(path).map_err(|error| {
                let why = Words(error.errno().unwrap_or_default());
                Failure::new(format!(
                    "--log: open {}: {why}; its directory is to exist, and to be writable",
                    path.display()
                ))
            })?;
            Sink::File(RefCell::new(file.into()))
        };
        Ok(Log { sink, format, level })
    }

    /// Something was not done as asked.
    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// For those who look for a fault.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.level <= Level::Debug {
            self.write(Level::Debug, &message());
        }
    }

    /// The error that ends the call: logged, and said on stderr too when the log is elsewhere.
    pub fn fatal(&self, message: &str) {
        self.write(Level::Error, message);
        if !matches!(self.sink, Sink::Stderr) {
            emit(std::io::stderr(), &format!("{message}\n"));
        }
    }

    fn write(&self, level: Level, message: &str) {
        if level < self.level {
            return;
        }
        match &self.sink {
            Sink::Stderr => emit(std::io::stderr(), &self.line(level, message)),
            Sink::File(file) => emit(&mut *file.borrow_mut(), &self.line(level, message)),
            Sink::Journal { socket, identifier } => {
                // A full or absent journal must not stop a container; there is nowhere left to say so.
                let _ = socket.send(&journal_record(level, identifier, message));
            }
            Sink::Syslog { socket, identifier } => {
                // Facility 3: a system daemon.
                let number = 3 * 8 + level.priority();
                let record = format!("<{number}>{identifier}[{}]: {message}", std::process::id());
                let _ = socket.send(record.as_bytes());
            }
        }
    }

    fn line(&self, level: Level, message: &str) -> String {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        render(self.format, seconds, level, message)
    }
}

/// One call, one line. A log that cannot be written has nowhere to complain.
fn emit(mut to: impl Write, line: &str) {
    let _ = to.write_all(line.as_bytes());
}

fn render(format: Format, seconds: u64, level: Level, message: &str) -> String {
    let (time, level) = (rfc3339(seconds), level.name());
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", logfmt(message)),
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
    }
}

/// systemd's native protocol; the long form of a field, because a message may hold newlines.
fn journal_record(level: Level, identifier: &str, message: &str) -> Vec<u8> {
    let mut record = Vec::new();
    let priority = level.priority().to_string();
    for (name, value) in [("PRIORITY", &*priority), ("SYSLOG_IDENTIFIER", identifier), ("MESSAGE", message)] {
        record.extend(name.as_bytes());
        record.push(b'\n');
        record.extend((value.len() as u64).to_le_bytes());
        record.extend(value.as_bytes());
        record.push(b'\n');
    }
    record
}

/// A logfmt value: bare when it consists of harmless characters, else quoted as Go's `%q` does.
fn logfmt(message: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !message.is_empty() && message.chars().all(bare) {
        return message.to_owned();
    }
    let mut quoted = String::with_capacity(message.len() + 8);
    quoted.push('"');
    for c in message.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Seconds since the epoch as RFC 3339, UTC.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days on or after 1970-01-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_the_message() {
        let message = "a \"b\"\nc\\\t\u{7}\u{85} é";
        assert_eq!(
            render(Format::Text, 0, Level::Error, message),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a \\\"b\\\"\\nc\\\\\\t\\x07\\u0085 é\"\n"
        );
        let line = render(Format::Json, 0, Level::Warning, message);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], message);
        assert_eq!((&value["level"], &value["time"]), (&"warning".into(), &"1970-01-01T00:00:00Z".into()));
        assert_eq!(
            render(Format::Text, 0, Level::Debug, "ok"),
            "time=\"1970-01-01T00:00:00Z\" level=debug msg=ok\n"
        );
        assert!(render(Format::Text, 0, Level::Debug, "").ends_with("msg=\"\"\n"));
    }

    #[test]
    fn the_journal_gets_length_prefixed_fields() {
        let record = journal_record(Level::Error, "abc", "x\ny");
        let expected = b"PRIORITY\n\x01\0\0\0\0\0\0\x003\nSYSLOG_IDENTIFIER\n\x03\0\0\0\0\0\0\0abc\n\
            MESSAGE\n\x03\0\0\0\0\0\0\0x\ny\n";
        assert_eq!(record, expected);
    }
}
