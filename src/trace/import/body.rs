//! Bodies of events: what stands behind the name, in the kernel's spelling and in libtraceevent's.

use super::scan::{Fields, decimal, hex, number, plain_function, symbol};
use crate::trace::{
    MAX_CPUS,
    event::{Csd, Vector, What},
};

/// Raw fields (`trace-cmd report -R`, the trace option `fields`) leave out what the kernel's print format computes.
pub(super) const RAW: &str = "raw fields instead of the event's own print format";

/// Interprets one event by its name; shared with importers whose lines differ only in front of it.
#[inline]
pub fn body_of<'a>(name: &'a [u8], body: &'a [u8]) -> Result<What<'a>, &'static str> {
    let mut f = Fields(body);
    Ok(match name {
        b"user_enter" => What::UserEnter,
        b"user_exit" => What::UserExit,
        b"sys_enter" => What::SyscallEntry { name, args: body },
        b"sys_exit" => What::SyscallExit,
        b"csd_queue_cpu" => What::CsdQueue {
            cpu: cpu(f.get(b"cpu="))?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            func: plain_function(symbol(f.get(b"func=").ok_or("csd_queue_cpu without func=")?)),
            csd: f.get(b"csd=").and_then(hex).unwrap_or(0),
        },
        b"csd_function_entry" => What::CsdEntry {
            func: plain_function(symbol(f.get(b"func=").ok_or("csd_function_entry without func=")?)),
            csd: match f.get(b"csd=").and_then(hex).ok_or("csd_function_entry without csd=")? {
                0 => Csd::Local,
                csd => Csd::Queued(csd),
            },
        },
        b"csd_function_exit" => What::CsdExit,
        b"ipi_send_cpu" => What::IpiSend {
            cpu: cpu(f.get(b"cpu="))?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            callback: callback(f.get(b"callback=")),
        },
        b"ipi_send_cpumask" => What::IpiSendMask {
            mask: f.get(b"cpumask=").ok_or("ipi_send_cpumask without cpumask=")?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            callback: callback(f.get(b"callback=")),
        },
        b"alloc_vmap_area" if body.starts_with(b"addr=") => return Err(RAW),
        b"alloc_vmap_area" if !body.starts_with(b"(") => What::AllocArea {
            start: f.get(b"va_start:").and_then(number).ok_or("alloc_vmap_area without va_start:")?,
            size: f.get(b"size=").and_then(number).ok_or("alloc_vmap_area without size=")?,
            align: f.get(b"align=").and_then(number).unwrap_or(1),
            ok: !body.ends_with(b"failed=1"),
        },
        b"free_vmap_area_noflush" if !body.starts_with(b"(") => What::FreeArea {
            start: f.get(b"va_start=").and_then(hex).ok_or("free_vmap_area_noflush without va_start=")?,
            nr_lazy: f.get(b"nr_lazy=").and_then(number).ok_or("free_vmap_area_noflush without nr_lazy=")?,
            nr_lazy_max: f.get(b"nr_lazy_max=").and_then(number).unwrap_or(0),
        },
        b"purge_vmap_area_lazy" if !body.starts_with(b"(") => What::Purge {
            start: f.get(b"start=").and_then(hex).ok_or("purge_vmap_area_lazy without start=")?,
            end: f.get(b"end=").and_then(hex).ok_or("purge_vmap_area_lazy without end=")?,
            areas: f
                .get(b"num_purged=")
                .and_then(number)
                .ok_or("purge_vmap_area_lazy without num_purged=")?,
        },
        b"sched_process_fork" if body.starts_with(b"parent_comm=") => return Err(RAW),
        b"sched_process_fork" => {
            let (rest, pid) =
                split_last(body, b" child_pid=").ok_or("sched_process_fork without child_pid=")?;
            let (_, child_comm) = split_last(rest, b" child_comm=").unwrap_or((rest, b""));
            What::Fork { child_comm, child_pid: pid_of(pid).ok_or("child_pid is not a task id")? }
        }
        b"cgroup_attach_task" | b"cgroup_transfer_tasks" => {
            // `dst_root=0 dst_id=1 dst_level=2 dst_path=/a b pid=7 comm=sh`; a path may hold spaces.
            let (rest, _) = split_last(body, b" comm=").ok_or("cgroup event without comm=")?;
            let (rest, pid) = split_last(rest, b" pid=").ok_or("cgroup event without pid=")?;
            let from = memchr::memmem::find(rest, b"dst_path=").ok_or("cgroup event without dst_path=")?;
            What::CgroupAttach {
                root: f.get(b"dst_root=").and_then(number).map_or(0, |root| root as u32),
                path: &rest[from + 9..],
                pid: pid_of(pid).ok_or("pid is not a task id")?,
            }
        }
        b"softirq_entry" => What::SoftirqEntry {
            action: memchr::memmem::find(body, b"action=")
                .map_or(body, |at| body[at + 7..].strip_suffix(b"]").unwrap_or(&body[at + 7..])),
        },
        b"softirq_exit" => What::SoftirqExit,
        b"workqueue_execute_start" => What::Work {
            function: memchr::memmem::find(body, b"function ")
                .map_or(&b""[..], |at| plain_function(symbol(body[at + 9..].trim_ascii()))),
        },
        b"sched_process_exit" => {
            let (comm, rest) = split_last(body, b" pid=").ok_or("sched_process_exit without pid=")?;
            let comm = comm.strip_prefix(b"comm=").unwrap_or(comm);
            What::Exit { comm, pid: pid_of(rest).ok_or("pid is not a task id")? }
        }
        b"sched_switch" => match switch(body) {
            Some(what) => what,
            None if memchr::memmem::find(body, b" next_comm=").is_some() => return Err(RAW),
            None => return Err("sched_switch without the next task"),
        },
        b"sched_migrate_task" => What::Migrate {
            pid: f.get(b"pid=").and_then(pid_of).ok_or("sched_migrate_task without pid=")?,
            to: cpu(f.get(b"dest_cpu="))?,
        },
        b"page_fault_user" | b"page_fault_kernel" => What::PageFault,
        b"tlb_flush" => tlb_flush(body),
        b"tick_stop" => What::TickStop { dependency: f.get(b"dependency=").unwrap_or_default() },
        b"tracing_mark_write" => What::Marker { text: body },
        b"print" if body.starts_with(b"ip=") && memchr::memmem::find(body, b" buf=").is_some() => {
            return Err(RAW);
        }
        b"print" => What::Marker {
            text: body.strip_prefix(b"tracing_mark_write:").map_or(body, <[u8]>::trim_ascii_start),
        },
        b"irq_handler_entry" => {
            let name =
                memchr::memmem::find(body, b"name=").map_or(&b""[..], |at| body[at + 5..].trim_ascii());
            What::IrqEntry { vector: Vector::of_device(name), name }
        }
        b"irq_handler_exit" => What::IrqExit { vector: Vector::Device },
        b"ipi_entry" => {
            let name = brackets(body);
            What::IrqEntry { vector: Vector::of_ipi(name), name }
        }
        b"ipi_exit" => What::IrqExit { vector: Vector::of_ipi(brackets(body)) },
        b"ipi_raise" => What::IpiRaise {
            mask: f.get(b"target_mask=").ok_or("ipi_raise without target_mask=")?,
            vector: Vector::of_ipi(brackets(body)),
        },
        b"hrtimer_expire_entry" => What::HrtimerExpire { function: timer_function(body) },
        b"timer_start" => What::TimerStart {
            function: timer_function(body),
            cpu: Fields(body).get(b"cpu=").and_then(number).and_then(|cpu| u32::try_from(cpu).ok()),
        },
        b"function" => {
            What::Function { name: body.split(u8::is_ascii_whitespace).next().map_or(&b""[..], symbol) }
        }
        b"#" => numbered(body).ok_or("expected a timer latency or a sample of the hwlat tracer")?,
        b"nmi_handler" => What::Noise {
            kind: b"nmi",
            name: body.split(|b| *b == b'(' || *b == b' ').next().unwrap_or_default(),
            duration_ns: f.get(b"delta_ns:").and_then(number).ok_or("nmi_handler without delta_ns:")?,
        },
        b"irq_noise" | b"softirq_noise" | b"thread_noise" | b"nmi_noise" | b"sample_threshold" => {
            noise(name, body).ok_or("osnoise event without duration")?
        }
        // The wakeup tracers print a switch, and a wakeup with `+`: `5:120:R ==> [003]   812:  0:R rtapp`.
        _ if name.iter().all(u8::is_ascii_digit) && !name.is_empty() => {
            switch_of_tracer(name, body).unwrap_or(What::Other { name: b"wakeup" })
        }
        _ if body.starts_with(b"<-") => What::Function { name: symbol(name) },
        _ if body.first() == Some(&b'(') && !name.starts_with(b"ipi_") => probe(name, body),
        _ if name.starts_with(b"sys_enter_") => What::SyscallEntry { name, args: body },
        _ if name.starts_with(b"sys_exit_") => What::SyscallExit,
        _ if body.starts_with(b"vector=") => vector_event(name),
        _ => What::Other { name },
    })
}

