//! What keeps a CPU from its task for longer than a threshold, told while a recording runs: interrupts, soft
//! interrupts and other tasks. The flight recorder saves its ring on the first one.

use rustc_hash::FxHashMap;

use super::{
    cause::is_kernel_thread,
    event::{Event, Hole, What},
    import::{Sink, ftrace::Ftrace},
};

const LONGEST_LINE: usize = 1 << 16;
const MAX_NESTED: usize = 8;

/// Something took longer than the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// CPU.
    pub cpu: u32,
    /// When it ended, nanoseconds of the trace clock.
    pub at_ns: u64,
    /// How long it took; an interrupt that came in between is part of it.
    pub length_ns: u64,
    /// `local_timer`, `softirq NET_RX`, `task kworker/2:1`.
    pub what: String,
}

/// Measures a stream of trace text, in pieces of any size.
pub struct Meter {
    importer: Ftrace,
    rest: Vec<u8>,
    lines: u64,
    finder: Finder,
}

#[derive(Default)]
struct Finder {
    threshold_ns: u64,
    cpus: FxHashMap<u32, State>,
    hits: Vec<Hit>,
}

#[derive(Default)]
struct State {
    irqs: Vec<(u64, super::event::Vector, Vec<u8>)>,
    softirq: Option<(u64, Vec<u8>)>,
    /// The task that is kept away, since when, and by whom.
    away: Option<(u32, u64, Vec<u8>)>,
}

impl Meter {
    /// Looks at these CPUs for what takes longer than `threshold_ns`.
    pub fn new(threshold_ns: u64, cpus: &[u32]) -> Self {
        let cpus = cpus.iter().map(|&cpu| (cpu, State::default())).collect();
        let finder = Finder { threshold_ns, cpus, hits: Vec::new() };
        Self { importer: Ftrace::default(), rest: Vec::new(), lines: 0, finder }
    }

    /// The next piece of the text; returns what it shows. A line that cannot be read says nothing.
    pub fn feed(&mut self, text: &[u8]) -> Vec<Hit> {
        let mut text = text;
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, after) = (&text[..end], &text[end + 1..]);
            self.lines += 1;
            if self.rest.is_empty() {
                let _ = self.importer.line(line, self.lines, &mut self.finder);
            } else {
                self.rest.extend_from_slice(line);
                let _ = self.importer.line(&self.rest, self.lines, &mut self.finder);
                self.rest.clear();
            }
            text = after;
        }
        if self.rest.len() + text.len() <= LONGEST_LINE {
            self.rest.extend_from_slice(text);
        }
        std::mem::take(&mut self.finder.hits)
    }
}

