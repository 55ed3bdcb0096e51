//! Workloads as data: CPUs, and actors on them with rates and page working sets.
//!
//! An actor is one [`Kind`]: the *foreground* of a CPU (spin, idle, system calls) or something that happens on it
//! (interrupts, NMIs, forks, frees, chains of kernel work). A scenario states its abstraction: what it leaves out.

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod limits;
mod tasks;

pub(crate) use tasks::PROGRAMS as TASK_PROGRAMS;
pub use tasks::{Do, TaskStep};

use super::error::SimError;
use super::stats::Cause;
use super::stream::{self, Phase};
use crate::kernel::assemble::ENTRIES;
use crate::kernel::step::Cpu;

/// Programs that only initiators run, or they alone ask for.
pub const INITIATORS: [&str; 12] = [
    "purge",
    "vunmap",
    "table_free",
    "set_memory",
    "text_poke",
    "text_breakpoint",
    "switch_mm",
    "enter_lazy",
    "flush_mm",
    "flush_mm_tables",
    "flush_all",
    "sync_table_free",
];

/// Time between events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Mean.
    pub mean_ps: u64,
    /// Exponential (a Poisson process) or constant.
    #[serde(default)]
    pub exponential: bool,
}

/// Which CPUs an actor is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Every isolated CPU.
    Isolated,
    /// Every other CPU.
    Housekeeping,
    /// All.
    All,
    /// These.
    Cpus(Vec<Cpu>),
}

/// How user mode is left for the kernel (FACTS 1.3): a program of `linux.kernel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// SYSCALL of 64-bit code.
    #[default]
    Syscall,
    /// SYSCALL of 32-bit code.
    SyscallCompat,
    /// SYSENTER of 32-bit code.
    SysenterCompat,
    /// An exception: page faults, and `int 0x80` since Linux 6.7.
    Exception,
    /// An exception that returns to a stack segment of the LDT.
    ExceptionEspfix,
    /// An exception whose IRET faults.
    ExceptionBadIret,
}

impl Path {
    /// All, in the order of their numbers.
    pub const ALL: [Path; 6] = [
        Path::Syscall,
        Path::SyscallCompat,
        Path::SysenterCompat,
        Path::Exception,
        Path::ExceptionEspfix,
        Path::ExceptionBadIret,
    ];

    /// The kernel's program for it.
    pub fn program(self) -> &'static str {
        match self {
            Path::Syscall => "syscall",
            Path::SyscallCompat => "syscall_compat",
            Path::SysenterCompat => "sysenter_compat",
            Path::Exception => "exception",
            Path::ExceptionEspfix => "exception_espfix",
            Path::ExceptionBadIret => "exception_bad_iret",
        }
    }

    /// Does it come through the IDT?
    pub fn is_exception(self) -> bool {
        match self {
            Path::Syscall | Path::SyscallCompat | Path::SysenterCompat => false,
            Path::Exception | Path::ExceptionEspfix | Path::ExceptionBadIret => true,
        }
    }
}

/// One step of a chain of kernel work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Kernel program: `purge`, `vunmap`, `set_memory`, `table_free`, `text_poke`, ...
    pub program: String,
    /// Pages of the range; 0: beyond the ceiling, a full flush.
    pub pages: u32,
    /// What it counts as.
    pub cause: Cause,
    /// Chance per thousand that this step happens in a cycle.
    #[serde(default = "always")]
    pub per_mille: u16,
}

/// Is it a way into the kernel, not work that an initiator does?
fn entered_by_others(program: &str) -> bool {
    ENTRIES.iter().any(|(name, _)| *name == program) && !INITIATORS.contains(&program)
}

fn always() -> u16 {
    1000
}

