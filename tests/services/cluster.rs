//! [`Cluster3`]: three brokers for faults. One test at a time has them, and leaves them whole.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::admin;
use crate::kafka::{Kafka, is_possible};

/// Three brokers with three replicas of everything, for one test at a time. When it goes, all of them run again.
pub struct Cluster3 {
    kafka: &'static Kafka,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster3 {
    /// Waits for its turn; `None` where tests with services are skipped.
    pub fn take() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        static BROKERS: OnceLock<Kafka> = OnceLock::new();
        if !is_possible() {
            return None;
        }
        // A test that failed with it has mended it all the same.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster3 { kafka: BROKERS.get_or_init(|| Kafka::start(3, &[])), _turn: turn };
        cluster.mend();
        Some(cluster)
    }

    /// The brokers, for threads that outlive a borrow of this.
    pub fn brokers_of_all(&self) -> &'static Kafka {
        self.kafka
    }

    /// SIGKILL, as if the power was cut.
    pub fn kill(&self, node: u16) {
        assert!(self.nodes.order("kill", node), "broker {node} was down already");
    }

    /// SIGTERM, and waits: the broker gives its partitions to others first.
    pub fn stop(&self, node: u16) {
        assert!(self.nodes.order("stop", node), "broker {node} was down already");
    }

    /// Starts it again.
    pub fn start(&self, node: u16) {
        assert!(!self.nodes.order("alive", node), "broker {node} runs already");
        self.nodes.order("start", node);
    }

    /// Starts whoever is down, and waits until all three know each other.
    pub fn mend(&self) {
        for node in 1..=self.nodes.count() {
            self.nodes.order("thaw", node);
            if !self.nodes.order("alive", node) {
                self.nodes.order("start", node);
            }
        }
        self.ready();
    }

    /// Waits until all replicas of a topic are in sync.
    #[track_caller]
    pub fn until_in_sync(&self, topic: &str) {
        admin::until_known(self, topic, |topic| {
            topic
                .partitions
                .iter()
                .all(|partition| partition.isr_nodes.len() == partition.replica_nodes.len())
        });
    }
}

impl Deref for Cluster3 {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        self.kafka
    }
}