/// `irq_noise: local_timer:236 start 16.008 duration 1234 ns`, `nmi_noise: start ... duration ...`,
/// `sample_threshold: start 16.008 duration 1234 ns interference 1`.
fn noise<'a>(name: &'a [u8], body: &'a [u8]) -> Option<What<'a>> {
    let start = memchr::memmem::find(body, b"start ")?;
    let mut at = memchr::memmem::find(body, b"duration ")? + 9;
    let duration_ns = decimal(body, &mut at)?;
    let what = body[..start].trim_ascii();
    // The number behind the last colon is a vector or a thread id.
    let what = memchr::memrchr(b':', what).map_or(what, |colon| &what[..colon]);
    let kind: &[u8] = match name.strip_suffix(b"_noise") {
        Some(kind) => kind,
        // Nothing the kernel saw explains this sample: firmware or a hypervisor took the time.
        None if body.ends_with(b"interferences 0") || body.ends_with(b"interference 0") => b"hardware",
        None => b"sample",
    };
    Some(What::Noise { kind, name: what, duration_ns })
}

/// What stands in brackets: `target_mask=00000000,00000080 (Function call interrupts)`.
fn brackets(body: &[u8]) -> &[u8] {
    let from = memchr::memchr(b'(', body).map_or(body.len(), |open| open + 1);
    let inner = &body[from..];
    &inner[..memchr::memchr(b')', inner).unwrap_or(inner.len())]
}

