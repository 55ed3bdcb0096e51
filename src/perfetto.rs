//! Perfetto traces: slices, flows and counters on named tracks, as the protobuf that ui.perfetto.dev opens.
//!
//! The messages are the few fields of `perfetto/trace/trace_packet.proto` and `track_event.proto` that this needs, with
//! their published numbers; a test decodes what is written with the messages that Perfetto itself publishes. `chrome` has
//! the same as JSON.

mod chrome;

use std::io::{self, Write};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(int32, optional, tag = "9")]
    kind: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    track_uuid: Option<u64>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(double, optional, tag = "44")]
    double_counter_value: Option<f64>,
    #[prost(fixed64, repeated, tag = "47")]
    flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    parent_uuid: Option<u64>,
    #[prost(message, optional, tag = "8")]
    counter: Option<CounterDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct CounterDescriptor {}

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// The track above it, by its place in the list.
    pub parent: Option<usize>,
    /// It shows a value over time instead of slices.
    pub counter: bool,
}

/// What happens on a track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Happening {
    /// When it begins, ns.
    pub at_ns: u64,
    /// How long it takes; `None` is an instant.
    pub length_ns: Option<u64>,
    /// The track, by its place in the list.
    pub track: usize,
    /// Its name, by its place in the list of names.
    pub name: usize,
    /// Happenings with the same number, not 0, are joined by an arrow.
    pub flow: u64,
    /// On a counter: its value from here on.
    pub value: f64,
}

const SLICE_BEGIN: i32 = 1;
const SLICE_END: i32 = 2;
const INSTANT: i32 = 3;
const COUNTER: i32 = 4;
const SEQUENCE: u32 = 1;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Perfetto's own.
    Protobuf,
    /// Chrome's trace events.
    Json,
}

/// Writes a trace.
///
/// Slices of one track must nest in a viewer, so one that would outlast the slice it begins in ends with it.
///
/// # Panics
///
/// If a happening names a track or a name that is not there.
pub fn write(
    out: &mut dyn Write,
    form: Form,
    tracks: &[Track],
    names: &[String],
    mut happenings: Vec<Happening>,
) -> io::Result<()> {
    happenings.sort_by_key(|h| (h.track, h.at_ns, std::cmp::Reverse(h.length_ns)));
    nest(&mut happenings);
    match form {
        Form::Protobuf => protobuf(out, tracks, names, &happenings),
        Form::Json => {
            happenings.sort_by_key(|h| h.at_ns);
            chrome::write(out, tracks, names, &happenings)
        }
    }
}

/// Shortens slices, in the order of tracks and times, that would outlast the one they begin in.
fn nest(happenings: &mut [Happening]) {
    let mut open: Vec<u64> = Vec::new();
    let mut track = None;
    for h in happenings {
        if track.replace(h.track) != Some(h.track) {
            open.clear();
        }
        while open.pop_if(|end| *end <= h.at_ns).is_some() {}
        let Some(length) = h.length_ns else { continue };
        let end = h.at_ns.saturating_add(length);
        let end = open.last().map_or(end, |outer| end.min(*outer));
        h.length_ns = Some(end - h.at_ns);
        open.push(end);
    }
}

/// Happenings of one track are written in the order of their times, longer ones first.
fn protobuf(
    out: &mut dyn Write,
    tracks: &[Track],
    names: &[String],
    happenings: &[Happening],
) -> io::Result<()> {
    for (i, track) in tracks.iter().enumerate() {
        put(
            out,
            &TracePacket {
                track_descriptor: Some(TrackDescriptor {
                    uuid: Some(uuid(i)),
                    name: Some(track.name.clone()),
                    parent_uuid: track.parent.map(uuid),
                    counter: track.counter.then_some(CounterDescriptor {}),
                }),
                ..packet()
            },
        )?;
    }
    let mut open: Vec<u64> = Vec::new();
    for (i, h) in happenings.iter().enumerate() {
        if i > 0 && happenings[i - 1].track != h.track {
            close(out, &mut open, happenings[i - 1].track, u64::MAX)?;
        }
        close(out, &mut open, h.track, h.at_ns)?;
        let counter = tracks[h.track].counter;
        let kind = match h.length_ns {
            _ if counter => COUNTER,
            Some(_) => SLICE_BEGIN,
            None => INSTANT,
        };
        if let (Some(length), false) = (h.length_ns, counter) {
            open.push(h.at_ns.saturating_add(length));
        }
        let event = TrackEvent {
            kind: Some(kind),
            track_uuid: Some(uuid(h.track)),
            name: (!counter).then(|| names[h.name].clone()),
            double_counter_value: counter.then_some(h.value),
            flow_ids: if h.flow == 0 { Vec::new() } else { vec![h.flow] },
        };
        put(out, &TracePacket { timestamp: Some(h.at_ns), track_event: Some(event), ..packet() })?;
    }
    if let Some(last) = happenings.last() {
        close(out, &mut open, last.track, u64::MAX)?;
    }
    Ok(())
}

