//! The sender's side: where a flush begins, what it flushes, whom it asks, and when it is over and counted.

use super::{CEILING, Extent, Key, MOST, NOBODY, Op, Shootdowns, Sym, TABLES, Where, call, slot, tasks::Id};
use crate::trace::{
    cause,
    event::Event,
    import::scan::{Fields, hex, number},
};

const SENDING: &[&[u8]] = &[b"flush_tlb_func", b"flush_tlb_func_remote", b"flush_tlb_func_common"];

/// Does this function flush a user range, or wait for those who walk its tables?
pub(super) fn is_ours(func: &[u8]) -> bool {
    func == TABLES || SENDING.contains(&func)
}

impl Shootdowns {
    pub(super) fn new_op(&mut self, e: &Event<'_>, task: Id) -> u32 {
        self.close(task);
        let (call, asked) = self.doing(e, task);
        let op = Op {
            task,
            cpu: e.cpu,
            call,
            asked,
            range: None,
            extent: Extent::Unknown,
            tables: None,
            mm: 0,
            sent: false,
            local: false,
            queued: 0,
            ran: 0,
            held: 0,
            last_queue_ns: 0,
            local_end_ns: 0,
            last_end_ns: 0,
            victim_ns: 0,
            stack: Sym::NONE,
            began_ns: e.at_ns,
            began_on: e.cpu,
            counted: self.open,
            closed: false,
        };
        let at = if let Some(at) = self.free.pop() {
            self.ops[at as usize] = op;
            self.called[at as usize].clear();
            at
        } else {
            self.ops.push(op);
            self.called.push(Vec::new());
            (self.ops.len() - 1) as u32
        };
        self.threads[task].open = Some(at);
        self.threads[task].used = true;
        self.threads[task].flushed |= self.open;
        at
    }

    /// What the thread is doing, as far as its system calls and its name tell.
    pub(super) fn doing(&self, e: &Event<'_>, task: Id) -> (Where, Option<u64>) {
        let thread = &self.threads[task];
        if e.in_interrupt == Some(true) {
            return (Where::Known("an interrupt"), None);
        }
        match thread.call {
            Some(call) => (Where::Known(call.name), call.pages),
            None if thread.fault => (Where::Known("page fault"), None),
            None => match call::of_kernel_thread(e.task.comm) {
                Some(name) => (Where::Known(name), None),
                None if cause::is_kernel_thread(e.task.comm) => (Where::Known("kernel thread"), None),
                None => (Where::Outside(e.cpu), None),
            },
        }
    }

    /// The flush that this thread is in, or a new one.
    pub(super) fn op_of(&mut self, e: &Event<'_>, task: Id) -> u32 {
        match self.threads[task].open {
            Some(at) => at,
            None => self.new_op(e, task),
        }
    }

    /// The thread's flush, if it is in one, is over as far as the thread is concerned.
    pub(super) fn close(&mut self, task: Id) {
        if let Some(at) = self.threads[task].open.take() {
            self.ops[at as usize].closed = true;
            self.settle(at);
        }
    }

    /// Counts a flush once nobody refers to it any more.
    pub(super) fn settle(&mut self, at: u32) {
        let op = self.ops[at as usize];
        if !op.closed || op.held > 0 || op.task == NOBODY {
            return;
        }
        self.ops[at as usize].task = NOBODY;
        self.free.push(at);
        if !op.counted {
            return;
        }
        self.keep_flush(&op);
        if let Where::Known(call) = op.call
            && op.extent != Extent::TableSync
        {
            self.batches.flushed(op.task, call, &self.called[at as usize]);
        }
        let pages = op.asked.or(op.range);
        let key = Key {
            task: op.task,
            call: op.call,
            size: size_class(pages),
            extent: op.extent,
            tables: op.tables,
            stack: op.stack,
        };
        if self.rows.len() >= MOST && !self.rows.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let unknown = op.sent && op.queued == 0 && self.kinds.csd == 0 && self.kinds.ipi == 0;
        let sum = self.rows.entry(key).or_default();
        sum.flushes += 1;
        sum.shootdowns += u64::from(op.queued > 0 || unknown);
        sum.unknown_victims += u64::from(unknown);
        sum.victims += u64::from(op.queued);
        sum.ran += u64::from(op.ran);
        sum.victim_ns += op.victim_ns;
        if let Some(pages) = pages {
            let (low, high) = sum.pages.unwrap_or((pages, pages));
            sum.pages = Some((low.min(pages), high.max(pages)));
        }
        if op.queued > 0 && op.ran == op.queued {
            let wait = op.last_end_ns.saturating_sub(op.last_queue_ns.max(op.local_end_ns));
            sum.waits += 1;
            sum.wait_ns += wait;
            sum.longest_ns = sum.longest_ns.max(wait);
        }
        if op.mm != 0 && self.mms.len() < MOST {
            let mm = self.mms.entry((op.task, op.mm)).or_default();
            mm.flushes += 1;
            mm.full += u64::from(op.extent == Extent::Full);
            mm.victims += u64::from(op.queued);
        }
    }

