//! What keeps isolated CPUs from their tasks, counted while it happens: interrupts, soft interrupts, other tasks, and
//! the calls that were sent to them, with their senders.
//!
//! Times are a CPU's own: an interrupt inside a soft interrupt is taken off the soft interrupt. Memory is bounded:
//! names beyond [`NAMES`] of a kind and CPU count as `other`. What was open when events were lost is forgotten, not
//! guessed.

use crate::order;
use rustc_hash::FxHashMap;

use super::{
    event::{Event, Hole, HoleKind, Vector, What},
    import::{Sink, ftrace::Ftrace},
};

/// Names kept of each kind and CPU.
pub const NAMES: usize = 32;
const LONGEST_LINE: usize = 1 << 16;
const MAX_NESTED: usize = 8;

/// What kept a CPU from its task, or was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An interrupt handler.
    Irq,
    /// A soft interrupt.
    Softirq,
    /// Another task, while the one before still wanted to run.
    Task,
    /// A call that another CPU queued for it: what, and by whom. It takes time as an interrupt.
    Call,
}

impl Kind {
    /// One word for tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Task => "task",
            Self::Call => "call",
        }
    }
}

/// Occurrences of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Nanoseconds that they took, without what came inside.
    pub ns: u64,
    /// The longest, with what came inside.
    pub longest_ns: u64,
}

/// Counts over a stream of trace text, in pieces of any size.
pub struct Live {
    importer: Ftrace,
    rest: Vec<u8>,
    lines: u64,
    counter: Counter,
}

#[derive(Default)]
struct Counter {
    cpus: FxHashMap<u32, Cpu>,
    /// Whether the task of the `sched_switch` at hand still wanted to run.
    preempted: bool,
    lost: u64,
    lost_unknown: u64,
}

#[derive(Default)]
struct Cpu {
    open: Vec<Open>,
    away: Option<Away>,
    tallies: FxHashMap<(Kind, Box<[u8]>), Tally>,
    names: [usize; 4],
}

/// A handler that runs.
struct Open {
    kind: Kind,
    vector: Option<Vector>,
    name: Vec<u8>,
    from_ns: u64,
    inside_ns: u64,
}

/// A task that wants to run and does not.
struct Away {
    pid: u32,
    by: Vec<u8>,
    since_ns: u64,
    inside_ns: u64,
}

impl Live {
    /// Counts for these CPUs.
    pub fn new(cpus: &[u32]) -> Self {
        let cpus = cpus.iter().map(|&cpu| (cpu, Cpu::default())).collect();
        let counter = Counter { cpus, ..Counter::default() };
        Self { importer: Ftrace::default(), rest: Vec::new(), lines: 0, counter }
    }

    /// The next piece of the text. A line that cannot be read says nothing.
    pub fn feed(&mut self, mut text: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, after) = (&text[..end], &text[end + 1..]);
            if self.rest.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.rest = whole;
            }
            text = after;
        }
        if self.rest.len() + text.len() <= LONGEST_LINE {
            self.rest.extend_from_slice(text);
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        let state = memchr::memmem::find(line, b" prev_state=").and_then(|at| line.get(at + 12));
        self.counter.preempted = state == Some(&b'R');
        let _ = self.importer.line(line, self.lines, &mut self.counter);
    }

    /// What was counted so far: CPU, kind, name, figures; ordered.
    pub fn rows(&self) -> Vec<(u32, Kind, &[u8], Tally)> {
        let mut rows: Vec<_> = self
            .counter
            .cpus
            .iter()
            .flat_map(|(cpu, state)| {
                state.tallies.iter().map(|((kind, name), tally)| (*cpu, *kind, &**name, *tally))
            })
            .collect();
        order::by(&mut rows, |a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        rows
    }

    /// Events that the ring lost, and how often it lost an unknown number.
    pub fn lost(&self) -> (u64, u64) {
        (self.counter.lost, self.counter.lost_unknown)
    }
}

impl Cpu {
    fn count(&mut self, kind: Kind, name: &[u8], own_ns: u64, whole_ns: u64) {
        let mut key = (kind, Box::from(name));
        if !self.tallies.contains_key(&key) {
            let names = &mut self.names[kind as usize];
            if *names >= NAMES {
                key.1 = Box::from(&b"other"[..]);
            }
            *names += 1;
        }
        let tally = self.tallies.entry(key).or_default();
        tally.count += 1;
        tally.ns += own_ns;
        tally.longest_ns = tally.longest_ns.max(whole_ns);
    }

