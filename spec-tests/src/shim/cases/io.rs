// SPDX-License-Identifier: Apache-2.0
//! Output that nobody reads, that is read slowly, that goes to files and loggers, or that outlives its process.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::{self, Reader, Streams};
use crate::shim::task::{Io, RUNNING, Task};

const MIB: u64 = 1 << 20;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("io/absent-reader", |t| flood(t, 64 * MIB, 0.5)).takes(60.0),
        case("io/absent-reader-1-gib", |t| flood(t, 1024 * MIB, 0.0)).needs(&[Need::Long]).takes(300.0),
        case("io/slow-reader", slow_reader).takes(60.0),
        case("io/other-calls-meanwhile", other_calls_meanwhile).takes(60.0),
        case("io/kill-and-delete-despite-full-output", kill_despite_full_output)
            .takes(60.0)
            .runc("waits 10 s for a reader"),
        case("io/reader-comes-and-goes", reader_comes_and_goes).takes(60.0),
        case("io/file", file).runc("puts both into the file of stdout"),
        case("io/one-file-for-both", one_file_for_both),
        case("io/binary-logger", binary_logger),
        case("io/logger-dies", logger_dies).takes(60.0).runc("the container gets EPIPE"),
        case("io/logger-that-does-not-exist", no_logger),
        case("io/grandchild-keeps-exec-output", grandchild).takes(60.0),
        case("io/grandchild-keeps-init-output", init_grandchild).takes(60.0),
        case("io/stdin-closed-early", stdin_closed_early),
        case("io/nobody-writes-stdin", nobody_writes_stdin),
        case("io/stdin-open-until-delete", |t| stdin_open_until_delete(t, false)),
        case("io/stdin-open-until-delete-terminal", |t| stdin_open_until_delete(t, true)),
    ]
}

/// Reads the numbers that the probe's `flood` prints, and requires each of them.
struct Numbers {
    at: u64,
    rest: Vec<u8>,
}

impl Numbers {
    fn require(&mut self, bytes: &[u8]) -> Verdict {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / 8 * 8;
        for eight in self.rest[..whole].chunks_exact(8) {
            let number = u64::from_le_bytes(eight.try_into().unwrap_or_default());
            check!(number == self.at, "byte {} of the output: {number} instead of {}", self.at * 8, self.at);
            self.at += 1;
        }
        self.rest.drain(..whole);
        Ok(())
    }
}

/// Reads `bytes` of a flood, `block` at a time, waiting `pause` between.
fn read_numbers(path: &str, numbers: &mut Numbers, upto: u64, block: usize, pause: Duration) -> Verdict {
    let mut file = fifo::open_reader(path)?;
    let mut block = vec![0; block];
    let mut last = Instant::now();
    while numbers.at * 8 + (numbers.rest.len() as u64) < upto {
        match fifo::read_some(&mut file, &mut block) {
            Some(0) => {
                return Err(format!("the output ended after {} of {upto} bytes", numbers.at * 8).into());
            }
            Some(len) => {
                numbers.require(&block[..len])?;
                last = Instant::now();
                std::thread::sleep(pause);
            }
            None => {
                check!(last.elapsed() < Duration::from_secs(10), "no output after {} bytes", numbers.at * 8)
            }
        }
    }
    Ok(())
}

/// A FIFO for stdout that the case reads itself, and one for stderr that somebody reads.
fn output(t: &Test) -> Result<(String, Io, Reader), Trouble> {
    let (stdout, stderr) = (fifo::make(t, "stdout")?, fifo::make(t, "stderr")?);
    let reader = Reader::open(&stderr)?;
    Ok((stdout.clone(), Io { stdout, stderr, ..Io::default() }, reader))
}

/// A container that prints `bytes`, whose reader comes late: `first` seconds of silence, then all of it, exactly.
fn flood(t: &Test, bytes: u64, late: f64) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle(&format!("flood {bytes} -- exit 5"))?;
    let (path, io, _errors) = output(t)?;
    let opener = fifo::open_reader(&path)?;
    let task = d.create(&b, &io)?;
    let before = procs::usage(task.shim.pid)?;
    task.start("")?;
    drop(opener); // the daemon is gone
    std::thread::sleep(Duration::from_secs_f64(late + 0.5));
    same("the state while nobody reads", task.state("")?.status, RUNNING)?;
    let mut numbers = Numbers { at: 0, rest: Vec::new() };
    // Re-attached twice: what was read by the first stays read, and nothing in between is lost.
    read_numbers(&path, &mut numbers, bytes / 3, 4096, Duration::ZERO)?;
    std::thread::sleep(Duration::from_millis(200));
    read_numbers(&path, &mut numbers, bytes, 65536, Duration::ZERO)?;
    same("the status", task.exit("")?.status, 5)?;
    same("bytes", numbers.at * 8, bytes)?;
    let after = procs::usage(task.shim.pid)?;
    let grown = (after.rss - before.rss).max(procs::peak(task.shim.pid)? - before.rss);
    task.delete("")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()?;
    check!(grown <= 1024, "the shim grew by {grown} KiB");
    Ok(())
}

