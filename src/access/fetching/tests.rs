//! When keys are fetched, on a clock that stands still.

use std::cell::RefCell;

use super::*;
use crate::access::signer::{Signer, jwks};

fn set(signer: &Signer) -> KeySet {
    crate::access::jwks::parse(jwks(&[signer.jwk("a")]).as_bytes()).unwrap()
}

/// The seconds at which fetches begin; each takes a second.
#[derive(Default)]
struct Issuer {
    down: RefCell<bool>,
    begun: RefCell<Vec<u64>>,
}

impl Issuer {
    async fn fetch(&self, zero: Instant) -> Result<KeySet, String> {
        self.begun.borrow_mut().push(zero.elapsed().as_secs());
        sleep(Duration::from_secs(1)).await;
        if *self.down.borrow() { Err("it is down".to_owned()) } else { Ok(set(&Signer::ed())) }
    }
}

/// Runs fetches while something happens.
async fn while_running(issuer: &Issuer, reload: &Reload, test: impl AsyncFnOnce(&Fetching, Instant)) {
    let (fetching, zero) = (Fetching::default(), Instant::now());
    tokio::select! {
        () = fetching.run(|| issuer.fetch(zero), reload, |_| {}) => panic!("it stopped"),
        () = test(&fetching, zero) => {}
    }
}

async fn until(zero: Instant, second: u64) {
    // Between two whole seconds nothing else happens.
    sleep_until(zero + Duration::from_secs(second) + Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn before_the_first_success_it_backs_off() {
    let (issuer, reload) = (Issuer::default(), Reload::default());
    *issuer.down.borrow_mut() = true;
    while_running(&issuer, &reload, async |fetching, zero| {
        until(zero, 1).await;
        assert!(!fetching.ask(), "there is nothing to wait for");
        until(zero, 260).await;
        // Each takes a second, and the breaks are 1, 2, 4, 8, 16, 32, 60, 60.
        assert_eq!(*issuer.begun.borrow(), [0, 2, 5, 10, 19, 36, 69, 130, 191, 252]);
        assert_eq!(reload.failures(), 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_cause_one_fetch_a_minute() {
    let (issuer, reload) = (Issuer::default(), Reload::default());
    while_running(&issuer, &reload, async |fetching, zero| {
        assert!(fetching.ask(), "the first fetch is running");
        for second in 2..200 {
            until(zero, second).await;
            for _ in 0..100 {
                fetching.ask();
            }
        }
        assert_eq!(*issuer.begun.borrow(), [0, 60, 120, 180]);
        // Failures count, too.
        *issuer.down.borrow_mut() = true;
        for second in 200..400 {
            until(zero, second).await;
            fetching.ask();
        }
        assert_eq!(*issuer.begun.borrow(), [0, 60, 120, 180, 240, 300, 360]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_being_asked_it_fetches_every_ten_minutes() {
    let (issuer, reload) = (Issuer::default(), Reload::default());
    while_running(&issuer, &reload, async |_, zero| {
        until(zero, 1_900).await;
        assert_eq!(*issuer.begun.borrow(), [0, 600, 1_200, 1_800]);
        reload.now();
        until(zero, 1_902).await;
        assert_eq!(issuer.begun.borrow().last(), Some(&1_900));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_after_a_minute_begins_at_once_and_can_be_awaited() {
    let (issuer, reload) = (Issuer::default(), Reload::default());
    while_running(&issuer, &reload, async |fetching, zero| {
        until(zero, 30).await;
        assert!(!fetching.ask(), "the minute is not over");
        until(zero, 62).await;
        assert_eq!(*issuer.begun.borrow(), [0, 60], "who asked is not forgotten");
        until(zero, 200).await;
        let mut fetched = fetching.fetched();
        assert!(fetching.ask());
        fetched.changed().await.unwrap();
        assert_eq!(zero.elapsed().as_secs(), 201);
        assert_eq!(*issuer.begun.borrow(), [0, 60, 200]);
    })
    .await;
}
