// SPDX-License-Identifier: Apache-2.0
//! process.terminal: consoles, console sockets, and foreground commands on a terminal.

#![forbid(unsafe_code)]

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::console::Receiver;
use crate::harness::report::Report;
use crate::harness::terminal::Terminal;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [consoles(), sockets(), foreground_runs(), hostile_and_lost()].into_iter().flatten().collect()
}

fn consoles() -> Vec<Case> {
    vec![
        case("terminal/console-socket-gets-the-master", console_socket).crun("sends no name"),
        case("terminal/console-is-the-containers-own", |t| {
            let r = on_console(t, with_terminal(t)?)?;
            r.is("/tty/is_console", true)?;
            r.is("/tty/controlling", true)?;
            r.is("/dev/~1dev~1console/kind", "c")?;
            r.is("/dev/~1dev~1console/major", 136)?;
            r.mount("/dev/console")?.fstype("devpts")?;
            same("the session", r.at("/sid"), r.at("/pid"))
        })
        .crun("/dev/console is a link"),
        case("terminal/descriptors-are-the-terminal", |t| {
            let r = on_console(t, with_terminal(t)?)?;
            for fd in ["0", "1", "2"] {
                let target = r.text(&format!("/fds/{fd}"));
                check!(
                    target.starts_with("/dev/pts/") || target == "/dev/console",
                    "descriptor {fd} is {target}"
                );
            }
            same("descriptors", r.at("/fds").as_object().map(|fds| fds.len()), Some(3))
        }),
        case("terminal/console-size", |t| {
            let b = with_terminal(t)?.set("/process/consoleSize", json!({"height": 17, "width": 93}));
            let r = on_console(t, b)?;
            r.is("/tty/rows", 17)?;
            r.is("/tty/columns", 93)
        }),
        case("terminal/owned-by-the-user", |t| {
            let b = with_terminal(t)?.set("/process/user", json!({"uid": 1000, "gid": 1000}));
            on_console(t, b)?.is("/tty/owner", 1000)
        }),
    ]
}

fn sockets() -> Vec<Case> {
    vec![
        case("terminal/long-socket-path", |t| {
            let deep = t.path(&"d".repeat(100));
            std::fs::create_dir(&deep)?;
            // The harness too can bind it only by a short way.
            let receiver = Receiver::listen_in(&deep, "socket")?;
            let b = with_terminal(t)?;
            t.try_create(&format!("create --console-socket {}/socket", deep.display()), &b)?.ok()?;
            same("descriptors received", receiver.receive()?.fds.len(), 1)
        })
        .runc("connects by the whole path"),
        case("terminal/detached-needs-a-socket", |t| {
            let (b, before) = (with_terminal(t)?, t.snapshot());
            t.try_create("run --detach", &b)?
                .refuses(&["cannot allocate tty if|console socket|console-socket"])?;
            t.try_create("create", &b)?.refuses(&["cannot allocate tty if|console socket|console-socket"])?;
            t.unchanged_since(&before)
        }),
        case("terminal/socket-without-terminal-is-refused", |t| {
            let receiver = Receiver::listen(&t.path("socket"))?;
            let refused =
                t.try_create(&format!("create --console-socket {}", receiver.path.display()), &t.bundle()?)?;
            refused.refuses(&["cannot use console socket if|console socket|console-socket"]).map(drop)
        })
        .crun("ignores the socket"),
        case("terminal/socket-that-nobody-listens-on", |t| {
            let (b, before) = (with_terminal(t)?, t.snapshot());
            let refused = t.try_create(&format!("create --console-socket {}", t.file("absent")), &b)?;
            refused.refuses(&["absent|console", "no such file or directory|ENOENT"])?;
            t.unchanged_since(&before)
        }),
    ]
}

