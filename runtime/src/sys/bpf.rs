// SPDX-License-Identifier: Apache-2.0
//! bpf(2): loading and attaching device programs.
