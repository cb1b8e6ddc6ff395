// SPDX-License-Identifier: Apache-2.0
//! Kernel parameters (config-linux.md#sysctl): only those of a namespace that the container has to itself.

#![forbid(unsafe_code)]