    /// A probe on `flush_tlb_mm_range`, by its arguments: `mm= start= end= stride= freed=`.
    pub(super) fn range(&mut self, e: &Event<'_>, args: &[u8]) {
        let task = self.thread(e);
        if task == NOBODY {
            return;
        }
        self.kinds.range_probe += 1;
        let at = self.new_op(e, task);
        let value = |keys: &[&[u8]]| {
            keys.iter().find_map(|key| Fields(args).get(key)).and_then(|t| number(t).or_else(|| hex(t)))
        };
        let op = &mut self.ops[at as usize];
        op.mm = value(&[b"mm="]).unwrap_or(0);
        op.tables = value(&[b"freed=", b"freed_tables="]).map(|freed| freed != 0);
        if let (Some(start), Some(end)) = (value(&[b"start="]), value(&[b"end="])) {
            let bytes = end.wrapping_sub(start);
            let stride = value(&[b"stride=", b"stride_shift="]).unwrap_or(12).min(63);
            op.extent =
                if end == u64::MAX || bytes >> stride > CEILING { Extent::Full } else { Extent::Ranged };
            op.range = (end != u64::MAX).then(|| bytes.div_ceil(4096));
        }
    }

    pub(super) fn tlb_flush(&mut self, e: &Event<'_>, pages: i64, reason: &[u8]) {
        self.kinds.tlb_flush += 1;
        let Some(reason) = reason_of(reason) else { return };
        let extent = if pages < 0 { Extent::Full } else { Extent::Ranged };
        if let Some(running) = &mut self.cpu(e.cpu).running {
            running.reason.get_or_insert(reason);
            return;
        }
        match reason {
            1 if e.in_interrupt != Some(false) => self.remote(e),
            3 | 4 => {
                let task = self.thread(e);
                if task == NOBODY {
                    return;
                }
                // A second one of the same kind is another flush, if nothing else shows where one begins.
                let again = self.threads[task].open.is_some_and(|at| {
                    let op = &self.ops[at as usize];
                    if reason == 4 { op.sent || op.local } else { op.local }
                });
                let at = match self.threads[task].open {
                    Some(at) if !again => at,
                    _ if reason == 3 && self.kinds.range_probe > 0 => return,
                    _ => self.new_op(e, task),
                };
                let op = &mut self.ops[at as usize];
                if reason == 4 {
                    op.sent = true;
                } else {
                    op.local = true;
                }
                op.extent = extent;
                if op.range.is_none() && pages >= 0 {
                    op.range = u64::try_from(pages).ok();
                }
                self.last_stackable.insert(e.task.pid, at);
            }
            _ => {}
        }
    }

