//! One query, from acquiring its connection to releasing or closing it.

use std::time::Duration;

use super::{DatabasePool, PooledConnection, Protocol};
use crate::backends::{
    Fault,
    database::query::{BoundQuery, Completion, QueryFault, ResultSink, RowSink, RunError},
};

/// How long cancelling a statement on the server may take.
pub(in crate::backends::database) const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the connection failed before the query had any effect.
fn may_retry(result: &Result<Completion, RunError>, query: &BoundQuery, rows: &mut RowSink) -> bool {
    match result {
        Err(RunError::NotSent(_)) => true,
        Err(RunError::Fault(QueryFault::Server(_))) => query.query.read_only && rows.restart(query),
        _ => false,
    }
}

impl<P: Protocol> DatabasePool<P> {
    /// Runs the query and sends its result. The connection returns to the pool only if it is reusable; its slot stays taken until
    /// the statement has ended on the server.
    pub(super) async fn serve(&self, query: &BoundQuery, mut sink: ResultSink) {
        let mut connection = match self.acquire_unless_cancelled(&sink.rows).await {
            Ok(connection) => connection,
            Err(Some(fault)) => return sink.finish(Err(fault.into())),
            Err(None) => return,
        };
        let reused = connection.metrics().is_some_and(|metrics| metrics.recycle_count > 0);
        let result = self.attempt(&mut connection, query, &mut sink.rows).await;
        if reused && may_retry(&result, query, &mut sink.rows) {
            // As in probes: the server may have restarted, and older connections say nothing about it now.
            drop(connection);
            return Box::pin(self.retry(query, sink)).await;
        }
        self.finish(result, connection, sink).await;
    }

    async fn retry(&self, query: &BoundQuery, mut sink: ResultSink) {
        self.retain_idle(|_| false).await;
        match self.acquire_unless_cancelled(&sink.rows).await {
            Ok(mut connection) => {
                let result = self.attempt(&mut connection, query, &mut sink.rows).await;
                self.finish(result, connection, sink).await;
            }
            Err(Some(fault)) => sink.finish(Err(fault.into())),
            Err(None) => {}
        }
    }

    /// Sends the end of the result, and releases or closes the connection.
    async fn finish(
        &self,
        result: Result<Completion, RunError>,
        mut connection: PooledConnection<P>,
        sink: ResultSink,
    ) {
        let redacted = |fault: QueryFault| fault.redacted(&self.settings);
        match result {
            Ok(completion @ Completion { server_busy: false, .. }) => {
                connection.release();
                sink.finish(Ok(completion));
            }
            Ok(completion) => {
                sink.finish(Ok(completion));
                Box::pin(self.cancel(connection)).await;
            }
            Err(RunError::Fault(fault @ QueryFault::Server(_))) => sink.finish(Err(redacted(fault))),
            Err(RunError::Fault(fault)) => {
                connection.release();
                sink.finish(Err(redacted(fault)));
            }
            Err(RunError::NotSent(fault)) => sink.finish(Err(redacted(fault.into()))),
            Err(RunError::TimedOut) => {
                sink.finish(Err(QueryFault::TimedOut));
                Box::pin(self.cancel(connection)).await;
            }
            Err(RunError::Cancelled) => {
                drop(sink);
                Box::pin(self.cancel(connection)).await;
            }
        }
    }

    /// A connection; none and no fault if the caller disconnects first.
    async fn acquire_unless_cancelled(&self, rows: &RowSink) -> Result<PooledConnection<P>, Option<Fault>> {
        tokio::select! {
            acquired = self.acquire() => acquired.map_err(Some),
            () = rows.cancelled() => Err(None),
        }
    }

    async fn attempt(
        &self,
        connection: &mut PooledConnection<P>,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let cancelled = rows.cancelled();
        let work = async {
            let result = self.pool.manager().protocol.run(connection.get()?, query, rows).await;
            if result.is_ok() {
                rows.flush().await?;
            }
            result
        };
        tokio::select! {
            result = work => result,
            () = cancelled => Err(RunError::Cancelled),
            () = tokio::time::sleep(query.timeout + P::TIMEOUT_GRACE) => Err(RunError::TimedOut),
        }
    }

    /// Cancels what runs on the connection, and closes it.
    async fn cancel(&self, mut connection: PooledConnection<P>) {
        if let Ok(connection) = connection.get() {
            // Without a response, the server ends the statement when it fails to send rows.
            let _ =
                tokio::time::timeout(CANCEL_TIMEOUT, self.pool.manager().protocol.cancel(connection)).await;
        }
    }
}
