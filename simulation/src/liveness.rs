//! Liveness: once nothing goes wrong any more, everything is delivered, committed and in the rollups within a bound.

use crate::world::World;

/// The bound, in simulated milliseconds after the last fault. The longest single waits are a deadline that a worker's
/// clock has put too far into the future, a session, and a hand-back that is given up; some of them follow each other.
pub const WITHIN_MS: i64 = 6_000;

/// Lets the world run without faults. `Ok`: how long it took, simulated milliseconds.
pub fn settles(world: &mut World) -> Result<i64, String> {
    world.calm();
    let began_ms = world.now_ms;
    while world.now_ms - began_ms <= WITHIN_MS {
        world.step();
        if let Some(wrong) = &world.oracle.wrong {
            return Err(wrong.clone());
        }
        if world.oracle.finished(world.log_end) {
            world.oracle.all_is_there(world.log_end, &world.clickhouse);
            return match &world.oracle.wrong {
                Some(wrong) => Err(wrong.clone()),
                None => Ok(world.now_ms - began_ms),
            };
        }
    }
    let standing = world.oracle.standing();
    Err(format!("not finished {WITHIN_MS} ms after the last fault: {standing}"))
}
