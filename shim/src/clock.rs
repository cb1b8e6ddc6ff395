// SPDX-License-Identifier: Apache-2.0
//! Times as protobuf has them.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;

/// Go's zero time, which stands for "not yet": an absent field would be read as 1970.
const NEVER: i64 = -62_135_596_800;

/// Since the epoch.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub fn now() -> Timestamp {
    stamp(Some(since_epoch()))
}

/// A time since the epoch, or "not yet".
pub fn stamp(time: Option<Duration>) -> Timestamp {
    match time {
        Some(time) => Timestamp {
            seconds: time.as_secs() as i64,
            nanos: time.subsec_nanos() as i32,
            ..Default::default()
        },
        None => Timestamp { seconds: NEVER, ..Default::default() },
    }
}