/// `hrtimer=0xffff888100a1fd20 function=tick_sched_timer/0x0 ...`
fn timer_function(body: &[u8]) -> &[u8] {
    let function = symbol(Fields(body).get(b"function=").unwrap_or_default());
    plain_function(&function[..memchr::memchr(b'/', function).unwrap_or(function.len())])
}

/// `034 context thread timer_latency     10817 ns` and `1       inner/outer(us): 2160/1940    ts:1600001212.559595228`.
fn numbered(body: &[u8]) -> Option<What<'_>> {
    let behind =
        |what: &[u8]| memchr::memmem::find(body, what).map(|at| body[at + what.len()..].trim_ascii_start());
    if let Some(rest) = behind(b"inner/outer(us):") {
        let inner = decimal(rest, &mut 0)?;
        let slash = memchr::memchr(b'/', rest)?;
        let outer = decimal(rest[slash + 1..].trim_ascii_start(), &mut 0)?;
        return Some(What::Noise {
            kind: b"hardware",
            name: b"hwlat",
            duration_ns: inner.max(outer).checked_mul(1000)?,
        });
    }
    let context = behind(b"context ")?;
    let ns = decimal(behind(b"timer_latency ")?, &mut 0)?;
    Some(What::Latency { context: &context[..memchr::memchr(b' ', context)?], ns })
}

fn vector_event(name: &[u8]) -> What<'_> {
    let vector = |stem: &[u8]| Vector::of_x86(stem).unwrap_or(Vector::Platform);
    if let Some(stem) = name.strip_suffix(b"_entry") {
        What::IrqEntry { vector: vector(stem), name: stem }
    } else if let Some(stem) = name.strip_suffix(b"_exit") {
        What::IrqExit { vector: vector(stem) }
    } else {
        What::Other { name }
    }
}

/// `(flush_tlb_kernel_range+0x4/0xc0) start=...`, `(caller+0xb1/0x150 <- alloc_vmap_area) ret=...`, or a bare address.
fn probe<'a>(name: &'a [u8], body: &'a [u8]) -> What<'a> {
    let close = memchr::memchr(b')', body).unwrap_or(body.len());
    let inside = &body[1..close];
    let args = body.get(close + 1..).unwrap_or_default().trim_ascii_start();
    let (place, returns) = match memchr::memmem::find(inside, b" <- ") {
        Some(arrow) => (&inside[arrow + 4..], true),
        None => (inside, false),
    };
    let place = plain_function(symbol(place));
    let function = if hex(place).is_some() { &b""[..] } else { place };
    What::Probe { name, function, returns, args }
}

