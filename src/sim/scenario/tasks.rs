//! Processes and threads as data: what a turn of theirs does to address spaces and kernel stacks.

use serde::{Deserialize, Serialize};

/// Programs of `contexts.kernel` that turns start.
pub const PROGRAMS: [&str; 4] = ["switch_mm", "enter_lazy", "flush_mm", "flush_mm_tables"];

/// One step of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Do {
    /// `switch_mm` to the next process of this CPU.
    Switch,
    /// Nothing is runnable: a kernel thread borrows the address space (`enter_lazy_tlb`).
    Sleep,
    /// `munmap`, `mprotect`, `madvise`: changes a user range of the current process and flushes it.
    Unmap {
        /// Pages; 0: beyond the ceiling, a full flush.
        pages: u32,
        /// Page-table pages are freed too, so lazy CPUs are interrupted.
        tables: bool,
    },
    /// A child is created: its kernel stack.
    Fork,
    /// The oldest child exits: its kernel stack goes the way of 3.2.
    Exit {
        /// Chance per thousand that it exits on another CPU of the actor than the one it started on.
        spread: u16,
    },
    /// The current process moves to another CPU of the actor, the one with the fewest; this CPU goes on lazily and then
    /// with the next process.
    Migrate,
    /// The current process becomes another: a fresh address space is loaded, then the old one is torn down
    /// (`exec_mmap`, `exit_mmap`: a full flush with freed tables).
    Exec,
}

/// A step and how often it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct TaskStep {
    /// What.
    #[serde(flatten)]
    pub what: Do,
    /// Chance per thousand that it happens in a turn.
    pub per_mille: u16,
}

/// A step as it is written: one mapping, of which no key is lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#do: Word,
    pages: Option<u32>,
    tables: Option<bool>,
    spread: Option<u16>,
    #[serde(default = "super::always")]
    per_mille: u16,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Switch,
    Sleep,
    Unmap,
    Fork,
    Exit,
    Migrate,
    Exec,
}

impl TryFrom<Written> for TaskStep {
    type Error = String;

    fn try_from(step: Written) -> Result<Self, String> {
        let what = match step.r#do {
            Word::Switch => Do::Switch,
            Word::Sleep => Do::Sleep,
            Word::Unmap => {
                let pages = step.pages.ok_or("unmap needs `pages`")?;
                Do::Unmap { pages, tables: step.tables.unwrap_or(false) }
            }
            Word::Fork => Do::Fork,
            Word::Exit => Do::Exit { spread: step.spread.unwrap_or(0) },
            Word::Migrate => Do::Migrate,
            Word::Exec => Do::Exec,
        };
        if !matches!(what, Do::Exit { .. }) && step.spread.is_some() {
            return Err(format!("`spread` is of exit, not of {:?}", step.r#do).to_lowercase());
        }
        if !matches!(what, Do::Unmap { .. }) && (step.pages.is_some() || step.tables.is_some()) {
            return Err(format!("`pages` and `tables` are of unmap, not of {:?}", step.r#do).to_lowercase());
        }
        Ok(TaskStep { what, per_mille: step.per_mille })
    }
}