impl Finder {
    fn took(&mut self, cpu: u32, from_ns: u64, at_ns: u64, what: impl FnOnce() -> String) {
        let length_ns = at_ns.saturating_sub(from_ns);
        if length_ns > self.threshold_ns {
            self.hits.push(Hit { cpu, at_ns, length_ns, what: what() });
        }
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Sink for Finder {
    fn event(&mut self, e: &Event<'_>) {
        let Some(state) = self.cpus.get_mut(&e.cpu) else { return };
        match e.what {
            What::IrqEntry { vector, name } => {
                if state.irqs.len() >= MAX_NESTED {
                    state.irqs.clear(); // exits were lost
                }
                state.irqs.push((e.at_ns, vector, name.to_vec()));
            }
            What::IrqExit { vector } => {
                if let Some(at) = state.irqs.iter().rposition(|(_, v, _)| *v == vector) {
                    let (from, _, name) = state.irqs.swap_remove(at);
                    state.irqs.truncate(at);
                    self.took(e.cpu, from, e.at_ns, || text(&name));
                }
            }
            What::SoftirqEntry { action } => state.softirq = Some((e.at_ns, action.to_vec())),
            What::SoftirqExit => {
                if let Some((from, name)) = state.softirq.take() {
                    self.took(e.cpu, from, e.at_ns, || format!("softirq {}", text(&name)));
                }
            }
            What::Switch { preempted, next_comm, next_pid, .. } => match state.away.take() {
                // Back, or nobody wants to run: what ran in between kept it away.
                Some((task, from, by)) if next_pid == task => {
                    self.took(e.cpu, from, e.at_ns, || format!("task {}", text(&by)));
                }
                Some(away) if next_pid != 0 => state.away = Some(away),
                // A task that went to sleep is not kept away, and no CPU is there for a kernel thread.
                None if e.task.pid != 0
                    && next_pid != 0
                    && preempted != Some(false)
                    && !is_kernel_thread(e.task.comm) =>
                {
                    state.away = Some((e.task.pid, e.at_ns, next_comm.to_vec()));
                }
                Some(_) | None => {}
            },
            What::UserEnter
            | What::UserExit
            | What::CsdQueue { .. }
            | What::CsdEntry { .. }
            | What::CsdExit
            | What::IpiSend { .. }
            | What::IpiSendMask { .. }
            | What::AllocArea { .. }
            | What::FreeArea { .. }
            | What::Purge { .. }
            | What::Fork { .. }
            | What::CgroupAttach { .. }
            | What::Work { .. }
            | What::Exit { .. }
            | What::Probe { .. }
            | What::SyscallEntry { .. }
            | What::SyscallExit
            | What::PageFault
            | What::TlbFlush { .. }
            | What::TickStop { .. }
            | What::HrtimerExpire { .. }
            | What::TimerStart { .. }
            | What::IpiRaise { .. }
            | What::Function { .. }
            | What::Latency { .. }
            | What::Sum(_)
            | What::Migrate { .. }
            | What::Marker { .. }
            | What::Stack { .. }
            | What::Noise { .. }
            | What::Other { .. } => {}
        }
    }

    fn hole(&mut self, _hole: &Hole) {
        self.cpus.values_mut().for_each(|state| *state = State::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
            spin-7       [002] d.h..     1.000000: local_timer_entry: vector=236
            spin-7       [002] d.h..     1.000050: local_timer_exit: vector=236
            spin-7       [002] d.h..     2.000000: local_timer_entry: vector=236
            spin-7       [002] d.h..     2.000010: call_function_entry: vector=252
            spin-7       [002] d.h..     2.000015: call_function_exit: vector=252
            spin-7       [002] d.h..     2.000020: local_timer_exit: vector=236
            spin-7       [003] d.h..     2.500000: local_timer_entry: vector=236
            spin-7       [003] d.h..     2.600000: local_timer_exit: vector=236
            spin-7       [002] d.s..     3.000000: softirq_entry: vec=3 [action=NET_RX]
            spin-7       [002] d.s..     3.000100: softirq_exit: vec=3 [action=NET_RX]
            spin-7       [002] d....     4.000000: sched_switch: prev_comm=spin prev_pid=7 prev_prio=120 prev_state=R ==> next_comm=kworker/2:1 next_pid=77 next_prio=120
     kworker/2:1-77      [002] d....     4.000070: sched_switch: prev_comm=kworker/2:1 prev_pid=77 prev_prio=120 prev_state=I ==> next_comm=spin next_pid=7 next_prio=120
            spin-7       [002] d....     5.000000: sched_switch: prev_comm=spin prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=swapper/2 next_pid=0 next_prio=120
          <idle>-0       [002] d....     6.000000: sched_switch: prev_comm=swapper/2 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=spin next_pid=7 next_prio=120
";

    #[test]
    fn what_took_longer_than_the_threshold_is_named_and_sleeping_is_not_noise() {
        let mut meter = Meter::new(30_000, &[2]);
        let hits: Vec<_> = meter.feed(TEXT.as_bytes()).into_iter().map(|h| (h.what, h.length_ns)).collect();
        assert_eq!(
            hits,
            [
                ("local_timer".to_owned(), 50_000),
                ("softirq NET_RX".to_owned(), 100_000),
                ("task kworker/2:1".to_owned(), 70_000),
            ]
        );
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let whole = Meter::new(4_000, &[2, 3]).feed(TEXT.as_bytes());
        assert_eq!(whole.len(), 6);
        for size in [1, 7, 100] {
            let mut meter = Meter::new(4_000, &[2, 3]);
            let pieces: Vec<_> = TEXT.as_bytes().chunks(size).flat_map(|piece| meter.feed(piece)).collect();
            assert_eq!(pieces, whole, "{size}");
        }
    }
}