/// `pages:-1 reason:remote shootdown (1)`, with `=` for `:` from trace-cmd.
fn tlb_flush(body: &[u8]) -> What<'_> {
    let mut pages = 0;
    if let Some(rest) = body.strip_prefix(b"pages") {
        let rest = rest.get(1..).unwrap_or_default();
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let value = decimal(digits, &mut 0).and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
        pages = if digits.len() < rest.len() { -value } else { value };
    }
    let reason =
        memchr::memmem::find(body, b"reason").map_or(&b""[..], |at| body.get(at + 7..).unwrap_or_default());
    What::TlbFlush { pages, reason: reason.trim_ascii() }
}

/// `prev_comm=%s prev_pid=%d prev_prio=%d prev_state=%s ==> next_comm=%s next_pid=%d next_prio=%d`, or trace-cmd's
/// `%s:%d [%d] %s ==> %s:%d [%d]`.
fn switch(body: &[u8]) -> Option<What<'_>> {
    let arrow = memchr::memmem::find(body, b"==> ")?;
    let (prev, next) = (body[..arrow].trim_ascii_end(), &body[arrow + 4..]);
    let state = memchr::memrchr(b' ', prev).map_or(prev, |space| &prev[space + 1..]);
    let state = state.strip_prefix(b"prev_state=").unwrap_or(state);
    let preempted = state.first().map(|state| *state == b'R');
    if let Some(next) = next.strip_prefix(b"next_comm=") {
        let (comm, pid) = split_last(next, b" next_pid=")?;
        let prev_pid = split_last(prev, b" prev_pid=").and_then(|(_, pid)| pid_of(pid));
        return Some(What::Switch { prev_pid, preempted, next_comm: comm, next_pid: pid_of(pid)? });
    }
    let task = |text| split_last(text, b" [").map_or(text, |(task, _)| task);
    let prev_pid = split_last(task(prev), b":").and_then(|(_, pid)| pid_of(pid));
    let (comm, pid) = split_last(task(next), b":")?;
    Some(What::Switch { prev_pid, preempted, next_comm: comm, next_pid: pid_of(pid)? })
}

/// `5` and `120:R ==> [003]   812:  0:R rtapp`: id, priority and state of the one and of the other.
fn switch_of_tracer<'a>(prev: &[u8], body: &'a [u8]) -> Option<What<'a>> {
    let arrow = memchr::memmem::find(body, b" ==> [")?;
    let state = body[..arrow].trim_ascii_end().last()?;
    let next = &body[arrow + 6..];
    let next = next[memchr::memchr(b']', next)? + 1..].trim_ascii_start();
    let mut parts = next.splitn(3, |b| *b == b':');
    let next_pid = pid_of(parts.next()?)?;
    let last = parts.nth(1)?;
    let next_comm = &last[memchr::memchr(b' ', last)? + 1..];
    Some(What::Switch { prev_pid: pid_of(prev), preempted: Some(*state == b'R'), next_comm, next_pid })
}

fn split_last<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (last, _) = at.split_last()?;
    let end = memchr::memrchr_iter(*last, text).map(|i| i + 1).find(|&end| text[..end].ends_with(at))?;
    Some((&text[..end - at.len()], &text[end..]))
}

fn pid_of(text: &[u8]) -> Option<u32> {
    decimal(text, &mut 0).and_then(|v| u32::try_from(v).ok())
}

fn cpu(token: Option<&[u8]>) -> Result<u32, &'static str> {
    let cpu = token.and_then(number).ok_or("expected cpu=")?;
    if cpu >= u64::from(MAX_CPUS) {
        return Err("CPU number is beyond 8191");
    }
    Ok(cpu as u32)
}

/// A handler's name; a reschedule prints a null pointer.
fn callback(token: Option<&[u8]>) -> &[u8] {
    match token.map(symbol) {
        None | Some(b"0x0" | b"(nil)" | b"0") => b"",
        Some(name) => name,
    }
}
