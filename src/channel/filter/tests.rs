use std::collections::HashSet;

use super::*;

mod random;

fn parse(json: &str) -> Filter {
    Filter::parse(json, &FilterLimits::default()).expect(json)
}

fn error(json: &str) -> String {
    match Filter::parse(json, &FilterLimits::default()) {
        Ok(filter) => panic!("{json} was taken as {filter:?}"),
        Err(error) => error.to_string(),
    }
}

/// Whether `{"field":"a", operators}` matches this data.
fn on(operators: &str, data: &str) -> bool {
    parse(&format!(r#"{{"field":"a",{operators}}}"#)).matches(None, data)
}

#[test]
fn equality_is_deep_and_by_value() {
    for (operand, value) in [
        ("1", "1.0"),
        ("1e0", "1"),
        ("-0", "0.000"),
        ("null", "null"),
        ("true", "true"),
        (r#""\u0061\/""#, r#""a/""#),
        (r#"{"x":1,"y":[2,{}]}"#, r#"{"y":[2.0,{}],"x":10e-1}"#),
        (r#"{"x":1}"#, r#"{"x":{"far":"too long to be equal"},"x":1}"#),
        (r#"{"$serde_json::private::Number":"1"}"#, r#"{"$serde_json::private::Number":"1"}"#),
        ("[]", "[]"),
    ] {
        let data = format!(r#"{{"a":{value}}}"#);
        assert!(on(&format!(r#""eq":{operand}"#), &data), "{operand} {value}");
        assert!(!on(&format!(r#""ne":{operand}"#), &data), "{operand} {value}");
        assert!(on(&format!(r#""in":["no",{operand}]"#), &data), "{operand} {value}");
        assert!(on(&format!(r#""contains":{operand}"#), &format!(r#"{{"a":[7,{value}]}}"#)));
    }
    for (operand, value) in [
        ("1", r#""1""#),
        ("1", "10"),
        ("null", "false"),
        ("[1,2]", "[2,1]"),
        ("[1]", "[1,1]"),
        ("{}", "[]"),
        (r#"{"x":1}"#, r#"{"x":1,"y":1}"#),
        (r#"{"x":1,"y":1}"#, r#"{"x":1}"#),
        ("1", r#"{"$serde_json::private::Number":"1"}"#),
        (r#""?""#, r#""\ud800""#),
        (r#"["?"]"#, r#"["\ud800"]"#),
        (r#"{"?":1}"#, r#"{"\udc00":1}"#),
    ] {
        let data = format!(r#"{{"a":{value}}}"#);
        assert!(!on(&format!(r#""eq":{operand}"#), &data), "{operand} {value}");
        assert!(on(&format!(r#""ne":{operand}"#), &data), "{operand} {value}");
        assert!(!on(&format!(r#""in":[{operand}]"#), &data), "{operand} {value}");
    }
    assert!(!on(r#""in":[]"#, r#"{"a":1}"#));
}

#[test]
fn order_text_and_presence() {
    let at = |value: &str, operators: &str| on(operators, &format!(r#"{{"a":{value}}}"#));
    assert!(at("5", r#""gt":4,"lte":5"#) && !at("5", r#""gt":5"#) && !at("5", r#""gt":4,"lt":5"#));
    assert!(at("5", r#""gte":5"#) && at("-5", r#""lt":-4.9"#));
    assert!(at(r#""b""#, r#""gt":"a","lt":"ba""#) && at(r#""a""#, r#""gte":"a","lte":"a""#));
    // By code point, where UTF-16 units would have it the other way round.
    assert!(at(r#""\ud83d\ude00""#, r#""gt":"\uffee""#));
    for unlike in [r#""5""#, "null", "true", "[5]", "{}", r#""\ud800""#] {
        assert!(!at(unlike, r#""gt":1"#) && !at(unlike, r#""lte":9"#), "{unlike}");
    }
    assert!(!at("5", r#""gt":"""#) && !at(r#""\ud800""#, r#""gte":"""#));

    assert!(at(r#""caf\u00e9""#, r#""startsWith":"caf","contains":"fé""#));
    assert!(at(r#""x""#, r#""startsWith":"","contains":"""#));
    assert!(!at(r#""xcaf""#, r#""startsWith":"caf""#) && !at("1", r#""startsWith":"1""#));
    assert!(!at(r#""\ud800a""#, r#""contains":"a""#) && !at("12", r#""contains":1"#));
    assert!(!at(r#""1""#, r#""contains":1"#) && !at(r#"{"x":1}"#, r#""contains":"x""#));
    assert!(at(r#"["\ud800","b"]"#, r#""contains":"b""#) && !at(r#"["ab"]"#, r#""contains":"b""#));
    assert!(at("[[1,2],{}]", r#""contains":[1.0,2]"#) && !at("[]", r#""contains":null"#));

    assert!(at("null", r#""exists":true"#) && at("null", r#""eq":null"#));
    assert!(!at("null", r#""exists":false"#) && at(r#""\ud800""#, r#""exists":true"#));
    for operators in [r#""ne":1"#, r#""exists":false"#, r#""exists":false,"ne":null"#] {
        assert!(on(operators, "{}"), "{operators}");
    }
    for operators in [
        r#""eq":null"#,
        r#""in":[null]"#,
        r#""gt":0"#,
        r#""lte":"z""#,
        r#""exists":true"#,
        r#""startsWith":"""#,
        r#""contains":"""#,
        r#""ne":1,"eq":1"#,
    ] {
        assert!(!on(operators, "{}"), "{operators}");
        let not = format!(r#"{{"not":{{"field":"a",{operators}}}}}"#);
        assert!(parse(&not).matches(None, "{}"), "{operators}");
    }
}

#[test]
fn conditions_combine() {
    let filter = parse(
        r#"{"or":[{"and":[{"field":"a","gt":1},{"field":"$key","startsWith":"k"}]},
                  {"not":{"field":"b","exists":true}}]}"#,
    );
    assert!(filter.uses_data());
    assert!(filter.matches(Some("k1"), r#"{"a":2,"b":0}"#));
    assert!(!filter.matches(Some("x"), r#"{"a":2,"b":0}"#));
    assert!(!filter.matches(None, r#"{"a":2,"b":0}"#));
    assert!(filter.matches(None, r#"{"a":0}"#));
}

#[test]
fn the_key_needs_no_data() {
    let filter = parse(r#"{"field":"$key","in":["a","b\n"],"contains":"b"}"#);
    assert!(!filter.uses_data());
    assert!(filter.matches(Some("b\n"), "this is never read"));
    assert!(!filter.matches(Some("a"), "{") && !filter.matches(None, ""));
    assert!(parse(r#"{"field":"$key","exists":false}"#).matches(None, ""));
    assert!(parse(r#"{"field":"$key","gte":""}"#).matches(Some(""), ""));
    assert!(!parse(r#"{"field":"$key","eq":1}"#).matches(Some("1"), ""));
    // Only alone does the name stand for the key.
    let path = parse(r#"{"field":"$key.x","eq":1}"#);
    assert!(path.uses_data() && path.matches(None, r#"{"$key":{"x":1}}"#));
}

#[test]
fn paths_find_their_values() {
    let found = |path: &str, data: &str| parse(&format!(r#"{{"field":"{path}","eq":1}}"#)).matches(None, data);
    for (path, data) in [
        ("a.b", r#" { "x" : [ { } , "]" ] , "a" : { "b" : 1 } , "z" : null } "#),
        ("a.2.b", r#"{"a":[0,[9],{"b":1}]}"#),
        ("0", "[1]"),
        ("0", r#"{"0":1}"#),
        ("10", "[0,0,0,0,0,0,0,0,0,0,1,0]"),
        ("a", r#"{"\u0061":1}"#),
        ("é", r#"{"\ud800":0,"\u00e9":1}"#),
        ("a", r#"{"\"}":"\\","a":1}"#),
        ("a.b", r#"{"a":2,"a":{"b":2,"b":1}}"#),
        ("$serde_json::private::Number", r#"{"$serde_json::private::Number":1}"#),
    ] {
        assert!(found(path, data), "{path} {data}");
    }
    for (path, data) in [
        ("a.b", r#"{"a":{"b":1},"a":{"c":1}}"#),
        ("a.b", r#"{"a":{"b":1},"a":1}"#),
        ("a.b", r#"{"a":{"b":1},"a":[]}"#),
        ("a.b", r#"{"a.b":1}"#),
        ("a.b", r#"{"a":"b"}"#),
        ("00", "[1]"),
        ("+0", "[1]"),
        ("-1", "[1]"),
        ("1", "[1]"),
        ("18446744073709551616", "[1]"),
        ("a", "1"),
        ("a", r#"{"a":"1"}"#),
    ] {
        assert!(!found(path, data), "{path} {data}");
    }
    // A path and its own prefix, and neighbours either side, out of one scan.
    let filter = parse(
        r#"{"and":[{"field":"b","eq":{"c":[1,2]}},{"field":"b.c.1","eq":2},{"field":"b.c","contains":1},
                   {"field":"a","exists":false},{"field":"b.c.2","exists":false},{"field":"bb","eq":3}]}"#,
    );
    assert!(filter.matches(None, r#"{"bb":3,"b":{"c":[1,2]}}"#));
}

#[test]
fn numbers_compare_exactly() {
    let wide = format!("1{}", "0".repeat(300));
    let narrow = format!("0.{}1", "0".repeat(299));
    let table = [
        ("0", "-0", Ordering::Equal),
        ("0e999999999999", "-0.00E-5", Ordering::Equal),
        ("1", "1.0", Ordering::Equal),
        ("1", "100e-2", Ordering::Equal),
        ("0.1", "1e-1", Ordering::Equal),
        ("120", "1.2E+2", Ordering::Equal),
        ("1e007", "10000000", Ordering::Equal),
        (&wide, "1e300", Ordering::Equal),
        (&narrow, "1e-300", Ordering::Equal),
        ("0.1", "0.10000000000000000000000001", Ordering::Less),
        ("12345678901234567890122", "12345678901234567890123", Ordering::Less),
        ("9007199254740992", "9007199254740993", Ordering::Less),
        ("1e399", "1e400", Ordering::Less),
        ("-1e400", "-1e399", Ordering::Less),
        ("9.99", "10", Ordering::Less),
        ("99", "100.5", Ordering::Less),
        ("-2", "-1", Ordering::Less),
        ("-1", "0", Ordering::Less),
        ("-1", "1e-999999999", Ordering::Less),
        ("0", "1e-999999999", Ordering::Less),
        ("-1e999999999", "1", Ordering::Less),
        ("123456", "1e999999999", Ordering::Less),
        ("1e9223372036854775807", "1e9223372036854775808", Ordering::Less),
        ("1e-9223372036854775809", "1e-9223372036854775808", Ordering::Less),
        ("10e9223372036854775807", "1e9223372036854775808", Ordering::Equal),
        ("1e-99999999999999999999999999999999999999999999", "1e-9", Ordering::Less),
        ("1e9", "1e99999999999999999999999999999999999999999999", Ordering::Less),
        ("0", "1e-99999999999999999999999999999999999999999999", Ordering::Less),
        ("-1e99999999999999999999999999999999999999999999", "-5", Ordering::Less),
    ];
    for (left, right, expected) in table {
        for (left, right, expected) in [(left, right, expected), (right, left, expected.reverse())] {
            let data = format!(r#"{{"a":{left}}}"#);
            let holds = |name: &str| on(&format!(r#""{name}":{right}"#), &data);
            assert_eq!(holds("lt"), expected.is_lt(), "{left} {right}");
            assert_eq!(holds("lte"), expected.is_le(), "{left} {right}");
            assert_eq!(holds("gt"), expected.is_gt(), "{left} {right}");
            assert_eq!(holds("gte"), expected.is_ge(), "{left} {right}");
            assert_eq!(holds("eq"), expected.is_eq(), "{left} {right}");
            assert_eq!(holds("ne"), expected.is_ne(), "{left} {right}");
        }
    }
}

#[test]
fn canonical_text_is_one_per_filter() {
    for (canonical, others) in [
        (
            r#"{"field":"a.b","gt":100,"lt":1e30}"#,
            [
                r#" { "lt" : 1000000000000000000000000000000 , "gt" : 1e2 , "field" : "a.b" } "#,
                r#"{"\u0066ield":"\u0061.b","gt":100.00,"lt":0.1E+31}"#,
            ],
        ),
        (
            r#"{"and":[{"field":"a","eq":{"x":-0.5,"y":[0,"é\n"]}},{"not":{"field":"$key","exists":true}}]}"#,
            [
                r#"{"and":[{"eq":{"y":[-0,"\u00e9\u000A"],"x":-5e-1},"field":"a"},{"not":{"exists":true,"field":"$key"}}]}"#,
                r#"{"and":[{"eq":{"x":1,"y":[0e9,"é\n"],"x":-0.50},"field":"a"},{"not":{"exists":true,"field":"$key"}}]}"#,
            ],
        ),
        (
            r#"{"field":"a","in":["b",0.00001,1,12.5]}"#,
            [r#"{"in":[12.5,1,"b",1.0,1e-5],"field":"a"}"#, r#"{"in":[1,125e-1,"b",0.1e-4],"field":"a"}"#],
        ),
        (
            r#"{"field":"a","startsWith":"\"","contains":15e-8}"#,
            [
                r#"{"contains":0.00000015,"startsWith":"\u0022","field":"a"}"#,
                r#"{"contains":1.5e-7,"startsWith":"\"","field":"a"}"#,
            ],
        ),
    ] {
        let filter = parse(canonical);
        assert_eq!(filter.canonical(), canonical);
        assert_eq!(format!("{filter:?}"), format!("Filter({canonical:?})"));
        let set = HashSet::from(others.map(parse));
        assert_eq!(set, HashSet::from([filter]), "{canonical}");
    }
    assert_ne!(parse(r#"{"field":"a","eq":1}"#), parse(r#"{"field":"a","eq":"1"}"#));
    for exponent in ["99999999999999999999999999999999999999999", "-99999999999999999999999999999999999999999"] {
        for digits in ["1", "1.5", "0.05", "150"] {
            let filter = parse(&format!(r#"{{"field":"a","eq":{digits}e{exponent}}}"#));
            assert_eq!(parse(filter.canonical()), filter);
        }
    }
}

#[test]
fn errors_name_the_place() {
    for (json, expected) in [
        ("", "filter: must be JSON: EOF while parsing a value at line 1 column 0"),
        ("{} x", "filter: must be JSON: trailing characters at line 1 column 4"),
        ("[]", "filter: must be an object"),
        ("null", "filter: must be an object"),
        ("{}", "filter: must have one of field, and, or, not"),
        (r#"{"gt":1}"#, "filter: must have one of field, and, or, not"),
        (
            r#"{"field":"a"}"#,
            "filter: must have an operator: one of eq, ne, in, gt, gte, lt, lte, exists, startsWith, contains",
        ),
        (r#"{"and":[{"field":"a","eq":1}],"not":{}}"#, "filter: must have only one of field, and, or, not"),
        (r#"{"and":[{"field":"a","eq":1}],"eq":1}"#, "filter.eq: is an operator: it goes with field, not with and"),
        (r#"{"and":[]}"#, "filter.and: must be an array of at least one condition"),
        (r#"{"or":{}}"#, "filter.or: must be an array of at least one condition"),
        (r#"{"or":[{"field":"a","eq":1},7]}"#, "filter.or[1]: must be an object"),
        (r#"{"not":[]}"#, "filter.not: must be an object"),
        (r#"{"and":[{"field":"a","eq":1},{"field":"a","gt":null}]}"#, "filter.and[1].gt: must be a number or a string"),
        (r#"{"not":{"or":[{"field":"a","lte":[1]}]}}"#, "filter.not.or[0].lte: must be a number or a string"),
    ] {
        assert_eq!(error(json), expected, "{json}");
    }
}

#[test]
fn errors_name_the_operand() {
    for (json, expected) in [
        (r#"{"field":1,"eq":1}"#, "filter.field: must be a string"),
        (r#"{"field":"","eq":1}"#, "filter.field: must not be empty"),
        (r#"{"field":"a..b","eq":1}"#, "filter.field: must not have an empty path segment"),
        (r#"{"field":".","eq":1}"#, "filter.field: must not have an empty path segment"),
        (r#"{"field":"\ud800","eq":1}"#, "filter.field: must not hold an unpaired surrogate escape"),
        (r#"{"field":"a","eq":["\ud800"]}"#, "filter.eq: must not hold an unpaired surrogate escape"),
        (r#"{"field":"a","in":1}"#, "filter.in: must be an array"),
        (r#"{"field":"a","in":[1,"\udfff"]}"#, "filter.in[1]: must not hold an unpaired surrogate escape"),
        (r#"{"field":"a","in":[1,[[[[[[[[[]]]]]]]]]]}"#, "filter.in[1]: must be nested at most 8 deep"),
        (r#"{"field":"a","exists":1}"#, "filter.exists: must be true or false"),
        (r#"{"field":"a","startsWith":1}"#, "filter.startsWith: must be a string"),
        (r#"{"field":"a","eq":1,"Eq":1}"#, "filter.Eq: is not a known key"),
        (r#"{"field":"a","eq":1,"eq":2}"#, "filter.eq: must be given only once"),
        (r#"{"not":{"a\nb":1}}"#, r#"filter.not."a\nb": is not a known key"#),
        (r#"{"":1}"#, r#"filter."": is not a known key"#),
        (r#"{"\ud800":1}"#, r#"filter."\"\\ud800\"": is not a known key"#),
    ] {
        assert_eq!(error(json), expected, "{json}");
    }
    let long = error(&format!(r#"{{"{}":1}}"#, "é\u{2028}".repeat(900)));
    assert!(long.len() < 400 && long.lines().count() == 1, "{long}");
    let error = Filter::parse("1", &FilterLimits::default()).unwrap_err();
    assert_eq!((error.path.as_str(), error.message.as_str()), ("filter", "must be an object"));
}

#[test]
fn limits_hold() {
    let limits = FilterLimits { max_bytes: usize::MAX, max_conditions: usize::MAX, max_depth: usize::MAX };
    let one = r#"{"field":"a","eq":1}"#;
    let nots = |depth: usize| format!("{}{one}{}", r#"{"not":"#.repeat(depth), "}".repeat(depth));
    assert!(parse(&nots(7)).matches(None, "{}"));
    assert_eq!(error(&nots(8)), format!("filter{}: must be at most 8 conditions deep", ".not".repeat(8)));
    assert!(Filter::parse(&nots(127), &limits).is_ok());
    for depth in [128, 5_000] {
        let error = Filter::parse(&nots(depth), &limits).unwrap_err();
        assert_eq!(error.message, "must be at most 128 conditions deep");
    }
    let many = |count: usize| format!(r#"{{"or":[{}]}}"#, vec![one; count].join(","));
    assert!(!parse(&many(63)).matches(None, "{}"));
    assert_eq!(error(&many(64)), "filter.or[63]: is one too many: at most 64 conditions");

    let exact = format!(r#"{{"field":"a","eq":"{}"}}"#, "x".repeat(4096 - 21));
    assert_eq!(parse(&exact).canonical().len(), 4096);
    assert_eq!(error(&format!("{exact} ")), "filter: must be at most 4096 bytes, not 4097");
    let grows =
        format!(r#"{{"field":"a","in":[{}1]}}"#, (10..99).fold(String::new(), |all, n| all + &format!("{n}1e18,")));
    let tight = FilterLimits { max_bytes: grows.len(), ..FilterLimits::default() };
    let error = Filter::parse(&grows, &tight).unwrap_err();
    assert!(error.message.ends_with("in canonical form"), "{error}");

    for depth in [129, 20_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let operand = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let json = format!(r#"{{"field":"a","contains":{operand}}}"#);
            let error = Filter::parse(&json, &limits).unwrap_err();
            assert_eq!(error.to_string(), "filter.contains: must be nested at most 128 deep");
            assert!(!on(r#""contains":1"#, &format!(r#"{{"a":{operand}}}"#)));
            assert!(!on(r#""eq":1"#, &format!(r#"{{"a":{operand}}}"#)));
        }
    }
    let path = |segments: usize| format!(r#"{{"field":"{}","eq":1}}"#, vec!["a"; segments].join("."));
    let nested = format!("{}1{}", r#"{"a":"#.repeat(128), "}".repeat(128));
    assert!(parse(&path(128)).matches(None, &nested));
    let error = Filter::parse(&path(129), &limits).unwrap_err();
    assert_eq!(error.to_string(), "filter.field: must have at most 128 path segments");
    let deep = Filter::parse(&format!(r#"{{"field":"a","eq":{}}}"#, &nested[5..nested.len() - 1]), &limits);
    assert!(deep.unwrap().matches(None, &nested));
}

#[test]
fn shared_across_threads() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    check(&parse(r#"{"field":"a","eq":1}"#));
}

/// Going over the data once for each operand would take minutes here.
#[test]
fn hostile_payloads_are_cheap() {
    let many = |condition: &str, count: usize| parse(&format!(r#"{{"or":[{}]}}"#, vec![condition; count].join(",")));
    let operands = |operand: &str| vec![operand; 3800 / (operand.len() + 1)].join(",");
    let fill = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let digits = format!(r#"{{"a":1{}}}"#, fill("0"));
    for (filter, data) in [
        (many(r#"{"field":"a","contains":3}"#, 63), format!(r#"{{"a":[{}4]}}"#, fill("4,"))),
        (many(r#"{"field":"a","eq":{"b":1}}"#, 63), format!(r#"{{"a":{{{}"b":2}}}}"#, fill(r#""b":[],"#))),
        (many(r#"{"field":"a.b.c.d.e.f","eq":1}"#, 63), format!(r#"{{{}"a":2}}"#, fill(r#""a":{"b":{}},"#))),
        (parse(&format!(r#"{{"field":"a","in":[{}]}}"#, operands("[1]"))), format!(r#"{{"a":["{}"]}}"#, fill("x"))),
        (parse(&format!(r#"{{"field":"a","in":[{}]}}"#, operands("1"))), digits.clone()),
        (many(r#"{"field":"a","lt":1e999999999}"#, 63), format!(r#"{{"a":-1e{}}}"#, fill("9"))),
        (many(r#"{"field":"a","eq":"\n"}"#, 63), format!(r#"{{"a":"{}"}}"#, fill("\\n"))),
        (many(r#"{"field":"a.999999","eq":1}"#, 63), format!(r#"{{"a":[{}0]}}"#, fill("0,"))),
    ] {
        assert_eq!(filter.matches(None, &data), filter.canonical().contains("999999999"));
    }
}
