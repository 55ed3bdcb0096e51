//! Lines lexed side by side, and delivered in the order of the file.
//!
//! Each thread takes the next chunk, finds out what its lines say by themselves, waits for its turn, and hands them on;
//! so reading and delivering happen one after the other, chunk by chunk, and only lexing overlaps with them. What is
//! delivered is what one thread delivers, because that does the same two steps line by line: `lex`, a function of the
//! line alone, and `apply`, which sees every line in order.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Lexed, Reader, Sink,
    chunks::{Chunk, Chunks},
    lines::{Kind, Lines},
};
use crate::{pool, trace::TraceError};

/// More threads than this wait for their turn most of the time.
const MOST: usize = 4;

/// Whose turn it is to deliver.
struct Turn<'r, S: Sink> {
    lines: Lines<'r, S>,
    next: u64,
    error: Option<std::io::Error>,
    /// A thread gave up in a panic.
    failed: bool,
}

/// What is taken from the recording: the next chunk and its number.
struct Taken<'r> {
    chunks: &'r mut Chunks,
    next: u64,
}

/// Tells the others when a thread panics, who would wait for it for ever.
struct Tell<'t, 'r, S: Sink>(&'t Mutex<Turn<'r, S>>, &'t Condvar);

impl<S: Sink> Drop for Tell<'_, '_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            self.1.notify_all();
        }
    }
}

impl Reader {
    /// Reads to the end on several threads; `keep_going` is asked every 50 ms, told bytes and lines read. False if it
    /// ended the reading.
    pub fn run_on<S: Sink + Send>(
        &mut self,
        threads: usize,
        sink: &mut S,
        keep_going: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool, TraceError> {
        let begun = std::time::Instant::now();
        let (mut ticks, threads) = (0, threads.min(MOST));
        loop {
            // What a recording is shows in its first lines; tables and graphs are read by one thread.
            if threads > 1
                && let Some(kind) = Kind::of(&self.format)
                && !self.chunks.done
            {
                return self.side_by_side(kind, threads, sink, keep_going);
            }
            if !self.pump(sink)? {
                return Ok(true);
            }
            let now = begun.elapsed().as_millis() / 50;
            if now > ticks {
                ticks = now;
                if !keep_going(self.stats.bytes, self.stats.lines) {
                    return Ok(false);
                }
            }
        }
    }

    fn side_by_side<S: Sink + Send>(
        &mut self,
        kind: Kind,
        threads: usize,
        sink: &mut S,
        keep_going: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool, TraceError> {
        let size = self.size;
        let (bytes, count) = (AtomicU64::new(self.stats.bytes), AtomicU64::new(self.stats.lines));
        let taken = Mutex::new(Taken { chunks: &mut self.chunks, next: 0 });
        let lines = Lines { format: &mut self.format, stats: &mut self.stats, sink };
        let turn = Mutex::new(Turn { lines, next: 0, error: None, failed: false });
        let passed = Condvar::new();
        let work = |_, stop: &dyn pool::Stop| {
            let _tell = Tell(&turn, &passed);
            let mut chunk = Chunk::default();
            let mut room: Vec<Lexed<'static>> = Vec::new();
            while !stop.is_set() {
                let mut source = taken.lock().unwrap_or_else(PoisonError::into_inner);
                if source.chunks.done {
                    break;
                }
                let error = source.chunks.fill(&mut chunk, size);
                let (number, last) = (source.next, source.chunks.done);
                source.next += 1;
                bytes.store(source.chunks.bytes, Ordering::Relaxed);
                drop(source);
                let mut lexed = room;
                kind.lex(chunk.lines(), &mut lexed);
                let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                while turn.next != number && !turn.failed {
                    turn = passed.wait(turn).unwrap_or_else(PoisonError::into_inner);
                }
                if turn.failed {
                    break;
                }
                turn.lines.lexed(&mut lexed, kind);
                room = emptied(lexed);
                if last {
                    turn.lines.end(&chunk);
                    turn.error = error;
                }
                count.store(turn.lines.stats.lines, Ordering::Relaxed);
                turn.next += 1;
                drop(turn);
                passed.notify_all();
            }
            Some(())
        };
        let told = || (bytes.load(Ordering::Relaxed), count.load(Ordering::Relaxed));
        let mut going = true;
        let ends = pool::run(threads, threads, work, || {
            let (bytes, lines) = told();
            going = keep_going(bytes, lines);
            going
        });
        if let Some(panic) = ends.into_iter().flatten().find_map(Result::err) {
            panic!("{panic}");
        }
        let error = turn.into_inner().unwrap_or_else(PoisonError::into_inner).error;
        self.stats.bytes = self.chunks.bytes;
        if !going && !self.chunks.done {
            return Ok(false);
        }
        self.ended(error).map(|_| true)
    }
}

/// The room of a list that is empty, for the lines of another text.
fn emptied<'a>(mut lexed: Vec<Lexed<'_>>) -> Vec<Lexed<'a>> {
    lexed.clear();
    lexed.into_iter().map(|_| unreachable!("it is empty")).collect()
}
