//! The victim's side: the function that runs, in which interrupt, and what the CPU was doing for that address space.

use super::{NOBODY, NONE, Running, Shootdowns, State, flush::is_ours, slot};
use crate::trace::{
    cause,
    event::{Csd, Event},
};

impl Shootdowns {
    /// A flush that another CPU asked for, where no event tells which function runs: who asked is not recorded.
    pub(super) fn remote(&mut self, e: &Event<'_>) {
        if self.kinds.csd > 0 || !self.open {
            return;
        }
        let victim = self.thread(e);
        let state = if victim == NOBODY { State::Idle } else { State::Running };
        if victim != NOBODY {
            self.threads[victim].used = true;
        }
        if let Some(irq) = &mut self.cpu(e.cpu).irq {
            irq.first.get_or_insert((NONE, NOBODY, NONE, victim, state));
        }
        if let Some(pair) = slot(&mut self.victims, (NOBODY, victim, state), &mut self.left_out) {
            pair.calls += 1;
            pair.interrupts += 1;
        }
    }

    pub(super) fn begins(&mut self, e: &Event<'_>, func: &[u8], csd: Csd) {
        self.kinds.csd += 1;
        let ours = is_ours(func);
        let victim = self.thread(e);
        self.abandon_run(e.cpu as usize);
        if !ours {
            if let Some(irq) = &mut self.cpu(e.cpu).irq {
                irq.others = true;
            }
            return;
        }
        match csd {
            Csd::Local if victim != NOBODY => {
                let open = self.threads[victim].open;
                self.cpu(e.cpu).local = open;
            }
            Csd::Local => {}
            Csd::Queued(data) => {
                let found = self.waiting.remove(&(e.cpu, data));
                let Some((op, counted, queued_ns)) = found else {
                    self.unmatched += u64::from(self.open);
                    return;
                };
                let (sender, sender_cpu) = (self.ops[op as usize].task, self.ops[op as usize].cpu);
                let running = Running {
                    op,
                    sender,
                    sender_cpu,
                    victim,
                    queued_ns,
                    at_ns: e.at_ns,
                    reason: None,
                    counted,
                };
                self.cpu(e.cpu).running = Some(running);
            }
        }
    }

    pub(super) fn ends(&mut self, e: &Event<'_>) {
        self.kinds.csd += 1;
        let cpu = self.cpu(e.cpu);
        if let Some(at) = cpu.local.take() {
            let op = &mut self.ops[at as usize];
            op.local = true;
            op.local_end_ns = e.at_ns;
            return;
        }
        let Some(run) = cpu.running.take() else { return };
        let ns = e.at_ns.saturating_sub(run.at_ns);
        let state = self.state(e, &run);
        let op = &mut self.ops[run.op as usize];
        op.ran += 1;
        op.victim_ns += ns;
        op.last_end_ns = op.last_end_ns.max(e.at_ns);
        let mut keep = false;
        let interrupted = if let Some(irq) = &mut self.cpu(e.cpu).irq {
            irq.ours_ns += ns;
            keep = irq.first.is_none();
            irq.first.get_or_insert((run.op, run.sender, run.sender_cpu, run.victim, state));
            true
        } else {
            false
        };
        if run.counted {
            self.add(&run, e.cpu, state, ns, interrupted);
            self.keep_handler(&run, e.cpu, state, ns);
        }
        if !keep {
            self.let_go(run.op); // else when the interrupt ends
        }
    }

    /// A function whose end was not recorded.
    pub(super) fn abandon_run(&mut self, cpu: usize) {
        let Some(cpu) = self.cpus.get_mut(cpu) else { return };
        cpu.local = None;
        if let Some(run) = cpu.running.take() {
            self.let_go(run.op);
        }
    }

    /// An interrupt whose end was not recorded.
    pub(super) fn abandon_irq(&mut self, cpu: usize) {
        let irq = self.cpus.get_mut(cpu).and_then(|cpu| cpu.irq.take());
        if let Some((op, ..)) = irq.and_then(|irq| irq.first)
            && op != NONE
        {
            self.let_go(op);
        }
    }

    pub(super) fn add(&mut self, run: &Running, cpu: u32, state: State, ns: u64, interrupted: bool) {
        if run.victim != NOBODY {
            self.threads[run.victim].used = true;
        }
        if let Some(pair) = slot(&mut self.pairs, (run.sender, run.sender_cpu, cpu), &mut self.left_out) {
            pair.interrupts += u64::from(interrupted);
            pair.ns += ns;
        }
        if let Some(pair) = slot(&mut self.victims, (run.sender, run.victim, state), &mut self.left_out) {
            pair.calls += 1;
            pair.interrupts += u64::from(interrupted);
            pair.ns += ns;
        }
    }

    /// What the victim's CPU was doing: by what `tlb_flush` says, else by who ran there.
    pub(super) fn state(&self, e: &Event<'_>, run: &Running) -> State {
        match run.reason {
            Some(1) => return State::Running,
            Some(5) if run.victim == NOBODY => return State::Idle,
            Some(5) if cause::is_kernel_thread(e.task.comm) => return State::Lazy,
            Some(5) => return State::Elsewhere,
            _ => {}
        }
        if run.victim == NOBODY {
            return State::Idle;
        }
        if cause::is_kernel_thread(e.task.comm) {
            return State::Lazy;
        }
        match self.threads.same_process(run.sender, run.victim) {
            Some(true) => State::Running,
            Some(false) => State::Elsewhere,
            None => State::Unknown,
        }
    }

    pub(super) fn irq_ends(&mut self, e: &Event<'_>) {
        let Some(irq) = self.cpu(e.cpu).irq.take() else { return };
        let Some((op, sender, sender_cpu, victim, state)) = irq.first else { return };
        // What lies around the functions is ours if no other call ran in this interrupt.
        let around =
            if irq.others { 0 } else { e.at_ns.saturating_sub(irq.at_ns).saturating_sub(irq.ours_ns) };
        if op == NONE {
            if let Some(pair) = self.victims.get_mut(&(sender, victim, state)) {
                pair.ns += around;
            }
            return;
        }
        if self.ops[op as usize].counted {
            self.ops[op as usize].victim_ns += around;
            if let Some(pair) = self.pairs.get_mut(&(sender, sender_cpu, e.cpu)) {
                pair.ns += around;
            }
            if let Some(pair) = self.victims.get_mut(&(sender, victim, state)) {
                pair.ns += around;
            }
        }
        self.let_go(op);
    }
}
