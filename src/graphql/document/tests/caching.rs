use std::sync::Arc;

use super::super::DocumentCache;
use super::*;

fn text(of: usize) -> String {
    format!("{{field{of:04}}}")
}

#[test]
fn only_what_passes_is_kept() {
    let limits = DocumentLimits::default();
    let cache = DocumentCache::<()>::new(1 << 20);
    let first = cache.get_or_prepare("{a}", &limits).unwrap();
    let second = cache.get_or_prepare("{a}", &limits).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let other = cache.get_or_prepare("{a }", &limits).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    let kept = cache.bytes();
    assert!(kept >= 7 + first.bytes() + other.bytes());
    assert!(cache.get_or_prepare("{a", &limits).is_err());
    assert!(cache.get_or_prepare("{a b:a b:c}", &limits).is_err());
    assert_eq!(cache.bytes(), kept);
}

#[test]
fn it_stays_within_its_bytes() {
    let limits = DocumentLimits::default();
    let max = 64 * 1024;
    let cache = DocumentCache::<()>::new(max);
    let used = cache.get_or_prepare("{used}", &limits).unwrap();
    let unused = cache.get_or_prepare("{unused}", &limits).unwrap();
    for of in 0..1_000 {
        cache.get_or_prepare(&text(of), &limits).unwrap();
        assert!(cache.bytes() <= max);
        let again = cache.get_or_prepare("{used}", &limits).unwrap();
        assert!(Arc::ptr_eq(&used, &again), "{of}");
    }
    assert!(cache.bytes() > max / 4);
    let again = cache.get_or_prepare("{unused}", &limits).unwrap();
    assert!(!Arc::ptr_eq(&unused, &again));
}

#[test]
fn what_is_too_big_is_not_kept() {
    let limits = DocumentLimits::default();
    let cache = DocumentCache::<()>::new(0);
    cache.get_or_prepare("{a}", &limits).unwrap();
    assert_eq!(cache.bytes(), 0);
    let cache = DocumentCache::<()>::new(20_000);
    cache.get_or_prepare("{a}", &limits).unwrap();
    let kept = cache.bytes();
    cache.get_or_prepare(&introspection(9), &limits).unwrap();
    assert_eq!(cache.bytes(), kept);
}

#[test]
fn threads_share_it() {
    let limits = DocumentLimits::default();
    let cache = DocumentCache::<()>::new(32 * 1024);
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let (cache, limits) = (&cache, &limits);
            scope.spawn(move || {
                for of in 0..200 {
                    let text = text((of * 7 + offset) % 50);
                    let document = cache.get_or_prepare(&text, limits).unwrap();
                    assert!(document.operation(None).is_ok());
                    assert!(cache.bytes() <= 32 * 1024);
                }
            });
        }
    });
}

#[test]
fn the_estimate_grows_with_the_document() {
    let bytes = |text: &str| prepare(text).unwrap().bytes();
    assert!(bytes("{a}") < 4_096);
    assert!(bytes(&introspection(9)) > 16 * 1_024);
    assert!(bytes(&format!("{{a(b:\"{}\")}}", "x".repeat(50_000))) > 50_000);
    assert!(bytes(&format!("{{a(b:[{}])}}", "1 ".repeat(1_000))) > 100_000);
}
