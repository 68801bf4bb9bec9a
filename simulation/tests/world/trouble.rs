//! Crashes, lost members, rebalances.

use exactly_once_protocol::{Event, Partition};

use crate::{LANES, Mail, PARTITIONS, World, partition};

impl World {
    pub(crate) fn trouble(&mut self) {
        // The coordinator aborts what nobody will end any more.
        for lane in 0..LANES {
            if self.members[lane].txn.is_none() && self.dice.one_in(10) {
                self.open.remove(&lane);
            }
        }
        if !self.faults {
            return;
        }
        match self.dice.roll(60) {
            0 => self.crash(),
            1 => self.kick(),
            2..=6 => self.ask_to_move(),
            _ => {}
        }
    }

    fn owned_by(&self, lane: usize) -> Vec<Partition> {
        let owned = self.owner.iter().filter(|(_, owner)| **owner == lane);
        owned.map(|(partition, _)| *partition).collect()
    }

    pub(crate) fn crash(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        self.note(format!("lane {lane} crashes"));
        self.members[lane] = self.fresh(lane);
        self.enter(lane);
        // The group notices later; until then nobody owns its partitions. Here it gives them back to the successor.
        self.generation += 1;
        self.members
            .iter_mut()
            .for_each(|member| member.generation = self.generation);
        if self.moving.is_some_and(|(_, from, _)| from == lane) {
            self.moving = None;
        }
        let owned = self.owned_by(lane);
        for partition in owned {
            let to = self.dice.roll(LANES as u64) as usize;
            self.give(partition, to);
        }
    }

    /// The group takes everything from a lane that does not hear of it before others own it.
    pub(crate) fn kick(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        self.note(format!("lane {lane} is kicked"));
        self.txn_paused_until[lane] = self.clock_ms + self.dice.roll(300) as i64;
        self.paused_until[lane] = self.txn_paused_until[lane] + self.dice.roll(200) as i64;
        let owned = self.owned_by(lane);
        if owned.is_empty() {
            return;
        }
        if self.moving.is_some_and(|(_, from, _)| from == lane) {
            self.moving = None;
        }
        self.generation += 1;
        self.incarnations += 1;
        self.memberships[lane] = self.incarnations;
        for (other, member) in self.members.iter_mut().enumerate() {
            if other != lane {
                member.generation = self.generation;
            }
        }
        // What was on its way to it about these partitions is void: it hears of the loss first.
        let incarnation = self.members[lane].incarnation;
        self.mail
            .retain(|mail| !(mail.lane == lane && matches!(&mail.event, Event::Assigned(_) | Event::RevokeAsked(_))));
        self.mail.push(Mail {
            lane,
            incarnation,
            event: Event::Lost(owned.clone()),
        });
        for partition in owned {
            self.members[lane].flows.remove(&partition);
            self.give(partition, (lane + 1) % LANES);
        }
    }

    pub(crate) fn ask_to_move(&mut self) {
        if self.moving.is_some() {
            return;
        }
        let partition = partition(self.dice.roll(PARTITIONS as u64) as i32);
        let from = self.owner[&partition];
        let incarnation = self.members[from].incarnation;
        if self
            .mail
            .iter()
            .any(|mail| matches!(&mail.event, Event::Assigned(all) if all.contains(&partition)))
        {
            return;
        }
        self.note(format!("{partition:?} is asked back of lane {from}"));
        self.moving = Some((partition, from, (from + 1) % LANES));
        self.mail.push(Mail {
            lane: from,
            incarnation,
            event: Event::RevokeAsked(vec![partition]),
        });
    }
}