fn slow_reader(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let bytes = 2 * MIB;
    let b = d.bundle(&format!("flood {bytes}"))?;
    let (path, io, _errors) = output(t)?;
    let opener = fifo::open_reader(&path)?;
    let task = d.create(&b, &io)?;
    task.start("")?;
    let mut numbers = Numbers { at: 0, rest: Vec::new() };
    read_numbers(&path, &mut numbers, bytes, 4096, Duration::from_millis(2))?;
    drop(opener);
    same("the status", task.exit("")?.status, 0)?;
    d.end(&b, &task)?;
    d.finish()
}

fn other_calls_meanwhile(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle(&format!("flood {}", 64 * MIB))?;
    let (path, io, _errors) = output(t)?;
    let _reader = fifo::open_reader(&path)?;
    let task = d.create(&b, &io)?;
    task.start("")?;
    std::thread::sleep(Duration::from_millis(100));
    let mut slowest = Duration::ZERO;
    for n in 0..200 {
        let begin = Instant::now();
        task.state("")?;
        slowest = slowest.max(begin.elapsed());
        if n % 50 == 0 {
            same(
                "an exec",
                task.execute(&format!("x{n}"), &["/probe", "exit", "1"], &Io::null())?.status,
                1,
            )?;
        }
    }
    within("a State", slowest, Duration::from_millis(500))?;
    task.end()?;
    d.end(&b, &task)?;
    d.finish()
}

fn kill_despite_full_output(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle(&format!("flood {}", 64 * MIB))?;
    let (path, io, _errors) = output(t)?;
    let reader = fifo::open_reader(&path)?;
    let task = d.create(&b, &io)?;
    task.start("")?;
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    task.end()?;
    within("kill and exit", begin.elapsed(), Duration::from_secs(2))?;
    task.delete("")?;
    // The CRI gives up after 10 s.
    within("Kill and Delete", begin.elapsed(), Duration::from_secs(2))?;
    drop(reader);
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn reader_comes_and_goes(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let bytes = 8 * MIB;
    let b = d.bundle(&format!("flood {bytes} -- sleep 0.2"))?;
    let (path, io, _errors) = output(t)?;
    let opener = fifo::open_reader(&path)?;
    let task = d.create(&b, &io)?;
    drop(opener);
    task.start("")?;
    let mut numbers = Numbers { at: 0, rest: Vec::new() };
    for part in 1..=64 {
        read_numbers(&path, &mut numbers, bytes * part / 64, 8192, Duration::ZERO)?;
    }
    same("the status", task.exit("")?.status, 0)?;
    d.end(&b, &task)?;
    d.finish()
}

fn file(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("print out -- complain err -- exit 2")?;
    let (out, err) = (t.path("logs/deep/out"), t.path("logs/deep/err"));
    let uri = |path: &std::path::Path| format!("file://{}", path.display());
    let io = Io { stdout: uri(&out), stderr: uri(&err), ..Io::default() };
    let task = d.create(&b, &io)?;
    task.start("")?;
    same("the status", task.exit("")?.status, 2)?;
    d.end(&b, &task)?;
    same("stdout's file", fs::read_to_string(out)?.as_str(), "out\n")?;
    same("stderr's file", fs::read_to_string(err)?.as_str(), "err\n")?;
    d.finish()
}

fn one_file_for_both(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let log = t.path("log");
    fs::write(&log, "before\n")?;
    let uri = format!("file://{}", log.display());
    let b = d.bundle("print one -- complain two")?;
    let task = d.create(&b, &Io { stdout: uri.clone(), stderr: uri, ..Io::default() })?;
    task.start("")?;
    task.exit("")?;
    d.end(&b, &task)?;
    let text = fs::read_to_string(&log)?;
    let mut lines: Vec<_> = text.lines().skip(1).collect();
    lines.sort_unstable();
    check!(text.starts_with("before\n"), "the file was not appended to: {text:?}");
    same("what was appended", lines, ["one", "two"])?;
    d.finish()
}

/// A logger in shell: copies its descriptors 3 and 4 to files, and closes 5 when it is ready.
fn write_logger(t: &Test, body: &str) -> Result<String, Trouble> {
    let path = t.path("logger");
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_string_lossy().into_owned())
}

