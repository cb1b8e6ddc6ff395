// SPDX-License-Identifier: Apache-2.0
//! `sbom DIRECTORY TARGET PROGRAM...`: writes a bill of materials for each program, `PROGRAM.cdx.json`, into the directory, and the
//! licences of what is linked into any of them, `copyright`. To be run in the workspace.

#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sbom::copyright::{copyright, directories};
use sbom::cyclonedx::{Bundled, bill};
use sbom::{Asked, packages};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [directory, target, programs @ ..] = words.as_slice() else {
        eprintln!("usage: sbom DIRECTORY TARGET PROGRAM...");
        return ExitCode::from(2);
    };
    match write(Path::new(directory), target, programs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sbom: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path, target: &str, programs: &[String]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").map_or(PathBuf::from("cargo"), PathBuf::from);
    let at = |path: &Path| path.display().to_string();
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", at(directory)))?;
    let bundled = bundled(target)?;
    let mut all = Vec::new();
    for program in programs {
        let packages = packages(&Asked { cargo: &cargo, workspace: Path::new("."), program, target })?;
        if let Some(package) = packages.iter().find(|package| package.licence.is_empty()) {
            return Err(format!("{} {} names no licence", package.name, package.version));
        }
        let path = directory.join(format!("{program}.cdx.json"));
        std::fs::write(&path, bill(&packages, &bundled))
            .map_err(|error| format!("{}: {error}", at(&path)))?;
        println!("{}: {} packages", at(&path), packages.len());
        all.extend(packages);
    }
    let path = directory.join("copyright");
    std::fs::write(&path, copyright(&all, &directories(&cargo)?, &bundled)?)
        .map_err(|error| format!("{}: {error}", at(&path)))
}

/// Rust's standard library, and the C library where the toolchain brings it.
fn bundled(target: &str) -> Result<Vec<Bundled>, String> {
    let words = rustc(&["--version", "--verbose"])?;
    let release = words.lines().find_map(|line| line.strip_prefix("release: "));
    let version = release.ok_or("rustc: does not tell its release")?.to_owned();
    let mut bundled = vec![Bundled { name: "rust-std", version, licence: "MIT OR Apache-2.0" }];
    if target.ends_with("-musl") {
        let directory = rustc(&["--print", "target-libdir", "--target", target])?;
        let path = Path::new(directory.trim()).join("self-contained/libc.a");
        let archive = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let version =
            musl_version(&archive).ok_or_else(|| format!("{}: no version of musl in it", path.display()))?;
        bundled.push(Bundled { name: "musl", version, licence: "MIT" });
    }
    Ok(bundled)
}

fn rustc(words: &[&str]) -> Result<String, String> {
    let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(program).args(words).output().map_err(|error| format!("rustc: {error}"))?;
    if !output.status.success() {
        return Err(format!("rustc {}: {}", words.join(" "), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("rustc: {error}"))
}

/// musl has its version as a string: three numbers between zeros, the only ones in the archive.
fn musl_version(archive: &[u8]) -> Option<String> {
    let is_version = |word: &&[u8]| {
        let mut numbers = word.split(|byte| *byte == b'.');
        let number = |number: &[u8]| (1..=2).contains(&number.len()) && number.iter().all(u8::is_ascii_digit);
        numbers.clone().count() == 3 && numbers.all(number)
    };
    let mut words = archive.split(|byte| *byte == 0).filter(is_version);
    let version = words.next().filter(|_| words.next().is_none())?;
    String::from_utf8(version.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_musl() {
        let of = |bytes: &[u8]| super::musl_version(bytes);
        assert_eq!(of(b"x\0\x001.2.5\0y1.2\0"), Some("1.2.5".to_owned()));
        assert_eq!(of(b"x\x001.2\0"), None);
        assert_eq!(of(b"\x001.2.5\0\x001.2.6\0"), None, "which of them?");
    }
}