    fn begin(&mut self, kind: Kind, vector: Option<Vector>, name: &[u8], at_ns: u64) {
        if self.open.len() >= MAX_NESTED {
            self.open.clear(); // ends were lost
        }
        self.open.push(Open { kind, vector, name: name.to_vec(), from_ns: at_ns, inside_ns: 0 });
    }

    fn end(&mut self, kind: Kind, vector: Option<Vector>, at_ns: u64) {
        let Some(at) = self.open.iter().rposition(|open| (open.kind, open.vector) == (kind, vector)) else {
            return;
        };
        self.open.truncate(at + 1);
        let open = self.open.pop().expect("found above");
        let whole = at_ns.saturating_sub(open.from_ns);
        self.count(kind, &open.name, whole.saturating_sub(open.inside_ns), whole);
        match (self.open.last_mut(), &mut self.away) {
            (Some(outer), _) => outer.inside_ns += whole,
            (None, Some(away)) => away.inside_ns += whole,
            (None, None) => {}
        }
    }

    fn switch(&mut self, preempted: bool, from: u32, to: u32, name: &[u8], at_ns: u64) {
        if let Some(away) = self.away.take() {
            let whole = at_ns.saturating_sub(away.since_ns);
            self.count(Kind::Task, &away.by, whole.saturating_sub(away.inside_ns), whole);
            if to == away.pid || to == 0 {
                return; // it runs again, or nobody wants to
            }
            self.away = Some(Away { by: task(name), since_ns: at_ns, inside_ns: 0, ..away });
        } else if preempted && from != 0 && to != 0 {
            self.away = Some(Away { pid: from, by: task(name), since_ns: at_ns, inside_ns: 0 });
        }
    }
}

/// A task's name without what makes each of its kind another: `kworker/2:1-events` is a kworker.
fn task(name: &[u8]) -> Vec<u8> {
    let kind: &[&[u8]] =
        &[b"kworker", b"ksoftirqd", b"migration", b"cpuhp", b"rcuc", b"rcuop", b"rcuos", b"rcuog"];
    let slash = memchr::memchr(b'/', name).unwrap_or(name.len());
    if kind.contains(&&name[..slash]) { name[..slash].to_vec() } else { name.to_vec() }
}

impl Sink for Counter {
    fn event(&mut self, e: &Event<'_>) {
        if let What::CsdQueue { cpu, func, .. } = e.what
            && let Some(state) = self.cpus.get_mut(&cpu)
        {
            // In an interrupt, the task is who was interrupted.
            let by = if e.in_interrupt == Some(true) { b"an interrupt".to_vec() } else { task(e.task.comm) };
            let name = [func, b" by ", &by].concat();
            state.count(Kind::Call, &name, 0, 0);
        }
        let preempted = self.preempted;
        let Some(state) = self.cpus.get_mut(&e.cpu) else { return };
        match e.what {
            What::IrqEntry { vector, name } => state.begin(Kind::Irq, Some(vector), name, e.at_ns),
            What::IrqExit { vector } => state.end(Kind::Irq, Some(vector), e.at_ns),
            What::SoftirqEntry { action } => state.begin(Kind::Softirq, None, action, e.at_ns),
            What::SoftirqExit => state.end(Kind::Softirq, None, e.at_ns),
            What::Switch { next_comm, next_pid, .. } => {
                state.switch(preempted, e.task.pid, next_pid, next_comm, e.at_ns);
            }
            _ => {}
        }
    }

