//! One query on a lent connection, from lending it to giving it back or closing it.

use std::time::Duration;

use super::{Lent, Pooled, Wire};
use crate::backends::{
    Fault,
    database::query::{Asked, Done, QueryFault, Rows, Run, Stop},
};

/// How long the server may be asked to end a statement.
const ABORT: Duration = Duration::from_secs(5);

/// Whether the connection failed before anything happened that counts.
fn may_run_again(ended: &Result<Done, Stop>, run: &Run, rows: &mut Rows) -> bool {
    match ended {
        Err(Stop::Unsent(_)) => true,
        Err(Stop::Fault(QueryFault::Server(_))) => run.query.read_only && rows.start_over(run),
        _ => false,
    }
}

impl<W: Wire> Pooled<W> {
    /// Runs the query, answers, and leaves no connection behind that is not sound. It holds its place in the pool until the
    /// server is rid of the statement.
    pub(super) async fn serve(&self, run: &Run, mut asked: Asked) {
        let mut lent = match self.lend_wanted(&asked.rows).await {
            Ok(lent) => lent,
            Err(Some(fault)) => return asked.end(Err(fault.into())),
            Err(None) => return,
        };
        let reused = lent.metrics().is_some_and(|metrics| metrics.recycle_count > 0);
        let ended = self.attempt(&mut lent, run, &mut asked.rows).await;
        if reused && may_run_again(&ended, run, &mut asked.rows) {
            // The server may have restarted since: as with probes, connections from before say nothing of now.
            drop(lent);
            return Box::pin(self.serve_anew(run, asked)).await;
        }
        self.close(ended, lent, asked).await;
    }

    async fn serve_anew(&self, run: &Run, mut asked: Asked) {
        self.shut(|_| false).await;
        match self.lend_wanted(&asked.rows).await {
            Ok(mut lent) => {
                let ended = self.attempt(&mut lent, run, &mut asked.rows).await;
                self.close(ended, lent, asked).await;
            }
            Err(Some(fault)) => asked.end(Err(fault.into())),
            Err(None) => {}
        }
    }

    /// Answers, and gives the connection back or closes it.
    async fn close(&self, ended: Result<Done, Stop>, mut lent: Lent<W>, asked: Asked) {
        let redacted = |fault: QueryFault| fault.redacted(&self.settings);
        match ended {
            Ok(done @ Done { busy: false, .. }) => {
                lent.give_back();
                asked.end(Ok(done));
            }
            Ok(done) => {
                asked.end(Ok(done));
                Box::pin(self.abort(lent)).await;
            }
            Err(Stop::Fault(fault @ QueryFault::Server(_))) => asked.end(Err(redacted(fault))),
            Err(Stop::Fault(fault)) => {
                lent.give_back();
                asked.end(Err(redacted(fault)));
            }
            Err(Stop::Unsent(fault)) => asked.end(Err(redacted(fault.into()))),
            Err(Stop::Late) => {
                asked.end(Err(QueryFault::TimedOut));
                Box::pin(self.abort(lent)).await;
            }
            Err(Stop::Abandoned) => {
                drop(asked);
                Box::pin(self.abort(lent)).await;
            }
        }
    }

    /// A connection, unless the caller goes away meanwhile.
    async fn lend_wanted(&self, rows: &Rows) -> Result<Lent<W>, Option<Fault>> {
        tokio::select! {
            lent = self.lend() => lent.map_err(Some),
            () = rows.abandoned() => Err(None),
        }
    }

    async fn attempt(&self, lent: &mut Lent<W>, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        let abandoned = rows.abandoned();
        let work = async {
            let ended = self.pool.manager().wire.run(lent.connection()?, run, rows).await;
            if ended.is_ok() {
                rows.flush().await?;
            }
            ended
        };
        tokio::select! {
            done = work => done,
            () = abandoned => Err(Stop::Abandoned),
            () = tokio::time::sleep(run.timeout + W::PATIENCE) => Err(Stop::Late),
        }
    }

    /// Closes the connection, and before that what runs on it.
    async fn abort(&self, mut lent: Lent<W>) {
        if let Ok(connection) = lent.connection() {
            // Without an answer, the server still finds out when it has nobody to send to.
            let _ = tokio::time::timeout(ABORT, self.pool.manager().wire.abort(connection)).await;
        }
    }
}
