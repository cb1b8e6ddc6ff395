// SPDX-License-Identifier: Apache-2.0
//! Single flags of checkpoint and restore, beyond the matrix: sockets that others reach, chains, servers, the caller's terminal.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::checkpoint::{CRUN, FREEZER, counts_on, lost_nothing};
use super::checkpoint_scenes::{Scene, holds, in_network};
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::peer::{CONTAINER, inside};
use crate::harness::terminal::Terminal;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = [sockets(), chains(), servers()].into_iter().flatten().collect();
    for case in &mut all {
        case.needs.extend([Need::Criu, CRUN]);
        case.differs("runc", FREEZER);
    }
    all
}

fn dump(t: &Test, id: &str, flags: &str) -> Result<Done, Trouble> {
    t.cli(&format!("checkpoint --image-path {} {flags} {id}", t.file("images")))
}

fn restore(t: &Test, scene: &Scene, flags: &str) -> Verdict {
    let verb = format!("restore --detach --image-path {} {flags}", t.file("images"));
    scene.begin(t, &verb, &scene.bundle)?.ok()?;
    scene.goes_on(t, &scene.bundle)
}

/// A connection from outside.
fn reach(scene: &Scene, port: u16) -> Result<TcpStream, Trouble> {
    let peer = scene.peer().ok_or("no peer")?;
    let stream = inside(&peer.outside, move || Ok(TcpStream::connect((CONTAINER, port))?))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    Ok(stream)
}

fn says(stream: &mut TcpStream, word: &str) -> Verdict {
    writeln!(stream, "{word}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    same("the answer", line.trim(), word)
}

fn sockets() -> Vec<Case> {
    vec![
        case("checkpoint/listens-before-and-after", |t| {
            let scene = in_network(t, &format!("listens={CONTAINER}:80"))?;
            scene.launch(t)?;
            let mut stream = reach(&scene, 80)?;
            says(&mut stream, "before")?;
            dump(t, &scene.bundle.id, "--tcp-established")?.ok()?;
            restore(t, &scene, "--tcp-established")?;
            says(&mut stream, "the same connection")?;
            drop(stream);
            says(&mut reach(&scene, 80)?, "another connection")
        }),
        case("checkpoint/connection-that-nobody-has-taken", |t| {
            let scene = in_network(t, &format!("backlog={CONTAINER}:80"))?;
            scene.launch(t)?;
            let _waiting = reach(&scene, 80)?;
            let done = dump(t, &scene.bundle.id, "--tcp-established")?;
            check!(done.code != 0, "it is dumped without --tcp-skip-in-flight");
            if t.host.name == "corten" {
                done.refuses(&["skip-in-flight"])?;
            }
            counts_on(t, &scene.bundle)?;
            dump(t, &scene.bundle.id, "--tcp-established --tcp-skip-in-flight")?.ok()?;
            restore(t, &scene, "--tcp-established")?;
            reach(&scene, 80).map(drop)
        }),
        case("checkpoint/shell-job", |t| {
            let b = holds(t, "streams")?;
            let terminal = Terminal::open(20, 80)?;
            t.finish(terminal.spawn(t, t.bundle_command("run --detach", &b)?)?)?.ok()?;
            counts_on(t, &b)?;
            dump(t, &b.id, "--shell-job")?.ok()?;
            let verb = format!("restore --detach --shell-job --image-path {}", t.file("images"));
            t.finish(terminal.spawn(t, t.bundle_command(&verb, &b)?)?)?.ok()?;
            counts_on(t, &b)?;
            lost_nothing(&b)
        })
        .runc("sends the terminal to a console socket that nobody named"),
    ]
}

/// Dumps that go on from an earlier one.
fn chains() -> Vec<Case> {
    let earlier = |t: &Test, id: &str, name: &str, flags: &str| -> Verdict {
        t.cli(&format!("checkpoint --pre-dump --image-path {} {flags} {id}", t.file(name)))?.ok().map(drop)
    };
    let pages = |t: &Test, name: &str| -> Result<u64, Trouble> {
        let mut bytes = 0;
        for entry in fs::read_dir(t.path(name))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("pages-") {
                bytes += std::os::unix::fs::MetadataExt::blocks(&entry.metadata()?) * 512;
            }
        }
        Ok(bytes)
    };
    vec![
        case("checkpoint/chain-of-pre-dumps", move |t| {
            let b = holds(t, "memory=30000000")?;
            t.launch(&b)?;
            counts_on(t, &b)?;
            earlier(t, &b.id, "first", "")?;
            counts_on(t, &b)?;
            earlier(t, &b.id, "second", "--parent-path ../first")?;
            counts_on(t, &b)?;
            let before = pages(t, "first")?;
            dump(t, &b.id, "--parent-path ../second --auto-dedup")?.ok()?;
            let last = pages(t, "images")?;
            // A huge page is written to as a whole.
            check!(
                last * 2 < before,
                "the last dump has all of the memory: {last} bytes, the first {before}"
            );
            check!(pages(t, "first")? < before, "nothing was cut out of the first dump");
            fs::rename(t.path("first/pages-1.img"), t.path("kept"))?;
            fs::write(t.path("first/pages-1.img"), "")?;
            let verb = format!("restore --detach --image-path {}", t.file("images"));
            let done = t.try_create(&verb, &b)?;
            check!(done.code != 0, "it is restored without the pages of its first dump");
            check!(t.host.name != "corten" || done.stderr.contains("is cut short"), "{}", done.stderr);
            fs::rename(t.path("kept"), t.path("first/pages-1.img"))?;
            t.try_create(&verb, &b)?.ok()?;
            counts_on(t, &b)?;
            check!(!b.rootfs("trouble").exists(), "the memory is another");
            lost_nothing(&b)
        })
        .needs(&[Need::DirtyTracking]),
        case("checkpoint/pre-dump-without-tracking-is-refused", |t| {
            let b = holds(t, "pair")?;
            t.launch(&b)?;
            counts_on(t, &b)?;
            dump(t, &b.id, "--leave-running")?.ok()?;
            fs::rename(t.path("images"), t.path("before"))?;
            for flags in ["--pre-dump", "--parent-path ../before"] {
                let done = dump(t, &b.id, flags)?;
                check!(done.code != 0, "{flags} is taken");
                if t.host.name == "corten" {
                    done.refuses(&["this kernel", flags.split(' ').next().unwrap_or_default()])?;
                }
                counts_on(t, &b)?;
            }
            Ok(())
        })
        .needs(&[Need::NoDirtyTracking]),
    ]
}

