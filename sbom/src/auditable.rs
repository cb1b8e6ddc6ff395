// SPDX-License-Identifier: Apache-2.0
//! The list of packages as cargo-auditable has it, which scanners look for in a program's section `.dep-v0`: JSON,
//! compressed by zlib. Here, an object file of nothing but that section, for the linker.
//!
//! elf(5); RFC 1950 and 1951.

#![forbid(unsafe_code)]

use crate::json;
use crate::packages::{Kind, Package};

/// What the linker is to ask for. cargo-auditable's own is `AUDITABLE_VERSION_INFO`.
pub const SYMBOL: &str = "CORTEN_PACKAGES";

const SECTION: &str = ".dep-v0";

/// What tells a linker whose object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`.
    number: u16,
    /// `e_flags`.
    flags: u32,
}

/// Of a target that has 64-bit little-endian ELF files; none if it is not known here.
pub fn machine(target: &str) -> Option<Machine> {
    let number = |number| Some(Machine { number, flags: 0 });
    match target.split_once("-unknown-linux-")?.0 {
        "x86_64" => number(62),
        "aarch64" => number(183),
        // Compressed instructions, floating point numbers of 64 bits in registers.
        "riscv64gc" => Some(Machine { number: 243, flags: 5 }),
        _ => None,
    }
}

/// The packages as JSON.
pub fn list(packages: &[Package]) -> String {
    let package = |package: &Package| {
        let source = match package.source.as_deref() {
            None => "local",
            Some("registry+https://github.com/rust-lang/crates.io-index") => "crates.io",
            Some(source) if source.starts_with("git+") => "git",
            Some(_) => "registry",
        };
        let mut members = vec![
            ("name", json::string(&package.name)),
            ("version", json::string(&package.version)),
            ("source", json::string(source)),
        ];
        if package.kind == Kind::Build {
            members.push(("kind", json::string("build")));
        }
        if !package.dependencies.is_empty() {
            members.push(("dependencies", json::list(package.dependencies.iter().map(usize::to_string))));
        }
        if package.root {
            members.push(("root", "true".to_owned()));
        }
        json::object(&members)
    };
    json::object(&[("packages", json::list(packages.iter().map(package)))])
}

/// As zlib has it, in blocks that are stored: some kilobytes of a file that nobody loads are not worth a compressor.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let last = bytes.chunks(0xffff).count().max(1) - 1;
    let blocks = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(0xffff).collect() };
    for (number, block) in blocks.into_iter().enumerate() {
        // At most 0xffff: the size of the chunks.
        let length = block.len() as u16;
        out.push(u8::from(number == last));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// A section of the object.
#[derive(Clone, Copy)]
struct Section<'a> {
    name: &'static str,
    /// `sh_type`
    kind: u32,
    bytes: &'a [u8],
    /// `sh_link`
    link: u32,
    /// `sh_info`
    info: u32,
    /// `sh_entsize`
    entry: u64,
}

/// A relocatable object with the list as a section that is no part of any segment, a symbol for it, and the word that no
/// executable stack is needed.
pub fn object(list: &[u8], machine: Machine) -> Vec<u8> {
    const HEADER: usize = 64;
    const PROGBITS: u32 = 1;
    const SYMTAB: u32 = 2;
    const STRTAB: u32 = 3;
    let names = format!("\0{SECTION}\0.symtab\0.strtab\0.note.GNU-stack\0{SYMBOL}\0");
    // Each of these is in it.
    let name = |word: &str| names.find(&format!("\0{word}\0")).map_or(0, |at| at as u32 + 1);
    let content = zlib(list);
    // The empty symbol, and a global object in section 1.
    let mut symbols = vec![0; 24];
    symbols.extend(name(SYMBOL).to_le_bytes());
    symbols.extend([0x11, 0, 1, 0]);
    symbols.extend(0_u64.to_le_bytes());
    symbols.extend((content.len() as u64).to_le_bytes());
    let mut body = Vec::new();
    let mut headers = vec![0; HEADER];
    let plain = Section { name: SECTION, kind: PROGBITS, bytes: &content, link: 0, info: 0, entry: 0 };
    let sections = [
        // Its names are in section 3; global symbols begin with the first.
        Section { name: ".symtab", kind: SYMTAB, bytes: &symbols, link: 3, info: 1, entry: 24 },
        Section { name: ".strtab", kind: STRTAB, bytes: names.as_bytes(), ..plain },
        Section { name: ".note.GNU-stack", bytes: &[], ..plain },
    ];
    for Section { name: title, kind, bytes, link, info, entry } in [plain].into_iter().chain(sections) {
        body.resize(body.len().next_multiple_of(8), 0);
        let offset = (HEADER + body.len()) as u64;
        body.extend(bytes);
        let align = if entry == 0 { 1_u64 } else { 8 };
        headers.extend([name(title), kind].iter().flat_map(|word| word.to_le_bytes()));
        // Neither flags nor an address: it is not loaded.
        headers.extend([0, 0, offset, bytes.len() as u64].iter().flat_map(|word| word.to_le_bytes()));
        headers.extend([link, info].iter().flat_map(|word| word.to_le_bytes()));
        headers.extend([align, entry].iter().flat_map(|word| word.to_le_bytes()));
    }
    body.resize(body.len().next_multiple_of(8), 0);
    // 64 bits, little-endian, version 1; relocatable.
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([1, machine.number].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, (HEADER + body.len()) as u64].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(machine.flags.to_le_bytes());
    // No program headers; five section headers of 64 bytes, their names in the third.
    file.extend([64_u16, 0, 0, 64, 5, 3].iter().flat_map(|word| word.to_le_bytes()));
    [file, body, headers].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1950 has no example; these are zlib's own words, at level 0.
    #[test]
    fn what_is_stored() {
        assert_eq!(zlib(b""), [0x78, 1, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
        assert_eq!(zlib(b"ab"), [0x78, 1, 1, 2, 0, 0xfd, 0xff, b'a', b'b', 1, 0x26, 0, 0xc4]);
        let long = zlib(&[7; 70_000]);
        assert_eq!(long[2..5], [0, 0xff, 0xff]);
        assert_eq!(long.len(), 2 + 5 + 65_535 + 5 + 4465 + 4);
        assert_eq!(long[2 + 5 + 65_535], 1);
    }

    #[test]
    fn machines_of_targets() {
        for (target, number) in [("x86_64-unknown-linux-musl", 62), ("aarch64-unknown-linux-gnu", 183)] {
            assert_eq!(machine(target), Some(Machine { number, flags: 0 }));
        }
        assert_eq!(machine("riscv64gc-unknown-linux-musl"), Some(Machine { number: 243, flags: 5 }));
        assert_eq!((machine("wasm32-wasip1"), machine("sparc64-unknown-linux-gnu")), (None, None));
    }
}
