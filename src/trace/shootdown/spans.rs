//! What a timeline shows of user shootdowns, one by one: the system calls that flushed, their flushes, and the functions
//! that ran for them on other CPUs. The sums of the report are of these; the first of each are kept.

use super::{Extent, Op, Running, Shootdowns, State, tasks::Id};

/// Rows of each kind that are kept.
const MOST: usize = 1 << 17;

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A system call in which something was flushed.
    Call(&'static str),
    /// A flush: its extent and its pages, if known.
    Flush(Extent, Option<u64>),
    /// A flush function that ran for another CPU, and what its CPU did for the address space.
    Handler(State),
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What.
    pub what: What,
    /// When it began, ns of the recording's clock.
    pub at_ns: u64,
    /// How long it took; `None`: its end was not recorded.
    pub length_ns: Option<u64>,
    /// Where it began.
    pub cpu: u32,
    /// Who: of a handler, who was interrupted.
    pub thread: Id,
    /// Of a handler: when it was asked for, by which CPU and thread.
    pub asked: Option<(u64, u32, Id)>,
}

#[derive(Default)]
pub(super) struct Spans {
    calls: Vec<Span>,
    flushes: Vec<Span>,
    handlers: Vec<Span>,
}

fn keep(list: &mut Vec<Span>, span: Span) {
    if list.len() < MOST {
        list.push(span);
    }
}

impl Shootdowns {
    /// A thread's system call is over, or the next one shows that it is.
    pub(super) fn call_ends(&mut self, task: Id, end_ns: Option<u64>) {
        let thread = &mut self.threads[task];
        let flushed = std::mem::take(&mut thread.flushed);
        if let (Some(call), Some((at_ns, cpu)), true) = (thread.call, thread.called, flushed) {
            let length_ns = end_ns.map(|end| end.saturating_sub(at_ns));
            let span = Span { what: What::Call(call.name), at_ns, length_ns, cpu, thread: task, asked: None };
            keep(&mut self.spans.calls, span);
        }
    }

    pub(super) fn keep_flush(&mut self, op: &Op) {
        let end_ns = op.last_end_ns.max(op.local_end_ns).max(op.last_queue_ns);
        let span = Span {
            what: What::Flush(op.extent, op.range),
            at_ns: op.began_ns,
            length_ns: (end_ns > op.began_ns).then(|| end_ns - op.began_ns),
            cpu: op.began_on,
            thread: op.task,
            asked: None,
        };
        keep(&mut self.spans.flushes, span);
    }

    pub(super) fn keep_handler(&mut self, run: &Running, cpu: u32, state: State, ns: u64) {
        let span = Span {
            what: What::Handler(state),
            at_ns: run.at_ns,
            length_ns: Some(ns),
            cpu,
            thread: run.victim,
            asked: Some((run.queued_ns, run.sender_cpu, run.sender)),
        };
        keep(&mut self.spans.handlers, span);
    }

    /// All that are kept: system calls, flushes, handlers, each in the order in which they ended.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let Spans { calls, flushes, handlers } = &self.spans;
        calls.iter().chain(flushes).chain(handlers)
    }
}

impl What {
    /// The kind of row, and what a timeline calls it.
    pub fn words(self) -> (&'static str, String) {
        match self {
            Self::Call(name) => ("call", name.into()),
            Self::Flush(Extent::Full, _) => ("flush", "flush: everything".into()),
            Self::Flush(Extent::Ranged, Some(1)) => ("flush", "flush: 1 page".into()),
            Self::Flush(Extent::Ranged, Some(pages)) => ("flush", format!("flush: {pages} pages")),
            Self::Flush(Extent::TableSync, _) => ("flush", "wait for walkers of freed page tables".into()),
            Self::Flush(Extent::Ranged | Extent::Unknown, _) => ("flush", "flush".into()),
            Self::Handler(State::Running) => ("handler", "flush for another CPU".into()),
            Self::Handler(State::Idle) => ("handler", "flush for another CPU, while idle".into()),
            Self::Handler(State::Lazy) => ("handler", "flush for another CPU, while lazy".into()),
            Self::Handler(State::Elsewhere) => ("handler", "flush for another CPU, for nothing".into()),
            Self::Handler(State::Unknown) => ("handler", "flush for another CPU".into()),
        }
    }
}