    fn hole(&mut self, hole: &Hole) {
        if hole.kind == HoleKind::Lost {
            self.lost += hole.events.unwrap_or(0);
            self.lost_unknown += u64::from(hole.events.is_none());
        }
        for state in self.cpus.values_mut() {
            state.open.clear();
            state.away = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
            spin-7       [002] d.h..     1.000000: local_timer_entry: vector=236
            spin-7       [002] d.h..     1.000050: local_timer_exit: vector=236
            bash-9       [000] d....     1.500000: csd_queue_cpu: cpu=2 callsite=x+0x1/0x2 func=do_flush_tlb_all csd=00000000d32e82b2
            spin-7       [003] d.h..     1.600000: local_timer_entry: vector=236
            spin-7       [002] d.s..     3.000000: softirq_entry: vec=3 [action=NET_RX]
            spin-7       [002] d.h..     3.000020: call_function_entry: vector=252
            spin-7       [002] d.h..     3.000030: call_function_exit: vector=252
            spin-7       [002] d.s..     3.000100: softirq_exit: vec=3 [action=NET_RX]
            spin-7       [002] d....     4.000000: sched_switch: prev_comm=spin prev_pid=7 prev_prio=120 prev_state=R ==> next_comm=kworker/2:1 next_pid=77 next_prio=120
     kworker/2:1-77      [002] d.h..     4.000010: local_timer_entry: vector=236
     kworker/2:1-77      [002] d.h..     4.000020: local_timer_exit: vector=236
     kworker/2:1-77      [002] d....     4.000070: sched_switch: prev_comm=kworker/2:1 prev_pid=77 prev_prio=120 prev_state=I ==> next_comm=rcuc/2 next_pid=78 next_prio=120
          rcuc/2-78      [002] d....     4.000100: sched_switch: prev_comm=rcuc/2 prev_pid=78 prev_prio=120 prev_state=S ==> next_comm=spin next_pid=7 next_prio=120
            spin-7       [002] d....     5.000000: sched_switch: prev_comm=spin prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=cron next_pid=80 next_prio=120
            cron-80      [002] d....     6.000000: sched_switch: prev_comm=cron prev_pid=80 prev_prio=120 prev_state=S ==> next_comm=spin next_pid=7 next_prio=120
";

    fn rows(live: &Live) -> Vec<(u32, &'static str, String, u64, u64, u64)> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        live.rows()
            .into_iter()
            .map(|(cpu, kind, name, t)| (cpu, kind.name(), text(name), t.count, t.ns, t.longest_ns))
            .collect()
    }

    #[test]
    fn each_takes_its_own_time_and_a_task_that_left_by_itself_is_not_kept_away() {
        let mut live = Live::new(&[2]);
        live.feed(TEXT.as_bytes());
        let row = |kind, name: &str, count, ns, longest| (2, kind, name.to_owned(), count, ns, longest);
        assert_eq!(
            rows(&live),
            [
                row("irq", "call_function", 1, 10_000, 10_000),
                row("irq", "local_timer", 2, 60_000, 50_000),
                row("softirq", "NET_RX", 1, 90_000, 100_000),
                row("task", "kworker", 1, 60_000, 70_000),
                row("task", "rcuc", 1, 30_000, 30_000),
                row("call", "do_flush_tlb_all by bash", 1, 0, 0),
            ]
        );
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let mut whole = Live::new(&[2, 3]);
        whole.feed(TEXT.as_bytes());
        for size in [1, 7, 100] {
            let mut live = Live::new(&[2, 3]);
            TEXT.as_bytes().chunks(size).for_each(|piece| live.feed(piece));
            assert_eq!(rows(&live), rows(&whole), "{size}");
        }
    }

    #[test]
    fn names_are_bounded_and_a_loss_forgets_what_was_open() {
        let mut live = Live::new(&[2]);
        for n in 0..100 {
            let text = format!(
                "            spin-7       [002] d.h..     {n}.000000: irq_handler_entry: irq={n} name=dev{n}\n            spin-7       [002] d.h..     {n}.000001: irq_handler_exit: irq={n} ret=handled\n"
            );
            live.feed(text.as_bytes());
        }
        assert_eq!(live.rows().len(), NAMES + 1);
        let other = live.rows().into_iter().find(|row| row.2 == b"other").expect("the rest");
        assert_eq!(other.3.count, 100 - NAMES as u64);
        live.feed(b"            spin-7       [002] d.h..   200.000000: local_timer_entry: vector=236\n");
        live.feed(b"CPU:2 [LOST 12 EVENTS]\n");
        live.feed(b"            spin-7       [002] d.h..   900.000000: local_timer_exit: vector=236\n");
        assert!(live.rows().iter().all(|row| row.2 != b"local_timer"));
        assert_eq!(live.lost(), (12, 0));
    }
}
