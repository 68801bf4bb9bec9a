//! One stack for all scenarios of a test binary. Scenarios take turns; the last one to end stops the stack.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use devstack::{Options, Part, Stack};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The real parts, and a directory for everything that the scenarios write.
#[derive(Debug)]
pub struct World {
    /// Kafka, registry and ClickHouse.
    pub stack: Stack,
    /// Those of its parts that run.
    parts: Vec<Part>,
    /// Gone in the end, unless a scenario failed. Behind the stack, so that it is dropped after it.
    pub dir: TempDir,
}

impl World {
    /// The running world, or a new one: with a single Kafka node, or a cluster of three. Who waits for a turn holds it already: it goes down when nobody waits any more.
    pub(crate) fn shared(cluster: bool) -> Arc<Mutex<World>> {
        static SHARED: Mutex<Weak<Mutex<World>>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return world;
        }
        let world = Arc::new(Mutex::new(runtime().block_on(World::up(cluster))));
        *shared = Arc::downgrade(&world);
        world
    }

    async fn up(cluster: bool) -> World {
        World::with(|options| if cluster { options.with_cluster() } else { options }).await
    }

    /// A world of the caller's own, with other options than those for tests.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn with(change: impl FnOnce(Options) -> Options) -> World {
        let dir = tempfile::Builder::new().prefix("sluice-end-to-end-").tempdir().unwrap();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), readable).unwrap();
        let options = change(Options::for_tests(dir.path().join("stack")));
        let parts = options.parts.clone();
        let stack = devstack::up(options).await.unwrap();
        World { stack, parts, dir }
    }

    /// Everything runs, whatever a scenario that failed has left.
    pub(crate) async fn mend(&mut self) {
        self.stack.mend(&self.parts).await.unwrap();
    }
}

/// One for all scenarios: the stack's processes belong to the runtime that has started them.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}
