//! Reads where partitions stand: committed offsets, then what ClickHouse and billing have of them. Each question may be
//! lost and is asked again; others go on between one answer and the next.

use exactly_once_protocol::{Event, Partition, Stored, Wanted, Witnesses};

use super::{ASK_AGAIN_MS, BILLING};
use crate::network::Request;
use crate::source::topic_id;
use crate::world::{World, cursor};

/// One reading.
#[derive(Debug)]
pub(crate) struct Reading {
    epoch: u64,
    wanted: Vec<Wanted>,
    offsets: Option<Vec<(Partition, Stored)>>,
    rows: Option<Vec<Option<i64>>>,
    cursors: Option<Vec<Option<i64>>>,
    asked_ms: i64,
}

impl Reading {
    fn partitions(&self) -> Vec<Partition> {
        self.wanted.iter().map(|wanted| wanted.partition).collect()
    }

    fn asks_witnesses(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.witnesses)
    }
}

impl World {
    pub(super) fn read_offsets(&mut self, lane: usize, epoch: u64, wanted: Vec<Wanted>) {
        let number = self.id();
        let reading = Reading {
            epoch,
            wanted,
            offsets: None,
            rows: None,
            cursors: None,
            asked_ms: self.now_ms,
        };
        self.lanes[lane].readings.insert(number, reading);
        self.ask_for(lane, number);
    }

    fn ask_for(&mut self, lane: usize, number: u64) {
        let (now_ms, at) = (self.now_ms, self.address(lane));
        let Some(reading) = self.lanes[lane].readings.get_mut(&number) else {
            return;
        };
        reading.asked_ms = now_ms;
        let partitions = reading.partitions();
        let mut requests = Vec::new();
        match &reading.offsets {
            None => requests.push(Request::Offsets(number, partitions)),
            Some(offsets) => {
                if reading.rows.is_none() {
                    let reaches = offsets.iter().map(|(partition, stored)| (*partition, stored.reach()));
                    requests.push(Request::RowsBeyond(number, reaches.collect()));
                }
                if reading.cursors.is_none() {
                    requests.push(Request::Cursors(number, partitions));
                }
            }
        }
        for request in requests {
            self.ask(at, request);
        }
    }

    pub(super) fn hear_offsets(&mut self, lane: usize, number: u64, offsets: Option<Vec<(Partition, Stored)>>) {
        let Some(reading) = self.lanes[lane].readings.get_mut(&number) else {
            return;
        };
        if reading.offsets.is_none() && offsets.is_some() {
            reading.offsets = offsets;
            if reading.asks_witnesses() {
                self.ask_for(lane, number);
            } else {
                self.read(lane, number);
            }
        }
    }

    pub(super) fn hear_rows(&mut self, lane: usize, number: u64, rows: Vec<Option<i64>>) {
        if let Some(reading) = self.lanes[lane].readings.get_mut(&number) {
            reading.rows.get_or_insert(rows);
            self.read(lane, number);
        }
    }

    pub(super) fn hear_cursors(&mut self, lane: usize, number: u64, cursors: Vec<Option<i64>>) {
        if let Some(reading) = self.lanes[lane].readings.get_mut(&number) {
            reading.cursors.get_or_insert(cursors);
            self.read(lane, number);
        }
    }

    /// Reports what was found, once all of it is there.
    fn read(&mut self, lane: usize, number: u64) {
        let complete = |reading: &Reading| {
            let told = reading.rows.is_some() && reading.cursors.is_some();
            reading.offsets.is_some() && (told || !reading.asks_witnesses())
        };
        if !self.lanes[lane].readings.get(&number).is_some_and(complete) {
            return;
        }
        let Some(reading) = self.lanes[lane].readings.remove(&number) else {
            return;
        };
        let mut offsets = reading.offsets.unwrap_or_default();
        let (rows, cursors) = (reading.rows.unwrap_or_default(), reading.cursors.unwrap_or_default());
        for (nth, ((partition, stored), wanted)) in offsets.iter_mut().zip(&reading.wanted).enumerate() {
            stored.witnesses = wanted.witnesses.then(|| Witnesses {
                topic: Some(topic_id(partition.topic)),
                row_beyond: rows.get(nth).copied().flatten(),
                cursors: vec![(BILLING, cursor(cursors.get(nth).copied().flatten()))],
            });
        }
        let epoch = reading.epoch;
        self.lanes[lane].inbox.push_back(Event::OffsetsRead { epoch, offsets });
    }

    pub(super) fn work_on_readings(&mut self, lane: usize) {
        let late = |reading: &Reading| self.now_ms - reading.asked_ms > ASK_AGAIN_MS;
        let all = self.lanes[lane].readings.iter();
        let again: Vec<u64> = all
            .filter(|(_, reading)| late(reading))
            .map(|(number, _)| *number)
            .collect();
        for number in again {
            self.ask_for(lane, number);
        }
    }
}
