// SPDX-License-Identifier: Apache-2.0
//! `probe hold [THING…]`: has things that a checkpoint must carry along, counts, and notices when one of them is not what it was.
//!
//! Every 20 ms one more line comes to /count, as long as all is well; /trouble tells what is not.
//!
//! | thing | is |
//! |---|---|
//! | `streams` | the caller's streams stay; without it they are the container's own /dev/null |
//! | `terminal` | the same, and a line that is typed is answered with `got LINE` |
//! | `tcp=ADDRESS` | a connection to a peer that sends back what it gets |
//! | `may-close=ADDRESS` | the same; once it is closed, /closed says so |
//! | `backlog=ADDRESS` | a listening socket whose connections nobody takes |
//! | `listens=ADDRESS` | a listening socket that answers each line of a connection |
//! | `pair` | two connected UNIX sockets |
//! | `unix=PATH` | a datagram socket, connected to that outside |
//! | `lock=FILE`, `record-lock=FILE` | flock(2), fcntl(2) |
//! | `gone=FILE`, `renamed=FILE` | an open file without a name; one that has another name now, FILE.other |
//! | `threads=N`, `children=N` | so many that work on |
//! | `memory=BYTES` | so much memory, of which every page is known |
//! | `group=DIR` | a control group below the own one, in which this process is |

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Outcome, put, shown};

/// What is looked at with each tick.
type Look = Box<dyn FnMut(u64) -> Outcome>;

/// Counts until something is wrong.
pub(super) fn hold(things: &[String]) -> Outcome {
    if !things.iter().any(|thing| ["streams", "terminal"].contains(&thing.as_str())) {
        own_streams()?;
    }
    let mut looks = Vec::new();
    for thing in things {
        let (name, value) = thing.split_once('=').unwrap_or((thing, ""));
        looks.push((thing.clone(), take(name, value)?));
    }
    let mut count = File::options().append(true).create(true).open("/count").map_err(shown)?;
    for tick in 1.. {
        for (thing, look) in &mut looks {
            if let Err(error) = look(tick) {
                put("/trouble", &format!("{thing} at tick {tick}: {error}"))?;
                return Err(error);
            }
        }
        writeln!(count, "{tick}").map_err(shown)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn own_streams() -> Outcome {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(shown)?;
    nix::unistd::dup2_stdin(&null).map_err(shown)?;
    nix::unistd::dup2_stdout(&null).map_err(shown)?;
    nix::unistd::dup2_stderr(&null).map_err(shown)
}

fn take(name: &str, value: &str) -> Result<Look, String> {
    let nothing: Look = Box::new(|_| Ok(()));
    match name {
        "streams" => Ok(nothing),
        "terminal" => terminal().map(|()| nothing),
        "tcp" => connection(value, false),
        "may-close" => connection(value, true),
        "backlog" => TcpListener::bind(value).map_err(shown).map(|listener| keep(listener)),
        "listens" => listens(value).map(|()| nothing),
        "pair" => pair(),
        "unix" => outside(value),
        "lock" => File::create(value).and_then(|file| file.lock().map(|()| keep(file))).map_err(shown),
        "record-lock" => record_lock(value),
        "gone" => nameless(value, None),
        "renamed" => nameless(value, Some(&format!("{value}.other"))),
        "threads" => threads(value.parse().map_err(shown)?),
        "children" => children(value.parse().map_err(shown)?),
        "memory" => memory(value.parse().map_err(shown)?),
        "group" => group(value).map(|()| nothing),
        _ => Err("no such thing".into()),
    }
}

/// Stays open.
fn keep<T: 'static>(what: T) -> Look {
    Box::new(move |_| {
        let _ = &what;
        Ok(())
    })
}

fn terminal() -> Outcome {
    std::thread::spawn(|| {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            println!("got {line}");
        }
    });
    Ok(())
}

/// What was said must come back.
fn answered(stream: &mut (impl Read + Write), tick: u64) -> Outcome {
    writeln!(stream, "{tick}").map_err(shown)?;
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') {
        stream.read_exact(&mut byte).map_err(shown)?;
        line.push(byte[0].into());
    }
    if line.trim() == tick.to_string() { Ok(()) } else { Err(format!("the answer is {line:?}")) }
}

