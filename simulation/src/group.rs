//! The consumer group's coordinator: members, generations, who owns which partition. Cooperative: partitions are asked
//! back, and given on when they were handed back; a member that is not heard of, or is expelled, loses all of its
//! partitions without being asked.

use std::collections::BTreeMap;

use exactly_once_protocol::Partition;

use crate::dice::Dice;
use crate::network::Address;
use crate::source::PARTITIONS;

/// A member that is not heard of for so long is expelled, milliseconds.
pub const SESSION_MS: i64 = 120;

/// What the group tells a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is a member now, by this id and generation.
    Joined(u64, u64),
    /// There was a rebalance: the generation.
    Rebalanced(u64),
    /// These partitions are its own now; the generation.
    Assigned(Vec<Partition>, u64),
    /// These are wanted back.
    RevokeAsked(Vec<Partition>),
    /// It is no member any more, and these belong to others.
    Lost(Vec<Partition>),
}

#[derive(Debug)]
struct Member {
    id: u64,
    at: Address,
    heard_ms: i64,
}

#[derive(Debug)]
struct Moving {
    partitions: Vec<Partition>,
    from: u64,
    to: u64,
}

/// The coordinator.
#[derive(Debug)]
pub struct Group {
    generation: u64,
    members: Vec<Member>,
    owners: BTreeMap<Partition, Option<u64>>,
    moving: Option<Moving>,
    ids: u64,
    /// To be sent.
    pub news: Vec<(Address, News)>,
}

impl Group {
    /// Without members.
    pub fn new() -> Group {
        Group {
            generation: 1,
            members: Vec::new(),
            owners: PARTITIONS.iter().map(|partition| (*partition, None)).collect(),
            moving: None,
            ids: 0,
            news: Vec::new(),
        }
    }

    /// Whether an offset commit of this member and generation is taken.
    pub fn takes(&self, id: u64, generation: u64) -> bool {
        generation == self.generation && self.members.iter().any(|member| member.id == id)
    }

    /// A process wants to be a member.
    pub fn join(&mut self, at: Address, now_ms: i64) {
        self.ids += 1;
        let id = self.ids;
        self.members.push(Member {
            id,
            at,
            heard_ms: now_ms,
        });
        self.rebalanced(None);
        self.news.push((at, News::Joined(id, self.generation)));
    }

    /// Everybody but `but` hears of a new generation.
    fn rebalanced(&mut self, but: Option<u64>) {
        self.generation += 1;
        for member in self.members.iter().filter(|member| Some(member.id) != but) {
            self.news.push((member.at, News::Rebalanced(self.generation)));
        }
    }

    /// A heartbeat.
    pub fn hears(&mut self, at: Address, now_ms: i64) {
        let of = |member: &&mut Member| member.at == at;
        self.members
            .iter_mut()
            .filter(of)
            .for_each(|member| member.heard_ms = now_ms);
    }

    /// Members that were not heard of for too long.
    pub fn expired(&self, now_ms: i64) -> Option<u64> {
        let silent = |member: &&Member| now_ms - member.heard_ms > SESSION_MS;
        self.members.iter().find(silent).map(|member| member.id)
    }

    /// Some member.
    pub fn any(&self, dice: &mut Dice) -> Option<u64> {
        let at = dice.index(self.members.len());
        self.members.get(at).map(|member| member.id)
    }

    fn remove(&mut self, id: u64) -> Option<(Member, Vec<Partition>)> {
        let at = self.members.iter().position(|member| member.id == id)?;
        let member = self.members.remove(at);
        let mut owned = Vec::new();
        for (partition, owner) in &mut self.owners {
            if *owner == Some(id) {
                *owner = None;
                owned.push(*partition);
            }
        }
        if self.moving.as_ref().is_some_and(|moving| moving.from == id) {
            self.moving = None;
        }
        self.rebalanced(None);
        Some((member, owned))
    }

    /// Takes everything from a member, which hears of it later. Its address, if there is such a member.
    pub fn expel(&mut self, id: u64) -> Option<Address> {
        let (member, owned) = self.remove(id)?;
        self.news.push((member.at, News::Lost(owned)));
        Some(member.at)
    }

    /// A member goes by itself.
    pub fn leave(&mut self, id: u64) {
        self.remove(id);
    }

    /// Gives away what nobody owns.
    pub fn assign(&mut self, dice: &mut Dice) {
        let free: Vec<Partition> = self
            .owners
            .iter()
            .filter(|(_, owner)| owner.is_none())
            .map(|(p, _)| *p)
            .collect();
        if free.is_empty() || self.members.is_empty() {
            return;
        }
        let mut given: BTreeMap<usize, Vec<Partition>> = BTreeMap::new();
        for partition in free {
            given.entry(dice.index(self.members.len())).or_default().push(partition);
        }
        for (at, partitions) in given {
            self.give(at, partitions);
        }
    }

    fn give(&mut self, at: usize, partitions: Vec<Partition>) {
        let (id, address) = (self.members[at].id, self.members[at].at);
        for partition in &partitions {
            self.owners.insert(*partition, Some(id));
        }
        self.rebalanced(Some(id));
        self.news.push((address, News::Assigned(partitions, self.generation)));
    }

    /// Asks a member for one or more of its partitions, for another one. False if there is nothing to ask for.
    pub fn ask(&mut self, dice: &mut Dice) -> bool {
        if self.moving.is_some() || self.members.len() < 2 {
            return false;
        }
        let from = dice.index(self.members.len());
        let to = (from + 1) % self.members.len();
        let (from, at, to) = (self.members[from].id, self.members[from].at, self.members[to].id);
        let owned = self.owners.iter().filter(|(_, owner)| **owner == Some(from));
        let mut partitions: Vec<Partition> = owned.map(|(partition, _)| *partition).collect();
        partitions.retain(|_| !dice.one_in(2));
        if partitions.is_empty() {
            return false;
        }
        self.news.push((at, News::RevokeAsked(partitions.clone())));
        self.moving = Some(Moving { partitions, from, to });
        true
    }

    /// What was asked for comes back.
    pub fn handed_back(&mut self, id: u64, partitions: &[Partition]) {
        let Some(moving) = self.moving.take_if(|moving| moving.from == id) else {
            return;
        };
        let moved: Vec<Partition> = moving
            .partitions
            .into_iter()
            .filter(|p| partitions.contains(p))
            .collect();
        match self.members.iter().position(|member| member.id == moving.to) {
            Some(at) => self.give(at, moved),
            None => moved.into_iter().for_each(|partition| {
                self.owners.insert(partition, None);
            }),
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}
