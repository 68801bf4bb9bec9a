//! The real parts with a proxy before each, and a pipeline whose workers know only the proxies.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use devstack::{Part, Ports};
use end_to_end::{Scenario, World, free_port, runtime};

use crate::disks::Disks;
use crate::proxy::{Proxy, Strike, Wire};

/// Three brokers, registry, ClickHouse and PostgreSQL, and the proxies before the first five.
#[derive(Debug)]
pub struct Rig {
    /// The real parts.
    pub world: Mutex<World>,
    /// The proxies.
    pub fronts: Fronts,
    /// Behind the world, so that they go after the parts that write there.
    pub disks: Disks,
}

/// What a worker reaches the real parts through.
#[derive(Debug)]
pub struct Fronts {
    /// One for each broker, by node.
    pub kafka: [Proxy; 3],
    /// Before ClickHouse's HTTP port.
    pub clickhouse: Proxy,
    /// Before the registry.
    pub registry: Proxy,
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A proxy before a port of this machine.
pub(crate) async fn before(port: u16, wire: Wire) -> Proxy {
    Proxy::start(local(port), wire).await.unwrap()
}

impl Rig {
    /// Starts all of it.
    ///
    /// # Panics
    /// When a part does not start.
    pub fn up() -> Rig {
        runtime().block_on(async {
            let front: [u16; 3] = std::array::from_fn(|_| free_port());
            let kafka = [
                before(front[0], Wire::Kafka).await,
                before(front[1], Wire::Kafka).await,
                before(front[2], Wire::Kafka).await,
            ];
            let proxies = [0, 1, 2].map(|node: usize| kafka[node].address().port());
            let mut disks = None;
            let world = World::with(|options| {
                disks = Some(Disks::below(&options.dir));
                let mut options = options.with_cluster();
                options.parts.push(Part::Postgres);
                options.kafka_proxies = Some(proxies);
                options.ports = Ports {
                    kafka_front: front,
                    ..Ports::any()
                };
                options
            })
            .await;
            let ports = world.stack.ports;
            assert_eq!(ports.kafka_front, front, "another program took a port meanwhile");
            let clickhouse = before(ports.clickhouse, Wire::Http).await;
            let registry = before(ports.registry, Wire::Http).await;
            let fronts = Fronts {
                kafka,
                clickhouse,
                registry,
            };
            Rig {
                world: Mutex::new(world),
                fronts,
                disks: disks.unwrap(),
            }
        })
    }
}

impl Fronts {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.kafka.iter().chain([&self.clickhouse, &self.registry])
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        for proxy in self.all() {
            proxy.inject(None).unwrap();
        }
    }

    /// The same strike for every broker.
    pub fn strike_kafka(&self, strike: &Strike) {
        for proxy in &self.kafka {
            proxy.inject(Some(strike.clone())).unwrap();
        }
    }

    /// How often brokers were struck.
    pub fn kafka_struck(&self) -> u64 {
        self.kafka.iter().map(Proxy::struck).sum()
    }

    /// The scenario's pipeline file with the proxies' addresses in the place of the parts'.
    pub(crate) fn pipeline(&self, scenario: &Scenario<'_>, billing: &Proxy) -> String {
        let mut text = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
        let parts = scenario.stack.kafka.split(',').map(str::to_owned);
        let mut pairs: Vec<(String, String)> = parts
            .zip(&self.kafka)
            .map(|(part, proxy)| (part, proxy.address().to_string()))
            .collect();
        let url = |proxy: &Proxy| format!("http://{}", proxy.address());
        pairs.push((scenario.stack.clickhouse.clone(), url(&self.clickhouse)));
        let registry = scenario.stack.registry.clone();
        pairs.push((registry.replace("/apis/ccompat/v7", ""), url(&self.registry)));
        pairs.push((scenario.billing_url(), url(billing)));
        for (part, proxy) in pairs {
            assert!(text.contains(&part), "the pipeline file does not name {part}");
            text = text.replace(&part, &proxy);
        }
        text
    }
}