fn foreground_runs() -> Vec<Case> {
    vec![
        case("terminal/foreground-shows-and-takes-text", |t| {
            let b = with_terminal(t)?.probe("print hello -- keep-stdin /dev/null -- print bye");
            let (mut terminal, running) = foreground(t, &b)?;
            terminal.expect("hello")?;
            terminal.write(b"text\n\x04")?;
            terminal.expect("bye")?;
            t.finish(running)?.ok().map(drop)
        }),
        case("terminal/bytes-through-a-pipe-do-not-depend-on-time", |t| {
            // Who reads is no terminal: lines end with a bare newline, from the first byte on.
            const WANT: &str = "one\ntwo\n";
            let words = "print one -- print two";
            for _ in 0..15 {
                let done = t.run(&with_terminal(t)?.probe(words))?;
                same("what run printed", done.ok()?.stdout.as_str(), WANT)?;
            }
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            for _ in 0..15 {
                let done = t.exec(&b, "--tty", &format!("/probe {words}"))?;
                same("what exec printed", done.ok()?.stdout.as_str(), WANT)?;
            }
            Ok(())
        })
        .runc("wants a terminal of its own")
        .crun("ends lines with a carriage return, too"),
        case("terminal/lines-end-once-on-another-terminal-than-stdins", |t| {
            let b = with_terminal(t)?.probe("print one -- print two");
            lines_end_once(t, t.bundle_command("run", &b)?)?;
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let mut exec = t.runtime();
            exec.args(["exec", "--tty", &b.id, "/probe", "print", "one", "--", "print", "two"]);
            lines_end_once(t, exec)
        })
        .crun("ends lines twice"),
        case("terminal/lines-end-once-in-the-background", |t| {
            let b = with_terminal(t)?.probe("print one -- print two");
            let run = t.bundle_command("run", &b)?;
            let mut shell = std::process::Command::new("sh");
            shell.args(["-mc", "\"$@\" & wait $!", "sh"]).arg(run.get_program()).args(run.get_args());
            for (name, value) in run.get_envs() {
                value.map(|value| shell.env(name, value));
            }
            let mut terminal = Terminal::open(24, 80)?;
            let running = terminal.spawn(t, shell)?;
            terminal.expect("two\r\n")?;
            t.finish(running)?.ok()?;
            check!(terminal.seen.contains("one\r\ntwo\r\n"), "the terminal shows {:?}", terminal.seen);
            Ok(())
        })
        .runc("stops: it sets the terminal of another job"),
        case("terminal/foreground-exit-code", |t| {
            let b = with_terminal(t)?.probe("exit 9");
            let (_terminal, running) = foreground(t, &b)?;
            t.finish(running)?.exits(9).map(drop)
        }),
        case("terminal/foreground-makes-it-raw-and-restores-it", raw_and_restored),
        case("terminal/foreground-has-our-size-and-follows-it", follows_size).crun("begins with size 0 0"),
        case("terminal/ctrl-c-reaches-the-container", |t| {
            let b = with_terminal(t)?.probe("block SIGINT -- print ready -- await");
            let (mut terminal, running) = foreground(t, &b)?;
            terminal.expect("ready")?;
            terminal.write(b"\x03")?;
            terminal.expect("got SIGINT")?;
            t.finish(running)?.ok().map(drop)
        }),
    ]
}

fn hostile_and_lost() -> Vec<Case> {
    vec![
        case("terminal/foreground-exec", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let mut terminal = Terminal::open(31, 77)?;
            let mut command = t.runtime();
            command.args(["exec", "--tty", &b.id, "/probe", "sizes", "5"]);
            let running = terminal.spawn(t, command)?;
            terminal.expect("size 31 77")?;
            terminal.resize(11, 22)?;
            terminal.expect("size 11 22")?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.finish(running)?.exits(137).map(drop)
        }),
        case("terminal/no-terminal-cannot-inject-input", |t| {
            // CVE-2016-7545 and its kin: without a terminal of its own the container must not hold ours.
            let b = t.bundle()?.tries(["inject"]);
            let mut terminal = Terminal::open(24, 80)?;
            let running = terminal.spawn(t, t.bundle_command("run", &b)?)?;
            terminal.expect("errno")?;
            t.finish(running)?.ok()?;
            check!(!terminal.seen.contains("\"ok\""), "TIOCSTI worked: {}", terminal.seen);
            Ok(())
        }),
        case("terminal/hup-of-ours-ends-a-foreground-run", |t| {
            let b = with_terminal(t)?.probe("block SIGHUP -- print ready -- await -- exit 3");
            let (mut terminal, running) = foreground(t, &b)?;
            terminal.expect("ready")?;
            drop(terminal);
            let done = t.finish(running)?;
            check!(done.code != 0, "{done}");
            Ok(())
        }),
    ]
}

