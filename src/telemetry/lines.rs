//! The format of log lines, and their way out: gathered for a moment, so that a gateway that logs each call makes one write of
//! many.

use std::{
    io::{self, Write},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing_subscriber::fmt::MakeWriter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes that may wait; whoever logs more has to wait as well, since none may be lost.
const MOST: usize = 4 * 1024 * 1024;

/// What is kept for the next lines, in bytes.
const KEPT: usize = 256 * 1024;

/// Takes lines.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    some: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    ended: bool,
}

/// Writes what waits when it is dropped, and nothing after that.
pub struct Guard {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

impl Lines {
    /// Lines go to `out`, from a thread of their own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Self, Guard)> {
        let lines = Self(Arc::default());
        let taken = lines.clone();
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || taken.write_to(out))?;
        Ok((lines.clone(), Guard { lines, writer: Some(writer) }))
    }

    /// Takes whole lines.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut waiting = self.waiting();
        while waiting.lines.len() > MOST && !waiting.ended {
            self.0.room.wait(&mut waiting);
        }
        if waiting.lines.is_empty() {
            self.0.some.notify_one();
        }
        waiting.lines.extend_from_slice(lines);
    }

    fn write_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() && !waiting.ended {
                self.0.some.wait(&mut waiting);
            }
            if !waiting.ended {
                drop(waiting);
                thread::sleep(GATHER);
                waiting = self.waiting();
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let ended = waiting.ended;
            drop(waiting);
            self.0.room.notify_all();
            // Where the log cannot be written there is no place to say so.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            if ended {
                return;
            }
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock()
    }
}

/// One call of `write` is one event: that is how the formatters of `tracing` use it.
impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.lines.waiting().ended = true;
        self.lines.0.some.notify_one();
        self.lines.0.room.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, and by how many writes.
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut out = self.0.lock();
            out.0.extend_from_slice(bytes);
            out.1 += 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn many_lines_are_few_writes_and_none_is_lost() {
        const EACH: usize = 10_000;
        let out = Out::default();
        let (lines, guard) = Lines::start(out.clone()).expect("a thread");
        thread::scope(|scope| {
            for caller in ["a", "b"] {
                let lines = &lines;
                scope.spawn(move || {
                    (0..EACH).for_each(|call| lines.push(format!("{caller} {call}\n").as_bytes()));
                });
            }
        });
        drop(guard);
        let (written, writes) = &*out.0.lock();
        let written = String::from_utf8_lossy(written);
        for caller in ["a ", "b "] {
            let calls: Vec<usize> =
                written.lines().filter_map(|line| line.strip_prefix(caller)?.parse().ok()).collect();
            assert_eq!(calls, (0..EACH).collect::<Vec<_>>(), "{caller}in their order");
        }
        assert!(*writes < EACH / 10, "{writes} writes");
    }

    #[test]
    fn more_than_may_wait_waits_for_room() {
        let out = Out::default();
        let (lines, guard) = Lines::start(out.clone()).expect("a thread");
        let large = vec![b'x'; MOST];
        for _ in 0..3 {
            lines.push(&large);
            lines.push(b"\n");
        }
        drop(guard);
        assert_eq!(out.0.lock().0.len(), 3 * (MOST + 1));
    }
}
