//! What the points do in the program that is made to crash.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::pin;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use strum::VariantArray;

use crate::{Mutation, Point};

const VARIABLE: &str = "SLUICE_CRASH";
const MUTATION: &str = "SLUICE_MUTATION";
const CLOCK: &str = "SLUICE_CLOCK";
const GIVE_UP: &str = "SLUICE_GIVE_UP";
/// Deliveries are given up at so many different polls, from the first on: each that is not the last stands for an await.
const AWAITS: u64 = 40;
/// Has no divisor in common with it, so that all come up, early ones and late ones by turns.
const STRIDE: u64 = 17;

/// Where, at which passage of it, and what then.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    point: Point,
    nth: u64,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// SIGKILL, so much later.
    Die(Duration),
    /// SIGSTOP.
    Stop,
    /// This thread never goes on; the others do.
    Hang,
}

impl Order {
    fn read(text: &str) -> Result<Order, String> {
        let mut words = text.split(':');
        let point = named(words.next().unwrap_or_default())?;
        let number = |word: &str| {
            word.parse().map_err(|_| {
                format!("'{word}' of '{text}' is no number: POINT:NTH:MICROSECONDS, POINT:NTH:stop or POINT:NTH:hang")
            })
        };
        Ok(Order {
            point,
            nth: words.next().map_or(Ok(1), number)?,
            end: match words.next() {
                Some("stop") => End::Stop,
                Some("hang") => End::Hang,
                word => End::Die(Duration::from_micros(word.map_or(Ok(0), number)?)),
            },
        })
    }
}

pub(crate) fn pass(point: Point) {
    static ORDER: OnceLock<Option<Order>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let order = ORDER.get_or_init(|| told(VARIABLE, Order::read));
    let Some(order) = order.as_ref().filter(|order| order.point == point) else {
        return;
    };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 != order.nth {
        return;
    }
    match order.end {
        // SAFETY: raise(3) takes no pointers. All threads stand still; this one goes on here after a SIGCONT.
        End::Stop => drop(unsafe { libc::raise(libc::SIGSTOP) }),
        End::Hang => loop {
            std::thread::park();
        },
        End::Die(later) if later.is_zero() => die(),
        // The caller goes on with its call meanwhile.
        End::Die(later) => drop(std::thread::spawn(move || {
            std::thread::sleep(later);
            die();
        })),
    }
}

pub(crate) fn mutation() -> Option<Mutation> {
    static TOLD: OnceLock<Option<Mutation>> = OnceLock::new();
    *TOLD.get_or_init(|| told(MUTATION, named))
}

/// See [`crate::clock_ahead_ms`].
pub(crate) fn clock_ahead_ms() -> i64 {
    static FILE: OnceLock<Option<String>> = OnceLock::new();
    let file = FILE.get_or_init(|| told(CLOCK, |text| Ok(text.to_owned())));
    let Some(file) = file else { return 0 };
    match std::fs::read_to_string(file).map(|text| text.trim().parse::<i64>()) {
        Ok(Ok(seconds)) => seconds * 1000,
        wrong => {
            eprintln!("{CLOCK}: {file}: {wrong:?}");
            std::process::exit(2);
        }
    }
}

/// See [`crate::unless_given_up`].
pub(crate) async fn unless_given_up<T>(work: impl Future<Output = T>) -> Option<T> {
    static EVERY: OnceLock<Option<u64>> = OnceLock::new();
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
    let every = EVERY.get_or_init(|| {
        told(GIVE_UP, |text| {
            text.parse().map_err(|_| format!("'{text}' is no number"))
        })
    });
    let turn = |every: &u64| (BEGUN.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(*every);
    if !every.as_ref().is_some_and(turn) {
        return Some(work.await);
    }
    let nth = GIVEN_UP.fetch_add(1, Ordering::Relaxed) * STRIDE % AWAITS + 1;
    let outcome = given_up_at(nth, work).await;
    if outcome.is_none() {
        eprintln!("{GIVE_UP}: given up at poll {nth}");
    }
    outcome
}

/// Drops the work at its `nth` poll, from 1 on, unless it has ended with it.
async fn given_up_at<T>(nth: u64, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut passed) = (pin!(work), 0);
    poll_fn(|context| {
        let polled = work.as_mut().poll(context).map(Some);
        passed += 1;
        match polled {
            Poll::Pending if passed == nth => Poll::Ready(None),
            polled => polled,
        }
    })
    .await
}

/// What has this name.
fn named<T: FromStr + VariantArray + Display>(name: &str) -> Result<T, String> {
    name.parse().map_err(|_| {
        let names: Vec<String> = T::VARIANTS.iter().map(ToString::to_string).collect();
        format!("'{name}' is unknown; there are: {}", names.join(", "))
    })
}

/// What a variable says, where it is there. A process that cannot follow an order is of no use.
fn told<T>(variable: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    match read(&text) {
        Ok(told) => Some(told),
        Err(wrong) => {
            eprintln!("{variable}: {wrong}");
            std::process::exit(2);
        }
    }
}

/// As from outside: nothing is flushed, dropped or told to anybody.
fn die() -> ! {
    // SAFETY: raise(3) takes no pointers, and SIGKILL is neither caught nor returned from.
    unsafe { libc::raise(libc::SIGKILL) };
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_dropped_at_the_await_that_was_named_and_done_where_it_has_fewer() {
        let done = |nth, awaits| {
            let mut left = awaits;
            let work = given_up_at(
                nth,
                poll_fn(move |_| {
                    left -= 1;
                    if left < 0 { Poll::Ready("done") } else { Poll::Pending }
                }),
            );
            let (mut work, mut polls) = (pin!(work), 0);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            loop {
                polls += 1;
                if let Poll::Ready(outcome) = work.as_mut().poll(&mut context) {
                    return (outcome, polls);
                }
            }
        };
        assert_eq!(done(1, 3), (None, 1));
        assert_eq!(done(3, 3), (None, 3));
        assert_eq!(done(4, 3), (Some("done"), 4));
        assert_eq!(done(1, 0), (Some("done"), 1));
    }

    #[test]
    fn an_order_names_a_point_a_passage_and_a_delay() {
        let order = |point, nth, micros| {
            let end = End::Die(Duration::from_micros(micros));
            Ok(Order { point, nth, end })
        };
        let (point, nth, end) = (Point::AfterBegin, 5, End::Stop);
        assert_eq!(Order::read("after-begin:5:stop"), Ok(Order { point, nth, end }));
        let end = End::Hang;
        assert_eq!(Order::read("after-begin:5:hang"), Ok(Order { point, nth, end }));
        assert_eq!(Order::read("insert-sent:3:1500"), order(Point::InsertSent, 3, 1500));
        assert_eq!(Order::read("after-poll"), order(Point::AfterPoll, 1, 0));
        assert!(Order::read("insert").unwrap_err().contains("between-tables"));
        assert!(Order::read("after-poll:x").unwrap_err().contains("no number"));
    }
}