fn with_terminal(t: &Test) -> Result<Bundle, Trouble> {
    Ok(t.bundle()?.set("/process/terminal", json!(true)))
}

/// Runs the container's probe on a console that goes to a socket, and reads its report there.
fn on_console(t: &Test, b: Bundle) -> Result<Report, Trouble> {
    let b = b.probe("report -- print the-end");
    let receiver = Receiver::listen(&t.path("console"))?;
    t.try_create(&format!("create --console-socket {}", receiver.path.display()), &b)?.ok()?;
    let Some(master) = receiver.receive()?.fds.pop() else { return Err("no master came".into()) };
    let mut terminal = Terminal::from_master(master)?;
    t.cli(&format!("start {}", b.id))?.ok()?;
    terminal.expect("\nthe-end")?;
    Report::read(&terminal.seen)
}

fn console_socket(t: &Test) -> Verdict {
    let b = with_terminal(t)?.probe("print hello");
    let receiver = Receiver::listen(&t.path("console"))?;
    t.try_create(&format!("create --console-socket {}", receiver.path.display()), &b)?.ok()?;
    let mut delivery = receiver.receive()?;
    same("descriptors received", delivery.fds.len(), 1)?;
    let name = delivery.text.trim_end_matches('\0');
    check!(name.starts_with('/') && name.contains("pt"), "the message is {name:?}");
    let Some(master) = delivery.fds.pop() else { return Err("no master".into()) };
    t.cli(&format!("start {}", b.id))?.ok()?;
    Terminal::from_master(master)?.expect("hello")
}

fn foreground(t: &Test, b: &Bundle) -> Result<(Terminal, crate::harness::test::Running), Trouble> {
    let terminal = Terminal::open(24, 80)?;
    let running = terminal.spawn(t, t.bundle_command("run", b)?)?;
    Ok((terminal, running))
}

/// What comes out where standard output is another terminal, which nobody made raw.
fn lines_end_once(t: &Test, command: std::process::Command) -> Verdict {
    let (typed, mut shown) = (Terminal::open(24, 80)?, Terminal::open(24, 80)?);
    let running = typed.spawn_into(&shown, t, command)?;
    shown.expect("two\r\n")?;
    t.finish(running)?.ok()?;
    same("the other terminal", shown.seen.as_str(), "one\r\ntwo\r\n")
}

fn raw_and_restored(t: &Test) -> Verdict {
    use nix::sys::termios::LocalFlags;
    let b = with_terminal(t)?.probe("block SIGUSR1 -- print ready -- await");
    let terminal = Terminal::open(24, 80)?;
    let before = terminal.settings()?;
    let mut terminal = terminal;
    let running = terminal.spawn(t, t.bundle_command("run", &b)?)?;
    terminal.expect("ready")?;
    let during = terminal.settings()?.local_flags;
    check!(!during.intersects(LocalFlags::ICANON | LocalFlags::ECHO), "not raw: {during:?}");
    t.cli(&format!("kill {} USR1", b.id))?.ok()?;
    t.finish(running)?.ok()?;
    let after = terminal.settings()?;
    same("local flags", after.local_flags, before.local_flags)?;
    same("input flags", after.input_flags, before.input_flags)?;
    same("output flags", after.output_flags, before.output_flags)
}

fn follows_size(t: &Test) -> Verdict {
    let b = with_terminal(t)?.probe("sizes 9");
    let mut terminal = Terminal::open(40, 100)?;
    let running = terminal.spawn(t, t.bundle_command("run", &b)?)?;
    // The runtime may set the size after the process has begun: then that is the first change.
    terminal.expect("size 40 100")?;
    terminal.resize(50, 120)?;
    terminal.expect("size 50 120")?;
    terminal.resize(51, 121)?;
    terminal.expect("size 51 121")?;
    t.cli(&format!("kill {} KILL", b.id))?;
    t.finish(running).map(drop)
}
