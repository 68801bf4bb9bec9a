//! One step of the world, and how a lane's actions are taken in.

use exactly_once_protocol::{Action, Event, Now};

use crate::{Flow, LANES, Mail, Read, World};

impl World {
    pub(crate) fn step(&mut self) {
        self.clock_ms += self.dice.roll(3) as i64;
        match self.dice.roll(12) {
            0..=3 => self.deliver_mail(),
            4 => {
                let lane = self.dice.roll(LANES as u64) as usize;
                if !self.paused(lane) {
                    self.feed(lane, Event::Tick);
                }
            }
            5 | 6 => self.collect(),
            7 => self.advance_insert(),
            8 => self.advance_txn(),
            9 => self.advance_read(),
            10 => self.settle_one(),
            _ => self.trouble(),
        }
    }

    pub(crate) fn deliver_mail(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let at = self.dice.roll(self.mail.len() as u64) as usize;
        // The group's events and the answers of one thread keep their order: take the first of this lane.
        let lane = self.mail[at].lane;
        if self.paused(lane) {
            return;
        }
        let Some(first) = self.mail.iter().position(|mail| mail.lane == lane) else {
            return;
        };
        let mail = self.mail.remove(first);
        if self.members[lane].incarnation != mail.incarnation {
            return;
        }
        if let Event::ProducerReady { .. } = mail.event {
            self.epochs[lane] += 1;
            self.members[lane].producer_epoch = self.epochs[lane];
            // init_transactions aborts what the predecessor left open.
            self.open.remove(&lane);
        }
        if let Event::Assigned(_) | Event::Lost(_) = mail.event {
            // It has joined again, or has answered the rebalance: from now on it commits as what the broker knows.
            self.members[lane].generation = self.generation;
            self.members[lane].membership = self.memberships[lane];
        }
        self.feed(lane, mail.event);
    }

    pub(crate) fn feed(&mut self, lane: usize, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let now = Now {
                monotonic_ms: self.clock_ms as u64,
                sink_ms: self.clock_ms,
            };
            let actions = self.members[lane].machine.step(now, event);
            for action in actions {
                self.act(lane, action, &mut events);
            }
        }
    }

    pub(crate) fn act(&mut self, lane: usize, action: Action, events: &mut Vec<Event>) {
        self.note(format!("lane {lane}: {action:?}"));
        let incarnation = self.members[lane].incarnation;
        match action {
            Action::ReadOffsets { epoch, partitions } => self.members[lane].reads.push(Read {
                epoch,
                wanted: partitions,
                offsets: None,
            }),
            Action::Collect { partition, from } => {
                self.members[lane].flows.insert(
                    partition,
                    Flow {
                        next: from,
                        collecting: true,
                    },
                );
            }
            Action::Settle { partition, promise } => {
                self.members[lane].settling.insert(partition, promise);
            }
            Action::Forget(partitions) => {
                for partition in partitions {
                    self.members[lane].settling.remove(&partition);
                    if let Some(flow) = self.members[lane].flows.get_mut(&partition) {
                        flow.collecting = false;
                    }
                }
            }
            Action::Transact { epoch, transaction } => {
                let begun_as = (self.members[lane].membership, self.members[lane].generation);
                self.members[lane].txn = Some((epoch, transaction, 0, begun_as));
            }
            Action::Deliver {
                batch,
                deadline_ms,
                token,
                feeds,
                begins,
            } => self.send(lane, batch, (deadline_ms, token), feeds, &begins),
            Action::Done(batch) | Action::Drop(batch) => {
                self.members[lane].batches.remove(&batch);
            }
            Action::NewProducer { epoch } => {
                self.members[lane].txn = None;
                self.mail.push(Mail {
                    lane,
                    incarnation,
                    event: Event::ProducerReady { epoch },
                });
            }
            Action::StopCollecting(partitions) => {
                for partition in &partitions {
                    if let Some(flow) = self.members[lane].flows.get_mut(partition) {
                        flow.collecting = false;
                    }
                }
                events.push(Event::Quiet(partitions));
            }
            Action::HandBack(partitions) => {
                for partition in partitions {
                    self.members[lane].flows.remove(&partition);
                    if let Some((moving, from, to)) = self.moving
                        && moving == partition
                        && from == lane
                    {
                        self.moving = None;
                        self.generation += 1;
                        self.members
                            .iter_mut()
                            .for_each(|member| member.generation = self.generation);
                        self.give(partition, to);
                    }
                }
            }
            Action::Stop(partition, code) => {
                panic!(
                    "{}\nlane {lane} stopped {partition:?}: {code:?}",
                    self.history.join("\n")
                )
            }
            Action::Leave => {}
        }
    }
}
