//! What a task was doing when it flushed: its system call, with the length and the advice, or what else its call chain
//! or its name tells. Numbers are those of x86-64, where flushes of user ranges interrupt.

use crate::trace::import::scan::hex;

/// A system call in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is called in tables.
    pub name: &'static str,
    /// Length of the range it was given, in pages; `None` if it has no such argument or the source does not print it.
    pub pages: Option<u64>,
}

/// Where a call has its length, and how the `syscalls` events print that argument.
#[derive(Clone, Copy)]
enum Length {
    /// It has none.
    No,
    /// In the argument of this number, under one of these names.
    Bytes(usize, &'static [&'static str]),
}

const LEN: &[&str] = &["len:", "len_in:", "length:"];

/// Number, name of the `sys_enter_` event, name in tables if it differs, length.
const CALLS: &[(u32, &str, &str, Length)] = &[
    (0, "read", "", Length::No),
    (1, "write", "", Length::No),
    (9, "mmap", "", Length::Bytes(1, LEN)),
    (10, "mprotect", "", Length::Bytes(1, LEN)),
    (11, "munmap", "", Length::Bytes(1, LEN)),
    (12, "brk", "", Length::No),
    (16, "ioctl", "", Length::No),
    (25, "mremap", "", Length::Bytes(1, &["old_len:"])),
    (26, "msync", "", Length::Bytes(1, LEN)),
    (28, "madvise", "", Length::Bytes(1, LEN)),
    (29, "shmget", "", Length::No),
    (30, "shmat", "", Length::No),
    (56, "clone", "clone (write protection by fork)", Length::No),
    (57, "fork", "fork (write protection)", Length::No),
    (58, "vfork", "", Length::No),
    (59, "execve", "", Length::No),
    (60, "exit", "", Length::No),
    (67, "shmdt", "", Length::No),
    (76, "truncate", "", Length::No),
    (77, "ftruncate", "", Length::No),
    (149, "mlock", "", Length::Bytes(1, LEN)),
    (150, "munlock", "", Length::Bytes(1, LEN)),
    (151, "mlockall", "", Length::No),
    (152, "munlockall", "", Length::No),
    (157, "prctl", "", Length::No),
    (216, "remap_file_pages", "", Length::Bytes(1, &["size:"])),
    (231, "exit_group", "", Length::No),
    (237, "mbind", "", Length::Bytes(1, LEN)),
    (256, "migrate_pages", "", Length::No),
    (279, "move_pages", "", Length::No),
    (285, "fallocate", "", Length::No),
    (322, "execveat", "", Length::No),
    (324, "membarrier", "", Length::No),
    (325, "mlock2", "", Length::Bytes(1, LEN)),
    (329, "pkey_mprotect", "", Length::Bytes(1, LEN)),
    (435, "clone3", "clone3 (write protection by fork)", Length::No),
    (440, "process_madvise", "", Length::No),
    (448, "process_mrelease", "", Length::No),
    (462, "mseal", "", Length::Bytes(1, LEN)),
];

macro_rules! advised {
    ($call:literal, $advice:expr) => {
        match $advice {
            Some(0) => concat!($call, "(MADV_NORMAL)"),
            Some(3) => concat!($call, "(MADV_WILLNEED)"),
            Some(4) => concat!($call, "(MADV_DONTNEED)"),
            Some(8) => concat!($call, "(MADV_FREE)"),
            Some(9) => concat!($call, "(MADV_REMOVE)"),
            Some(10) => concat!($call, "(MADV_DONTFORK)"),
            Some(12) => concat!($call, "(MADV_MERGEABLE)"),
            Some(13) => concat!($call, "(MADV_UNMERGEABLE)"),
            Some(14) => concat!($call, "(MADV_HUGEPAGE)"),
            Some(15) => concat!($call, "(MADV_NOHUGEPAGE)"),
            Some(18) => concat!($call, "(MADV_WIPEONFORK)"),
            Some(20) => concat!($call, "(MADV_COLD)"),
            Some(21) => concat!($call, "(MADV_PAGEOUT)"),
            Some(22) => concat!($call, "(MADV_POPULATE_READ)"),
            Some(23) => concat!($call, "(MADV_POPULATE_WRITE)"),
            Some(24) => concat!($call, "(MADV_DONTNEED_LOCKED)"),
            Some(25) => concat!($call, "(MADV_COLLAPSE)"),
            Some(100) => concat!($call, "(MADV_HWPOISON)"),
            Some(101) => concat!($call, "(MADV_SOFT_OFFLINE)"),
            Some(102) => concat!($call, "(MADV_GUARD_INSTALL)"),
            Some(103) => concat!($call, "(MADV_GUARD_REMOVE)"),
            Some(_) => concat!($call, " (other advice)"),
            None => concat!($call, " (advice not recorded)"),
        }
    };
}

