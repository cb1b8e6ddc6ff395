// SPDX-License-Identifier: Apache-2.0
#![no_main]
corten_fuzz::entry!(state::TARGET);
