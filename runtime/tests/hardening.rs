// SPDX-License-Identifier: Apache-2.0
//! How the programs are linked: position independent without an interpreter, everything that is relocated read-only afterwards, no stack and
//! no text that is both written to and executed, no path in which libraries are looked for.
//!
//! A test of both crates (shim/Cargo.toml names this file, too). The stage is none of it: it is one segment of 39 KB in a sealed memfd
//! (decisions/0044), executed for some milliseconds with nothing but its own program to read.

/// elf(5).
const ET_DYN: u16 = 3;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_LOAD: u32 = 1;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const DT_TEXTREL: u64 = 22;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_FLAGS: u64 = 30;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_TEXTREL: u64 = 4;
const DF_BIND_NOW: u64 = 8;
const DF_1_NOW: u64 = 1;
const DF_1_PIE: u64 = 0x0800_0000;

struct Elf(Vec<u8>);

struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    size: usize,
}

impl Elf {
    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(bytes)
    }

    fn segments(&self) -> Vec<Segment> {
        let (first, size, count) =
            (self.number::<8>(32) as usize, self.number::<2>(54) as usize, self.number::<2>(56) as usize);
        let segment = |at: usize| Segment {
            kind: self.number::<4>(at) as u32,
            flags: self.number::<4>(at + 4) as u32,
            offset: self.number::<8>(at + 8) as usize,
            address: self.number::<8>(at + 16) as usize,
            size: self.number::<8>(at + 32) as usize,
        };
        (0..count).map(|number| segment(first + number * size)).collect()
    }

    /// The values of a tag of the dynamic section.
    fn dynamic(&self, tag: u64) -> Vec<u64> {
        let all = self.segments();
        let Some(section) = all.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Vec::new() };
        let entries = (section.offset..section.offset + section.size).step_by(16);
        entries.filter(|&at| self.number::<8>(at) == tag).map(|at| self.number::<8>(at + 8)).collect()
    }

    fn has(&self, tag: u64, bit: u64) -> bool {
        self.dynamic(tag).iter().any(|flags| flags & bit != 0)
    }
}

fn check(elf: &Elf) {
    assert_eq!(&elf.0[..5], b"\x7fELF\x02", "no 64-bit ELF file");
    let segments = elf.segments();
    let of = |kind: u32| segments.iter().filter(move |segment| segment.kind == kind);
    if of(PT_INTERP).next().is_some() {
        println!("not run: not built for a target that links statically");
        return;
    }
    assert_eq!(elf.number::<2>(16) as u16, ET_DYN, "not position independent");
    assert!(elf.has(DT_FLAGS_1, DF_1_PIE), "no program that is position independent");
    assert_eq!(of(PT_GNU_RELRO).count(), 1, "nothing is made read-only after it was relocated");
    assert!(
        elf.has(DT_FLAGS, DF_BIND_NOW) || elf.has(DT_FLAGS_1, DF_1_NOW),
        "not everything is bound at the start"
    );
    assert!(
        of(PT_GNU_STACK).all(|stack| stack.flags & PF_X == 0) && of(PT_GNU_STACK).count() == 1,
        "a stack that may be executed"
    );
    let both = |segment: &&Segment| segment.flags & (PF_W | PF_X) == PF_W | PF_X;
    assert_eq!(of(PT_LOAD).filter(both).count(), 0, "a segment that is written to and executed");
    assert!(elf.dynamic(DT_TEXTREL).is_empty() && !elf.has(DT_FLAGS, DF_TEXTREL), "relocations in the text");
    assert!(elf.dynamic(DT_RPATH).is_empty() && elf.dynamic(DT_RUNPATH).is_empty(), "a path for libraries");
}

#[test]
fn the_program_is_hardened() {
    // Of the two, the one of this crate.
    let program =
        option_env!("CARGO_BIN_EXE_corten").or(option_env!("CARGO_BIN_EXE_containerd-shim-corten-v2"));
    check(&Elf(std::fs::read(program.expect("no program of this crate")).unwrap()));
}

/// musl's start leaves it to the program.
#[test]
fn what_was_relocated_is_read_only_while_it_runs() {
    let corten = option_env!("CARGO_BIN_EXE_corten");
    let Some(program) = corten.or(option_env!("CARGO_BIN_EXE_containerd-shim-corten-v2")) else {
        panic!("no program of this crate")
    };
    let dir = std::env::temp_dir().join(format!("corten-hardening-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    // Each waits for its input: the one for a configuration that nobody writes, the other for containerd's words.
    let mut command = std::process::Command::new(program);
    if corten.is_some() {
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("config.json"), 0o600.into()).unwrap();
        command.arg("--root").arg(dir.join("state")).arg("create").arg("--bundle").arg(&dir).arg("hardening");
    } else {
        command.args(["-namespace", "hardening", "-id", "hardening", "start"]).current_dir(&dir);
    }
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let maps = std::path::PathBuf::from(format!("/proc/{}/maps", child.id()));
    let elf = Elf(std::fs::read(program).unwrap());
    let segments = elf.segments();
    let relro = segments.iter().find(|segment| segment.kind == PT_GNU_RELRO).unwrap();
    let page = rustix::param::page_size();
    let relocated = (relro.address + relro.size) / page * page - relro.address / page * page;
    let mut seen = String::new();
    // It is there as soon as it waits; a loaded machine takes its time for that.
    for _ in 0..3000 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        seen = std::fs::read_to_string(&maps).unwrap();
        if seen.lines().any(|line| is_relocated(line, program, relocated)) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(
        seen.lines().any(|line| is_relocated(line, program, relocated)),
        "none of {relocated} bytes: {seen}"
    );
}

/// Whether a line of /proc/PID/maps is of so many bytes of the program that are only read, behind its text.
fn is_relocated(line: &str, program: &str, size: usize) -> bool {
    let mut fields = line.split_whitespace();
    let (Some(range), Some(flags)) = (fields.next(), fields.next()) else { return false };
    let Some((begin, end)) = range.split_once('-') else { return false };
    let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
    line.ends_with(program) && flags == "r--p" && number(end) - number(begin) == size
}
