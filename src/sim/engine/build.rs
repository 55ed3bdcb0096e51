//! From a policy's code and a scenario to CPUs that are ready at time 0.

use std::sync::Arc;

use super::super::draw::Draws;
use super::super::latencies::Latencies;
use super::super::machine::{Shot, Timed, looks_up};
use super::super::queue::NEVER;
use super::super::scenario::{INITIATORS, Kind as ActorKind, Path, Scenario};
use super::super::stats::Cause;
use super::class::{
    Class, Known, ahead, class_of, next_that_does, only_looks, reads_cur, reads_freely, registers,
};
use super::handlers::{self, Handlers};
use super::replay::Courses;
use super::skip::Patience;
use super::volley::{Rehearsals, then_waits};
use super::{Act, ActorState, DEPTH, Engine, Entries, Kernel, Own, Why, draw_gap, tasks};
#[cfg(test)]
use crate::kernel::program::At;
use crate::kernel::program::{BREAKPOINT, Code, Op, Pages, Set, Touch};
use crate::kernel::step::Cpu;
use crate::kernel::vmalloc::Vmalloc;
use crate::names;

impl Engine {
    /// Ready at time 0. `base_bodies` by actor: what the entry code leaves of a system call.
    pub fn new(
        code: Arc<Code>,
        mut m: Timed,
        scenario: &Scenario,
        seed: u64,
        kernel: Kernel,
        base_bodies: &[u64],
        skip: bool,
    ) -> Result<Self, String> {
        let find = |name: &str| {
            code.program(name).ok_or_else(|| format!("policy `{}` has no program `{name}`", code.name))
        };
        let mut paths = [find("syscall")?; Path::ALL.len()];
        for path in Path::ALL {
            paths[path as usize] = find(path.program())?;
        }
        let entries = Entries {
            enter_user: find("enter_user")?,
            paths,
            interrupt: find("interrupt")?,
            interrupt_kernel: find("interrupt_kernel")?,
            interrupt_idle: find("interrupt_idle")?,
            nmi_user: find("nmi_user")?,
            nmi: find("nmi")?,
            breakpoint: code.program(BREAKPOINT),
            idle: find("idle")?,
            purge: find("purge")?,
        };
        let mut programs = Vec::new();
        for actor in &scenario.actors {
            programs.push(match &actor.kind {
                ActorKind::Chain { steps, .. } => {
                    let find = |name: &str| {
                        let hint = names::hint(name, code.programs.iter().map(|p| p.name.as_str()));
                        find(name).map_err(|e| format!("actor {:?}: {e}{hint}", actor.name))
                    };
                    steps.iter().map(|s| find(&s.program)).collect::<Result<Vec<_>, _>>()?
                }
                _ => Vec::new(),
            });
        }
        let n = usize::from(scenario.cpus);
        let mut own = vec![
            Own {
                acts: [Act::default(); DEPTH], // none of them runs
                actors: Vec::new(),
                works: Vec::new(),
                rcu_at: NEVER,
                rcu: Vec::new(),
                rcu_next: Vec::new(),
                foreground: None,
                idle: true,
                base_body: 0,
                by: Path::Syscall,
                faults: false,
                memo: None,
                patience: Patience::default(),
                replayable: false,
                courses: Courses::default(),
                handlers: Handlers::default(),
                stream: None,
            };
            n
        ];
        let mut refill_pages = vec![(0, 0); n];
        for (i, actor) in scenario.actors.iter().enumerate() {
            for cpu in scenario.cpus_of(&actor.on) {
                let o = &mut own[usize::from(cpu)];
                if actor.kind.is_foreground() {
                    o.foreground = Some(o.actors.len());
                    o.idle = matches!(actor.kind, ActorKind::Idle);
                    o.base_body = base_bodies[i];
                    match actor.kind {
                        ActorKind::Syscalls { kernel_pages, user_pages, by, .. } => {
                            o.by = by;
                            refill_pages[usize::from(cpu)] = (kernel_pages, user_pages);
                        }
                        ActorKind::Spin { user_pages } => refill_pages[usize::from(cpu)] = (0, user_pages),
                        _ => {}
                    }
                }
                o.faults |= matches!(actor.kind, ActorKind::Faults { .. });
                o.actors.push(ActorState {
                    actor: i as u16,
                    next: NEVER,
                    draws: Draws::new(seed, cpu, i as u16),
                    alive: Vec::new(),
                    exiting: false,
                    mms: Vec::new(),
                    at: 0,
                    pulled: None,
                    arrives: 0,
                });
            }
        }
        // Entry code that looks at others must run in the global order: then every CPU is driven. Who has taken a remote
        // call is driven until it is acknowledged.
        let mut called = vec![false; code.programs.len()];
        for op in &code.ops {
            if let Op::Ipi { run, .. } = *op {
                called[usize::from(run.0)] = true;
            }
        }
        let initiates: Vec<bool> =
            code.programs.iter().map(|p| INITIATORS.contains(&p.name.as_str())).collect();
        let free = reads_freely(&code, &initiates, &called);
        m.read_freely(&code, &free);
        let replayable = handlers::which(&code, &free);
        for o in &mut own {
            o.replayable = replayable[usize::from(paths[o.by as usize].0)];
        }
        let class_of = |(op, free): (&Op, bool)| if free { Class::Private } else { class_of(*op) };
        let mut class: Vec<Class> = code.ops.iter().zip(free.iter().copied()).map(class_of).collect();
        if m.vars_of(0).len() <= 4 {
            for (pc, class) in class.iter_mut().enumerate() {
                if only_looks(&code, pc) {
                    let of_mask = matches!(code.ops[pc], Op::Each { of: Set::MmCpumask, .. });
                    *class = if of_mask { Class::ScanMask } else { Class::Scan };
                }
            }
        }
        if code.has_sites() {
            let text = |op: &Op| matches!(op, Op::Pte { pages: Pages::Text(..), .. });
            for (class, _) in class.iter_mut().zip(&code.ops).filter(|(_, op)| text(op)) {
                *class = Class::Cross; // what others run
            }
        }
        m.all_driven = code.programs.iter().zip(called).zip(initiates).any(|((p, called), initiates)| {
            !called
                && !initiates
                && (p.start..p.end).any(|pc| matches!(class[usize::from(pc)], Class::Cross | Class::ScanMask))
        });
        tasks::start(&code, &mut m, &mut own, scenario);
        let does = next_that_does(&code, &m.times.op, |touch| match touch {
            Touch::Read(_) | Touch::Write(_) => true, // the table may not map the page
            Touch::Zone(_) | Touch::Text => m.tlbs.is_some() && looks_up(touch),
        });
        let known = code
            .ops
            .iter()
            .zip(class)
            .zip(does)
            .zip(ahead(&code, &m.times.op))
            .enumerate()
            .map(|(pc, (((op, class), does), ahead))| Known {
                class,
                reads_cur: reads_cur(*op),
                touched: if matches!(class, Class::Scan | Class::ScanMask) {
                    registers(&code, pc)
                } else {
                    0
                },
                then_waits: matches!(op, Op::Ipi { .. }) && then_waits(&code, pc),
                does,
                ahead,
            })
            .collect();
        let looks_pages_up = m.tlbs.is_some();
        let lazy = m.levels[0][0].clone(); // nothing yet, and as many changes are kept
        let mut housekeeping_words = vec![0; n.div_ceil(64)];
        for cpu in (0..n).filter(|cpu| !scenario.is_isolated(*cpu as Cpu)) {
            housekeeping_words[cpu / 64] |= 1u64 << (cpu % 64);
        }
        let volleys = skip && kernel.is_mainline && !looks_pages_up && m.extra_ipi.is_none() && !m.all_driven;
        let volleys = volleys && !m.times.apart;
        if volleys {
            m.volleys.shots = vec![Shot::default(); n];
        }
        let mut engine = Engine {
            tasks: tasks::Programs::of(&code),
            kernel,
            volleys,
            rehearsals: Rehearsals::default(),
            hit: 0,
            early: Vec::new(),
            hits: Vec::new(),
            housekeeping_words,
            roamers: scenario
                .actors
                .iter()
                .any(|a| matches!(a.kind, ActorKind::Vfree { roams_ps: Some(_), .. })),
            known,
            turns: Vec::new(),
            entries,
            scenario: scenario.clone(),
            m,
            own,
            vmalloc: Vmalloc::new(u32::from(scenario.cpus), kernel.lazy_max.or(scenario.lazy_max_pages)),
            lazy,
            tail: false,
            draining: None,
            last_purge_end: 0,
            purges: Vec::new(),
            forks: 0,
            latencies: Latencies::default(),
            runs: 0,
            work: 0,
            replayed: 0,
            skip,
            replays: true,
            replayable,
            looks_ahead: true,
            streams: false,
            blocked: false,
            refill_pages,
            housekeeping: (0..scenario.cpus).filter(|c| !scenario.is_isolated(*c)).collect(),
            class_of_cpu: (0..scenario.cpus).map(|c| u8::from(!scenario.is_isolated(c))).collect(),
            now: 0,
            halted: false,
            programs,
            code,
        };
        engine.attach_streams();
        for cpu in 0..scenario.cpus {
            engine.start(cpu);
        }
        Ok(engine)
    }