/// What an actor does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Foreground: nothing to run.
    Idle,
    /// Foreground: a user-space loop that never enters the kernel.
    Spin {
        /// User pages it touches.
        #[serde(default)]
        user_pages: u32,
    },
    /// Foreground: a loop of user time and one system call.
    Syscalls {
        /// User time between two calls.
        gap: Gap,
        /// Time of one round trip under mainline, flush instructions and all; the body is what the entry code
        /// leaves of it.
        base_ps: u64,
        /// Kernel pages that the call touches.
        kernel_pages: u32,
        /// User pages touched between two calls.
        user_pages: u32,
        /// Entry path.
        #[serde(default)]
        by: Path,
    },
    /// Exceptions of the task in user mode, page faults above all.
    Faults {
        /// Gaps.
        gap: Gap,
        /// Time of the handler.
        body_ps: u64,
        /// Entry path.
        by: Path,
    },
    /// Interrupts other than remote calls.
    Interrupts {
        /// Gaps.
        gap: Gap,
        /// Time of the handler.
        body_ps: u64,
        /// What they count as.
        cause: Cause,
    },
    /// NMIs.
    Nmis {
        /// Gaps.
        gap: Gap,
        /// Time of the handler.
        body_ps: u64,
    },
    /// Creates `batch` processes, then lets all of them exit, and again.
    Forks {
        /// Gap between two forks.
        gap: Gap,
        /// Processes alive before they exit.
        batch: u32,
        /// Whether an exit happens on any housekeeping CPU rather than on this one.
        #[serde(default)]
        spread: bool,
    },
    /// Allocates and frees vmalloc areas.
    Vfree {
        /// Gap between two rounds.
        gap: Gap,
        /// Pages, guard included.
        pages: u32,
        /// Further areas of a round, freed after the first.
        #[serde(default)]
        then: Vec<u32>,
        /// Time between two frees of a round.
        #[serde(default)]
        apart_ps: u64,
        /// One process for all these CPUs, not one on each. Where its CPU runs kernel work that it cannot preempt,
        /// another of these CPUs pulls it at the next scheduler tick; ticks are this far apart.
        #[serde(default)]
        roams_ps: Option<u64>,
    },
    /// Processes and threads of these CPUs; a turn does its steps in order.
    Tasks {
        /// Gap between two turns of a CPU.
        gap: Gap,
        /// Processes of each CPU, one thread each, which it runs in turn.
        #[serde(default = "one")]
        processes: u16,
        /// One address space for all these CPUs instead: threads of one process.
        #[serde(default)]
        shared: bool,
        /// Further CPUs with a thread of the shared process that takes no turns.
        #[serde(default)]
        also_on: Option<On>,
        /// Steps of a turn.
        steps: Vec<TaskStep>,
    },
    /// A chain of kernel work.
    Chain {
        /// Gap between two.
        gap: Gap,
        /// Its steps, in order.
        steps: Vec<Step>,
    },
    /// User pages that the CPU's task touches; only where pages are looked up.
    Stream {
        /// User time between two touches.
        gap: Gap,
        /// Which pages; the list repeats.
        phases: Vec<Phase>,
    },
}

impl Kind {
    /// Is it what the CPU does when nothing happens?
    pub fn is_foreground(&self) -> bool {
        matches!(self, Kind::Idle | Kind::Spin { .. } | Kind::Syscalls { .. })
    }

    /// Can it interrupt or change what other CPUs see?
    pub fn initiates(&self) -> bool {
        matches!(self, Kind::Forks { .. } | Kind::Vfree { .. } | Kind::Chain { .. } | Kind::Tasks { .. })
    }

    /// A turn or chain has steps, each with a chance that is one, and a chain runs what initiators run.
    fn check_steps(&self) -> Result<(), String> {
        let spread = |what: Do| if let Do::Exit { spread } = what { spread } else { 0 };
        let chances: Vec<u16> = match self {
            Kind::Tasks { steps, .. } => steps.iter().flat_map(|s| [s.per_mille, spread(s.what)]).collect(),
            Kind::Chain { steps, .. } => steps.iter().map(|s| s.per_mille).collect(),
            _ => return Ok(()),
        };
        if chances.is_empty() {
            return Err("there is no step".into());
        }
        if let Some(chance) = chances.iter().find(|c| **c > 1000) {
            return Err(format!("a chance per mille is at most 1000: got {chance}"));
        }
        let Kind::Chain { steps, .. } = self else { return Ok(()) };
        match steps.iter().find(|s| entered_by_others(&s.program)) {
            Some(step) => Err(format!("{:?} is no kernel work that a chain can run", step.program)),
            None => Ok(()),
        }
    }