const CLONE_THREAD: u64 = 0x1_0000;

/// What kind of task a system call in progress creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Creates {
    /// It creates none, or that is not recorded.
    #[default]
    Unknown,
    /// A thread of the same process.
    Thread,
    /// Another process.
    Process,
    /// `clone3`, whose flags lie in memory: a thread, unless it runs another program.
    Clone3,
}

/// A system call by its event.
pub fn of_event(name: &[u8], args: &[u8]) -> (Call, Creates, bool) {
    let raw = name == b"sys_enter";
    let number = raw.then(|| number(args)).flatten();
    let stem = name.strip_prefix(b"sys_enter_").or_else(|| name.strip_prefix(b"syscall_entry_"));
    let stem = stem.unwrap_or_default();
    let found = CALLS.iter().find(|(nr, event, ..)| {
        if raw {
            number == Some(*nr)
        } else {
            stem == event.as_bytes() || stem.strip_prefix(b"new") == Some(event.as_bytes())
        }
    });
    let Some(&(nr, event, shown, length)) = found else {
        return (Call { name: "another system call", pages: None }, Creates::Unknown, false);
    };
    let argument = |position: usize, keys: &[&str]| {
        if raw { raw_argument(args, position) } else { keys.iter().find_map(|key| named(args, key)) }
    };
    let advice = |position| argument(position, &["behavior:", "advice:"]);
    let name = match nr {
        28 => advised!("madvise", advice(2)),
        440 => advised!("process_madvise", advice(3)),
        _ if shown.is_empty() => event,
        _ => shown,
    };
    let pages = match length {
        Length::No => None,
        Length::Bytes(position, keys) => argument(position, keys).map(|bytes| bytes.div_ceil(4096)),
    };
    let creates = match nr {
        57 | 58 => Creates::Process,
        56 => match argument(0, &["clone_flags:"]) {
            Some(flags) if flags & CLONE_THREAD != 0 => Creates::Thread,
            Some(_) => Creates::Process,
            None => Creates::Unknown,
        },
        435 => Creates::Clone3,
        _ => Creates::Unknown,
    };
    (Call { name, pages }, creates, matches!(nr, 59 | 322))
}