fn connection(address: &str, may_close: bool) -> Result<Look, String> {
    let mut stream = TcpStream::connect(address).map_err(shown)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(shown)?;
    let mut closed = false;
    Ok(Box::new(move |tick| match answered(&mut stream, tick) {
        Err(error) if may_close && !closed => {
            closed = true;
            put("/closed", &error)
        }
        Err(_) if closed => Ok(()),
        other => other,
    }))
}

fn listens(address: &str) -> Outcome {
    let listener = TcpListener::bind(address).map_err(shown)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(mut to) = stream.try_clone() else { return };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if writeln!(to, "{line}").is_err() {
                    break;
                }
            }
        }
    });
    Ok(())
}

fn pair() -> Result<Look, String> {
    let (mut one, mut other) = UnixStream::pair().map_err(shown)?;
    Ok(Box::new(move |tick| {
        one.write_all(&tick.to_le_bytes()).map_err(shown)?;
        let mut came = [0; 8];
        other.read_exact(&mut came).map_err(shown)?;
        if came == tick.to_le_bytes() { Ok(()) } else { Err(format!("{came:?} came")) }
    }))
}

fn outside(path: &str) -> Result<Look, String> {
    let socket = UnixDatagram::unbound().map_err(shown)?;
    socket.connect(path).and_then(|()| socket.set_nonblocking(true)).map_err(shown)?;
    Ok(Box::new(move |tick| match socket.send(tick.to_string().as_bytes()) {
        // Nobody has read yet.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        other => other.map(drop).map_err(shown),
    }))
}

fn record_lock(path: &str) -> Result<Look, String> {
    let file = File::create(path).map_err(shown)?;
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 10,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).map_err(shown)?;
    Ok(keep(file))
}

/// An open file that is found no more by the name with which it was opened.
fn nameless(path: &str, other: Option<&str>) -> Result<Look, String> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map_err(shown)?;
    if let Some(other) = other {
        std::fs::hard_link(path, other).map_err(shown)?;
    }
    std::fs::remove_file(path).map_err(shown)?;
    file.write_all(b"what was written").map_err(shown)?;
    Ok(Box::new(move |_| {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).map_err(shown)?;
        if text == "what was written" { Ok(()) } else { Err(format!("the file says {text:?}")) }
    }))
}

fn threads(count: usize) -> Result<Look, String> {
    let counts: Vec<Arc<AtomicU64>> = (0..count).map(|_| Arc::default()).collect();
    for count in counts.clone() {
        std::thread::spawn(move || {
            loop {
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
    let mut before = vec![0; count];
    // They get some time: the machine may be busy.
    Ok(Box::new(move |tick| {
        if tick % 100 != 0 {
            return Ok(());
        }
        let now: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let stuck = now.iter().zip(&before).any(|(now, before)| now <= before);
        before = now;
        if stuck { Err("one counts no more".into()) } else { Ok(()) }
    }))
}

fn children(count: usize) -> Result<Look, String> {
    let this = std::env::args_os().next().unwrap_or_else(|| "/probe".into());
    let start = |_| Command::new(&this).arg("forever").spawn();
    let mut all = (0..count).map(start).collect::<Result<Vec<_>, _>>().map_err(shown)?;
    Ok(Box::new(move |_| {
        for child in &mut all {
            if let Some(status) = child.try_wait().map_err(shown)? {
                return Err(format!("one has ended: {status}"));
            }
        }
        Ok(())
    }))
}

const PAGE: usize = 4096;

fn memory(bytes: usize) -> Result<Look, String> {
    let pages = (bytes / PAGE).max(1);
    let mut all = vec![0_u8; pages * PAGE];
    let is = |page: usize| u64::try_from(page).unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (page, bytes) in all.chunks_mut(PAGE).enumerate() {
        bytes[..8].copy_from_slice(&is(page).to_le_bytes());
    }
    Ok(Box::new(move |tick| {
        // A hundred pages each time, one of which is written to.
        let begin = usize::try_from(tick).unwrap_or_default() * 100;
        for page in (begin..begin + 100).map(|number| number % pages) {
            let bytes = &mut all[page * PAGE..(page + 1) * PAGE];
            if bytes[..8] != is(page).to_le_bytes() {
                return Err(format!("page {page} is another"));
            }
            if page % 100 == 0 {
                bytes[8..16].copy_from_slice(&tick.to_le_bytes());
            }
        }
        Ok(())
    }))
}

fn group(dir: &str) -> Outcome {
    std::fs::create_dir(dir).map_err(shown)?;
    std::fs::write(format!("{dir}/cgroup.procs"), "0").map_err(shown)
}