    fn gap(&self) -> Option<Gap> {
        match self {
            Kind::Idle | Kind::Spin { .. } => None,
            Kind::Syscalls { gap, .. }
            | Kind::Interrupts { gap, .. }
            | Kind::Faults { gap, .. }
            | Kind::Nmis { gap, .. }
            | Kind::Forks { gap, .. }
            | Kind::Vfree { gap, .. }
            | Kind::Tasks { gap, .. }
            | Kind::Chain { gap, .. }
            | Kind::Stream { gap, .. } => Some(*gap),
        }
    }
}

/// One actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Name, for messages.
    pub name: String,
    /// Where.
    pub on: On,
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name.
    pub name: String,
    /// What it leaves out, in one sentence.
    #[serde(default)]
    pub abstraction: String,
    /// Simulated time.
    pub duration_ps: u64,
    /// Online CPUs.
    pub cpus: Cpu,
    /// NOHZ_FULL CPUs.
    pub isolated: Vec<Cpu>,
    /// The mask the entry flush tests, where it differs (FACTS 1.6 f).
    #[serde(default)]
    pub flush_mask: Option<Vec<Cpu>>,
    /// Sockets; CPUs are split evenly.
    #[serde(default = "one")]
    pub sockets: u16,
    /// `lazy_max_pages()`, where it is tuned.
    #[serde(default)]
    pub lazy_max_pages: Option<u64>,
    /// RCU grace period.
    #[serde(default = "grace")]
    pub rcu_ps: u64,
    /// From queueing the drain work to its start.
    #[serde(default = "work_delay")]
    pub work_delay_ps: u64,
    /// Extra time from an interrupt request to its delivery (an emulator's scheduling), exponential.
    #[serde(default)]
    pub extra_ipi_ps: u64,
    /// Actors.
    #[serde(default)] // `parse` reads them one by one
    pub actors: Vec<Actor>,
}

fn one() -> u16 {
    1
}

fn grace() -> u64 {
    20_000_000_000
}

fn work_delay() -> u64 {
    20_000_000
}

/// Largest machine: `NR_CPUS` of distribution kernels is 8,192, but a broadcast to more than 4,096 CPUs says
/// nothing new.
pub const MAX_CPUS: Cpu = 4096;
/// Least mean gap of what happens by itself: no CPU does anything more often than each nanosecond.
const LEAST_GAP_PS: u64 = 1000;

/// Most processes at once: numbers of address spaces have 16 bits, and lazy CPUs keep some that are gone.
pub const MAX_MMS: usize = 50_000;

impl Scenario {
    /// Names of the kernel's programs that its actors run.
    pub fn programs(&self) -> Vec<&str> {
        let mut out = Vec::new();
        for actor in &self.actors {
            match &actor.kind {
                Kind::Chain { steps, .. } => out.extend(steps.iter().map(|s| s.program.as_str())),
                Kind::Tasks { .. } => out.extend(tasks::PROGRAMS),
                Kind::Idle | Kind::Spin { .. } | Kind::Syscalls { .. } | Kind::Interrupts { .. } => {}
                Kind::Faults { .. } => {}
                Kind::Nmis { .. } | Kind::Forks { .. } | Kind::Vfree { .. } | Kind::Stream { .. } => {}
            }
        }
        out
    }

