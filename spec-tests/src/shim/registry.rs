// SPDX-License-Identifier: Apache-2.0
//! `spec-tests registry ADDRESS:PORT LAYOUT`: the blobs of an OCI image layout, as a registry gives them out to whoever asks by digest.
//! containerd 2.1 pulls the image below a checkpoint even if it has it. Must never do more than that takes: one request a connection.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Serves until it is killed.
pub fn main(args: &[String]) -> ExitCode {
    let [address, layout] = args else {
        eprintln!("usage: spec-tests registry ADDRESS:PORT LAYOUT");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("bind({address}): {error}");
            return ExitCode::FAILURE;
        }
    };
    for stream in listener.incoming().flatten() {
        // Who goes away in the middle asks again.
        let _ = answer(stream, Path::new(layout));
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream, layout: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let digest = path.split("/sha256:").nth(1).unwrap_or_default();
    let named = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = if named { fs::read(layout.join("blobs/sha256").join(digest)).ok() } else { None };
    let Some(blob) = found else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let kind = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: sha256:{digest}\r\n\
         Connection: close\r\n\r\n",
        blob.len()
    );
    stream.write_all(head.as_bytes())?;
    if verb == "GET" { stream.write_all(&blob) } else { Ok(()) }
}