/// Ends the slices of a track that are over at a time, innermost first.
fn close(out: &mut dyn Write, open: &mut Vec<u64>, track: usize, at_ns: u64) -> io::Result<()> {
    while let Some(end) = open.pop_if(|end| *end <= at_ns) {
        let event =
            TrackEvent { kind: Some(SLICE_END), track_uuid: Some(uuid(track)), ..TrackEvent::default() };
        put(out, &TracePacket { timestamp: Some(end), track_event: Some(event), ..packet() })?;
    }
    Ok(())
}

fn uuid(track: usize) -> u64 {
    track as u64 + 1
}

fn packet() -> TracePacket {
    TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..TracePacket::default() }
}

/// A packet is field 1 of the trace: a key, a length, the message.
fn put(out: &mut dyn Write, packet: &TracePacket) -> io::Result<()> {
    const KEY: u8 = 1 << 3 | 2;
    let body = packet.encode_length_delimited_to_vec();
    out.write_all(&[KEY])?;
    out.write_all(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Trace {
        #[prost(message, repeated, tag = "1")]
        packet: Vec<TracePacket>,
    }

    fn written(tracks: &[Track], happenings: Vec<Happening>) -> Vec<TracePacket> {
        let mut out = Vec::new();
        let names = ["a", "b"].map(String::from);
        write(&mut out, Form::Protobuf, tracks, &names, happenings).unwrap();
        Trace::decode(&out[..]).unwrap().packet
    }

    fn slice(at_ns: u64, length: u64, name: usize) -> Happening {
        Happening { at_ns, length_ns: Some(length), track: 0, name, flow: 0, value: 0.0 }
    }

    fn events(packets: &[TracePacket]) -> Vec<(u64, i32, String)> {
        packets
            .iter()
            .filter_map(|p| Some((p.timestamp?, p.track_event.clone()?)))
            .map(|(at, e)| (at, e.kind.unwrap(), e.name.unwrap_or_default()))
            .collect()
    }

    fn track(counter: bool) -> Track {
        Track { name: "t".into(), parent: None, counter }
    }

    #[test]
    fn slices_nest_and_one_that_outlasts_its_outer_one_ends_with_it() {
        let got = events(&written(&[track(false)], vec![slice(5, 10, 1), slice(0, 10, 0), slice(20, 0, 0)]));
        let want = [
            (0, SLICE_BEGIN, "a"),
            (5, SLICE_BEGIN, "b"),
            (10, SLICE_END, ""),
            (10, SLICE_END, ""),
            (20, SLICE_BEGIN, "a"),
            (20, SLICE_END, ""),
        ];
        assert_eq!(got, want.map(|(at, kind, name)| (at, kind, name.to_owned())));
    }

    #[test]
    fn as_json_it_has_the_same_slices_values_and_arrows() {
        let tracks = [track(false), Track { parent: Some(0), ..track(true) }];
        let value = Happening { length_ns: None, value: 2.5, track: 1, ..slice(3, 0, 0) };
        let flow = |happening| Happening { flow: 7, ..happening };
        let mut out = Vec::new();
        let names = ["a", "b"].map(String::from);
        let all = vec![flow(slice(5, 10, 1)), flow(slice(0, 10, 0)), value];
        write(&mut out, Form::Json, &tracks, &names, all).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        let of = |ph: &str| events.iter().filter(|e| e["ph"] == ph).collect::<Vec<_>>();
        let slices: Vec<_> = of("X").iter().map(|e| (e["ts"].clone(), e["dur"].clone())).collect();
        assert_eq!(slices, [(0.0.into(), 0.01.into()), (0.005.into(), 0.005.into())]);
        assert_eq!((&of("s")[0]["ts"], &of("f")[0]["ts"]), (&0.0.into(), &0.005.into()));
        assert_eq!(of("C")[0]["args"]["value"], 2.5);
        assert_eq!(of("M").len(), 4);
    }

    #[test]
    fn a_counter_has_values_and_an_instant_a_flow() {
        let tracks = [track(true), Track { parent: Some(0), ..track(false) }];
        let value = Happening { length_ns: None, value: 2.5, ..slice(3, 0, 0) };
        let instant = Happening { length_ns: None, track: 1, flow: 9, ..slice(4, 0, 1) };
        let packets = written(&tracks, vec![instant, value]);
        let descriptor = packets[1].track_descriptor.clone().unwrap();
        assert_eq!((descriptor.uuid, descriptor.parent_uuid, descriptor.counter), (Some(2), Some(1), None));
        assert!(packets[0].track_descriptor.clone().unwrap().counter.is_some());
        let first = packets[2].track_event.clone().unwrap();
        assert_eq!((first.kind, first.double_counter_value, first.name), (Some(COUNTER), Some(2.5), None));
        let second = packets[3].track_event.clone().unwrap();
        assert_eq!((second.kind, second.flow_ids), (Some(INSTANT), vec![9]));
    }
}
