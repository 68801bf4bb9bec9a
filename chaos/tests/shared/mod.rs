//! The real parts that all tests of a program share, one trial at a time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use chaos::rig::Rig;
use chaos::trial::{Outcome, Settings};

/// One for all tests: whoever waits for a turn holds it already, and it goes down when nobody does any more.
fn rig() -> Arc<Mutex<Rig>> {
    static SHARED: Mutex<Weak<Mutex<Rig>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(rig) = shared.upgrade() {
        return rig;
    }
    let rig = Arc::new(Mutex::new(Rig::up()));
    *shared = Arc::downgrade(&rig);
    rig
}

/// What came of a trial, in its turn.
pub fn tried(trial: impl FnOnce(&Rig, &Settings) -> Outcome) -> Outcome {
    let outcome = in_turn(trial);
    assert!(outcome.faults.values().sum::<u64>() > 0, "nothing was struck");
    outcome
}

/// One at a time: the real parts are shared.
pub fn in_turn<T>(trial: impl FnOnce(&Rig, &Settings) -> T) -> T {
    let rig = rig();
    let rig = rig.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = Settings {
        seed: 1,
        rate: 500.0,
        times: 1,
        brief: true,
    };
    trial(&rig, &settings)
}
