//! Threads, and which of them are one process: by the process id that `record-tgid` prints, else by the flags of the
//! `clone` that created them. A thread id that a fork hands out again is another thread.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::call::{Call, Creates};
use crate::trace::{
    analysis::tasks::{Sym, Symbols},
    event::Task,
};

/// Number of a thread here; [`NOBODY`] if not known.
pub type Id = u32;
/// No thread.
pub const NOBODY: Id = u32::MAX;
/// Ended threads that are kept a while: events of theirs may still come.
const LATE: usize = 4096;

/// A thread.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Thread id.
    pub pid: u32,
    /// How often that id was handed out before, in this recording.
    pub reuse: u32,
    /// Its latest name.
    pub comm: Sym,
    /// Process id, if printed.
    pub tgid: Option<u32>,
    /// The thread that created it as one of its own process.
    pub leader: Option<Id>,
    /// That it is one is only likely.
    pub leader_guessed: bool,
    /// First and last time it was met.
    pub first_ns: u64,
    /// See there.
    pub last_ns: u64,
    /// System call in progress.
    pub call: Option<Call>,
    /// When and where it began.
    pub called: Option<(u64, u32)>,
    /// Something counted was flushed in it.
    pub flushed: bool,
    /// What that creates.
    pub creates: Creates,
    /// A page fault was the last way into the kernel that was recorded.
    pub fault: bool,
    /// Flush it is in.
    pub open: Option<u32>,
    /// Something is counted for it.
    pub used: bool,
    live: bool,
}

/// All of them.
#[derive(Default)]
pub struct Threads {
    all: Vec<Thread>,
    free: Vec<Id>,
    by_pid: FxHashMap<u32, Id>,
    ended: VecDeque<Id>,
    reused: FxHashMap<u32, u32>,
    /// Names met, with how many threads.
    pub names: FxHashSet<Sym>,
    /// Ids met.
    pub pids: FxHashSet<u32>,
    /// Any process id was printed.
    pub tgids: bool,
}

impl Threads {
    /// The thread of an event; its latest name and process are kept.
    pub fn met(&mut self, task: Task<'_>, at_ns: u64, symbols: &mut Symbols) -> Id {
        let id = match self.by_pid.get(&task.pid) {
            Some(&id) => id,
            None => self.new_thread(task.pid, at_ns),
        };
        let thread = &mut self.all[id as usize];
        thread.last_ns = at_ns;
        if task.tgid.is_some() {
            self.tgids = true;
            thread.tgid = task.tgid;
        }
        if task.comm != b"<...>" && symbols.bytes(thread.comm) != task.comm {
            thread.comm = symbols.number(task.comm);
            self.names.insert(thread.comm);
        }
        id
    }

    fn new_thread(&mut self, pid: u32, at_ns: u64) -> Id {
        let reuse = self.reused.get(&pid).copied().unwrap_or(0);
        let thread = Thread { pid, reuse, first_ns: at_ns, last_ns: at_ns, live: true, ..Thread::default() };
        let id = if let Some(id) = self.free.pop() {
            self.all[id as usize] = thread;
            id
        } else {
            self.all.push(thread);
            (self.all.len() - 1) as Id
        };
        self.by_pid.insert(pid, id);
        self.pids.insert(pid);
        id
    }

    /// A fork: the child's id may have been another thread's.
    pub fn forked(
        &mut self,
        parent: Id,
        child_comm: &[u8],
        child_pid: u32,
        at_ns: u64,
        symbols: &mut Symbols,
    ) {
        if self.pids.contains(&child_pid) {
            *self.reused.entry(child_pid).or_default() += 1;
        }
        if let Some(old) = self.by_pid.remove(&child_pid) {
            self.drop_unused(old);
        }
        let child = self.new_thread(child_pid, at_ns);
        let comm = symbols.number(child_comm);
        self.names.insert(comm);
        let creates = self[parent].creates;
        let joins = matches!(creates, Creates::Thread | Creates::Clone3);
        let tgid = self[parent].tgid.filter(|_| creates == Creates::Thread);
        let thread = &mut self[child];
        thread.comm = comm;
        if joins {
            thread.leader = Some(parent);
            thread.leader_guessed = creates == Creates::Clone3;
            thread.tgid = tgid;
            self[parent].used = true;
        }
    }

    /// It runs another program: from now on it is its own process, if that was not certain.
    pub fn executes(&mut self, id: Id) {
        let thread = &mut self[id];
        if thread.leader_guessed {
            thread.leader = None;
        }
    }

    /// It ended.
    pub fn ended(&mut self, pid: u32) {
        let Some(&id) = self.by_pid.get(&pid) else { return };
        self.ended.push_back(id);
        if self.ended.len() > LATE
            && let Some(old) = self.ended.pop_front()
            && self[old].live
            && self.by_pid.get(&self[old].pid) == Some(&old)
        {
            let pid = self[old].pid;
            self.by_pid.remove(&pid);
            self.drop_unused(old);
        }
    }

    fn drop_unused(&mut self, id: Id) {
        if !self[id].used && self[id].open.is_none() && self[id].live {
            self[id].live = false;
            self.free.push(id);
        }
    }

    /// The first thread of its process.
    pub fn leader(&self, mut id: Id) -> Id {
        for _ in 0..64 {
            match self.all[id as usize].leader {
                Some(leader) => id = leader,
                None => break,
            }
        }
        id
    }

    /// Are both of one process? `None`: not recorded.
    pub fn same_process(&self, a: Id, b: Id) -> Option<bool> {
        if a == b {
            return Some(true);
        }
        if let (Some(a), Some(b)) = (self[a].tgid, self[b].tgid) {
            return Some(a == b);
        }
        let (first, second) = (self.leader(a), self.leader(b));
        if first == second {
            return Some(true);
        }
        // Threads whose creation was not recorded may belong together if they have one name.
        (self[first].comm != self[second].comm).then_some(false)
    }

    /// Those that are held, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Thread)> {
        self.all.iter().enumerate().filter(|(_, t)| t.live).map(|(id, t)| (id as Id, t))
    }

    /// All of them, to forget what they were doing.
    pub fn forget(&mut self) {
        for thread in &mut self.all {
            thread.call = None;
            thread.flushed = false;
            thread.fault = false;
            thread.open = None;
        }
    }
}

impl std::ops::Index<Id> for Threads {
    type Output = Thread;
    fn index(&self, id: Id) -> &Thread {
        &self.all[id as usize]
    }
}

impl std::ops::IndexMut<Id> for Threads {
    fn index_mut(&mut self, id: Id) -> &mut Thread {
        &mut self.all[id as usize]
    }
}
