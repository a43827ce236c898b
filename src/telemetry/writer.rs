//! A buffered log writer with its own thread: a gateway that logs every call writes many lines with one system call.

use std::{
    io::{self, Write},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing_subscriber::fmt::MakeWriter;

/// How log lines are formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// How long lines are buffered.
const FLUSH_DELAY: Duration = Duration::from_millis(20);

/// The maximum size of the buffer in bytes. Above it, logging blocks, since no line may be lost.
const MAX_BUFFER: usize = 4 * 1024 * 1024;

/// The capacity of the buffer that is kept after a write, in bytes.
const RETAINED_CAPACITY: usize = 256 * 1024;

/// Buffers lines for the writer thread.
// Not `tracing-appender`: it wakes its thread for every line, which costs 10 us of CPU time per line instead of less
// than 1 us.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    closed: bool,
}

/// Writes the buffered lines when it is dropped. Later lines are not written.
pub struct FlushGuard {
    writer: LogWriter,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Self, FlushGuard)> {
        let writer = Self(Arc::default());
        let shared = writer.clone();
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(out))?;
        Ok((writer.clone(), FlushGuard { writer, thread: Some(thread) }))
    }

    /// Buffers complete lines.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut buffer = self.lock();
        while buffer.lines.len() > MAX_BUFFER && !buffer.closed {
            self.0.not_full.wait(&mut buffer);
        }
        if buffer.lines.is_empty() {
            self.0.not_empty.notify_one();
        }
        buffer.lines.extend_from_slice(lines);
    }

    fn write_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut buffer = self.lock();
            while buffer.lines.is_empty() && !buffer.closed {
                self.0.not_empty.wait(&mut buffer);
            }
            if !buffer.closed {
                drop(buffer);
                thread::sleep(FLUSH_DELAY);
                buffer = self.lock();
            }
            std::mem::swap(&mut buffer.lines, &mut lines);
            let closed = buffer.closed;
            drop(buffer);
            self.0.not_full.notify_all();
            // If the log cannot be written, there is no place to report it.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            if closed {
                return;
            }
            lines.clear();
            lines.shrink_to(RETAINED_CAPACITY);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.buffer.lock()
    }
}

/// The formatters of `tracing` call `write` once per event.
impl Write for LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        self.writer.lock().closed = true;
        self.writer.0.not_empty.notify_one();
        self.writer.0.not_full.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The written bytes, and the number of writes.
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
    fn many_lines_are_written_with_few_writes_and_none_is_lost() {
        const EACH: usize = 10_000;
        let out = Out::default();
        let (writer, guard) = LogWriter::start(out.clone()).expect("a thread");
        thread::scope(|scope| {
            for caller in ["a", "b"] {
                let writer = &writer;
                scope.spawn(move || {
                    (0..EACH).for_each(|call| writer.push(format!("{caller} {call}\n").as_bytes()));
                });
            }
        });
        drop(guard);
        let (written, writes) = &*out.0.lock();
        let written = String::from_utf8_lossy(written);
        for caller in ["a ", "b "] {
            let calls: Vec<usize> =
                written.lines().filter_map(|line| line.strip_prefix(caller)?.parse().ok()).collect();
            assert_eq!(calls, (0..EACH).collect::<Vec<_>>(), "{caller}in order");
        }
        assert!(*writes < EACH / 10, "{writes} writes");
    }

    #[test]
    fn logging_blocks_while_the_buffer_is_full() {
        let out = Out::default();
        let (writer, guard) = LogWriter::start(out.clone()).expect("a thread");
        let large = vec![b'x'; MAX_BUFFER];
        for _ in 0..3 {
            writer.push(&large);
            writer.push(b"\n");
        }
        drop(guard);
        assert_eq!(out.0.lock().0.len(), 3 * (MAX_BUFFER + 1));
    }
}
