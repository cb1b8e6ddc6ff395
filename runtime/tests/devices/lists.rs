// SPDX-License-Identifier: Apache-2.0
//! Random lists of device rules, the same in every run, for the unit tests and for the tests against the kernel. `super`
//! has `DeviceRule`.

use super::DeviceRule;

/// The letters with the kernel's bits (`BPF_DEVCG_ACC_*`).
pub const LETTERS: [(u8, char); 3] = [(1, 'm'), (2, 'r'), (4, 'w')];
/// Few numbers, so that rules meet; those of the built-in rules among them.
pub const MAJORS: [u32; 6] = [1, 5, 10, 136, 8, 4095];
/// Likewise.
pub const MINORS: [u32; 6] = [0, 1, 2, 3, 5, 0xf_ffff];

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as u32 % n
    }

    pub fn numbers(&mut self) -> (u32, u32) {
        (MAJORS[self.below(6) as usize], MINORS[self.below(6) as usize])
    }
}

/// Up to eight rules; now and then all begin anew, in the way of clients: a rule for everything, then exceptions.
pub fn random_list(random: &mut Random) -> Vec<DeviceRule> {
    let mut list = Vec::new();
    if random.below(2) == 0 {
        let allow = random.below(2) == 0;
        list.push(DeviceRule { allow, kind: "a".into(), access: "rwm".into(), ..DeviceRule::default() });
    }
    for _ in 0..random.below(9) {
        let (major, minor) = random.numbers();
        let number = |n: u32, choice: u32| match choice {
            0 => None,
            1 => Some(-1),
            _ => Some(i64::from(n)),
        };
        list.push(DeviceRule {
            allow: random.below(2) == 0,
            kind: ["", "a", "c", "b", "c", "b", "u"][random.below(7) as usize].into(),
            major: number(major, random.below(4)),
            minor: number(minor, random.below(4)),
            access: ["", "rwm", "r", "w", "m", "rw", "wm", "mr"][random.below(8) as usize].into(),
        });
    }
    list
}