    /// Reads JSON and checks it. Actors are read one by one, so that an error says which.
    pub fn parse(json: &str) -> Result<Self, SimError> {
        let fail = |place: &str, e: serde_json::Error| SimError::Scenario(format!("{place}: {e}"));
        let mut whole: serde_json::Value = serde_json::from_str(json).map_err(|e| fail("scenario", e))?;
        let actors = whole.get_mut("actors").and_then(serde_json::Value::as_array_mut).map(std::mem::take);
        let mut scenario: Scenario = serde_json::from_value(whole).map_err(|e| fail("scenario", e))?;
        let place = format!("scenario {:?}", scenario.name);
        for actor in actors.unwrap_or_default() {
            let name = actor.get("name").and_then(|n| n.as_str()).unwrap_or("without a name").to_owned();
            let read = serde_json::from_value(actor);
            scenario.actors.push(read.map_err(|e| fail(&format!("{place}: actor {name:?}"), e))?);
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// The rules every scenario obeys.
    pub fn check(&self) -> Result<(), SimError> {
        let fail = |text: String| Err(SimError::Scenario(format!("scenario {:?}: {text}", self.name)));
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return fail(format!("cpus must be 1 to {MAX_CPUS}: got {}", self.cpus));
        }
        if self.duration_ps == 0 || self.duration_ps > 1 << 62 {
            return fail(format!(
                "duration must be above 0 and at most 53 days: got {} ps",
                self.duration_ps
            ));
        }
        if self.sockets == 0 || self.sockets > self.cpus {
            return fail(format!("sockets must be 1 to the number of CPUs: got {}", self.sockets));
        }
        for (what, list) in [("isolated", Some(&self.isolated)), ("flush_mask:", self.flush_mask.as_ref())] {
            if let Some(cpu) = list.into_iter().flatten().find(|c| **c >= self.cpus) {
                return fail(format!(
                    "{what} CPU {cpu} does not exist: there are CPUs 0 to {}",
                    self.cpus - 1
                ));
            }
        }
        if self.isolated.contains(&0) {
            return fail(
                "CPU 0 cannot be isolated: the boot CPU keeps the timekeeping duty (nohz_full=)".into(),
            );
        }
        let mut foreground = vec![None; usize::from(self.cpus)];
        let mut mms = 0usize;
        let mut streams = vec![None; usize::from(self.cpus)];
        let mut faults = vec![None; usize::from(self.cpus)];
        let mut idle = vec![true; usize::from(self.cpus)];
        for actor in &self.actors {
            actor.kind.check_steps().or_else(|rule| fail(format!("actor {:?}: {rule}", actor.name)))?;
            if let Kind::Tasks { processes, shared, also_on, steps, .. } = &actor.kind {
                let name = &actor.name;
                if *processes == 0 {
                    return fail(format!("actor {name:?}: processes must be at least 1: got 0"));
                }
                if *shared && *processes != 1 {
                    return fail(format!(
                        "actor {name:?}: threads share one process: got processes {processes}"
                    ));
                }
                if !*shared && also_on.is_some() {
                    return fail(format!("actor {name:?}: also_on adds threads of a shared process"));
                }
                if *shared && steps.iter().any(|s| s.what == Do::Exec) {
                    return fail(format!("actor {name:?}: exec ends every other thread of a shared process"));
                }
                if *shared && steps.iter().any(|s| s.what == Do::Migrate) {
                    return fail(format!(
                        "actor {name:?}: a shared process has a thread on each CPU already"
                    ));
                }
                let mut threads = also_on.iter().flat_map(|on| self.cpus_of(on));
                if let Some(cpu) = threads.find(|c| *c >= self.cpus) {
                    return fail(format!(
                        "actor {name:?}: CPU {cpu} does not exist: there are CPUs 0 to {}",
                        self.cpus - 1
                    ));
                }
                mms += if *shared { 1 } else { usize::from(*processes) * self.cpus_of(&actor.on).len() };
                if mms > MAX_MMS {
                    return fail(format!("actor {name:?}: at most {MAX_MMS} processes in all: got {mms}"));
                }
            }
            if let Some(gap) = actor.kind.gap()
                && gap.mean_ps < LEAST_GAP_PS
                && !matches!(actor.kind, Kind::Syscalls { .. })
            {
                return fail(format!(
                    "actor {:?}: its gap must be at least {LEAST_GAP_PS} ps, a rate of 1e9 per second: got {} ps",
                    actor.name, gap.mean_ps
                ));
            }
            if let Kind::Forks { batch: 0, .. } = actor.kind {
                return fail(format!("actor {:?}: batch must be at least 1: got 0", actor.name));
            }
            if let Kind::Vfree { pages, then, apart_ps, roams_ps, .. } = &actor.kind {
                if *pages == 0 || then.contains(&0) {
                    return fail(format!("actor {:?}: pages must be at least 1: got 0", actor.name));
                }
                if !then.is_empty() && *apart_ps == 0 {
                    return fail(format!(
                        "actor {:?}: the time between two frees must be above 0",
                        actor.name
                    ));
                }
                if *roams_ps == Some(0) {
                    return fail(format!(
                        "actor {:?}: the time between two ticks must be above 0",
                        actor.name
                    ));
                }
            }
            if let Kind::Syscalls { base_ps: 0, gap: Gap { mean_ps: 0, .. }, .. } = actor.kind {
                return fail(format!("actor {:?}: a system call must take time", actor.name));
            }
            if let Kind::Faults { by, .. } = actor.kind
                && !by.is_exception()
            {
                let name = by.program();
                return fail(format!(
                    "actor {:?}: a fault enters as an exception, not by {name}",
                    actor.name
                ));
            }
            if let Kind::Stream { phases, .. } = &actor.kind {
                stream::check(phases).or_else(|rule| fail(format!("actor {:?}: {rule}", actor.name)))?;
            }
            for cpu in self.cpus_of(&actor.on) {
                if cpu >= self.cpus {
                    return fail(format!(
                        "actor {:?}: CPU {cpu} does not exist: there are CPUs 0 to {}",
                        actor.name,
                        self.cpus - 1
                    ));
                }
                if matches!(actor.kind, Kind::Stream { .. })
                    && let Some(other) = streams[usize::from(cpu)].replace(&actor.name)
                {
                    let rule = "one stream per CPU, of several phases if need be";
                    return fail(format!("actors {other:?} and {:?} on CPU {cpu}: {rule}", actor.name));
                }
                if matches!(actor.kind, Kind::Faults { .. }) {
                    faults[usize::from(cpu)] = Some(&actor.name);
                }
                if actor.kind.is_foreground() {
                    idle[usize::from(cpu)] = matches!(actor.kind, Kind::Idle);
                    let before = foreground[usize::from(cpu)].replace(&actor.name);
                    if let Some(other) = before {
                        return fail(format!(
                            "actors {other:?} and {:?} both are the foreground of CPU {cpu}",
                            actor.name
                        ));
                    }
                }
            }
        }
        for cpu in 0..usize::from(self.cpus) {
            if let (Some(name), true) = (streams[cpu].or(faults[cpu]), idle[cpu]) {
                return fail(format!(
                    "actor {name:?}: CPU {cpu} has no user mode: spin or syscalls must run there"
                ));
            }
        }
        Ok(())
    }

    /// Is the CPU isolated?
    pub fn is_isolated(&self, cpu: Cpu) -> bool {
        self.isolated.contains(&cpu)
    }

    /// The CPUs of a place.
    pub fn cpus_of(&self, on: &On) -> Vec<Cpu> {
        match on {
            On::Cpus(list) => list.clone(),
            On::All => (0..self.cpus).collect(),
            On::Isolated => (0..self.cpus).filter(|c| self.is_isolated(*c)).collect(),
            On::Housekeeping => (0..self.cpus).filter(|c| !self.is_isolated(*c)).collect(),
        }
    }
}
