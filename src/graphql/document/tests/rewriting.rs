use super::*;

#[track_caller]
fn becomes(text: &str, expected: &str) {
    assert_eq!(outline(&prepare(text).unwrap().executable(None, &Variables::default())), expected);
}

#[track_caller]
fn refused(text: &str, reason: &str) {
    let error = refuse(text);
    assert_eq!(error.kind, ErrorKind::Validation);
    assert!(error.message.contains(reason), "{error}");
}

#[test]
fn subscription_roots_are_dissolved() {
    becomes("subscription{a{b}}", "{a{b}}");
    becomes("subscription{...{...on Subscription{x:a{b}}}}", "{x:a{b}}");
    becomes(
        "subscription{...F} fragment F on Subscription{...{...G}} fragment G on Subscription{a{...H}} fragment H on T{b}",
        "{a{...H}} H{b}",
    );
    let document = prepare("subscription S{...F} fragment F on Subscription{x:a{b}}").unwrap();
    let facts = document.operation(None).unwrap();
    assert_eq!(facts.subscription_field.as_deref(), Some("a"));
}

#[test]
fn a_fragment_used_elsewhere_is_kept() {
    becomes(
        "subscription A{...F} fragment F on Subscription{a{...G}} subscription B{...F} fragment G on T{b}",
        "{a{...G}} {a{...G}} G{b}",
    );
    // In a place where it is not dissolved.
    becomes("subscription A{...F} mutation B{...F} fragment F on Subscription{a}", "{a} {...F} F{a}");
}

#[test]
fn a_subscription_has_one_root_field() {
    for text in [
        "subscription{a b}",
        "subscription{x:a y:a}",
        "subscription{a ...F} fragment F on Subscription{b}",
        "subscription{...{a} ...on Subscription{b}}",
        "query Q{a} subscription S{...{a b}}",
    ] {
        refused(text, "exactly one root field");
    }
    // The same response key is the same field.
    becomes("subscription{a{b} ...F} fragment F on Subscription{a{c}}", "{a{b c}}");
    becomes("subscription{...F ...F a} fragment F on Subscription{a}", "{a}");
    refused("subscription{a(x:1) a(x:2)}", "conflict");
    refused("subscription{x:a x:b}", "conflict");
    refused("subscription{a a{b}}", "conflict");
}

#[test]
fn a_subscription_is_not_introspected() {
    for text in [
        "subscription{__typename}",
        "subscription{x:__typename}",
        "subscription{a __typename}",
        "subscription{...F} fragment F on Subscription{__schema{a}}",
    ] {
        refused(text, "introspection");
    }
    becomes("subscription{a{__typename}}", "{a{__typename}}");
}

#[test]
fn a_subscription_has_no_conditions_at_its_root() {
    for text in [
        "subscription{a @skip(if:true)}",
        "subscription{a @include(if:true)}",
        "subscription{...@include(if:true){a}}",
        "subscription{...F @skip(if:false)} fragment F on Subscription{a}",
        "subscription{...F} fragment F on Subscription{...{a @skip(if:false)}}",
        "subscription{...F} fragment F on Subscription @x {a}",
    ] {
        refused(text, "may not be used at the root");
    }
    becomes("subscription{a{b @skip(if:false)}}", "{a{b@skip}}");
}

#[test]
fn what_async_graphql_has_to_report_is_left_to_it() {
    for (text, expected) in [
        ("subscription{...Nope}", "{...Nope}"),
        ("subscription{...on Query{a}}", "{...[Query]{a}}"),
        ("subscription{...F} fragment F on Query{a}", "{...F} F{a}"),
    ] {
        becomes(text, expected);
        let document = prepare(text).unwrap();
        assert_eq!(document.operation(None).unwrap().subscription_field, None);
    }
}

#[test]
fn a_mutation_does_each_thing_once() {
    becomes("mutation{a{b} ...F x:a{b}} fragment F on Mutation{a{c} ...{y:a{b}}}", "{a{b c} y:a{b} x:a{b}}");
    becomes("mutation{...F ...F} fragment F on Mutation{a}", "{a}");
    // Conditions stay, as long as they do not meet another selection of the same key.
    becomes(
        "mutation{a ...@skip(if:true){b} ...F @include(if:true)} fragment F on Mutation{c}",
        "{a ...[]@skip{b} ...F@include} F{c}",
    );
    for text in [
        "mutation{a a @skip(if:true)}",
        "mutation{a @skip(if:true) a}",
        "mutation{a ...@skip(if:true){a}}",
        "mutation{...@skip(if:true){...{a}} a}",
        "mutation{...F @skip(if:true) ...F} fragment F on Mutation{a}",
    ] {
        refused(text, "more than once");
    }
}

#[test]
fn what_is_written_twice_in_one_set_is_merged() {
    becomes("{a{b} c a{b d{e}} a{d{f}}}", "{a{b d{e f}} c}");
    becomes("{...{a ...{b}} a}", "{a b}");
    becomes("{...F ...F ...F @skip(if:true)} fragment F on Query{a a}", "{...F ...F@skip} F{a}");
    becomes("{a @skip(if:true) a @skip(if:true)}", "{a@skip a@skip}");
    becomes("{...on Query{a} ...on Query{a}}", "{...[Query]{a} ...[Query]{a}}");
    // Left for async-graphql to report.
    becomes("{a a{b}}", "{a a{b}}");
}

#[test]
fn a_typename_with_directives_is_wrapped() {
    becomes("{__typename}", "{__typename}");
    becomes(
        "{x:__typename @skip(if:true) a{...F}} fragment F on T{__typename @include(if:true)}",
        "{...[]@skip{x:__typename} a{...F}} F{...[]@include{__typename}}",
    );
}

#[test]
fn rewriting_is_linear() {
    let pad = "a{b{c}}".repeat(600);
    for text in [
        format!("mutation{{{pad}}}"),
        format!("{{{pad}}}"),
        format!("mutation{{{}}}fragment F on Mutation{{{pad}}}", "...F "),
        format!("subscription{{{pad}}}"),
    ] {
        let (result, steps) = counted(&text);
        result.unwrap();
        assert!(steps < 20 * 1_800, "{steps}");
    }
    // Dissolving one fragment into many operations is bounded by what it expands to.
    let operations = many(49, |i| format!("subscription s{i}{{...F}}"));
    let text = format!("{operations}fragment F on Subscription{{a{{{}}}}}", "b{c}".repeat(18));
    let (result, steps) = counted(&text);
    result.unwrap();
    assert!(steps < 20 * 2_000, "{steps}");
}