    pub(super) fn queue(&mut self, e: &Event<'_>, target: u32, func: &[u8], csd: u64) {
        self.kinds.csd += 1;
        let sync = func == TABLES;
        if !is_ours(func) {
            return;
        }
        self.named.insert(target);
        let task = self.thread(e);
        if task == NOBODY {
            return;
        }
        let begins = sync
            && self.threads[task].open.is_none_or(|at| self.ops[at as usize].extent != Extent::TableSync);
        let at = if begins { self.new_op(e, task) } else { self.op_of(e, task) };
        let op = &mut self.ops[at as usize];
        if sync {
            (op.extent, op.tables) = (Extent::TableSync, Some(true));
        }
        op.queued += 1;
        op.held += 1;
        self.called[at as usize].push(target);
        let op = &mut self.ops[at as usize];
        op.last_queue_ns = e.at_ns;
        op.cpu = e.cpu; // it may have moved since
        let counted = op.counted;
        if let Some((old, ..)) = self.waiting.insert((target, csd), (at, counted, e.at_ns)) {
            self.let_go(old); // it never showed: lost
        }
        if counted && let Some(pair) = slot(&mut self.pairs, (task, e.cpu, target), &mut self.left_out) {
            pair.calls += 1;
        }
    }

    pub(super) fn let_go(&mut self, at: u32) {
        let op = &mut self.ops[at as usize];
        op.held = op.held.saturating_sub(1);
        self.settle(at);
    }

    /// CPUs are sent an interrupt: those of a flush, if no event names the calls themselves.
    pub(super) fn ipis(&mut self, e: &Event<'_>, targets: impl FnOnce(&mut dyn FnMut(u32))) {
        self.kinds.ipi += 1;
        if self.kinds.csd > 0 || e.task.pid == 0 {
            return;
        }
        let task = self.thread(e);
        let Some(at) = self.threads[task].open.filter(|&at| self.ops[at as usize].sent) else { return };
        if self.ops[at as usize].queued > 0 {
            return;
        }
        targets(&mut |target| {
            self.named.insert(target);
            self.ops[at as usize].queued += 1;
            self.called[at as usize].push(target);
            if self.open
                && let Some(pair) = slot(&mut self.pairs, (task, e.cpu, target), &mut self.left_out)
            {
                pair.calls += 1;
            }
        });
    }

    /// A call chain of the event this task has just recorded.
    pub(super) fn stack(&mut self, e: &Event<'_>, frames: &[u8]) {
        self.kinds.stacks += 1;
        let Some(at) = self.last_stackable.get(&e.task.pid).copied() else { return };
        let op = self.ops[at as usize];
        if op.task == NOBODY || self.threads[op.task].pid != e.task.pid || op.stack != Sym::NONE {
            return;
        }
        let outside = matches!(op.call, Where::Outside(_) | Where::Known("page fault"));
        let told = call::of_frames(frames, outside);
        let stack = self.symbols.number(frames.trim_ascii());
        let op = &mut self.ops[at as usize];
        op.stack = stack;
        if let Some(name) = told {
            op.call = Where::Known(name);
            op.asked = None;
        }
    }
}

/// Is an interrupt for one CPU that is sent from here a flush's? Wake-ups are sent with the same handler.
pub(super) fn is_flush(callsite: &[u8]) -> bool {
    let starts = ["flush_tlb", "native_flush_tlb", "arch_tlbbatch", "on_each_cpu", "smp_call_function_many"];
    starts.iter().any(|start| callsite.starts_with(start.as_bytes()))
}

/// The number of a reason, which the kernel prints in brackets and perf does not.
fn reason_of(reason: &[u8]) -> Option<u8> {
    if let Some(open) = memchr::memrchr(b'(', reason)
        && let Some(digit) = reason.get(open + 1)
    {
        return digit.is_ascii_digit().then(|| digit - b'0');
    }
    let words = [
        "flush on task switch",
        "remote shootdown",
        "local shootdown",
        "local mm shootdown",
        "remote ipi send",
        "remote wrong cpu",
    ];
    words.iter().position(|word| reason.eq_ignore_ascii_case(word.as_bytes())).map(|at| at as u8)
}

/// Classes of sizes, in pages: their last ones.
const CLASSES: [u64; 5] = [1, 8, CEILING, 512, u64::MAX];

fn size_class(pages: Option<u64>) -> u8 {
    pages.map_or(CLASSES.len(), |pages| CLASSES.iter().position(|&last| pages <= last).unwrap_or(0)) as u8
}
