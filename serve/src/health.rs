use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// Whether a role is alive and whether it can do its work, part by part, with reasons. Clones share the same state.
///
/// *Healthy* asks "would a restart help?" (`/healthz`); *ready* asks "does the work go on?" (`/readyz`). A sink that is down makes
/// a role not ready; it must not make it unhealthy, because a restart doesn't bring the sink back.
#[derive(Clone, Debug)]
pub struct Health {
    part: String,
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Clone, Debug)]
struct State {
    not_ready: Option<String>,
    unhealthy: Option<String>,
}

impl Health {
    /// The health of a role. Its first part carries the role's name and is not ready until somebody says so.
    pub fn new(role: &str) -> Self {
        let health = Self {
            part: role.to_owned(),
            parts: Arc::default(),
        };
        health.change(|_| ());
        health
    }

    /// A handle for one part of the role (`lane-0`, `store`), which is not ready until somebody says so.
    pub fn part(&self, name: &str) -> Self {
        let health = Self {
            part: name.to_owned(),
            parts: Arc::clone(&self.parts),
        };
        health.change(|_| ());
        health
    }

    /// Says whether this part can do its work; `reason` is kept while it can't.
    pub fn ready(&self, ready: bool, reason: &str) {
        self.change(|state| state.not_ready = (!ready).then(|| reason.to_owned()));
    }

    /// Says whether this part lives; `reason` is kept while it doesn't. Unhealthy is also not ready.
    pub fn healthy(&self, healthy: bool, reason: &str) {
        self.change(|state| state.unhealthy = (!healthy).then(|| reason.to_owned()));
    }

    /// Forgets this part, for one that has ended on purpose.
    pub fn remove(&self) {
        self.lock().remove(&self.part);
    }

    /// Why the role can't do its work: part -> reason. Empty: it can.
    pub fn not_ready(&self) -> BTreeMap<String, String> {
        self.reasons(|state| state.unhealthy.as_ref().or(state.not_ready.as_ref()))
    }

    /// Why the role should be restarted: part -> reason. Empty: it should not.
    pub fn unhealthy(&self) -> BTreeMap<String, String> {
        self.reasons(|state| state.unhealthy.as_ref())
    }

    fn reasons(&self, of: impl Fn(&State) -> Option<&String>) -> BTreeMap<String, String> {
        let parts = self.lock();
        parts
            .iter()
            .filter_map(|(part, state)| of(state).map(|reason| (part.clone(), reason.clone())))
            .collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut parts = self.lock();
        let state = parts.entry(self.part.clone()).or_insert_with(|| State {
            not_ready: Some("starting".to_owned()),
            unhealthy: None,
        });
        change(state);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A panic can't leave the map half changed, so a poisoned lock is as good as another.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of `/healthz` and `/readyz`: `{"ok": false, "reasons": {"lane-0": "clickhouse is down"}}`.
pub(crate) fn body(reasons: &BTreeMap<String, String>) -> Value {
    json!({ "ok": reasons.is_empty(), "reasons": reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_ready_when_every_part_is() {
        let role = Health::new("worker");
        let lane = role.part("lane-0");
        assert_eq!(
            body(&role.not_ready()).to_string(),
            r#"{"ok":false,"reasons":{"lane-0":"starting","worker":"starting"}}"#
        );
        role.ready(true, "");
        lane.ready(false, "clickhouse is down");
        assert_eq!(
            body(&role.not_ready()).to_string(),
            r#"{"ok":false,"reasons":{"lane-0":"clickhouse is down"}}"#
        );
        assert!(role.unhealthy().is_empty());
        lane.ready(true, "");
        assert!(role.not_ready().is_empty());
    }

    #[test]
    fn an_unhealthy_part_is_not_ready_until_it_is_removed() {
        let role = Health::new("worker");
        role.ready(true, "");
        let lane = role.part("lane-0");
        lane.ready(true, "");
        lane.healthy(false, "the lane's thread hangs in commit");
        let reasons = BTreeMap::from([("lane-0".to_owned(), "the lane's thread hangs in commit".to_owned())]);
        assert_eq!(role.unhealthy(), reasons);
        assert_eq!(role.not_ready(), reasons);
        lane.remove();
        assert!(role.unhealthy().is_empty() && role.not_ready().is_empty());
    }
}