fn binary_logger(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let dir = t.path("out");
    let logger = write_logger(
        t,
        &format!(
            "trap '' TERM; cd {}; echo \"$@ $CONTAINER_ID $CONTAINER_NAMESPACE\" >args; exec 5>&-\ncat <&3 >log.out & cat <&4 >log.err; wait; echo done >ended",
            dir.display()
        ),
    )?;
    let b = d.bundle("print out -- complain err -- exit 2")?;
    let uri = format!("binary://{logger}?one=1&two=zwei");
    let task = d.create(&b, &Io { stdout: uri.clone(), stderr: uri, ..Io::default() })?;
    task.start("")?;
    same("the status", task.exit("")?.status, 2)?;
    task.delete("")?;
    t.until(|| "the logger's end".into(), || Ok(dir.join("ended").exists().then_some(())))?;
    same("stdout's log", fs::read_to_string(dir.join("log.out"))?.as_str(), "out\n")?;
    same("stderr's log", fs::read_to_string(dir.join("log.err"))?.as_str(), "err\n")?;
    let args = fs::read_to_string(dir.join("args"))?;
    let end = format!(" {} spec-tests", b.id);
    // The Go shim has the pairs in any order.
    check!(
        args.trim().ends_with(&end) && args.contains("one 1") && args.contains("two zwei"),
        "its words: {args:?}"
    );
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// The container must not notice that its logger is gone.
fn logger_dies(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let logger = write_logger(t, "exec 5>&-; sleep 0.2; exit 1")?;
    let b = d.bundle(&format!("sleep 0.5 -- flood {MIB} -- exit 3"))?;
    let uri = format!("binary://{logger}");
    let task = d.create(&b, &Io { stdout: uri.clone(), stderr: uri, ..Io::default() })?;
    task.start("")?;
    same("the status", task.exit("")?.status, 3)?;
    d.end(&b, &task)?;
    d.finish()
}

fn no_logger(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 0")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let uri = "binary:///no/such/logger".to_owned();
    let created = task.try_create(&d, &b, &Io { stdout: uri.clone(), stderr: uri, ..Io::default() });
    super::errors::fails("Create with no logger", created, &[2, 3, 5, 9], "no such file|logger")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// What an exec leaves behind may hold its output open for ever; its Delete may not.
fn grandchild(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let streams = Streams::make(t, "exec", false)?;
    task.exec("x", &["/probe", "print", "hello", "--", "spawn", "forever"], &streams.io)?;
    task.start("x")?;
    same("the status", task.exit("x")?.status, 0)?;
    let begin = Instant::now();
    task.delete("x")?;
    within("Delete", begin.elapsed(), Duration::from_secs(12))?;
    streams.out.until("hello\n")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

fn init_grandchild(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("print hello -- spawn forever -- exit 4")?.without_namespace("pid");
    let streams = Streams::make(t, "init", false)?;
    let task = d.create(&b, &streams.io)?;
    task.start("")?;
    same("the status", task.exit("")?.status, 4)?;
    task.delete("")?;
    same("its output", streams.out.to_end()?.as_str(), "hello\n")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn stdin_closed_early(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("echo -- exit 6")?;
    let streams = Streams::make(t, "in", false)?;
    let task = d.create(&b, &streams.io)?;
    task.close_stdin("")?;
    task.start("")?;
    same("the status", task.exit("")?.status, 6)?;
    task.delete("")?;
    streams.to_end()?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// A client that still has input when an exec ends must not get EPIPE before its Delete: containerd's then gives up the
/// output that it has not read yet.
fn stdin_open_until_delete(t: &Test, terminal: bool) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for n in 0..5 {
        let (name, streams) = (format!("x{n}"), Streams::make(t, &format!("in{n}"), terminal)?);
        task.exec(&name, &["/probe", "print", "bye"], &streams.io)?;
        task.start(&name)?;
        let mut writer = fifo::open_writer(&streams.io.stdin)?;
        same("the status", task.exit(&name)?.status, 0)?;
        d.events.exit(&b.id, &name)?;
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"too late").map_err(|error| format!("input after the end: {error}"))?;
        task.delete(&name)?;
        check!(streams.out.to_end()?.starts_with("bye"), "the output was {:?}", streams.out.so_far());
        let open = t.host.name != "runc" && writer.write_all(b"later").is_ok();
        check!(!open, "the input is open after Delete");
    }
    d.end(&b, &task)?;
    d.finish()
}

fn nobody_writes_stdin(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("print waits -- echo")?;
    let streams = Streams::make(t, "in", false)?;
    let reader = &streams.out;
    let task = d.create(&b, &streams.io)?;
    task.start("")?;
    reader.until("waits\n")?;
    same("the state", task.state("")?.status, RUNNING)?;
    task.end()?;
    task.delete("")?;
    reader.to_end()?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}
