//! Variables that were not sent.

use async_graphql_value::{ConstValue, Value};

use super::*;

/// All arguments of the fields and directives that are left, in the order of the text.
fn arguments(text: &str, operation: Option<&str>, given: &str) -> String {
    fn all(set: &SelectionSet, out: &mut Vec<String>) {
        for item in &set.items {
            let directives = item.node.directives().iter();
            out.extend(
                directives
                    .flat_map(|directive| &directive.node.arguments)
                    .map(|(name, value)| format!("@{name}:{}", value.node)),
            );
            match &item.node {
                Selection::Field(field) => {
                    let arguments = field.node.arguments.iter();
                    out.extend(arguments.map(|(name, value)| format!("{name}:{}", value.node)));
                    all(&field.node.selection_set.node, out);
                }
                Selection::InlineFragment(inline) => all(&inline.node.selection_set.node, out),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    let document = prepare(text).unwrap();
    let mut given = variables(given);
    document.fill_defaults(operation, &mut given);
    let executable = document.executable(operation, &given);
    let mut found = Vec::new();
    for (_, operation) in executable.operations.iter() {
        all(&operation.node.selection_set.node, &mut found);
        found.extend(operation.node.variable_definitions.iter().map(|variable| format!("${}", variable.node.name)));
    }
    executable.fragments.values().for_each(|fragment| all(&fragment.node.selection_set.node, &mut found));
    found.join(" ")
}

#[test]
fn what_was_not_sent_is_not_there() {
    for (text, given, left) in [
        ("query($x: Int) {a(x: $x, y: 1)}", "{}", "y:1"),
        ("query($x: Int) {a(x: $x, y: 1)}", r#"{"X": 1}"#, "y:1"),
        ("query($x: Int) {a(x: $x, y: 1)}", r#"{"x": null}"#, "x:$x y:1 $x"),
        ("query($x: Int) {a(x: $x, y: 1)}", r#"{"x": 5}"#, "x:$x y:1 $x"),
        ("query($x: Int = 3) {a(x: $x)}", "{}", "x:$x $x"),
        ("query($x: Int = null) {a(x: $x)}", "{}", "x:$x $x"),
        ("query($x: Int) {a(x: {y: $x, z: {y: $x, w: 1}})}", "{}", "x:{z: {w: 1}}"),
        ("query($x: Int) {a(x: [$x, 1, {y: $x}, [$x]])}", "{}", "x:[null, 1, {}, [null]]"),
        ("query($x: Int) {a @b(x: $x, y: 1)}", "{}", "@y:1"),
        ("query($x: Int) {...f} fragment f on Query {a {b(x: $x)}}", "{}", ""),
        ("query($x: Int, $y: Int) {a(x: $x, y: $y)}", r#"{"y": 1}"#, "y:$y $y"),
        // Not used at all: async-graphql is to say so.
        ("query($x: Int) {a}", "{}", "$x"),
    ] {
        assert_eq!(arguments(text, None, given), left, "{text} with {given}");
    }
}

#[test]
fn other_operations_are_left_alone() {
    let text = "query A($x: Int) {...f} query B($x: Int!) {...f} fragment f on Query {a(x: $x)}";
    assert_eq!(arguments(text, Some("A"), "{}"), "");
    assert_eq!(arguments(text, Some("B"), r#"{"x": 1}"#), "$x $x x:$x");
    let text = "query A($x: Int) {...f} query B {...g} fragment f on Query {a(x: $x)} fragment g on Query {a(y: 2)}";
    assert_eq!(arguments(text, Some("A"), "{}"), "");
}

/// Null is data where it is given, and a message without its data has a mark.
#[test]
fn null_that_is_given_is_data() {
    let null = Value::Binary("null".into());
    let first = |text: &str| {
        let document = prepare(text).unwrap().validated();
        let (_, operation) = document.operations.iter().next().unwrap();
        let Selection::Field(field) = &operation.node.selection_set.node.items[0].node else { panic!("no field") };
        field.node.arguments[0].1.node.clone()
    };
    assert_eq!(first("mutation {publish(data: null)}"), null);
    assert_eq!(first("{a(x: null)}"), Value::Null);
    let Value::Object(fields) = first("{a(f: {eq: null, in: [1, null]})}") else { panic!() };
    assert_eq!((&fields["eq"], &fields["in"]), (&Value::Null, &Value::List(vec![Value::Number(1.into()), null])));
    let filled = |ty: &str, given: &str| {
        let document = prepare(&format!("query($x: {ty}) {{a(x: $x)}}")).unwrap();
        let mut given = variables(given);
        document.fill_defaults(None, &mut given);
        given.get("x").unwrap().clone()
    };
    let null = ConstValue::Binary("null".into());
    for ty in ["JSON", "JSON!"] {
        assert_eq!(filled(ty, r#"{"x": null}"#), null);
    }
    assert_eq!(filled("JSON = null", "{}"), null);
    assert_eq!(filled("String", r#"{"x": null}"#), ConstValue::Null);
    let ConstValue::List(items) = filled("[PublishInput!]!", r#"{"x": [{"data": null, "key": null}]}"#) else {
        panic!()
    };
    let ConstValue::Object(message) = &items[0] else { panic!() };
    assert_eq!((&message["data"], &message["key"]), (&null, &ConstValue::Null));
    assert_eq!(
        arguments("mutation($d: JSON) {p(messages: [{data: $d, key: $d}])}", None, "{}"),
        "messages:[{data: []}]"
    );
}

#[test]
fn a_variable_of_json_has_its_bound() {
    let document = prepare("query($x: JSON!) {a(x: $x)}").unwrap();
    let limits = DocumentLimits::default();
    let nested = |depth: usize| variables(&format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)));
    assert!(document.check_variables(None, &nested(64), &limits).is_ok());
    let errors = document.check_variables(None, &nested(65), &limits).unwrap_err();
    assert_eq!(errors[0].message, "Variable \"$x\" must not nest deeper than 64.");
}
