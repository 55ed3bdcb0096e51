//! The same timeline as JSON in Chrome's trace event format, which many more viewers read: a group of tracks is a process,
//! a track a thread, an arrow a pair of flow events. Times are microseconds; a float holds their nanoseconds for 100 days.

use std::io::{self, Write};

use serde_json::json;

use super::{Happening, Track};

/// Writes the events of a timeline, in the order of time, in one JSON object: an event on each line.
pub(super) fn write(
    out: &mut dyn Write,
    tracks: &[Track],
    names: &[String],
    happenings: &[Happening],
) -> io::Result<()> {
    let mut first = true;
    let mut put = |event: &serde_json::Value| {
        out.write_all(if first { b"{\"traceEvents\":[\n" } else { b",\n" })?;
        first = false;
        serde_json::to_writer(&mut *out, event).map_err(io::Error::from)
    };
    let of = |track: usize| (tracks[track].parent.unwrap_or(track) + 1, track + 1);
    for (i, track) in tracks.iter().enumerate() {
        let ((pid, tid), name) = (of(i), &track.name);
        let (event, tid) = if track.parent.is_none() { ("process_name", 0) } else { ("thread_name", tid) };
        put(&json!({"ph": "M", "name": event, "pid": pid, "tid": tid, "args": {"name": name}}))?;
        put(&json!({
            "ph": "M", "name": event.replace("name", "sort_index"), "pid": pid, "tid": tid, "args": {"sort_index": i},
        }))?;
    }
    let mut arrows = rustc_hash::FxHashSet::default();
    for h in happenings {
        let (pid, tid) = of(h.track);
        let us = |ns: u64| ns as f64 / 1000.0;
        let (name, ts) = (&names[h.name], us(h.at_ns));
        if tracks[h.track].counter {
            let name = &tracks[h.track].name;
            put(
                &json!({"ph": "C", "name": name, "ts": ts, "pid": pid, "tid": tid, "args": {"value": h.value}}),
            )?;
            continue;
        }
        match h.length_ns {
            Some(ns) => {
                put(&json!({"ph": "X", "name": name, "ts": ts, "dur": us(ns), "pid": pid, "tid": tid}))?;
            }
            None => put(&json!({"ph": "i", "s": "t", "name": name, "ts": ts, "pid": pid, "tid": tid}))?,
        }
        if h.flow != 0 {
            let ph = if arrows.insert(h.flow) { "s" } else { "f" };
            put(&json!({
                "ph": ph, "bp": "e", "id": h.flow, "cat": "asks", "name": "asks", "ts": ts, "pid": pid, "tid": tid,
            }))?;
        }
    }
    out.write_all(if first { b"{\"traceEvents\":[" } else { b"\n" })?;
    out.write_all(b"],\"displayTimeUnit\":\"ns\"}\n")
}
