//! What the pass counted, as tables by number of thread; who is asked for, and sentences, come later.

use crate::order;
use std::collections::BTreeSet;

use serde::Serialize;

use super::{Extent, Kinds, Pair, Shootdowns, State, Where, batch::BatchRow, tasks::NOBODY};

/// Counts of a recording.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The marker that begins what is counted was found, or none was asked for.
    pub found: bool,
    /// Time counted.
    pub seconds: f64,
    /// When that begins.
    pub first_s: f64,
    /// Events counted.
    pub events: u64,
    /// CPUs with events, and CPUs that were sent a flush.
    pub cpus: Vec<u32>,
    /// Events by kind, over the whole recording.
    pub kinds: Kinds,
    /// Events the recorder says it had switched on.
    pub switched_on: Vec<String>,
    /// Names of tasks met.
    pub names: Vec<String>,
    /// Thread ids met.
    pub pids: Vec<u32>,
    /// Process ids are printed.
    pub tgids: bool,
    /// Threads for which something is counted, and those that lead them.
    pub threads: Vec<ThreadRow>,
    /// Flushes by thread and call site.
    pub rows: Vec<Row>,
    /// Queued calls by thread, its CPU and the victim's.
    pub pairs: Vec<PairRow>,
    /// Functions run for others, by thread that asked, thread that was interrupted, and what its CPU did for the address space.
    pub victims: Vec<VictimRow>,
    /// Flushes by address space, if a probe prints it.
    pub mms: Vec<MmRow>,
    /// What is left if flushes in a row share one.
    pub batches: Vec<BatchRow>,
    /// Functions run of which no queueing was recorded.
    pub unmatched: u64,
    /// Counts that found no place in the tables.
    pub left_out: u64,
    /// Places where events are missing.
    pub holes: u64,
}

/// A thread.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadRow {
    id: u32,
    pid: u32,
    reuse: u32,
    comm: String,
    tgid: Option<u32>,
    leader: u32,
    leader_guessed: bool,
    first_s: f64,
    last_s: f64,
}

/// Flushes of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    thread: u32,
    call: String,
    size: u8,
    pages: Option<(u64, u64)>,
    extent: &'static str,
    tables: Option<bool>,
    stack: Vec<String>,
    flushes: u64,
    shootdowns: u64,
    unknown_victims: u64,
    victims: u64,
    ran: u64,
    waits: u64,
    wait_ns: u64,
    longest_ns: u64,
    victim_ns: u64,
}

/// Calls from one CPU to another.
#[derive(Clone, Debug, Serialize)]
pub struct PairRow {
    thread: u32,
    sender_cpu: u32,
    victim_cpu: u32,
    calls: u64,
    interrupts: u64,
    ns: u64,
}

/// Calls that ran while a thread was there.
#[derive(Clone, Debug, Serialize)]
pub struct VictimRow {
    thread: Option<u32>,
    victim: Option<u32>,
    state: &'static str,
    calls: u64,
    interrupts: u64,
    ns: u64,
}

/// Flushes of one address space.
#[derive(Clone, Debug, Serialize)]
pub struct MmRow {
    thread: u32,
    mm: String,
    flushes: u64,
    full: u64,
    victims: u64,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Ranged => "ranged",
            Self::Full => "full",
            Self::TableSync => "table_sync",
            Self::Unknown => "unknown",
        }
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Lazy => "lazy",
            Self::Elsewhere => "elsewhere",
            Self::Unknown => "unknown",
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Shootdowns {
    /// What was counted, in a fixed order.
    pub fn report(&self) -> Report {
        let text = |sym| self.symbols.text(sym);
        let seen = self.cpus.iter().enumerate().filter(|(_, cpu)| cpu.seen).map(|(cpu, _)| cpu as u32);
        let cpus: BTreeSet<u32> = order::gather(seen.chain(self.named.iter().copied()));
        let mut names: Vec<_> = self.threads.names.iter().map(|&sym| text(sym)).collect();
        order::natural(&mut names);
        let mut pids: Vec<_> = self.threads.pids.iter().copied().collect();
        order::natural(&mut pids);
        let threads = self.threads.iter().map(|(id, t)| ThreadRow {
            id,
            pid: t.pid,
            reuse: t.reuse,
            comm: text(t.comm),
            tgid: t.tgid,
            leader: self.threads.leader(id),
            leader_guessed: t.leader_guessed,
            first_s: seconds(t.first_ns),
            last_s: seconds(t.last_ns),
        });
        let call = |call: Where| match call {
            Where::Known(name) => name,
            Where::Outside(cpu) if self.cpus.get(cpu as usize).is_some_and(|cpu| cpu.syscalls) => {
                "page fault or kernel work"
            }
            Where::Outside(_) => "not recorded",
        };
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|(key, sum)| Row {
                thread: key.task,
                call: call(key.call).into(),
                size: key.size,
                pages: sum.pages,
                extent: key.extent.name(),
                tables: key.tables,
                stack: String::from_utf8_lossy(self.symbols.bytes(key.stack))
                    .lines()
                    .map(Into::into)
                    .collect(),
                flushes: sum.flushes,
                shootdowns: sum.shootdowns,
                unknown_victims: sum.unknown_victims,
                victims: sum.victims,
                ran: sum.ran,
                waits: sum.waits,
                wait_ns: sum.wait_ns,
                longest_ns: sum.longest_ns,
                victim_ns: sum.victim_ns,
            })
            .collect();
        order::by(&mut rows, |a, b| {
            let key = |r: &Row| (r.thread, r.call.clone(), r.size, r.extent, r.tables, r.stack.clone());
            key(a).cmp(&key(b))
        });
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        order::by_key(&mut pairs, |(key, _)| **key);
        let pairs =
            pairs.into_iter().map(|(&(thread, sender_cpu, victim_cpu), &Pair { calls, interrupts, ns })| {
                PairRow { thread, sender_cpu, victim_cpu, calls, interrupts, ns }
            });
        let mut victims: Vec<_> = self.victims.iter().collect();
        order::by_key(&mut victims, |(key, _)| **key);
        let known = |id| (id != NOBODY).then_some(id);
        let victims =
            victims.into_iter().map(|(&(thread, victim, state), &Pair { calls, interrupts, ns })| {
                let (thread, victim) = (known(thread), known(victim));
                VictimRow { thread, victim, state: state.name(), calls, interrupts, ns }
            });
        let mut mms: Vec<_> = self.mms.iter().collect();
        order::by_key(&mut mms, |(key, _)| **key);
        let mms = mms.into_iter().map(|(&(thread, mm), of)| MmRow {
            thread,
            mm: format!("{mm:#x}"),
            flushes: of.flushes,
            full: of.full,
            victims: of.victims,
        });
        Report {
            found: self.found,
            seconds: seconds(self.counted_ns),
            first_s: seconds(self.first_ns),
            events: self.events,
            cpus: cpus.into_iter().collect(),
            kinds: self.kinds,
            switched_on: self.notes.clone(),
            names,
            pids,
            tgids: self.threads.tgids,
            threads: threads.collect(),
            rows,
            pairs: pairs.collect(),
            victims: victims.collect(),
            mms: mms.collect(),
            batches: self.batches.rows(),
            unmatched: self.unmatched,
            left_out: self.left_out,
            holes: self.holes,
        }
    }
}