    fn start(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        for k in 0..self.own[i].actors.len() {
            let gap = match self.kind(cpu, k) {
                ActorKind::Idle
                | ActorKind::Spin { .. }
                | ActorKind::Syscalls { .. }
                | ActorKind::Stream { .. } => continue,
                ActorKind::Interrupts { gap, .. }
                | ActorKind::Faults { gap, .. }
                | ActorKind::Nmis { gap, .. }
                | ActorKind::Forks { gap, .. }
                | ActorKind::Vfree { gap, .. }
                | ActorKind::Tasks { gap, .. }
                | ActorKind::Chain { gap, .. } => *gap,
            };
            if let ActorKind::Vfree { roams_ps: Some(_), .. } = self.kind(cpu, k) {
                let id = usize::from(self.own[i].actors[k].actor);
                if self.scenario.cpus_of(&self.scenario.actors[id].on).first() != Some(&cpu) {
                    continue;
                }
            }
            let a = &mut self.own[i].actors[k];
            a.next = draw_gap(&mut a.draws, gap);
        }
        self.refresh(cpu);
        if self.is_idle_cpu(cpu) {
            // Between two turns of idle it is never quiet: the next turn is to begin.
            self.m.cores[i].fg_next = 0;
        } else {
            self.push(cpu, self.entries.enter_user, Why::Enter, Cause::Other, 0);
        }
        self.m.note_quiet(cpu);
        let demand = self.m.demand(cpu);
        self.m.queue.set(cpu, demand);
    }

    /// Keeps every CPU in the order of the queue: nobody is left behind.
    #[cfg(test)]
    pub fn drive_all(&mut self) {
        self.m.all_driven = true;
        for cpu in 0..self.scenario.cpus {
            let demand = self.m.demand(cpu);
            self.m.queue.set(cpu, demand);
        }
    }

    /// Reads what initiators write in the order of the queue, as what anybody may write.
    #[cfg(test)]
    pub fn read_in_order(&mut self) {
        let ops = self.known.iter_mut().zip(&self.code.ops);
        for (known, _) in ops.filter(|(_, op)| matches!(op, Op::Load { from, .. } if from.at == At::Shared)) {
            known.class = Class::Cross;
        }
        self.m.free.clear();
        self.drive_all();
    }
}