/// `NR 28 (7f49a6000000, a000, 4, ...)`
fn number(args: &[u8]) -> Option<u32> {
    let digits = args.strip_prefix(b"NR ").or_else(|| args.strip_prefix(b"id: "))?;
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

fn raw_argument(args: &[u8], position: usize) -> Option<u64> {
    let open = memchr::memchr(b'(', args)?;
    let close = memchr::memchr(b')', args).unwrap_or(args.len());
    let list = args.get(open + 1..close)?;
    hex(list.split(|b| *b == b',').nth(position)?.trim_ascii())
}

/// `len_in: 0xa000`
fn named(args: &[u8], key: &str) -> Option<u64> {
    let at = memchr::memmem::find_iter(args, key)
        .find(|&at| at == 0 || matches!(args[at - 1], b' ' | b',' | b'('))?;
    let value = args[at + key.len()..].trim_ascii_start();
    let end = value.iter().position(|b| matches!(b, b',' | b' ' | b')')).unwrap_or(value.len());
    hex(&value[..end])
}

/// What a call chain tells about a flush, whatever system call it was in: the first pattern that any frame begins with.
const FRAMES: &[(&str, &str)] = &[
    ("ksm_do_scan", "KSM"),
    ("try_to_merge_one_page", "KSM"),
    ("collapse_huge_page", "THP collapse"),
    ("collapse_pte_mapped_thp", "THP collapse"),
    ("hpage_collapse_scan", "THP collapse"),
    ("khugepaged", "THP collapse"),
    ("change_prot_numa", "NUMA hinting"),
    ("task_numa_work", "NUMA hinting"),
    ("migrate_misplaced", "NUMA migration"),
    ("do_numa_page", "NUMA hinting"),
    ("compact_zone", "compaction"),
    ("shrink_folio_list", "reclaim"),
    ("shrink_page_list", "reclaim"),
    ("shrink_lruvec", "reclaim"),
    ("try_to_unmap_flush", "reclaim"),
    ("migrate_pages", "page migration"),
    ("dup_mmap", "fork (write protection)"),
    ("do_wp_page", "page fault: copy on write"),
    ("wp_page_copy", "page fault: copy on write"),
    ("do_huge_pmd_wp_page", "page fault: copy on write"),
];
/// The same, where no system call was in progress.
const FRAMES_OUTSIDE: &[(&str, &str)] = &[
    ("exit_mmap", "exit"),
    ("do_exit", "exit"),
    ("handle_mm_fault", "page fault"),
    ("exc_page_fault", "page fault"),
];

/// What frames (innermost first, separated by newlines) tell; `outside`: no system call was in progress.
pub fn of_frames(frames: &[u8], outside: bool) -> Option<&'static str> {
    let of = |list: &[(&str, &'static str)]| {
        list.iter()
            .find(|(start, _)| frames.split(|b| *b == b'\n').any(|frame| frame.starts_with(start.as_bytes())))
            .map(|(_, name)| *name)
    };
    of(FRAMES).or_else(|| if outside { of(FRAMES_OUTSIDE) } else { None })
}

/// What a kernel thread flushes user ranges for.
pub fn of_kernel_thread(comm: &[u8]) -> Option<&'static str> {
    let known: &[(&str, &str)] = &[
        ("kswapd", "reclaim"),
        ("kcompactd", "compaction"),
        ("ksmd", "KSM"),
        ("khugepaged", "THP collapse"),
        ("oom_reaper", "OOM reaper"),
        ("kdamond", "DAMON"),
    ];
    known.iter().find(|(start, _)| comm.starts_with(start.as_bytes())).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_name_the_length_and_the_advice_it_was_given() {
        let raw = |args: &str| of_event(b"sys_enter", args.as_bytes()).0;
        assert_eq!(
            raw("NR 28 (7f49a6000000, a000, 4, 32, ffffffff, 0)"),
            Call { name: "madvise(MADV_DONTNEED)", pages: Some(10) }
        );
        assert_eq!(raw("NR 11 (7f49a6000000, 1001, 0, 0, 0, 0)"), Call { name: "munmap", pages: Some(2) });
        assert_eq!(raw("NR 440 (5, 7ffe, 10, 15, 0, 0)").name, "process_madvise(MADV_PAGEOUT)");
        assert_eq!(raw("NR 28 (7f49a6000000, a000, 63, 0, 0, 0)").name, "madvise (other advice)");
        assert_eq!(raw("NR 999 (1)"), Call { name: "another system call", pages: None });
        let event = of_event(
            b"sys_enter_madvise",
            b"start: 0x7f49a6000000, len_in: 0x0000a000, behavior: 0x00000008",
        );
        assert_eq!(event.0, Call { name: "madvise(MADV_FREE)", pages: Some(10) });
    }

    #[test]
    fn clone_tells_threads_from_processes_and_clone3_does_not() {
        let creates = |args: &str| of_event(b"sys_enter", args.as_bytes()).1;
        assert_eq!(creates("NR 56 (3d0f00, 7f0, 7f1, 7f2, 0, 0)"), Creates::Thread);
        assert_eq!(creates("NR 56 (1200011, 0, 0, 0, 0, 0)"), Creates::Process);
        assert_eq!(creates("NR 57 (0)"), Creates::Process);
        assert_eq!(creates("NR 435 (7ffd, 58)"), Creates::Clone3);
    }

    #[test]
    fn a_call_chain_says_more_than_the_system_call_it_was_in() {
        let reclaim =
            b"flush_tlb_multi\narch_tlbbatch_flush\ntry_to_unmap_flush\nshrink_folio_list\nhandle_mm_fault\n";
        assert_eq!(of_frames(reclaim, false), Some("reclaim"));
        let fault = b"flush_tlb_mm_range\nptep_clear_flush\nwp_page_copy.isra.0\nhandle_mm_fault\n";
        assert_eq!(of_frames(fault, true), Some("page fault: copy on write"));
        assert_eq!(of_frames(b"flush_tlb_mm_range\nzap_page_range\ndo_madvise\n", false), None);
        assert_eq!(of_frames(b"flush_tlb_mm_range\nhandle_mm_fault\n", true), Some("page fault"));
        assert_eq!(of_frames(b"flush_tlb_mm_range\nhandle_mm_fault\n", false), None);
    }
}