fn servers() -> Vec<Case> {
    vec![
        case("checkpoint/page-server-that-is-not-there", |t| {
            let b = holds(t, "pair")?;
            t.launch(&b)?;
            counts_on(t, &b)?;
            let done = dump(t, &b.id, "--page-server 127.0.0.1:1")?;
            check!(done.code != 0, "it is dumped");
            check!(t.host.name != "corten" || done.errors().len() == 1, "{done}");
            t.has_status(&b, "running")?;
            counts_on(t, &b)?;
            lost_nothing(&b)
        }),
        case("checkpoint/status-fd-that-is-closed", |t| {
            let b = holds(t, "pair")?;
            t.launch(&b)?;
            counts_on(t, &b)?;
            let done = dump(t, &b.id, "--lazy-pages --page-server 127.0.0.1:1 --status-fd 77")?;
            done.refuses(&["invalid --status-fd argument 77"])?;
            counts_on(t, &b)
        }),
        case("checkpoint/pages-elsewhere-need-no-room-here", |t| {
            let b = holds(t, "memory=6000000")?;
            t.launch(&b)?;
            counts_on(t, &b)?;
            fs::create_dir(t.path("images"))?;
            t.mount("tmpfs", "tmpfs", &t.path("images"), nix::mount::MsFlags::empty(), "size=2m,mode=700")?;
            let server = crate::harness::criu::PageServer::start(t, "pages")?;
            dump(t, &b.id, &format!("--page-server 127.0.0.1:{}", server.port))?.ok()?;
            server.finish(t)
        }),
    ]
}
