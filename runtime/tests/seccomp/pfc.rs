// SPDX-License-Identifier: Apache-2.0
//! Reads and evaluates libseccomp's pseudo filter code (seccomp_export_pfc): what it believes to have compiled. Its
//! BPF (2.5.4) does not always do that, see `libseccomp.rs`.

use crate::bpf::Call;
use crate::model::AUDIT_X86_64;

/// The code for one architecture.
#[derive(Debug)]
struct Section {
    x32: bool,
    arch: u32,
    body: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    If { word: Word, mask: u32, test: Test, value: u32, then: Vec<Node>, otherwise: Vec<Node> },
    Action(u32),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Number,
    Low(usize),
    High(usize),
}

#[derive(Debug, Clone, Copy)]
enum Test {
    Equal,
    Greater,
    GreaterEqual,
}

/// A filter as libseccomp describes it.
#[derive(Debug)]
pub struct Pfc {
    sections: Vec<Section>,
    invalid: u32,
}

impl Pfc {
    /// Reads the text.
    pub fn parse(text: &str) -> Pfc {
        let x32: Vec<bool> = text
            .lines()
            .filter(|l| l.starts_with("# filter for arch"))
            .map(|l| l.contains(" x32 "))
            .collect();
        let lines: Vec<(usize, &str)> = text
            .lines()
            .map(|line| (line.len() - line.trim_start().len(), line.trim()))
            .filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
            .collect();
        let (mut sections, mut at, mut invalid) = (Vec::new(), 0, 0);
        while at < lines.len() {
            let line = lines[at].1;
            if let Some(arch) = line.strip_prefix("if ($arch == ") {
                let arch = arch.trim_end_matches(')').parse().unwrap();
                let (body, next) = block(&lines, at + 1, 2);
                sections.push(Section { x32: x32[sections.len()], arch, body });
                at = next;
            } else {
                invalid = action(line);
                at += 1;
            }
        }
        Pfc { sections, invalid }
    }

    /// The verdict on a call. The guard between x86_64 and x32 is not part of the description; it is applied here.
    pub fn verdict(&self, call: &Call) -> u32 {
        let x32 = self.sections.iter().any(|section| section.x32);
        if call.arch == AUDIT_X86_64 && !x32 && call.nr >= 0x4000_0000 && call.nr != u32::MAX {
            return self.invalid;
        }
        let is_x32 = x32 && call.arch == AUDIT_X86_64 && call.nr >= 0x4000_0000;
        let section = self.sections.iter().find(|section| section.arch == call.arch && section.x32 == is_x32);
        section.map_or(self.invalid, |section| evaluate(&section.body, call).unwrap())
    }
}

fn evaluate(nodes: &[Node], call: &Call) -> Option<u32> {
    nodes.iter().find_map(|node| match node {
        Node::Action(action) => Some(*action),
        Node::If { word, mask, test, value, then, otherwise } => {
            let word = match word {
                Word::Number => call.nr,
                Word::Low(arg) => call.args[*arg] as u32,
                Word::High(arg) => (call.args[*arg] >> 32) as u32,
            } & mask;
            let holds = match test {
                Test::Equal => word == *value,
                Test::Greater => word > *value,
                Test::GreaterEqual => word >= *value,
            };
            evaluate(if holds { then } else { otherwise }, call)
        }
    })
}

/// The lines from `at` on that are indented by `indent`, as nodes; and where they end.
fn block(lines: &[(usize, &str)], mut at: usize, indent: usize) -> (Vec<Node>, usize) {
    let mut nodes = Vec::new();
    while at < lines.len() && lines[at].0 == indent {
        let line = lines[at].1;
        let Some(condition) = line.strip_prefix("if (").and_then(|line| line.strip_suffix(')')) else {
            if line.starts_with("else") {
                break;
            }
            nodes.push(Node::Action(action(line)));
            at += 1;
            continue;
        };
        let (then, next) = block(lines, at + 1, indent + 2);
        at = next;
        let mut otherwise = Vec::new();
        if lines.get(at).is_some_and(|(depth, line)| *depth == indent && line.starts_with("else")) {
            (otherwise, at) = block(lines, at + 1, indent + 2);
        }
        let (word, mask, test, value) = self::condition(condition);
        nodes.push(Node::If { word, mask, test, value, then, otherwise });
    }
    (nodes, at)
}

/// `$a1.hi32 & 0x000000ff == 17`
fn condition(text: &str) -> (Word, u32, Test, u32) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let word = match words[0] {
        "$syscall" => Word::Number,
        arg => match (arg[2..3].parse().unwrap(), &arg[3..]) {
            (arg, ".hi32") => Word::High(arg),
            (arg, _) => Word::Low(arg),
        },
    };
    let mask = if words[1] == "&" { u32::from_str_radix(&words[2][2..], 16).unwrap() } else { u32::MAX };
    let test = match words[words.len() - 2] {
        "==" => Test::Equal,
        ">" => Test::Greater,
        ">=" => Test::GreaterEqual,
        test => panic!("{test}"),
    };
    (word, mask, test, words[words.len() - 1].parse().unwrap())
}

/// `action ERRNO(1);`
fn action(line: &str) -> u32 {
    let text = line.strip_prefix("action ").and_then(|text| text.strip_suffix(';'));
    let text = text.unwrap_or_else(|| panic!("{line:?}"));
    let (name, data) = text.trim_end_matches(')').split_once('(').unwrap_or((text, "0"));
    let data: u32 = data.parse().unwrap();
    match name {
        "KILL" => 0,
        "KILL_PROCESS" => 0x8000_0000,
        "TRAP" => 0x0003_0000,
        "ERRNO" => 0x0005_0000 + data,
        "TRACE" => 0x7ff0_0000 + data,
        "LOG" => 0x7ffc_0000,
        "ALLOW" => 0x7fff_0000,
        number => u32::from_str_radix(number.trim_start_matches("0x"), 16).unwrap(),
    }
}
