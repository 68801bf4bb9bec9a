//! What is injected at present and what it has hit: the only state that connections share.
//!
//! A request is counted and judged under one lock, so that two connections never take the same turn of `every`.
//! Connections that wait for the end of a freeze, or for a refusal, are woken through `signals`, which is only changed
//! under that lock.

use super::Wire;
use super::strike::{Fault, InjectError, Strike};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Plan {
    wire: Wire,
    state: Mutex<State>,
    signals: watch::Sender<Signals>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    strike: Option<Arc<Strike>>,
    /// Counts calls of `inject`: tells a strike from an equal one before it.
    number: u64,
    /// Requests that the present strike means.
    meant: u64,
    struck: u64,
    /// Connections that were admitted and have not ended.
    open: u64,
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Signals {
    frozen: bool,
    /// Counts strikes of `Refuse`: a connection from before the latest one is closed, even when that strike is over by
    /// the time the connection looks.
    refusals: u64,
}

impl State {
    fn is(&self, fault: &Fault) -> bool {
        self.strike.as_ref().is_some_and(|strike| strike.fault == *fault)
    }

    fn judge(&mut self, means: impl FnOnce(&Strike, u64) -> bool) -> Option<Arc<Strike>> {
        let strike = self.strike.as_ref()?;
        if matches!(strike.fault, Fault::Refuse | Fault::Freeze) || !means(strike, self.number) {
            return None;
        }
        self.meant += 1;
        if !self.meant.is_multiple_of(strike.every) || strike.at_most.is_some_and(|most| self.struck >= most) {
            return None;
        }
        self.struck += 1;
        Some(Arc::clone(strike))
    }
}

impl Plan {
    pub fn new(target: SocketAddr, wire: Wire) -> Self {
        Self {
            wire,
            state: Mutex::new(State {
                target,
                strike: None,
                number: 0,
                meant: 0,
                struck: 0,
                open: 0,
                trouble: None,
            }),
            signals: watch::Sender::new(Signals {
                frozen: false,
                refusals: 0,
            }),
        }
    }

    pub fn inject(&self, strike: Option<Strike>) -> Result<(), InjectError> {
        if let Some(strike) = &strike {
            strike.check(self.wire)?;
        }
        let mut state = self.state();
        state.number += 1;
        if let Some(strike) = &strike {
            state.meant = 0;
            state.struck = match strike.fault {
                Fault::Refuse | Fault::Freeze => state.open,
                _ => 0,
            };
        }
        state.strike = strike.map(Arc::new);
        self.signals.send_modify(|signals| {
            signals.frozen = state.is(&Fault::Freeze);
            signals.refusals += u64::from(state.is(&Fault::Refuse));
        });
        Ok(())
    }

    pub fn wire(&self) -> Wire {
        self.wire
    }

    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    pub fn target(&self) -> SocketAddr {
        self.state().target
    }

    pub fn retarget(&self, target: SocketAddr) {
        self.state().target = target;
    }

    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    pub fn forget_trouble(&self) {
        self.state().trouble = None;
    }

    /// Keeps the first trouble: those that follow are often its consequences.
    pub fn report(&self, trouble: String) {
        self.state().trouble.get_or_insert(trouble);
    }

    /// Takes a new connection in, or refuses it.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let mut state = self.state();
        let refused = state.is(&Fault::Refuse);
        if refused || state.is(&Fault::Freeze) {
            state.struck += 1;
        }
        if refused {
            return None;
        }
        state.open += 1;
        let signals = self.signals.subscribe();
        let refusals = signals.borrow().refusals;
        let gate = Gate {
            plan: Arc::clone(self),
            signals,
        };
        Some(Admitted { gate, refusals })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state halfway, so a poisoned one is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    gate: Gate,
    refusals: u64,
}

impl Admitted {
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Returns once a refusal has come since the connection was admitted.
    pub async fn refused(&self) {
        let mut signals = self.gate.signals.clone();
        if signals.wait_for(|now| now.refusals != self.refusals).await.is_err() {
            pending::<()>().await;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gate.plan.state().open -= 1;
    }
}

/// What each direction of a connection asks before it passes anything on.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    plan: Arc<Plan>,
    signals: watch::Receiver<Signals>,
}

impl Gate {
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns when nothing is frozen.
    pub async fn open(&mut self) {
        self.turns(false).await;
    }

    /// Returns when everything is frozen.
    pub async fn frozen(&mut self) {
        self.turns(true).await;
    }

    async fn turns(&mut self, frozen: bool) {
        // An error would say that the plan is gone, which this gate holds.
        if self.signals.wait_for(|now| now.frozen == frozen).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Waits while everything is frozen, then says whether the request at hand is struck. `means` says whether the strike,
    /// with its number, means the request.
    pub async fn judge(&mut self, means: impl FnOnce(&Strike, u64) -> bool) -> Option<Arc<Strike>> {
        loop {
            self.open().await;
            let mut state = self.plan.state();
            // Frozen again since: judged after that, by what is injected then.
            if !state.is(&Fault::Freeze) {
                return state.judge(means);
            }
        }
    }
}
