//! The memory store keeps the contract of stores, and fails on demand.

use hub::store::{Store, StoreFault};
use testkit::contract::sample::{NOW, event, events, logged, room};
use testkit::contract::{store::Subject, wait};
use testkit::memory::MemoryStore;

testkit::store_contract!(|| Subject::alone(MemoryStore::new()));

#[test]
fn faults_come_and_go_as_told() {
    let store = MemoryStore::new();
    let batch = || vec![events(vec![logged("tasks", event("a", "1"))])];
    let fault = StoreFault::Full("no space".to_owned());
    store.set_fault(Some(fault.clone()));
    assert_eq!(wait(store.commit(NOW, batch())), Err(fault));
    assert!(wait(store.read_latest(room("tasks"))).is_err());
    assert!(wait(store.health()).unwrap().complaint.unwrap().contains("no space"));
    store.set_fault(None);
    assert_eq!(wait(store.commit(NOW, batch())).unwrap().len(), 1);
    assert_eq!(wait(store.health()).unwrap().complaint, None);
}
