//! Rows as blocks of ClickHouse's, written while their promise is under way: it has to be confirmed before they are sent, and by then
//! they are ready. The columns are let go as soon as they are written.

use std::cmp::Reverse;
use std::sync::Arc;

use clickhouse_sink::{Block, Error, Identity};
use pipeline::{Compression, Pipeline};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Sinks;
use crate::transform::{Outputs, TableRows};

/// Why there is no block. The same rows would fail again.
#[derive(Debug, Error)]
pub(super) enum Unwritten {
    /// What the sink says of the rows.
    #[error(transparent)]
    Refused(#[from] Error),
    /// Whoever wrote it is gone: a panic stands in the log.
    #[error("writing it has panicked")]
    Panicked(#[from] oneshot::error::RecvError),
}

/// Rows for one table, on their way into a block.
pub struct Rows {
    /// Index of the table in the pipeline.
    pub(super) table: usize,
    /// Which of the batch's tables, and which of its sources: names the insert.
    pub(super) at: usize,
    /// How many rows.
    pub(super) count: usize,
    /// Source, partition and offset of the first row, for a mutation alone.
    pub(super) first: (usize, i32, i64),
    block: oneshot::Receiver<Result<Block, Error>>,
}

impl Rows {
    /// Waits until they are written.
    pub(super) async fn block(self) -> Result<Block, Unwritten> {
        Ok(self.block.await??)
    }
}

impl Sinks {
    /// Takes the rows out of `outputs`, and has them written beside everything else. `only`: for each of its tables the rows of
    /// the batch that are to be inserted.
    pub fn write(&self, runtime: &Handle, outputs: &mut Outputs, only: Option<&[Vec<usize>]>) -> Vec<Rows> {
        let (mut ahead, mut rows) = (Vec::new(), Vec::new());
        for (at, of_table) in std::mem::take(&mut outputs.tables).into_iter().enumerate() {
            let only = only.map(|only| only[at].clone());
            let count = only.as_ref().map_or(of_table.rows.len(), Vec::len);
            let Some(&first) = of_table.rows.first().filter(|_| count > 0) else {
                continue;
            };
            let first = first as usize;
            let first = (
                of_table.source,
                of_table.positions.partition[first],
                of_table.positions.offset[first],
            );
            let (written, block) = oneshot::channel();
            let table = of_table.table;
            ahead.push((count, of_table, only, written));
            rows.push(Rows {
                table,
                at,
                count,
                first,
                block,
            });
        }
        // In the order in which they are inserted.
        ahead.sort_by_key(|(count, ..)| Reverse(*count));
        if !ahead.is_empty() {
            let (pipeline, compression) = (Arc::clone(&self.pipeline), self.clickhouse.compression());
            runtime.spawn_blocking(move || {
                for (_, rows, only, written) in ahead {
                    // Nobody waits for what was given up.
                    if !written.is_closed() {
                        written.send(block(&pipeline, &rows, only.as_deref(), compression)).ok();
                    }
                }
            });
        }
        rows
    }

    /// A table whose rows may be more bytes than ClickHouse takes in one block.
    pub fn block_too_large(&self, outputs: &Outputs) -> Option<&str> {
        let large = |rows: &&TableRows| !clickhouse_sink::fits_one_block(&rows.batch);
        let rows = outputs.tables.iter().find(large)?;
        Some(&self.pipeline.tables[rows.table].name)
    }
}

/// The rows of one table as a block in the table's order. `only`: these rows of the batch and no others.
///
/// # Errors
/// Like [`clickhouse_sink::encode`]: the same rows would fail again.
pub fn block(
    pipeline: &Pipeline,
    rows: &TableRows,
    only: Option<&[usize]>,
    compression: Compression,
) -> Result<Block, Error> {
    let table = &pipeline.tables[rows.table];
    let mut order = clickhouse_sink::sort_order(&rows.batch, &table.order_by)?;
    let count = only.map_or(rows.rows.len(), <[usize]>::len);
    if count < order.len() {
        let mut wanted = vec![false; order.len()];
        match only {
            Some(only) => only.iter().for_each(|row| wanted[*row] = true),
            None => rows.rows.iter().for_each(|row| wanted[*row as usize] = true),
        }
        order.retain(|row| wanted[*row]);
    }
    let identity = Identity {
        topic: &pipeline.sources[rows.source].topic,
        partition: &rows.positions.partition,
        offset: &rows.positions.offset,
        index: &rows.index,
        row_hash: &rows.row_hash,
    };
    clickhouse_sink::encode(&rows.batch, &identity, &order, &rows.low_cardinality, compression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_whose_writer_has_panicked_is_said_to_be_missing() {
        let (written, block) = oneshot::channel();
        drop(written);
        let rows = Rows {
            table: 0,
            at: 0,
            count: 1,
            first: (0, 0, 0),
            block,
        };
        let fault = futures::executor::block_on(rows.block()).err();
        assert!(matches!(fault, Some(Unwritten::Panicked(_))), "{fault:?}");
    }
}
