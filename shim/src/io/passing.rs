// SPDX-License-Identifier: Apache-2.0
//! Input and output, handed over and gone on with. What is in a pipe or a FIFO stays there; what has been read and not
//! written goes along as bytes.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::logger::Logger;
use super::open::Sink;
use super::pump::{Carry, InputFlow, OutputFlow};
use super::{Parts, Streams};
use crate::handover::state::{InputState, OutputState, StreamsState};
use crate::handover::{Handed, Outgoing};
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};

impl Streams {
    /// As they are handed over.
    pub fn pass(&self, to: &mut Outgoing) -> StreamsState {
        let input = self.input.as_ref().and_then(|(_, flow)| flow.upgrade());
        StreamsState {
            console: self.console.as_deref().map(|console| to.fd(console)),
            keep: self.keep.borrow().as_ref().map(|keep| to.fd(keep)),
            stdin: self.stdin.as_deref().map(|stdin| to.fd(stdin)),
            input: input.map(|flow| InputState {
                to: (!self.console.as_ref().is_some_and(|console| Rc::ptr_eq(console, &flow.to)))
                    .then(|| to.fd(&*flow.to)),
                carry: to.piece(&flow.carry.bytes()),
            }),
            // What has come to its end is closed, and is not heard of again.
            outputs: self.flows.iter().filter_map(Weak::upgrade).map(|flow| flow.pass(to)).collect(),
            logger: self.logger.as_ref().map(|logger| logger.pass(to)),
        }
    }

    /// Goes on with what was handed over.
    ///
    /// # Errors
    /// A descriptor that is not there.
    pub fn resumed(state: &StreamsState, from: &Handed, reaper: &Reaper) -> Result<Streams> {
        let shared = |place: Option<u32>| place.map(|place| from.shared(place)).transpose();
        let (console, stdin) = (shared(state.console)?, shared(state.stdin)?);
        let input = match &state.input {
            None => None,
            Some(input) => {
                let missing = || Refusal::invalid("the hand-over has input from nowhere or to nowhere");
                let to = match input.to {
                    Some(to) => from.shared(to)?,
                    None => console.clone().ok_or_else(missing)?,
                };
                let carry = Carry::of(from.piece(input.carry));
                Some(Rc::new(InputFlow { from: stdin.clone().ok_or_else(missing)?, to, carry }))
            }
        };
        let outputs = state.outputs.iter().map(|output| OutputFlow::resumed(output, from));
        let outputs = outputs.collect::<Result<_>>()?;
        let logger = state.logger.as_ref().map(|logger| Logger::resumed(logger, from, reaper)).transpose()?;
        let keep = state.keep.map(|keep| from.fd(keep)).transpose()?;
        Ok(Parts { console, keep, stdin, input, outputs, logger }.move_all())
    }
}

impl OutputFlow {
    fn pass(&self, to: &mut Outgoing) -> OutputState {
        OutputState {
            from: self.from.as_ref().map(|pipe| to.fd(pipe)),
            to: to.fd(self.sink.fd()),
            fifo: matches!(self.sink, Sink::Fifo(_)),
            carry: to.piece(&self.carry.bytes()),
            failed: self.failed.get(),
            inner: self.inner.borrow().as_ref().map(|inner| to.fd(inner)),
        }
    }

    fn resumed(state: &OutputState, from: &Handed) -> Result<Rc<OutputFlow>> {
        let sink = match state.fifo {
            true => Sink::Fifo(from.fd(state.to)?),
            false => Sink::File(from.shared(state.to)?),
        };
        Ok(Rc::new(OutputFlow {
            from: state.from.map(|pipe| from.fd(pipe)).transpose()?,
            sink,
            carry: Carry::of(from.piece(state.carry)),
            failed: Cell::new(state.failed),
            inner: RefCell::new(state.inner.map(|inner| from.fd(inner)).transpose()?),
        }))
    }
}
