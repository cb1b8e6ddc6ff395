// SPDX-License-Identifier: Apache-2.0
//! The arithmetic between the specification's numbers, which are those of cgroup v1, and the kernel's. Pure.

#![forbid(unsafe_code)]

/// v1 `cpu.shares` (2 … 262144, normal 1024) as v2 `cpu.weight` (1 … 10000, normal 100): the quadratic fit that
/// every runtime adopted in 2025 so that the normal value maps to the normal value. The linear formula before it gave
/// 1024 shares the weight 39.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// v1 block I/O weight (10 … 1000) as `io.weight` (1 … 10000).
pub(super) fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// The specification's `swap` (memory plus swap, -1 unlimited) as v2 `memory.swap.max` (swap alone; `None` is
/// `max`). Beside unlimited memory there is nothing to take off: so much of both is as much of swap at most. Errors are the
/// reasons in runc's words.
pub(super) fn swap_alone(swap: i128, limit: Option<i128>) -> Result<Option<i128>, &'static str> {
    match (swap, limit.unwrap_or(0)) {
        (-1, _) => Ok(None),
        (_, 0) => Err("unable to set swap limit without memory limit"),
        (swap, -1) => Ok(Some(swap)),
        (swap, limit) if swap < limit => Err("memory+swap limit should be >= memory limit"),
        (swap, limit) => Ok(Some(swap - limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_to_weight() {
        // runc's table (opencontainers/cgroups utils_test.go) and the fixed points of the formula.
        for (shares, weight) in
            [(0, 1), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (262_145, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let mut last = 0;
        for shares in (2..=262_144).step_by(7) {
            let weight = weight_of_shares(shares);
            assert!(weight >= last && (1..=10_000).contains(&weight), "{shares} -> {weight}");
            last = weight;
        }
    }

    #[test]
    fn block_io_weight() {
        for (v1, v2) in [(10, 1), (1000, 10_000), (500, 4950), (100, 910)] {
            assert_eq!(io_weight(v1), v2, "{v1}");
        }
    }

    #[test]
    fn swap() {
        assert_eq!(swap_alone(-1, Some(5)), Ok(None));
        assert_eq!(swap_alone(7, Some(5)), Ok(Some(2)));
        assert_eq!(swap_alone(5, Some(5)), Ok(Some(0)));
        assert!(swap_alone(4, Some(5)).unwrap_err().contains("should be >="));
        assert!(swap_alone(4, None).unwrap_err().contains("without memory limit"));
        assert_eq!(swap_alone(4, Some(-1)), Ok(Some(4)));
    }
}
