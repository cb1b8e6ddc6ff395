// SPDX-License-Identifier: Apache-2.0
//! Twins: random containers and commands, performed equally on two runtimes; what the outside and the probe see is compared.
//!
//! A run: [`cli`] makes plans ([`plan`], from the generators of [`dimensions`]) out of a seed; each is performed
//! ([`perform`]) on every runtime in a process of its own, what must differ is made equal ([`normal`]), and what still
//! differs ([`compare`]) is a row of docs/differences.md ([`rows`]) or a finding, which is made small ([`shrink`]) and
//! written down ([`finding`]).
//!
//! A generator knows no runtime, and the comparison no field: what is right stands in docs/differences.md only.

#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
mod dimensions;
mod finding;
mod look;
mod normal;
mod perform;
mod plan;
pub mod rows;
mod shrink;
mod streams;
mod things;
pub mod worker;
