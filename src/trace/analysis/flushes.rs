//! Flushes of kernel ranges: what probes and call chains say about who asks for them, and why.

use super::{
    Analysis, Broadcast, Isolated,
    sender::{Evidence, Step, pages, probed, range},
    tasks::Sym,
};
use crate::trace::{
    cause::{self, Cause},
    event::Event,
};

const MAX_BROADCASTS: usize = 64;
/// Call chains remembered: of one machine a few dozen differ.
const MAX_CHAINS: usize = 4096;
/// A call chain is recorded with its event; the two are stamped one after the other.
const STACK_NS: u64 = 1_000_000;

impl Analysis {
    pub(super) fn probe(&mut self, e: &Event<'_>, name: &[u8], function: &[u8], args: &[u8]) {
        let function = probed(name, function);
        let sym = self.symbols.number(function);
        let open = u64::from(self.window.open);
        *self.probe_counts.entry(sym).or_default() += open;
        if cause::is_handler(function) {
            return self.handler(e, sym);
        }
        let step = self.contexts.of(e.task.pid).probe(function, args);
        match step {
            Step::KernelRange => {
                let range = range(args);
                let full = range.is_none_or(|r| pages(r).1);
                self.range_calls.calls += open;
                *(if full { &mut self.range_calls.full } else { &mut self.range_calls.ranged }) += open;
                let (cause, evidence) = self.contexts.of(e.task.pid).kernel_range(range);
                self.contexts.of(e.task.pid).flushed();
                if matches!(cause, Cause::VmallocPurge | Cause::VmUnmapAliases | Cause::KernelFlushUnknown) {
                    self.lazy.detach();
                }
                let func: &[u8] = if full { b"do_flush_tlb_all" } else { b"do_kernel_range_flush" };
                self.broadcast(e, func, cause, evidence);
            }
            Step::FlushAll => {
                self.flush_all_calls += open;
                let (cause, evidence) = self.contexts.of(e.task.pid).flush_all();
                self.broadcast(e, b"do_flush_tlb_all", cause, evidence);
            }
            Step::Context => self.purge_probes += u64::from(function == b"__purge_vmap_area_lazy") * open,
            Step::Foreign => {}
        }
    }

    /// A function that CPUs are asked to run begins. Its csd event, if there is one, has counted it; outside a call
    /// interrupt the sender runs it itself.
    pub(super) fn handler(&mut self, e: &Event<'_>, function: Sym) {
        if self.cpu(e.cpu).calling == function {
            return;
        }
        if self.cpu(e.cpu).in_call_irq() {
            let call = self.cpu(e.cpu).take(function, 0);
            self.ran(e, function, call, true);
        } else {
            let open = u64::from(self.window.open);
            *self.cpu(e.cpu).figures.local.entry(function).or_default() += open;
        }
    }

    /// A probe announces a flush of every CPU. Kernels before 6.5 have no csd events: then the probe queues the calls.
    pub(super) fn broadcast(&mut self, e: &Event<'_>, func: &[u8], cause: Cause, evidence: Evidence) {
        let func = self.symbols.number(func);
        let op = self.new_op(e, func, cause, evidence);
        let context = self.contexts.of(e.task.pid);
        context.announced = Some(op);
        context.latest = Some(op);
        context.last = Some(op);
        context.close();
        if self.kinds.csd_queue > 0 {
            return;
        }
        if self.broadcasts.len() >= MAX_BROADCASTS {
            self.broadcasts.pop_front();
        }
        self.broadcasts.push_back(Broadcast { op, func, done: vec![e.cpu] });
        for target in 0..self.cpus.len() as u32 {
            // Of a CPU that has recorded nothing it is not known that its events are kept: if it runs such a call
            // later, `unqueued` finds this broadcast.
            let known = match &self.isolated {
                Isolated::Given(list) | Isolated::Recorded(list) => list.contains(&target),
                Isolated::Deduce => self.cpus[target as usize].tracked,
            };
            if known && self.cpus[target as usize].seen && target != e.cpu {
                self.queue(e, target, func, 0, op, false);
            }
        }
    }

    /// What a call chain says; few different ones occur.
    pub(super) fn of_stack(&mut self, frames: &[u8]) -> Option<Cause> {
        if let Some(known) = self.chains.get(frames) {
            return *known;
        }
        if self.chains.len() >= MAX_CHAINS {
            self.chains.clear();
        }
        let cause = cause::of_stack(frames);
        self.chains.insert(frames.into(), cause);
        cause
    }

    /// A call chain belongs to the latest operation of its task, if that was just now.
    pub(super) fn stack(&mut self, e: &Event<'_>, frames: &[u8]) {
        let Some(cause) = self.of_stack(frames) else { return };
        let Some(context) = self.contexts.get(e.task.pid) else { return };
        let op = context.announced.or(context.last);
        if let Some(op) = op.and_then(|op| self.ops.get_mut(op))
            && e.at_ns.saturating_sub(op.at_ns) <= STACK_NS
            && (op.cause == Cause::KernelFlushUnknown
                || op.cause.entry().class != cause::Class::Other
                || matches!(op.cause, Cause::NohzKick | Cause::CallOther))
        {
            op.refine(cause, Evidence::Stack);
        }
    }
}
